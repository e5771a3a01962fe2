"""The Consul API: what is asked, what is made of the answers."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chassis.adapters.consul import (
    ConsulAnswerError,
    ConsulAPI,
    ConsulConflict,
    ConsulError,
    ConsulForbidden,
    ConsulNotFound,
    ConsulOptions,
    ConsulUnavailable,
    ConsulUnreachable,
    KVEntry,
)
from chassis.adapters.consul._protocol import path
from chassis.core import DiscoveryError
from tests.support.ports import free_port
from tests.support.scripted_agent import Answer, Asked, Script, ScriptedAgent
from tests.support.servers import ConsulServer

META = {"X-Consul-Index": "42", "X-Consul-KnownLeader": "false", "X-Consul-LastContact": "1500"}
pytestmark = pytest.mark.asyncio


def always(body: Any = "[]", status: int = 200, **headers: str) -> Script:
    return lambda asked: Answer(body, status, {key.replace("_", "-"): each for key, each in headers.items()})


class Connect:
    """Makes APIs, and closes them."""

    def __init__(self) -> None:
        self.made: list[ConsulAPI] = []

    def __call__(self, url: str, **options: Any) -> ConsulAPI:
        self.made.append(ConsulAPI(ConsulOptions(url=url, **options)))
        return self.made[-1]


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    connect = Connect()
    yield connect
    for each in connect.made:
        await each.aclose()


async def test_every_parameter_of_a_health_query_is_asked(connect: Connect) -> None:
    with ScriptedAgent(always()) as agent:
        await connect(agent.url).health(
            "a b/c?d", index=7, wait=2, tag="blue", datacenter="dc2", filter="x", near="_agent", stale=True,
            cached=True,
        )  # fmt: skip
    (asked,) = agent.asked
    assert asked.method == "GET"
    assert asked.path == "/v1/health/service/a b/c?d"
    assert asked.query == {
        "index": "7", "wait": "2000ms", "tag": "blue", "dc": "dc2", "filter": "x", "near": "_agent",
        "stale": "", "cached": "",
    }  # fmt: skip


async def test_case_37_an_odd_name_is_quoted_whole() -> None:
    assert path("health", "service", "a b/c?d") == "/v1/health/service/a%20b%2Fc%3Fd"


async def test_a_plain_query_asks_for_nothing_and_the_agents_own_datacenter(connect: Connect) -> None:
    with ScriptedAgent(always()) as agent:
        await connect(agent.url).health("a")
        await connect(agent.url, datacenter="dc9").health("a")
    assert [each.query for each in agent.asked] == [{}, {"dc": "dc9"}]


async def test_what_the_headers_tell_is_kept(connect: Connect) -> None:
    with ScriptedAgent(lambda asked: Answer("[1]", headers=META)) as agent:
        answer = await connect(agent.url).health("a")
    assert (answer.value, answer.index, answer.known_leader, answer.last_contact) == ([1], 42, False, 1.5)
    assert not answer.acl_filtered


@pytest.mark.parametrize("index", ["", "-1", "many", "9" * 30])
async def test_case_8_an_index_that_is_none_counts_as_absent(connect: Connect, index: str) -> None:
    with ScriptedAgent(always(X_Consul_Index=index)) as agent:
        answer = await connect(agent.url).health("a")
    assert (answer.index, answer.known_leader, answer.last_contact) == (0, True, 0.0)


async def test_case_13_results_filtered_by_acls_are_told_of(connect: Connect) -> None:
    with ScriptedAgent(always(X_Consul_Results_Filtered_By_ACLs="true")) as agent:
        assert (await connect(agent.url).health("a")).acl_filtered


async def test_the_token_goes_into_a_header_and_never_into_the_url(connect: Connect) -> None:
    with ScriptedAgent(always()) as agent:
        await connect(agent.url, token="s3cret").health("a")
        await connect(agent.url).health("a")
    with_token, without = agent.asked
    assert with_token.headers["x-consul-token"] == "s3cret"
    assert "s3cret" not in str(with_token.query)
    assert "x-consul-token" not in without.headers


@pytest.mark.parametrize(("auth", "sent"), [("me:word", b"me:word"), ("me", b"me:"), ("é:ü", "é:ü".encode())])
async def test_a_proxy_before_the_agent_is_given_its_credentials(
    connect: Connect, auth: str, sent: bytes
) -> None:
    with ScriptedAgent(always()) as agent:
        api = connect(agent.url, auth=auth, token="s3cret")
        await api.health("a")
    (asked,) = agent.asked
    assert asked.headers["authorization"] == f"Basic {base64.b64encode(sent).decode()}"
    assert asked.headers["x-consul-token"] == "s3cret"
    assert "auth" not in repr(api.options)


async def test_case_13_a_token_file_is_read_again_when_the_token_is_refused(
    connect: Connect, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")

    def script(asked: Asked) -> Answer:
        fine = asked.headers.get("x-consul-token") == "new"
        return Answer("[]") if fine else Answer("ACL not found", 403)

    with ScriptedAgent(script) as agent:
        api = connect(agent.url, token_file=str(file))
        with pytest.raises(ConsulForbidden):
            await api.health("a")
        assert len(agent.asked) == 1
        file.write_text("new\n")
        assert (await api.health("a")).value == []
        assert [each.headers["x-consul-token"] for each in agent.asked] == ["old", "old", "new"]


@pytest.mark.parametrize("gone", [False, True])
async def test_case_13_a_token_file_is_read_again_when_everything_is_hidden_from_the_token(
    connect: Connect, tmp_path: Path, gone: bool
) -> None:
    """At once, also in place of a blocking query; without the file, the token in use goes on being used."""
    file = tmp_path / "token"
    file.write_text("old\n")

    def script(asked: Asked) -> Answer:
        if asked.headers.get("x-consul-token") == "new":
            return Answer("[{}]", headers={"X-Consul-Index": "7"})
        return Answer("[]", headers={"X-Consul-Index": "7", "X-Consul-Results-Filtered-By-ACLs": "true"})

    with ScriptedAgent(script) as agent:
        api = connect(agent.url, token_file=str(file))
        assert (await api.health("a", index=7, wait=0.1)).acl_filtered
        assert len(agent.asked) == 1
        if gone:
            file.unlink()
            assert (await api.health("a", index=7, wait=0.1)).acl_filtered
            assert len(agent.asked) == 2
            return
        file.write_text("new\n")
        answer = await api.health("a", tag="x", index=7, wait=0.1)
        assert (answer.value, answer.acl_filtered) == ([{}], False)
        assert [each.headers["x-consul-token"] for each in agent.asked] == ["old", "old", "new"]
        assert agent.asked[2].query == {"tag": "x"}


async def test_case_13_a_token_file_is_read_again_when_the_token_may_not_read_a_service(
    connect: Connect, tmp_path: Path
) -> None:
    """Agents before 1.11 do not say that they hide anything. What was asked already was asked in vain."""
    file = tmp_path / "token"
    file.write_text("old\n")

    def script(asked: Asked) -> Answer:
        return Answer(json.dumps([{"Allow": asked.headers["x-consul-token"] == "new"}]))

    with ScriptedAgent(script) as agent:
        api = connect(agent.url, token_file=str(file))
        assert await api.may_read("a") is False
        file.write_text("new\n")
        assert await api.may_read("a") is False
        assert await api.may_read("a") is True


async def test_a_token_file_that_cannot_be_read_is_named(connect: Connect) -> None:
    with pytest.raises(ConsulForbidden, match="'/nowhere/token' cannot be read"):
        await connect("http://a", token_file="/nowhere/token").leader()


async def test_a_token_file_with_more_than_a_token_is_named_and_not_repeated(
    connect: Connect, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\nand more\n")
    with pytest.raises(ConsulForbidden, match="holds more than one line") as caught:
        await connect("http://a", token_file=str(file)).leader()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, ConsulError),
        (403, ConsulForbidden),
        (404, ConsulNotFound),
        (409, ConsulConflict),
        (500, ConsulUnavailable),
        (503, ConsulUnavailable),
    ],
)
async def test_case_11_an_answer_that_is_none_is_an_error_of_its_kind_and_never_parsed(
    connect: Connect, status: int, error: type[ConsulError]
) -> None:
    with ScriptedAgent(always('["no  cluster\nleader"]', status)) as agent, pytest.raises(error) as caught:
        await connect(agent.url).health("a")
    assert type(caught.value) is error
    assert isinstance(caught.value, DiscoveryError)
    assert (caught.value.status, caught.value.body) == (status, '["no cluster leader"]')
    expected = f'Consul answered {status} to GET /v1/health/service/a: ["no cluster leader"]'
    assert str(caught.value).startswith(expected)


async def test_a_refused_token_is_told_with_a_remedy(connect: Connect) -> None:
    with (
        ScriptedAgent(always("", 403)) as agent,
        pytest.raises(ConsulForbidden, match="no explanation; check the ACL token and its policy"),
    ):
        await connect(agent.url).leader()


@pytest.mark.parametrize("body", ["[{", "<html>", "{}", '"text"', "\xff"])
async def test_case_12_garbage_is_an_error(connect: Connect, body: str) -> None:
    with (
        ScriptedAgent(always(body.encode("latin-1"))) as agent,
        pytest.raises(ConsulAnswerError, match="GET /v1/health/service/a"),
    ):
        await connect(agent.url).health("a")


async def test_null_stands_for_an_empty_value_where_consul_writes_it(connect: Connect) -> None:
    with ScriptedAgent(always("null")) as agent:
        assert (await connect(agent.url).services()).value == {}


async def test_case_1_a_refused_connection_is_told_with_the_address(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConsulUnreachable, match=f"Consul at http://127.0.0.1:{port} did not answer GET"):
        await connect(f"http://127.0.0.1:{port}").leader()


async def test_case_3_a_hung_agent_is_found_after_the_time_limit(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        api = connect(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.2)
        begun = time.monotonic()
        with pytest.raises(ConsulUnreachable, match="ReadTimeout"):
            await api.leader()
        assert 0.15 < time.monotonic() - begun < 4  # five seconds are the default


async def test_case_3_a_blocking_query_is_given_its_wait_and_a_sixteenth_more(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        api = connect(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.1)
        begun = time.monotonic()
        with pytest.raises(ConsulUnreachable):
            await api.health("a", index=1, wait=0.8)
        assert 0.9 < time.monotonic() - begun < 5
        begun = time.monotonic()
        with pytest.raises(ConsulUnreachable):
            await api.health("a", wait=8)
        assert time.monotonic() - begun < 5  # without an index nothing is waited for


async def test_a_query_that_is_cancelled_ends_at_once(connect: Connect) -> None:
    release = threading.Event()
    with ScriptedAgent(lambda asked: Answer("[]") if release.wait(10) else Answer("late", 500)) as agent:
        task = asyncio.create_task(connect(agent.url).health("a", index=1, wait=30))
        while not agent.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        begun = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - begun < 5  # the agent is silent for ten seconds
        release.set()


async def test_one_api_serves_several_event_loops() -> None:
    with ScriptedAgent(always('"leader"')) as agent:
        api = ConsulAPI(ConsulOptions(url=agent.url))

        async def ask() -> str:
            leader = await api.leader()
            await api.aclose()
            await api.aclose()
            return leader

        assert await ask() == "leader"
        assert await asyncio.to_thread(asyncio.run, ask()) == "leader"
        assert await ask() == "leader"


@pytest.mark.parametrize(
    ("call", "method", "path", "query", "body"),
    [
        (lambda api: api.services(), "GET", "/v1/catalog/services", {}, None),
        (lambda api: api.register_service({"Name": "a"}), "PUT", "/v1/agent/service/register", {},
         {"Name": "a"}),
        (lambda api: api.deregister_service("a/1"), "PUT", "/v1/agent/service/deregister/a/1", {}, None),
        (lambda api: api.service_maintenance("a", True, reason="why not"), "PUT",
         "/v1/agent/service/maintenance/a", {"enable": "true", "reason": "why not"}, None),
        (lambda api: api.service_maintenance("a", False), "PUT", "/v1/agent/service/maintenance/a",
         {"enable": "false"}, None),
        (lambda api: api.agent_service("a"), "GET", "/v1/agent/service/a", {}, None),
        (lambda api: api.update_check("service:a", "warning", output="so so"), "PUT",
         "/v1/agent/check/update/service:a", {}, {"Status": "warning", "Output": "so so"}),
    ],
)  # fmt: skip
async def test_each_call_is_what_consul_expects(
    connect: Connect,
    call: Callable[[ConsulAPI], Awaitable[object]],
    method: str,
    path: str,
    query: dict[str, str],
    body: object,
) -> None:
    with ScriptedAgent(always("{}")) as agent:
        await call(connect(agent.url))
    (asked,) = agent.asked
    assert (asked.method, asked.path, asked.query) == (method, path, query)
    assert (json.loads(asked.body) if asked.body else None) == body


async def test_what_is_gone_already_is_no_error(connect: Connect) -> None:
    with ScriptedAgent(always("unknown", 404)) as agent:
        api = connect(agent.url)
        await api.deregister_service("a")
        assert await api.agent_service("a") is None
        answer = await api.kv_get("a")
        assert answer.value == ()


def entry(key: str, value: bytes | None) -> dict[str, Any]:
    encoded = None if value is None else base64.b64encode(value).decode()
    return {"Key": key, "Value": encoded, "Flags": 3, "CreateIndex": 1, "ModifyIndex": 2, "LockIndex": 0}


async def test_kv_entries_are_decoded_and_ordered_by_key(connect: Connect) -> None:
    body = json.dumps([entry("b", None), entry("a", b"\x00\xff")])
    with ScriptedAgent(always(body, X_Consul_Index="9")) as agent:
        answer = await connect(agent.url).kv_get("some key/", recurse=True, index=3, wait=1, stale=True)
    (asked,) = agent.asked
    assert asked.path == "/v1/kv/some key/"
    assert asked.query == {"recurse": "", "index": "3", "wait": "1000ms", "stale": ""}
    assert answer.index == 9
    assert answer.value == (
        KVEntry(key="a", value=b"\x00\xff", flags=3, create_index=1, modify_index=2),
        KVEntry(key="b", value=b"", flags=3, create_index=1, modify_index=2),
    )


@pytest.mark.parametrize("body", ["[1]", '[{"Key": "a", "Value": "*"}]', '[{"Value": ""}]'])
async def test_a_kv_entry_that_cannot_be_read_is_an_error(connect: Connect, body: str) -> None:
    with ScriptedAgent(always(body)) as agent, pytest.raises(ConsulAnswerError, match="unreadable key"):
        await connect(agent.url).kv_get("a")


async def test_kv_writes_say_what_they_are(connect: Connect) -> None:
    with ScriptedAgent(always("true")) as agent:
        api = connect(agent.url)
        assert await api.kv_put("a/b", "text", cas=0, flags=7)
        assert await api.kv_put("a/b", b"\x00")
        assert await api.kv_delete("a", recurse=True, cas=5)
    put, plain, delete = agent.asked
    assert (put.method, put.path, put.query, put.body) == (
        "PUT",
        "/v1/kv/a/b",
        {"cas": "0", "flags": "7"},
        b"text",
    )
    assert (plain.query, plain.body) == ({}, b"\x00")
    assert (delete.method, delete.query) == ("DELETE", {"recurse": "", "cas": "5"})
    with ScriptedAgent(always("false")) as agent:
        assert not await connect(agent.url).kv_put("a", "b", cas=1)
        assert not await connect(agent.url).kv_delete("a", cas=1)


# real Consul


async def test_health_kv_and_transactions_with_a_real_agent(
    connect: Connect, consul_server: ConsulServer
) -> None:
    api = connect(consul_server.url)
    assert await api.leader()
    await api.register_service(
        {"Name": "api test/1", "ID": "api test/1?", "Port": 80, "Check": {"CheckID": "c/1", "TTL": "1m"}}
    )
    await api.update_check("c/1", "warning", output="so so")
    answer = await api.health("api test/1")
    assert [each["Service"]["ID"] for each in answer.value] == ["api test/1?"]
    assert answer.value[0]["Checks"][-1]["Output"] == "so so"
    assert "api test/1" in (await api.services()).value
    assert (await api.agent_service("api test/1?") or {})["Port"] == 80
    await api.deregister_service("api test/1?")
    await api.deregister_service("api test/1?")
    assert await api.agent_service("api test/1?") is None

    assert await api.kv_put("api-test/a b", b"\x00\xff", cas=0)
    assert not await api.kv_put("api-test/a b", b"later", cas=0)
    (found,) = (await api.kv_get("api-test/", recurse=True)).value
    assert (found.key, found.value) == ("api-test/a b", b"\x00\xff")
    results = await api.txn([{"KV": {"Verb": "get-tree", "Key": "api-test/"}}])
    assert [each.value for each in results] == [b"\x00\xff"]
    with pytest.raises(ConsulConflict, match="failed index check"):
        await api.txn([{"KV": {"Verb": "check-index", "Key": "api-test/a b", "Index": 1}}])
    assert await api.kv_delete("api-test", recurse=True)
    assert (await api.kv_get("api-test/a b")).value == ()
    await api.aclose()


async def test_a_write_wakes_a_blocked_query_of_a_real_agent(
    connect: Connect, consul_server: ConsulServer
) -> None:
    api = connect(consul_server.url)
    index = (await api.kv_get("api-wake")).index
    waiting = asyncio.create_task(api.kv_get("api-wake", index=index, wait=20))
    await asyncio.sleep(0.1)
    begun = time.monotonic()
    await api.kv_put("api-wake", "now")
    assert [each.value for each in (await waiting).value] == [b"now"]
    assert time.monotonic() - begun < 10, "it was woken, and did not wait for its 20 s"
    await api.aclose()


async def test_an_agent_that_is_not_there_is_told_of_in_the_systems_own_words() -> None:
    """And not as "all connection attempts failed", which tells nobody what to look for."""
    async with ConsulAPI(ConsulOptions(url=f"http://127.0.0.1:{free_port()}")) as api:
        with pytest.raises(ConsulUnreachable, match="ConnectError: Connection refused"):
            await api.leader()
