"""The composition root, in one process and without infrastructure."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from chassis import (
    BreakerOptions,
    Chassis,
    CircuitBreaker,
    ClientOptions,
    ConfigError,
    LoadShedder,
    bulkhead,
    rate_limit,
)
from chassis.background import background
from chassis.core import Event, Instance, Registration, Status, events, remaining
from chassis.discovery import MemoryDiscovery, MemoryRegistration
from chassis.limits import RateLimitOptions
from chassis.metrics import render
from chassis.server import Address
from chassis.service._policies import PolicyUnknown
from chassis.testing import dev_agent
from tests.client.scripted import ScriptedServer, answer
from tests.server.exchange import ask
from tests.support.waiting import eventually


def test_constructing_reads_nothing(tmp_path: Path) -> None:
    """Not even a setting that is wrong: it is told at the first use."""
    (tmp_path / "chassis.toml").write_text("not toml")
    chassis = Chassis("shop", file=tmp_path / "chassis.toml", environment={"CHASSIS_NONSENSE": "1"})
    chassis.client("catalog", timeout=0.5)
    chassis.settings(Shop)
    with pytest.raises(ConfigError, match="not TOML"):
        chassis.explain()


@pytest.mark.parametrize("name", ["", "no spaces", "-x", "a" * 64, "a/b"])
def test_a_name_that_can_be_no_host_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no service name"):
        Chassis(name)


def test_the_options_of_a_service_are_given_once() -> None:
    chassis = Chassis("shop", environment={})
    chassis.client("catalog", timeout=0.5)
    chassis.client("catalog")
    chassis.sync_client("catalog", timeout=0.5)
    with pytest.raises(ConfigError, match="client:catalog"):
        chassis.client("catalog", timeout=0.7)


def test_a_clients_single_options_change_fields_of_those_given_as_one() -> None:
    """As with every policy; None is a value, where an option has that."""
    chassis = Chassis("shop", environment={})
    all_at_once = ClientOptions(retries=0, max_in_flight=7, connect_timeout=0.5)
    chassis.client("orders", timeout=1.0, max_in_flight=None, options=all_at_once)
    upstream = chassis.upstreams.upstream("orders")  # type: ignore[attr-defined]  # the shipped Upstreams
    assert upstream.options == ClientOptions(timeout=1.0, retries=0, connect_timeout=0.5)


def test_the_front_door_gives_decorators_whatever_was_imported_before() -> None:
    code = (
        "import chassis.retries, chassis.fallbacks, chassis.service;"
        "from chassis import retry, fallback, timeout, bulkhead, log;"
        "print(all(callable(each) for each in (retry, fallback, timeout, bulkhead)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "True"


class Shop(BaseModel):
    currency: str = "USD"


@pytest.mark.asyncio
async def test_file_and_environment_give_a_service_its_settings(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('currency = "EUR"\n[chassis.server]\ndrain = "50ms"\n')
    chassis = Chassis("shop", file=file, environment={"CHASSIS_SERVER__GRACE": "3s"})
    settings = chassis.settings(Shop)
    async with chassis:
        assert settings.currency == "EUR"
        assert settings.origin("currency") == str(file)
        explained = chassis.explain()
        assert "environment CHASSIS_SERVER__GRACE" in explained
        assert "0.05" in explained


@pytest.mark.asyncio
async def test_a_misspelt_policy_is_told_with_the_one_that_may_be_meant(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[chassis.policies."clent:catalog"]\nretries = 0\n[chassis.policies."breaker:late"]\n')
    chassis = Chassis("shop", file=file, environment={})
    chassis.client("catalog")
    told: dict[str, str] = {}

    def note(event: Event) -> None:
        if isinstance(event, PolicyUnknown):
            told[event.subject] = event.suggestion

    unsubscribe = events.subscribe(note)
    async with chassis:
        unsubscribe()
    assert told == {"clent:catalog": "client:catalog", "breaker:late": ""}


@pytest.mark.asyncio
async def test_policies_follow_the_file_while_the_service_runs(tmp_path: Path) -> None:
    """Those of decorated functions, the client's own, and those that register later."""
    file = tmp_path / "shop.toml"
    file.write_text('[chassis.policies."breaker:late"]\nfailure_rate = 0.25\n')
    breaker = CircuitBreaker("live-payments", failure_rate=0.5)
    chassis = Chassis("shop", file=file, environment={})
    chassis.client("catalog", timeout=0.5)
    told: list[str] = []
    unsubscribe = events.subscribe(lambda event: told.append(f"{event.name} {event.subject}"))
    async with chassis:
        assert "policy.unknown breaker:late" in told
        unsubscribe()
        late = CircuitBreaker("late")
        assert late.options.failure_rate == 0.25
        file.write_text(
            '[chassis.policies."breaker:live-payments"]\nfailure_rate = 0.3\n'
            '[chassis.policies."client:catalog"]\nretries = 0\n'
            '[chassis.policies."client:catalog/breaker"]\nopen_for = "1s"\n'
        )
        await eventually(lambda: breaker.options.failure_rate == 0.3, 5, "the change")
        described = chassis.describe()["policies"]
        assert set(described) >= {"breaker:live-payments", "client:catalog", "client:catalog/breaker"}
        upstream = chassis.upstreams.upstream("catalog")  # type: ignore[attr-defined]  # the shipped Upstreams
        assert (upstream.options.retries, upstream.options.timeout) == (0, 0.5)
        assert upstream.breakers.options == BreakerOptions(open_for=1.0)
        assert late.options.failure_rate == 0.5

        # A value no policy could take never gets in.
        seen: list[str] = []
        stop = events.subscribe(lambda event: seen.append(event.name))
        file.write_text('[chassis.policies."breaker:live-payments"]\nfailure_rate = 30\n')
        await eventually(lambda: "config.rejected" in seen, 5, "the rejection")
        stop()
        assert breaker.options.failure_rate == 0.3


