"""`chassis doctor`: what is wrong, and the next step; exit status 0 if nothing is, else 1."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chassis import BreakerOptions, Chassis
from chassis.cli import main
from chassis.core import Instance
from chassis.discovery import MemoryDiscovery, MergedDiscovery
from chassis.server import Address
from tests.client.scripted import ScriptedServer, answer
from tests.support.name_server import NameServer
from tests.support.processes import ManagedProcess
from tests.support.scripted_agent import Answer, Asked, ScriptedAgent
from tests.support.servers import BaoServer, ConsulServer

NAMES = (
    "CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE", "BAO_ADDR", "VAULT_ADDR", "BAO_TOKEN",
    "VAULT_TOKEN", "CHASSIS_SERVICES_FILE", "CHASSIS_HEALTH_TOKEN",
)  # fmt: skip


@pytest.fixture(scope="module")
def names() -> Iterator[str]:
    """The address of a name server that knows no name. What nobody knows waits for its answer."""
    server = NameServer()
    yield server.address
    server.close()


@pytest.fixture
def doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], names: str
) -> Callable[..., tuple[int, str]]:
    """Runs the command in an empty folder, with this environment: its exit status and all it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CHASSIS_DNS__NAMESERVERS", json.dumps([names]))

    def run(*arguments: str, **environment: str) -> tuple[int, str]:
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *arguments])
        printed = capsys.readouterr()
        for name in environment:
            monkeypatch.delenv(name)
        return int(ended.value.code or 0), printed.out + printed.err

    return run


@pytest.fixture(scope="module")
def agent() -> Iterator[str]:
    with ManagedProcess.python("-m", "chassis.cli", "dev", "--port", "0") as process:
        url = str(process.wait_for_json("address", timeout=20)["address"])
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]

            def register(name: str, number: int, status: str, port: int = port) -> None:
                check = {"CheckID": f"check:{name}-{number}", "Name": "heartbeat", "TTL": "600s"}
                definition = {
                    "ID": f"{name}-{number}",
                    "Name": name,
                    "Address": "127.0.0.1",
                    "Port": port,
                    "Meta": {"zone": "z1"},
                    "Check": {**check, "Status": status},
                }
                put(f"{url}/v1/agent/service/register", definition)

            register("catalog", 1, "passing")
            register("catalog", 2, "passing")
            put(f"{url}/v1/agent/check/update/check:catalog-2", {"Status": "critical", "Output": "no disk"})
            register("payments", 1, "passing")
            put(f"{url}/v1/agent/service/maintenance/payments-1?enable=true&reason=new+disk", None)
            register("gone", 1, "passing", port=1)
            yield url


def put(url: str, body: Any) -> None:
    httpx2.put(url, json=body).raise_for_status()


# by its settings


def test_nothing_configured_is_well_and_says_what_to_name(doctor: Any) -> None:
    status, page = doctor()
    assert status == 0
    assert "name one with --service" in page
    assert page.rstrip().endswith("Nothing has to be done.")


