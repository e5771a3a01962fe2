"""py-consul's users: their clients' settings, and their API with coroutines."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import consul
import pytest

from chassis.adapters.consul import (
    AsyncConsul,
    ConsulAPI,
    ConsulOptions,
    ConsulUnreachable,
    from_python_consul,
)
from tests.support.scripted_agent import Answer, ScriptedAgent
from tests.support.servers import ConsulServer


def test_a_clients_settings_become_an_apis() -> None:
    client = consul.Consul(
        host="consul.example",
        port=8501,
        token="s3cret",
        dc="dc2",
        verify="/ca.pem",
        cert=("/cert.pem", "/key.pem"),
    )
    assert from_python_consul(client).options == ConsulOptions(
        url="http://consul.example:8501",
        token="s3cret",
        datacenter="dc2",
        ca="/ca.pem",
        certificate="/cert.pem",
        key="/key.pem",
    )


def test_a_plain_client_and_one_that_verifies_nothing() -> None:
    assert from_python_consul(consul.Consul()).options == ConsulOptions()
    options = from_python_consul(consul.Consul(host="::1", scheme="https", verify=False)).options
    assert (options.url, options.verify, options.ca) == ("https://[::1]:8500", False, "")
    options = from_python_consul(consul.Consul(cert="/both.pem")).options
    assert (options.certificate, options.key) == ("/both.pem", "")


def test_a_client_of_python_consul_of_2018_has_the_same_settings() -> None:
    http = SimpleNamespace(host="h", port=1, scheme="http", verify=True, cert=None)
    client = SimpleNamespace(http=http, token=None, dc=None)
    assert from_python_consul(client).options == ConsulOptions(url="http://h:1")


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="str is no python-consul client"):
        from_python_consul("http://consul:8500")


@pytest.mark.asyncio
async def test_a_calls_own_token_is_used_for_it_and_the_apis_otherwise(monkeypatch: Any) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "from the environment")
    with ScriptedAgent(lambda asked: Answer("[]", headers={"X-Consul-Index": "7"})) as agent:
        async with ConsulAPI(ConsulOptions(url=agent.url, token="api", datacenter="dc2")) as api:
            client = AsyncConsul(api, consistency="stale")
            assert await client.kv.get("a b", recurse=True) == ("7", [])
            await client.kv.get("a", token="own")
            await client.health.service("web", tag=["blue", "v2"])
    first, second, third = agent.asked
    assert (first.path, first.headers["x-consul-token"]) == ("/v1/kv/a b", "api")
    assert first.query == {"recurse": "1", "dc": "dc2", "stale": "1"}
    assert second.headers["x-consul-token"] == "own"
    assert third.path == "/v1/health/service/web"


@pytest.mark.asyncio
async def test_errors_are_py_consuls_and_no_answer_is_ours() -> None:
    with ScriptedAgent(lambda asked: Answer("Permission denied", 403)) as agent:
        async with ConsulAPI(ConsulOptions(url=agent.url)) as api:
            with pytest.raises(consul.ACLPermissionDenied):
                await AsyncConsul(api).kv.get("a")
    with pytest.raises(ConsulUnreachable):
        await AsyncConsul(ConsulAPI(ConsulOptions(url="http://127.0.0.1:1"))).kv.get("a")


@pytest.mark.asyncio
async def test_a_blocking_query_outlives_the_time_limit_by_its_wait_and_a_call_can_be_given_its_own() -> None:
    def slowly(asked: Any) -> Answer:
        time.sleep(0.3)
        return Answer("[]", headers={"X-Consul-Index": "8"})

    with ScriptedAgent(slowly) as agent:
        async with ConsulAPI(ConsulOptions(url=agent.url, timeout=0.1)) as api:
            client = AsyncConsul(api)
            assert (await client.kv.get("a", index="7", wait="1s", recurse=True))[0] == "8"
            assert (await client.kv.get("a", index="7", recurse=True))[0] == "8"
            with pytest.raises(ConsulUnreachable):
                await client.kv.get("a")
            with pytest.raises(consul.Timeout, match=r"no answer within 0.05 s"):
                await client.kv.get("a", index="7", connections_timeout=0.05)


def test_without_py_consul_the_extra_is_named_and_everything_else_works() -> None:
    program = (
        "import sys; sys.modules['consul'] = None\n"
        "import chassis.adapters.consul as adapter\n"
        "adapter.ConsulAPI(adapter.ConsulOptions())\n"
        "try: adapter.AsyncConsul\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "AsyncConsul needs py-consul: pip install 'chassis-kit[consul]'\n"


def test_over_python_consul_of_2018_the_way_out_is_named() -> None:
    program = (
        "import sys, types\n"
        "old = types.ModuleType('consul'); old.base = types.ModuleType('consul.base')\n"
        "old.base.Consul = object; old.Timeout = Exception; sys.modules['consul'] = old\n"
        "import chassis.adapters.consul as adapter\n"
        "try: adapter.AsyncConsul\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip uninstall python-consul" in done.stdout


def test_importing_the_adapter_imports_neither_consul_nor_any_http_library() -> None:
    program = (
        "import sys, chassis.adapters.consul\n"
        "print({'consul', 'requests', 'httpx', 'httpx2', 'aiohttp'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_unknown_name_of_the_adapter_is_unknown() -> None:
    import chassis.adapters.consul as adapter

    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        adapter.Nothing  # noqa: B018 - the access is the test


@pytest.mark.asyncio
async def test_py_consuls_own_api_against_a_real_agent(consul_server: ConsulServer) -> None:
    async with ConsulAPI(ConsulOptions(url=consul_server.url)) as api:
        client = AsyncConsul(api)
        assert await client.kv.put("py-consul/a", b"\x01") is True
        index, found = await client.kv.get("py-consul/a")
        assert found["Value"] == b"\x01"
        waiting = asyncio.create_task(client.kv.get("py-consul/a", index=index, wait="10s"))
        await asyncio.sleep(0.05)
        await client.kv.put("py-consul/a", "2")
        assert (await waiting)[1]["Value"] == b"2"
        assert await client.agent.service.register("py-consul", service_id="pc:1", port=1) is True
        _, services = await client.health.service("py-consul")
        assert [each["Service"]["ID"] for each in services] == ["pc:1"]
        assert await client.agent.service.deregister("pc:1") is True
        assert await client.kv.delete("py-consul/", recurse=True) is True
        assert (await client.kv.get("py-consul/a"))[1] is None