@pytest.mark.asyncio
async def test_the_clients_policies_hold_for_a_program_that_was_not_started(tmp_path: Path) -> None:
    """A script that makes a client and calls: its addresses are read, and so is what is said of its calls."""
    file = tmp_path / "script.toml"
    file.write_text(
        '[chassis.services]\ncatalog = "http://127.0.0.1:1"\n'
        '[chassis.policies."client:catalog"]\nretries = 0\n'
        '[chassis.policies."client:catalog/balancing"]\npolicy = "ordered"\n'
    )
    chassis = Chassis("script", file=file, environment={})
    async with chassis.client("catalog") as catalog:
        with pytest.raises(httpx2.ConnectError):
            await catalog.get("/")
    upstream = chassis.upstreams.upstream("catalog")  # type: ignore[attr-defined]  # the shipped Upstreams
    assert upstream.options.retries == 0
    assert chassis.describe()["policies"]["client:catalog/balancing"]["policy"] == "ordered"
    await chassis.stop()


@pytest.mark.asyncio
async def test_a_policy_that_cannot_be_used_is_told_with_its_origin_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[chassis.policies."client:catalog"]\nretrys = 3\n')
    chassis = Chassis("shop", file=file, environment={})
    chassis.client("catalog")
    with pytest.raises(ConfigError) as refused:
        await chassis.start()
    assert "retrys" in str(refused.value)
    assert "shop.toml" in str(refused.value)
    assert "did you mean" in str(refused.value)


@pytest.mark.asyncio
async def test_limits_follow_the_file_while_the_service_runs(tmp_path: Path) -> None:
    """Those of decorated functions by their names, and what the server sheds; ``/health`` shows both."""
    file = tmp_path / "shop.toml"
    file.write_text("")
    limit = rate_limit("live-search", rate=1, per=1000)
    gate = bulkhead("live-search", limit=1)
    shedder = LoadShedder("live-search")
    chassis = Chassis("shop", file=file, environment={"CHASSIS_SERVER__DEADLINE_HEADERS": "grpc-timeout"})
    edge = chassis.asgi(answering)
    async with chassis:
        assert chassis.describe()["shedding"]["options"]["max_in_flight"] is None
        file.write_text(
            '[chassis.policies."rate_limit:live-search"]\nrate = 100\nwait = "20ms"\n'
            '[chassis.policies."bulkhead:live-search"]\nlimit = 2\norder = "lifo"\n'
            '[chassis.policies."shedder:live-search"]\nmax_lag = "50ms"\n'
            "[chassis.server.shedding]\nmax_in_flight = 1\n"
        )
        await eventually(lambda: limit.options.rate == 100, 5, "the change")
        assert limit.options == RateLimitOptions(rate=100, per=1000, wait=0.02)
        assert (gate.options.limit, gate.options.order) == (2, "lifo")
        assert shedder.options.max_lag == 0.05
        answer = await ask(edge, headers={"grpc-timeout": "2S"})
        assert 1 < float(answer.body) <= 2
        described = chassis.describe()
        assert described["shedding"]["options"]["max_in_flight"] == 1
        assert set(described["policies"]) >= {
            "rate_limit:live-search",
            "bulkhead:live-search",
            "shedder:live-search",
        }


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the seconds it is given."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(remaining()).encode()})