def test_addresses_given_are_tried(doctor: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        status, page = doctor(CHASSIS_SERVICES__CATALOG=url)
        assert (
            status,
            "catalog: 1 of 1 instances fit (static from environment CHASSIS_SERVICES__CATALOG, fresh" in page,
        ) == (0, True), page
        status, page = doctor(CHASSIS_SERVICES__CATALOG=f"{url},http://127.0.0.1:1")
        assert status == 0, "one that connects is enough"
    status, page = doctor(CHASSIS_SERVICES__CATALOG=url)
    assert status == 1
    assert f"{url} takes no connection from here" in page


def test_the_services_of_a_file_are_looked_at(doctor: Any, tmp_path: Path) -> None:
    file = tmp_path / "services.toml"
    file.write_text('[services]\ncatalog = [{ url = "http://127.0.0.1:1", status = "maintenance" }]\n')
    status, page = doctor(CHASSIS_SERVICES_FILE=str(file))
    assert status == 1
    assert f"catalog: 0 of 1 instances fit (file from {file}, fresh" in page
    assert "127.0.0.1:1 is maintenance" in page
    file.write_text("[services")
    status, page = doctor(CHASSIS_SERVICES_FILE=str(file))
    assert status == 2
    assert "the file is not TOML" in page


def test_a_service_nobody_knows_is_told_with_the_next_step(doctor: Any) -> None:
    status, page = doctor("--service", "no-such-name")
    assert status == 1
    assert "nothing is registered under this name" in page
    assert "CHASSIS_SERVICES__NO_SUCH_NAME=http://host:port" in page
    assert "CONSUL_HTTP_ADDR" in page


def test_a_registry_that_is_down_is_told_first_and_once(doctor: Any) -> None:
    status, page = doctor("--service", "catalog", CONSUL_HTTP_ADDR="127.0.0.1:1")
    assert status == 1
    todo = page.partition("To do:")[2]
    assert todo.index("1. consul: ") < todo.index("start the agent, or correct CONSUL_HTTP_ADDR")
    assert "2." not in todo, "what follows from that is shown with the service, and nothing to do"
    assert "catalog: no instance\n  the registry does not answer and nothing is known from before" in page


def test_a_catalog_is_shown_whole_with_what_is_wrong(doctor: Any, agent: str) -> None:
    status, page = doctor(CONSUL_HTTP_ADDR=agent)
    assert status == 1
    assert "catalog: 1 of 2 instances fit (live, fresh" in page
    assert "index " in page
    assert "catalog-2 is critical: heartbeat says 'no disk'" in page
    assert "payments-1 is maintenance: Service Maintenance Mode says 'new disk'" in page
    assert "gone-1 is passing, but http://127.0.0.1:1 takes no connection from here" in page
    todo, _, look = page.partition("To do:")[2].partition("Worth a look:")
    assert "payments-1" in todo
    assert "gone-1" in todo
    assert "catalog-2" in look, "the other instance is fit, so no call fails for it"
    row = next(line for line in page.splitlines() if line.startswith("  catalog-1"))
    assert row.split()[2:5] == ["passing", "z1", "dc1"]


def test_a_healthy_service_is_well(doctor: Any, agent: str) -> None:
    status, page = doctor("--service", "catalog", CONSUL_HTTP_ADDR=agent)
    assert status == 0
    assert "payments" not in page


@pytest.mark.parametrize(
    ("service", "more", "told"),
    [
        ("catalogue", [], "did you mean 'catalog', which is registered?"),
        ("zzz", [], "start it with CONSUL_HTTP_ADDR set to this agent"),
        ("catalog", ["--set", 'chassis.discovery.tags=["v9"]'], "see chassis.discovery.tags"),
    ],
)
def test_each_reason_has_its_next_step(
    doctor: Any, agent: str, service: str, more: list[str], told: str
) -> None:
    status, page = doctor("--service", service, *more, CONSUL_HTTP_ADDR=agent)
    assert status == 1
    assert told in page


def test_the_same_as_json(doctor: Any, agent: str) -> None:
    status, page = doctor("--json", CONSUL_HTTP_ADDR=agent)
    report = json.loads(page)
    assert (status, report["well"]) == (1, False)
    assert [each["name"] for each in report["systems"]] == ["consul", "vault"]
    catalog = report["services"]["catalog"]
    assert catalog["index"] > 0
    assert [each["connects"] for each in catalog["instances"]] == ["yes", "yes"]
    assert {each["about"] for each in report["findings"] if each["urgent"]} == {"payments", "gone"}


def test_a_token_that_sees_nothing_is_told_once_for_each_service(doctor: Any) -> None:
    """The registry answers, so it is the token's policy that is wanting, and nothing else."""

    def script(asked: Asked) -> Answer:
        if asked.path == "/v1/status/leader":
            return Answer('"10.0.0.1:8300"')
        if asked.path.startswith("/v1/kv/"):
            return Answer("", 404)
        hidden = {"X-Consul-Index": "7", "X-Consul-Results-Filtered-By-ACLs": "true"}
        return Answer("{}" if asked.path == "/v1/catalog/services" else "[]", 200, hidden)

    with ScriptedAgent(script) as server:
        status, page = doctor("--service", "catalog", CONSUL_HTTP_ADDR=server.url)
    assert status == 1
    about = [
        line for line in page.splitlines() if line[:5].strip().rstrip(".").isdigit() and "catalog" in line
    ]
    assert len(about) == 1, page
    assert "give the token a policy with service 'catalog' and node read" in page


def test_an_agent_that_closes_connections_may_have_too_many(doctor: Any) -> None:
    """To start it would not help: it serves 200 connections to one address, and drops the others."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drop() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    if b" /v1/kv/" in connection.recv(65_536):
                        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    connection.close()

        threading.Thread(target=drop, daemon=True).start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        status, page = doctor("--service", "catalog", "--wait", "0.1", CONSUL_HTTP_ADDR=address)
    assert status == 1
    assert "limits.http_max_conns_per_client" in page
    assert "start the agent" not in page


@pytest.mark.parametrize(
    ("path", "status", "body", "told"),
    [
        ("/v1/catalog/services", 403, "ACL not found", "it does not take the token"),
        ("/v1/status/leader", 200, '""', "its servers have no leader"),
        ("/v1/status/leader", 500, "no cluster leader", "no cluster leader"),
        ("/v1/status/leader", 404, "no such page", "what answers there is no Consul agent: status 404"),
    ],
)
def test_a_registry_in_trouble_is_told(doctor: Any, path: str, status: int, body: str, told: str) -> None:
    def script(asked: Asked) -> Answer:
        if asked.path == path:
            return Answer(body, status)
        if asked.path == "/v1/status/leader":
            return Answer('"10.0.0.1:8300"')
        return Answer("{}", 404)

    with ScriptedAgent(script) as server:
        ended, page = doctor(CONSUL_HTTP_ADDR=server.url, CONSUL_HTTP_TOKEN="wrong-token")
    assert ended == 1
    assert told in page
    assert "wrong-token" not in page


REST = {"/v1/status/leader": Answer('"10.0.0.1:8300"'), "/v1/catalog/services": Answer("{}")}
MISSING = Answer("not found", 404)


@pytest.mark.parametrize(
    ("answer", "told", "remedy"),
    [
        (Answer("<html>log in</html>"), "is not JSON", "so that it leads to a Consul agent"),
        (
            Answer("", 301, {"Location": "https://consul.example/"}),
            "it redirects to https://consul.example/",
            "so that it leads to a Consul agent",
        ),
        (Answer("rpc error making call: EOF", 500), "rpc error", "whether it reaches its servers"),
        (Answer("", 429), "answered 429", "limits.http_max_conns_per_client"),
        (Answer("ACL not found", 403), "ACL not found", "correct CONSUL_HTTP_TOKEN"),
    ],
)
def test_what_is_done_about_an_agent_goes_by_what_it_answers(
    doctor: Any, answer: Answer, told: str, remedy: str
) -> None:
    """Nobody restarts an agent that runs because a proxy before it wants a login."""

    def script(asked: Asked) -> Answer:
        return MISSING if asked.path.startswith("/v1/kv/") else answer

    with ScriptedAgent(script) as server:
        ended, page = doctor("--service", "catalog", "--wait", "0.1", CONSUL_HTTP_ADDR=server.url)
    assert ended == 1
    (line,) = [each for each in page.splitlines() if each.startswith("  1. consul: ")]
    assert told in line
    assert remedy in page.partition(line)[2]
    assert "start the agent" not in page


def test_a_name_server_that_is_silent_is_not_taken_for_the_silence_of_all(doctor: Any) -> None:
    """Consul says that it knows no such service; whether DNS does is not said in time."""
    silent = NameServer()
    silent.silent = True
    with ScriptedAgent(lambda asked: REST.get(asked.path, MISSING)) as server:
        ended, page = doctor(
            *("--service", "zzz", "--wait", "0.5"),
            CONSUL_HTTP_ADDR=server.url,
            CHASSIS_DNS__NAMESERVERS=json.dumps([silent.address]),
        )
    silent.close()
    assert ended == 1
    assert "zzz: not all of its sources have answered in 0.5 s" in page
    assert "see whether the name servers answer" in page


def test_a_service_that_alone_is_not_answered_shows_the_answer(doctor: Any) -> None:
    """The agent answers, and its cluster or a proxy does not: what it said is the only trace of it."""

    def script(asked: Asked) -> Answer:
        if asked.path.startswith("/v1/health/service/"):
            return Answer("rpc error making call: No path to datacenter", 500)
        return REST.get(asked.path, MISSING)

    with ScriptedAgent(script) as server:
        ended, page = doctor("--service", "catalog", CONSUL_HTTP_ADDR=server.url)
    assert ended == 1
    assert "No path to datacenter" in page.partition("To do:")[2]


def test_entries_that_are_none_do_not_end_the_doctor(doctor: Any) -> None:
    """It is called when something is wrong, also with what the registry holds."""
    ill = {
        "Node": {"Address": "127.0.0.1"},
        "Service": {"ID": "catalog:1", "Service": "catalog", "Port": 1},
        "Checks": [{"CheckID": "c", "Name": "disk", "Status": "critical", "Output": "it is full"}],
    }
    portless = {"Service": {"ID": "catalog:2", "Service": "catalog", "Address": "h", "Port": 0}}

    def script(asked: Asked) -> Answer:
        if asked.path.startswith("/v1/health/service/"):
            return Answer(json.dumps([portless, None, 7, {"Service": []}, {"Checks": [None]}, ill]))
        return REST.get(asked.path, MISSING)

    with ScriptedAgent(script) as server:
        ended, page = doctor("--service", "catalog", CONSUL_HTTP_ADDR=server.url)
    assert ended == 1
    assert "disk says 'it is full'" in page
    assert "cannot be used: ValueError: 'catalog:2' has no usable port: 0" in page


@pytest.mark.parametrize(
    ("health", "lookup", "more", "told"),
    [
        ({"initialized": False, "sealed": True}, 200, {"BAO_TOKEN": "t0ken"}, "it is not initialised"),
        ({"initialized": True, "sealed": True}, 200, {"BAO_TOKEN": "t0ken"}, "bao operator unseal"),
        ({"initialized": True, "sealed": False}, 403, {"BAO_TOKEN": "t0ken"}, "it does not take the token"),
        ({"initialized": True, "sealed": False}, 200, {}, "no token is given"),
        (
            {"initialized": True, "sealed": False},
            200,
            {"BAO_TOKEN_FILE": "nowhere"},
            "'nowhere' cannot be read",
        ),
        ({"initialized": True, "sealed": False}, 200, {"BAO_TOKEN": "t0ken"}, ""),
    ],
)
def test_a_secret_store_is_asked_for_its_state_and_the_token(
    doctor: Any, health: Any, lookup: int, more: dict[str, str], told: str
) -> None:
    def script(asked: Asked) -> Answer:
        if asked.path == "/v1/sys/health":
            return Answer(json.dumps(health))
        return Answer(json.dumps({"data": {"ttl": 60}}), lookup)

    with ScriptedAgent(script) as server:
        status, page = doctor(BAO_ADDR=server.url, **more)
    assert status == bool(told)
    assert told in page
    assert "t0ken" not in page


def test_a_secret_store_that_is_down_is_told(doctor: Any) -> None:
    status, page = doctor(VAULT_ADDR="http://127.0.0.1:1", VAULT_TOKEN="t")
    assert status == 1
    assert "start it, or correct BAO_ADDR (or VAULT_ADDR)" in page


def test_the_application_says_which_services_it_calls(doctor: Any, tmp_path: Path, agent: str) -> None:
    (tmp_path / "calling.py").write_text(
        "from chassis import Chassis\nchassis = Chassis('calling')\ncatalog = chassis.client('catalog')\n"
        "async def app(scope, receive, send): ...\napp = chassis.asgi(app)\n"
    )
    status, page = doctor("calling:app", CONSUL_HTTP_ADDR=agent)
    assert status == 0
    assert page.startswith("As calling would find it:")
    assert "catalog: 1 of 2 instances fit" in page


# a running service


@pytest.fixture
def running() -> Iterator[Callable[..., str]]:
    """Serves what a real chassis says of itself, to whoever it may say it."""
    stop: list[Callable[[], Any]] = []

    def serve(body: bytes, status: int = 200) -> str:
        server = ScriptedAgent(lambda asked: Answer(body, status))
        server.__enter__()
        stop.append(lambda: server.__exit__())
        return server.url

    yield serve
    for each in stop:
        each()


def health(
    *, client: str = "127.0.0.1", fail: bool = False, broken: bool = False, one_id: bool = False
) -> bytes:
    """The body of /health of a service that calls two instances, one of which fails."""

    async def ask() -> bytes:
        sources, registry = {"bad": MemoryDiscovery(), "good": MemoryDiscovery()}, MemoryDiscovery()
        discovery = MergedDiscovery(list(sources.values()))
        with ScriptedServer(answer(500)) as bad, ScriptedServer(answer(200)) as good:
            for name, server in (("bad", bad), ("good", good)):
                if not (broken and name == "good"):
                    id_ = "same" if one_id else name
                    sources[name].put(Instance(id=id_, service="catalog", host="127.0.0.1", port=server.port))
            chassis = Chassis("shop", environment={}, discovery=discovery, registrar=registry)
            catalog = chassis.client("catalog", breaker=BreakerOptions(consecutive_failures=1))
            if fail:
                chassis.check("disk", lambda: False)
            async with chassis, catalog:
                await chassis.listening(Address("127.0.0.1", 8080))
                chassis.maintenance("migrating")
                await chassis._runtime.health.refresh()
                for _ in range(4):
                    with suppress(httpx2.HTTPError):
                        await catalog.get("/")
                return (await chassis._endpoints.respond("/health", [], client))[2]

    return asyncio.run(ask())


def test_a_running_service_tells_of_its_breakers_and_maintenance(doctor: Any, running: Any) -> None:
    status, page = doctor("--url", running(health()))
    assert status == 0, page
    assert page.startswith("As shop at http://127.0.0.1:")
    assert "(pass, ready)" in page
    assert "registration   ok: shop:127.0.0.1:8080, heartbeat passing (ready)" in page
    rows = {line.split()[0]: line.split() for line in page.splitlines() if line.startswith("  ")}
    assert rows["bad"][-1] == "open"
    assert rows["good"][-1] == "closed"
    look = page.partition("Worth a look:")[2]
    assert "bad has its breaker open" in look
    assert "catalog: 2 of 2 instances fit, 1 of them called now" in page
    assert "-> it is tried again by itself: see the instance's log for why it failed" in look
    assert "under maintenance, asked for by the service itself: migrating" in page


def test_of_two_instances_of_one_id_each_has_its_own_breaker(doctor: Any, running: Any) -> None:
    body = health(one_id=True)
    (bad,) = [
        name
        for name, each in json.loads(body)["policies"]["client:catalog/breaker"]["instances"].items()
        if each["state"] == "open"
    ]
    status, page = doctor("--url", running(body))
    assert status == 0, page
    rows = [line.split() for line in page.splitlines() if line.startswith("  same")]
    assert sorted(row[-1] for row in rows) == ["closed", "open"]
    assert "2 of 2 instances fit, 1 of them called now" in page
    assert f"catalog: {bad} has its breaker open" in page


def test_a_running_service_without_an_instance_left_is_something_to_do(doctor: Any, running: Any) -> None:
    status, page = doctor("--url", running(health(broken=True)))
    assert status == 1
    assert "bad has its breaker open" in page.partition("To do:")[2]
    assert "1 of 1 instances fit, none of them called now" in page
    status, page = doctor("--url", running(health(fail=True), 503))
    assert status == 1
    assert "disk: the check says fail" in page


def test_what_a_service_says_of_its_troubles_is_found(doctor: Any, running: Any) -> None:
    told = {
        "status": "warn",
        "service": "shop",
        "state": "ready",
        "checks": {},
        "loop_lag_ms": 2500,
        "registration": {
            "id": "shop:1",
            "confirmed": False,
            "trouble": "Permission denied",
            "heartbeat": None,
            "maintenance": None,
            "shares_its_address_with": ["other:1"],
        },
        "configuration": {
            "sources": {"chassis.toml": {"state": "rejected", "bad": True, "detail": "not TOML"}},
            "settings": {"chassis": {"bad": True, "detail": "x: no such setting"}},
        },
        "policies": {
            "breaker:stock": {"state": "open", "last_failure": "TimeoutError"},
            "breaker:hosts": {"breakers": {"a": {"state": "closed"}, "b": {"state": "forced_open"}}},
            "client:catalog/balancing": {
                "policy": "round_robin",
                "panic": True,
                "instances": {"a": {"address": "a:1", "ejected_for": 12.3, "tier": 1, "share": 0.25}},
            },
        },
        "discovery": {
            "catalog": {
                "source": "live",
                "freshness": "stale",
                "age": 70.0,
                "error": "ReadTimeout",
                "instances": [{"id": "a", "url": "http://a:1", "status": "passing"}],
                "reason": None,
            },
            "orders": {"source": "live", "freshness": "fresh", "age": 1, "instances": [], "reason": "nobody"},
        },
    }
    status, page = doctor("--url", running(json.dumps(told).encode()), "--service", "catalog")
    assert status == 1
    for line in (
        "it lags by 2.5 s",
        "registration: Permission denied",
        "others are registered at the same address: other:1",
        "chassis.toml: not TOML",
        "settings chassis: x: no such setting",
        "what is known is stale: ReadTimeout",
        "a is passed over, since it fails more than its peers",
        "(panic)",
        "for 12 s more",
        "25% of its traffic",
    ):
        assert line in page
    assert "orders" not in page
    page = doctor("--url", running(json.dumps(told).encode()))[1]
    assert "run chassis doctor --service orders" in page
    assert "breaker:stock: the breaker is open after TimeoutError" in page
    assert "breaker:hosts/b: the breaker is forced_open" in page
    assert "breaker:hosts/a" not in page


def test_a_running_service_whose_registry_is_down_has_one_thing_to_do(doctor: Any, running: Any) -> None:
    """What it knew of its peers, its settings and its own registration stands; each says so, one finding is enough."""
    refused = "Consul at http://127.0.0.1:8500 did not answer"
    told = {
        "status": "warn",
        "service": "shop",
        "state": "ready",
        "checks": {"consul": {"status": "warn", "note": refused}, "configuration": {"status": "pass"}},
        "registration": {"id": "shop:1", "confirmed": False, "trouble": refused},
        "configuration": {
            "sources": {
                "consul kv config/shop/data": {"state": "unreachable", "bad": True, "detail": refused}
            }
        },
        "discovery": {
            "catalog": {
                "source": "live",
                "freshness": "stale",
                "age": 7.0,
                "instances": [{"id": "a", "url": "http://a:1", "status": "passing"}],
            }
        },
    }
    status, page = doctor("--url", running(json.dumps(told).encode()))
    assert status == 1
    assert f"1. consul: the check says warn: {refused}" in page
    assert page.rstrip().endswith("1 thing to do.")
    assert "1 of 1 instances fit (live, stale, 7.0 s old)" in page


def test_a_service_that_keeps_its_details_asks_for_the_token(doctor: Any, running: Any) -> None:
    status, page = doctor("--url", running(health(client="10.0.0.1")))
    assert status == 1
    assert "CHASSIS_HEALTH_TOKEN" in page


def test_the_token_is_sent_and_not_shown(doctor: Any) -> None:
    with ScriptedAgent(lambda asked: Answer(health())) as server:
        doctor("--url", f"{server.url}/health", CHASSIS_HEALTH_TOKEN="s3cret")
        page = doctor("--url", server.url, "--token", "other-s3cret")[1]
        assert [each.headers["authorization"] for each in server.asked] == [
            "Bearer s3cret",
            "Bearer other-s3cret",
        ]
        assert [each.path for each in server.asked] == ["/health", "/health"]
    assert "s3cret" not in page


@pytest.mark.parametrize("body", [b"not json", b"[]", b"{}"])
def test_what_is_no_service_is_told(doctor: Any, running: Any, body: bytes) -> None:
    status, page = doctor("--url", running(body))
    assert status == 1
    assert "gave no answer that can be used" in page
    status, page = doctor("--url", "http://127.0.0.1:1")
    assert status == 1
    assert "ConnectError" in page


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothere:app"], "MODULE:APP"),
        (["x:app", "--url", "http://a"], "--url"),
        (["--url", "a:1"], "write http://host:port"),
        (["--wait", "0"], "--wait"),
        (["--set", "chassis.flush=-1"], "chassis.flush"),
        (["--service", "no spaces"], "no spaces"),
    ],
)
def test_bad_input_ends_with_status_2(doctor: Any, arguments: list[str], told: str) -> None:
    status, page = doctor(*arguments)
    assert (status, told in page) == (2, True), page


def test_real_systems_are_well(doctor: Any, consul_server: ConsulServer, bao_server: BaoServer) -> None:
    status, page = doctor(
        "--service", "consul", CONSUL_HTTP_ADDR=consul_server.url, BAO_ADDR=bao_server.url,
        BAO_TOKEN=bao_server.token,
    )  # fmt: skip
    assert "consul  " + consul_server.url in page
    assert "vault   " + bao_server.url + "  ok: unsealed; the token of BAO_TOKEN" in page
    assert status == 0, page