@pytest.mark.asyncio
async def test_breaker_states_stand_in_metrics_and_description() -> None:
    discovery = MemoryDiscovery()
    with ScriptedServer(answer(500)) as server:
        discovery.put(Instance(id="pay-1", service="payments", host="127.0.0.1", port=server.port))
        chassis = Chassis("shop", environment={}, discovery=discovery)
        client = chassis.client("payments", breaker=BreakerOptions(consecutive_failures=1))
        async with chassis, client:
            assert 'chassis_breaker_open{breaker="client:payments/breaker/pay-1"} 1.0' not in page()
            await client.get("/")
            states = chassis.describe()["policies"]["client:payments/breaker"]["instances"]
            assert states["pay-1"]["state"] == "open"
            await eventually(
                lambda: 'chassis_breaker_open{breaker="client:payments/breaker/pay-1"} 1.0' in page(),
                5,
                "the page, which is kept for a second",
            )


@pytest.mark.asyncio
async def test_a_file_of_services_is_followed_while_the_service_runs(tmp_path: Path) -> None:
    """After what the settings say and before the registry; and a bad change takes nothing away."""
    file = tmp_path / "services.toml"
    chassis = Chassis("shop", environment={"CHASSIS_SERVICES_FILE": str(file)})
    with pytest.raises(
        ConfigError,
        match=r"^chassis\.services_file: .*services\.toml.* cannot be read.*CHASSIS_SERVICES_FILE",
    ):
        await chassis.start()
    with ScriptedServer(answer(200)) as server:
        file.write_text(f'[services]\ncatalog = "http://127.0.0.1:{server.port}"\n')
        chassis = Chassis(
            "shop",
            environment={
                "CHASSIS_SERVICES_FILE": str(file),
                "CHASSIS_SERVICES__ORDERS": f"http://127.0.0.1:{server.port}",
            },
        )
        catalog, orders = chassis.client("catalog"), chassis.client("orders")
        async with chassis, catalog, orders:
            assert (await catalog.get("/")).status_code == 200
            assert (await orders.get("/")).status_code == 200
            described = chassis.describe()["discovery"]
            assert (described["catalog"]["source"], described["orders"]["source"]) == ("file", "static")
            file.write_text("[services")
            await eventually(lambda: chassis.describe()["discovery"]["catalog"]["error"], 5, "the error")
            assert (await catalog.get("/")).status_code == 200


@pytest.mark.asyncio
async def test_maintenance_is_told_to_the_registry_whenever_it_was_asked_for() -> None:
    """Before the service is registered, while it is, and no more after it has left."""
    registry = MemoryDiscovery()
    chassis = Chassis("shop", environment={}, registrar=registry)

    def statuses() -> list[Status]:
        return [each.status for each in registry.instances("shop")]

    chassis.maintenance("migrating")
    async with chassis:
        await chassis.listening(Address("127.0.0.1", 8080))
        assert statuses() == [Status.MAINTENANCE]
        described = chassis.describe()["registration"]
        assert described["maintenance"] == {"reason": "migrating", "operator": False}
        chassis.maintenance(None)
        assert statuses() == [Status.PASSING]
        assert chassis.describe()["registration"]["maintenance"] is None
    assert statuses() == []


@pytest.mark.asyncio
async def test_case_21_who_is_told_to_stop_while_it_registers_leaves_no_ghost() -> None:
    """There is nothing to leave yet when it drains, so what comes of it is left when it has come."""
    asked, answers = asyncio.Event(), asyncio.Event()

    class Slow(MemoryDiscovery):
        async def register(self, registration: Registration) -> MemoryRegistration:
            asked.set()
            await answers.wait()
            return await super().register(registration)

    registry, ready = Slow(), []
    chassis = Chassis("shop", environment={}, registrar=registry)
    async with chassis:
        chassis.on_ready(lambda *told: ready.append(told))
        announcing = asyncio.create_task(chassis.listening(Address("127.0.0.1", 8080)))
        await asked.wait()
        await chassis.drain()
        answers.set()
        await announcing
        assert registry.instances("shop") == ()
        assert ready == []


def page() -> str:
    return render().body.decode()


@pytest.mark.asyncio
async def test_a_task_runs_again_and_again_also_after_a_failure() -> None:
    chassis = Chassis("shop", environment={})
    runs: list[int] = []

    @chassis.task(every=0.01)
    async def work() -> None:
        runs.append(len(runs))
        raise ValueError("this run")

    @chassis.task(every=0.01)
    def work_in_a_thread() -> None:
        runs.append(-1)

    async with chassis:
        await eventually(lambda: len([run for run in runs if run >= 0]) >= 3, 5, "three runs")
        await eventually(lambda: runs.count(-1) >= 3, 5, "three runs in a thread")
    ended = len(runs)
    await asyncio.sleep(0)
    assert len(runs) == ended


@pytest.mark.asyncio
async def test_an_application_has_one_chassis() -> None:
    from starlette.applications import Starlette

    app = Starlette()
    Chassis("shop", environment={}).install(app)
    with pytest.raises(ConfigError, match="has a chassis already"):
        Chassis("other", environment={}).install(app)
    with pytest.raises(ConfigError, match=r"chassis\.asgi\(app\)"):
        Chassis("shop", environment={}).install(object())


def test_two_services_in_one_process_may_call_the_same_one() -> None:
    """Each has its own client's policies; those of decorated functions are the process's."""
    first, second = Chassis("a", environment={}), Chassis("b", environment={})
    first.client("catalog", timeout=1.0)
    second.client("catalog", timeout=2.0)
    del first, second
    gc.collect()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("required", "told"),
    [("consul", "set CONSUL_HTTP_ADDR"), ("vault", "set BAO_ADDR or VAULT_ADDR"), ("redis", "no system")],
)
async def test_what_is_required_must_be_known(required: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        await Chassis("shop", environment={"CHASSIS_REQUIRED": required}).start()


@pytest.mark.asyncio
async def test_a_chassis_that_was_stopped_can_be_started_again() -> None:
    """What a start adds, its stop takes away: here the check of a registry, which is added once."""
    with dev_agent() as agent:
        chassis = Chassis("shop", environment={"CONSUL_HTTP_ADDR": agent.url})
        for _ in range(2):
            async with chassis:
                assert "consul kv config/shop/data" in chassis.describe()["configuration"]["sources"]


@pytest.mark.asyncio
@pytest.mark.parametrize("infrastructure", [False, True])
async def test_a_start_that_fails_leaves_nothing_running_and_can_be_repeated(
    tmp_path: Path, infrastructure: bool
) -> None:
    """Else its watchers went on for as long as the process, in a program that has given up on it."""

    async def running() -> set[str]:
        return {each.get_name() for each in asyncio.all_tasks() if each is not asyncio.current_task()}

    file = tmp_path / "services.toml"
    with dev_agent() as agent:
        before = await background.run(running, name="running")
        environment = {"CONSUL_HTTP_ADDR": agent.url} if infrastructure else {}
        chassis = Chassis("shop", environment={**environment, "CHASSIS_SERVICES_FILE": str(file)})
        with pytest.raises(ConfigError, match=r"chassis\.services_file"):
            await chassis.start()
        assert await background.run(running, name="running") <= before
        file.write_text('[services]\ncatalog = "http://127.0.0.1:1"\n')
        async with chassis:
            assert "telemetry" in chassis.describe()
