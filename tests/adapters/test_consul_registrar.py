"""A registration kept alive in Consul."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chassis.adapters.consul import (
    ConsulAPI,
    ConsulOptions,
    ConsulRegistrar,
    ConsulRegistrarOptions,
    ConsulRegistration,
)
from chassis.adapters.consul._definition import definition
from chassis.background import background
from chassis.core import ConfigError, Event, Registration, Status, events
from chassis.discovery import (
    AddressShared,
    Deregistered,
    MaintenanceBegun,
    MaintenanceEnded,
    RegistrationConfirmed,
    RegistrationDrifted,
    RegistrationLost,
    RegistrationRefused,
    RegistrationUnreachable,
)
from tests.support.ports import free_port
from tests.support.scripted_agent import Answer, Asked, ScriptedAgent
from tests.support.servers import ConsulServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio


def registration(service: str = "catalog", port: int = 8080, **more: Any) -> Registration:
    return Registration(
        service=service, id=f"{service}:127.0.0.1:{port}", host="127.0.0.1", port=port, **more
    )


class Scripted:
    """An agent that holds registrations, and can be told to forget, refuse or hide them."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.hidden = False
        self.lost_check = False
        self.override: Answer | None = None
        self.lost = Answer("Unknown check ID", 404)
        self.index = 1
        self.maintenance: dict[str, str] = {}

    def __call__(self, asked: Asked) -> Answer:
        parts = asked.path.split("/")
        if parts[2] == "health":
            end = time.monotonic() + 2
            while asked.query.get("index") == str(self.index) and time.monotonic() < end:
                time.sleep(0.005)
            # Read before what it stands for: else a change in between would be missed by who waits on it.
            index = self.index
            held = [] if self.hidden else list(self.known.values())
            entries = [
                {
                    "Service": {"ID": each["ID"], "Service": each["Name"]},
                    "Checks": [
                        {"CheckID": f"_service_maintenance:{key}", "Notes": reason, "Status": "critical"}
                        for key, reason in self.maintenance.items()
                        if key == each["ID"]
                    ],
                }
                for each in held
            ]
            return Answer(json.dumps(entries), headers={"X-Consul-Index": str(index)})
        if self.override is not None:
            return self.override
        if asked.path == "/v1/agent/services":
            assert asked.query["filter"] == "Port == 8080"
            return Answer(json.dumps({key: self.held(each) for key, each in self.known.items()}))
        if asked.method == "GET":
            each = self.known.get(parts[-1])
            return Answer("unknown service ID", 404) if each is None else Answer(json.dumps(self.held(each)))
        if parts[4] == "maintenance":
            if asked.query["enable"] == "true":
                self.maintenance.setdefault(parts[-1], asked.query["reason"])
            else:
                self.maintenance.pop(parts[-1], None)
            self.index += 1
        elif parts[-1] == "register":
            definition = json.loads(asked.body)
            self.known[definition["ID"]] = definition
            self.lost_check = False
            self.index += 1
        elif parts[4] == "deregister":
            self.known.pop(parts[-1], None)
            self.maintenance.pop(parts[-1], None)
            self.index += 1
        elif parts[3] == "check" and self.lost_check:
            return self.lost
        return Answer()

    @staticmethod
    def held(definition: dict[str, Any]) -> dict[str, Any]:
        """A service as an agent shows it."""
        fields = {name: definition[name] for name in ("ID", "Address", "Port", "Meta", "Weights")}
        return {**fields, "Service": definition["Name"], "Tags": definition["Tags"], "ContentHash": "x"}


def beats(server: ScriptedAgent) -> list[dict[str, str]]:
    return [json.loads(each.body) for each in server.asked if "/check/update/" in each.path]


def registers(server: ScriptedAgent) -> list[dict[str, Any]]:
    return [json.loads(each.body) for each in server.asked if each.path.endswith("/register")]


class Register:
    """Registers, and ends what was registered."""

    def __init__(self) -> None:
        self.handles: list[ConsulRegistration] = []
        self.apis: list[ConsulAPI] = []
        self.events: list[Event] = []

    async def __call__(
        self, url: str, what: Registration, *, ttl: float = 15.0, **options: Any
    ) -> ConsulRegistration:
        self.apis.append(ConsulAPI(ConsulOptions(**{"url": url, "timeout": 1.0, **options})))
        registrar = ConsulRegistrar(self.apis[-1], ConsulRegistrarOptions(ttl=ttl))
        self.handles.append(await registrar.register(what))
        return self.handles[-1]

    def of(self, kind: type[Event]) -> list[Event]:
        return [each for each in self.events if isinstance(each, kind)]


@pytest_asyncio.fixture
async def register() -> AsyncIterator[Register]:
    register = Register()
    unsubscribe = events.subscribe(register.events.append)
    # What nobody heard when it happened is replayed, and is another test's.
    register.events.clear()
    yield register
    for handle in register.handles:
        await handle.deregister()
    for api in register.apis:
        await background.run(api.aclose, name="close")
    unsubscribe()


# against a script


async def test_it_registers_with_everything_consul_can_know_and_beats_at_once(register: Register) -> None:
    what = registration(
        scheme="https",
        zone="z1",
        tags=("blue",),
        meta={"version": "2"},
        weight=3,
        readiness=lambda: (Status.WARNING, "so so"),
    )
    with ScriptedAgent(Scripted()) as server:
        handle = await register(server.url, what, ttl=9.0)
        # The event follows the confirmation, in the background thread.
        await eventually(lambda: register.of(RegistrationConfirmed), what="confirmation")
        assert handle.confirmed
    (sent,) = registers(server)
    assert sent == {
        "ID": "catalog:127.0.0.1:8080",
        "Name": "catalog",
        "Address": "127.0.0.1",
        "Port": 8080,
        "Tags": ["blue"],
        "Meta": {"version": "2", "scheme": "https", "zone": "z1"},
        "Weights": {"Passing": 3, "Warning": 1},
        "Checks": [
            {
                "CheckID": "service:catalog:127.0.0.1:8080",
                "Name": "heartbeat",
                "TTL": "9000ms",
                "DeregisterCriticalServiceAfter": "600000ms",
                "Status": "warning",
            }
        ],
    }
    assert beats(server) == [{"Status": "warning", "Output": "so so"}]
    assert [each.subject for each in register.of(RegistrationConfirmed)] == [what.id]


async def test_a_heartbeat_carries_the_readiness_of_its_moment(register: Register) -> None:
    told = [(Status.PASSING, "ready")]
    with ScriptedAgent(Scripted()) as server:
        await register(server.url, registration(readiness=lambda: told[0]), ttl=0.3)
        await eventually(lambda: {"Status": "passing", "Output": "ready"} in beats(server))
        told[0] = (Status.CRITICAL, "no database")
        await eventually(lambda: {"Status": "critical", "Output": "no database"} in beats(server))
        told[0] = (Status.MAINTENANCE, "updating")
        await eventually(lambda: {"Status": "critical", "Output": "updating"} in beats(server))


async def test_a_readiness_check_that_raises_makes_it_critical_and_ends_no_heartbeat(
    register: Register,
) -> None:
    def fail() -> tuple[Status, str]:
        raise ZeroDivisionError

    with ScriptedAgent(Scripted()) as server:
        await register(server.url, registration(readiness=fail), ttl=0.3)
        await eventually(lambda: len(beats(server)) > 2, what="heartbeats")
        assert {each["Status"] for each in beats(server)} == {"critical"}
        assert registers(server)[0]["Checks"][0]["Status"] == "critical"


@pytest.mark.parametrize(
    "lost",
    [
        Answer('Unknown check ID "service:catalog:127.0.0.1:8080"', 404),
        Answer('CheckID "service:catalog:127.0.0.1:8080" does not have associated TTL', 500),
    ],
)
async def test_case_17_a_lost_registration_is_renewed_in_both_forms_of_loss(
    register: Register, lost: Answer
) -> None:
    agent = Scripted()
    agent.lost = lost
    with ScriptedAgent(agent) as server:
        handle = await register(server.url, registration(), ttl=0.6)
        await eventually(lambda: handle.confirmed)
        agent.lost_check = True  # what the catalog shows is another matter
        await eventually(lambda: len(registers(server)) == 2, 3, "the renewal")
        await eventually(lambda: handle.confirmed)
        assert len(register.of(RegistrationLost)) == 1
        assert len(registers(server)) == 2


async def test_case_5b_absence_from_the_catalog_is_healed_although_heartbeats_are_answered(
    register: Register,
) -> None:
    agent = Scripted()
    with ScriptedAgent(agent) as server:
        handle = await register(server.url, registration(), ttl=3.0)
        await eventually(lambda: handle.confirmed)
        agent.hidden = True
        agent.index += 1
        await eventually(lambda: len(registers(server)) == 2, 6, "the renewal")
        agent.hidden = False
        agent.index += 1
        await eventually(lambda: handle.confirmed)
        assert len(registers(server)) == 2


async def test_a_registration_is_looked_for_in_the_datacenter_of_its_agent(register: Register) -> None:
    """Whichever others are looked up in: it would be missing there for ever, and renewed for ever."""
    with ScriptedAgent(Scripted()) as server:
        handle = await register(server.url, registration(), datacenter="dc2")
        await eventually(lambda: handle.confirmed)
        await eventually(lambda: any("/health/" in each.path for each in server.asked))
        assert not any("dc" in each.query for each in server.asked)


async def test_an_error_of_the_agent_that_is_no_loss_does_not_register_anew(register: Register) -> None:
    agent = Scripted()
    with ScriptedAgent(agent) as server:
        handle = await register(server.url, registration(), ttl=0.3)
        await eventually(lambda: handle.confirmed)
        agent.override = Answer("rpc error", 500)
        await eventually(lambda: register.of(RegistrationUnreachable), what="the trouble")
        assert not handle.confirmed
        agent.override = None
        await eventually(lambda: handle.confirmed)
        assert len(registers(server)) == 1


async def test_a_refused_registration_is_told_of_once_and_tried_again(register: Register) -> None:
    agent = Scripted()
    agent.override = Answer("Permission denied", 403)
    with ScriptedAgent(agent) as server:
        handle = await register(server.url, registration(), ttl=0.3)
        await eventually(lambda: len(registers(server)) > 2, what="further tries")
        assert not handle.confirmed
        assert len(register.of(RegistrationRefused)) == 1
        agent.override = None
        await eventually(lambda: handle.confirmed)


async def test_case_21_deregistering_stops_the_heartbeat_first_and_leaves_no_ghost(
    register: Register,
) -> None:
    agent = Scripted()
    with ScriptedAgent(agent) as server:
        handle = await register(server.url, registration(), ttl=0.3)
        await eventually(lambda: handle.confirmed)
        await handle.deregister()
        await handle.deregister()
        assert agent.known == {}
        assert not handle.confirmed
        paths = [each.path for each in server.asked if "/agent/" in each.path]
        assert paths[-1].endswith("/deregister/catalog:127.0.0.1:8080")
        assert len([each for each in paths if "/deregister/" in each]) == 1
        count = len(paths)
        await asyncio.sleep(0.3)
        assert len([each for each in server.asked if "/agent/" in each.path]) == count
        assert [each.details() for each in register.of(Deregistered)] == [{"error": ""}]


async def test_case_21_a_registration_on_its_way_is_not_overtaken_by_the_deregistration(
    register: Register,
) -> None:
    agent = Scripted()

    def slowly(asked: Asked) -> Answer:
        if asked.path.endswith("/register"):
            time.sleep(0.3)
        return agent(asked)

    with ScriptedAgent(slowly) as server:
        handle = await register(server.url, registration())
        await eventually(lambda: registers(server), what="the registration to be on its way")
        await handle.deregister()
        assert len([each for each in server.asked if "/deregister/" in each.path]) == 1, "it was waited for"
        await asyncio.sleep(0.4)
        assert agent.known == {}


async def test_case_15_a_process_that_starts_without_its_registry_registers_when_that_comes(
    register: Register,
) -> None:
    port = free_port()
    handle = await register(f"http://127.0.0.1:{port}", registration())
    await eventually(lambda: register.of(RegistrationUnreachable), what="the trouble")
    assert not handle.confirmed
    with ScriptedAgent(Scripted(), port=port) as server:
        await eventually(lambda: handle.confirmed, 5, "confirmation")
        assert len(registers(server)) == 1


@pytest.mark.integration  # for its time
async def test_case_23_deregistering_at_a_dead_agent_takes_no_longer_than_its_cap(register: Register) -> None:
    with ScriptedAgent(Scripted()) as server:
        handle = await register(server.url, registration(), timeout=20.0)
        await eventually(lambda: handle.confirmed)
        server.script = lambda asked: time.sleep(8) or Answer()  # type: ignore[func-returns-value]
        begun = time.monotonic()
        await handle.deregister()
        assert time.monotonic() - begun < 3 + 2, "the cap of 3 s, and not the 8 s of the agent"
    (ended,) = register.of(Deregistered)
    assert "did not answer" in str(ended.details()["error"])


@pytest.mark.integration  # for its time
async def test_case_19_what_an_operator_changed_is_registered_again(register: Register) -> None:
    agent = Scripted()
    with ScriptedAgent(agent) as server:
        handle = await register(server.url, registration(tags=("blue",)))
        await eventually(lambda: handle.confirmed)
        agent.known[handle._registration.id]["Tags"] = ["green"]
        await eventually(lambda: register.of(RegistrationDrifted), 10, "the drift to be seen")
        # The agent has taken it a moment after it was asked to.
        known = agent.known
        await eventually(lambda: known[handle._registration.id]["Tags"] == ["blue"], what="the renewal")
        assert len(registers(server)) == 2
        (drifted,) = register.of(RegistrationDrifted)
        assert drifted.details() == {"error": "the agent holds another Tags"}
        assert handle.confirmed


async def test_case_19_an_operators_maintenance_is_respected_and_told(register: Register) -> None:
    agent = Scripted()
    with ScriptedAgent(agent) as server:
        handle = await register(server.url, registration(), ttl=0.3)
        await eventually(lambda: handle.confirmed)
        key = handle._registration.id
        agent.maintenance[key] = "new disk"
        agent.index += 1
        await eventually(lambda: register.of(MaintenanceBegun), what="the event")
        assert handle.describe()["maintenance"] == {"reason": "new disk", "operator": True}
        handle.maintenance(None)  # asked for by the service: it is not its own to end
        handle.maintenance("ours")
        handle.maintenance(None)
        before = len(beats(server))
        await eventually(lambda: len(beats(server)) > before + 2, what="further heartbeats")
        assert agent.maintenance == {key: "new disk"}
        del agent.maintenance[key]
        agent.index += 1
        await eventually(lambda: register.of(MaintenanceEnded), what="the event")
        assert handle.describe()["maintenance"] is None


async def test_maintenance_of_the_services_own_outlives_a_loss_and_ends_by_its_word(
    register: Register,
) -> None:
    agent = Scripted()
    with ScriptedAgent(agent) as server:
        handle = await register(server.url, registration(), ttl=0.6)
        handle.maintenance("migrating")
        await eventually(lambda: register.of(MaintenanceBegun), what="the event")
        assert handle.describe()["maintenance"] == {"reason": "migrating", "operator": False}
        agent.known.clear()
        agent.maintenance.clear()
        agent.lost_check = True
        await eventually(lambda: agent.maintenance and len(registers(server)) == 2, 5, "it to be told again")
        # Its end is what follows its sight, and the loss had taken that away.
        await eventually(lambda: handle.describe()["maintenance"], what="the catalog to show it again")
        # Another worker of the same address may end it: they are one instance.
        other = await register(server.url, registration(), ttl=0.6)
        await eventually(lambda: other.describe()["maintenance"], what="the other worker to see it")
        other.maintenance(None)
        await eventually(lambda: not agent.maintenance, what="its end")
        await eventually(lambda: handle._machine.maintenance is None, what="the first to see it")
        assert handle.describe()["maintenance"] is None


class Lagging(Scripted):
    """After a loss its catalog shows the registration before the maintenance, and is heard after that was told."""

    def __init__(self) -> None:
        super().__init__()
        self.lost_once = False
        self.shown, self.beaten = threading.Event(), threading.Event()

    def __call__(self, asked: Asked) -> Answer:
        if self.lost_once and asked.path.split("/")[4] == "maintenance":
            assert self.shown.wait(5)
        answer = super().__call__(asked)
        if (
            self.lost_once
            and "/health/" in asked.path
            and self.known
            and b"maintenance" not in _bytes(answer)
        ):
            self.shown.set()
            assert self.beaten.wait(5)
        if self.maintenance and self.shown.is_set() and "/check/update/" in asked.path:
            self.beaten.set()
        return answer


def _bytes(answer: Answer) -> bytes:
    return answer.body.encode() if isinstance(answer.body, str) else answer.body


async def test_maintenance_outlives_a_loss_though_the_catalog_is_heard_late(register: Register) -> None:
    """What the catalog showed before the maintenance was told again is nobody's word that it is over."""
    agent = Lagging()
    with ScriptedAgent(agent) as server:
        handle = await register(server.url, registration(), ttl=0.6)
        handle.maintenance("migrating")
        await eventually(lambda: register.of(MaintenanceBegun), what="the event")
        agent.known.clear()
        agent.maintenance.clear()
        agent.lost_once = agent.lost_check = True
        await eventually(agent.beaten.is_set, 5, "it to be told again")
        await eventually(lambda: handle.describe()["maintenance"], what="the catalog to show it again")
        assert register.of(MaintenanceEnded) == []
        assert handle._machine.maintenance == "migrating"


async def test_an_operators_maintenance_that_stood_before_the_services_own_is_followed_by_it(
    register: Register,
) -> None:
    agent = Scripted()
    with ScriptedAgent(agent) as server:
        handle = await register(server.url, registration(), ttl=0.6)
        await eventually(lambda: handle.confirmed)
        agent.maintenance[handle._registration.id] = "new disk"
        agent.index += 1
        await eventually(lambda: register.of(MaintenanceBegun), what="the event")
        handle.maintenance("migrating")
        await eventually(lambda: [each for each in server.asked if "/maintenance/" in each.path])
        agent.maintenance.clear()
        agent.index += 1
        await eventually(lambda: agent.maintenance, what="the service's own")
        assert handle.describe()["confirmed"]


async def test_case_40_others_registered_at_the_same_address_are_told_of_once(register: Register) -> None:
    agent = Scripted()
    with ScriptedAgent(agent) as server:
        await register(server.url, registration("other"))
        await eventually(lambda: agent.known)
        elsewhere = {**next(iter(agent.known.values())), "ID": "elsewhere", "Address": "10.0.0.9"}
        agent.known["elsewhere"] = elsewhere
        handle = await register(server.url, registration())
        shares = "shares_its_address_with"
        await eventually(lambda: handle.describe()[shares], 5, "the others to be seen")
        assert handle.describe()[shares] == ["other:127.0.0.1:8080"]
        seen = [each for each in register.of(AddressShared) if each.subject == handle._registration.id]
        assert [each.details() for each in seen] == [{"others": ("other:127.0.0.1:8080",)}]


async def test_a_registration_describes_itself(register: Register) -> None:
    agent = Scripted()
    with ScriptedAgent(agent) as server:
        handle = await register(
            server.url, registration(readiness=lambda: (Status.WARNING, "so so")), ttl=0.3
        )
        await eventually(lambda: handle.confirmed)
        described = dict(handle.describe())
        assert described.pop("heartbeat")["status"] == "warning"
        assert described == {
            "id": "catalog:127.0.0.1:8080",
            "confirmed": True,
            "trouble": None,
            "maintenance": None,
            "shares_its_address_with": [],
        }
        agent.override = Answer("Permission denied", 403)
        await eventually(lambda: handle.describe()["trouble"], what="the trouble")
        assert "Permission denied" in handle.describe()["trouble"]


async def test_a_token_that_was_rotated_is_read_again_and_heals_the_registration(
    register: Register, tmp_path: Path
) -> None:
    """Refused with the old token: degraded, told of, and tried again with what the file holds then."""
    agent, file = Scripted(), tmp_path / "token"
    file.write_text("old")
    valid = ["old"]

    def guarded(asked: Asked) -> Answer:
        if asked.headers.get("x-consul-token") not in valid:
            return Answer("ACL not found", 403)
        return agent(asked)

    with ScriptedAgent(guarded) as server:
        handle = await register(server.url, registration(), ttl=0.3, token_file=str(file))
        await eventually(lambda: handle.confirmed)
        valid[:] = ["new"]
        await eventually(lambda: register.of(RegistrationRefused), what="the refusal")
        assert not handle.confirmed
        file.write_text("new")
        await eventually(lambda: handle.confirmed, what="the new token to be used")
        assert len(registers(server)) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"port": 0}, "port: 0 is not a port"),
        ({"meta": {"a b": "1"}}, "meta: 'a b' cannot be a key"),
        ({"meta": {"a": "x" * 513}}, "meta: the value of 'a' is 513 long"),
        ({"meta": {f"k{number}": "" for number in range(63)}}, "meta: 63 keys are too many"),
    ],
)
async def test_case_37_what_consul_would_refuse_or_wrongly_accept_is_refused_here(
    wrong: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"service": "a", "id": "a:1", "host": "h", "port": 1, **wrong}
    registrar = ConsulRegistrar(ConsulAPI(ConsulOptions()))
    with pytest.raises(ConfigError) as caught:
        await registrar.register(Registration(**given))
    assert str(caught.value).startswith(message)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": 0},
        {"deregister_after": "10m"},
        {"deregister_after": 59},
        {"http_check": "readyz"},
        {"http_check_interval": 0},
        {"http_check_timeout": -1},
    ],
)
async def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ConsulRegistrarOptions(**options)


async def test_the_agent_can_be_told_to_ask_the_instance_too() -> None:
    """Beside the heartbeat, and at the address that callers use."""
    what = Registration(service="a", id="a:1", host="fd00::1", port=8443, scheme="https")
    plain = definition(what, ConsulRegistrarOptions(), check_id="service:a:1")
    assert [each["Name"] for each in plain["Checks"]] == ["heartbeat"]
    options = ConsulRegistrarOptions(http_check="/readyz", http_check_interval=3, http_check_timeout=0.5)
    heartbeat, http = definition(what, options, check_id="service:a:1")["Checks"]
    assert heartbeat == plain["Checks"][0]
    assert http == {
        "CheckID": "service:a:1:http",
        "Name": "http",
        "HTTP": "https://[fd00::1]:8443/readyz",
        "Interval": "3000ms",
        "Timeout": "500ms",
        "Status": "passing",
    }


async def test_an_instance_that_beats_is_not_forgotten_because_it_does_not_answer() -> None:
    """It would be registered again at once, and be called passing until the agent has asked it."""
    what = Registration(service="a", id="a:1", host="h", port=1)
    checks = definition(what, ConsulRegistrarOptions(http_check="/"), check_id="a")["Checks"]
    assert [each.get("DeregisterCriticalServiceAfter") for each in checks] == ["600000ms", None]


# a real agent


async def test_an_instance_that_beats_and_does_not_answer_is_critical_to_a_real_agent(
    consul_server: ConsulServer,
) -> None:
    statuses = {"/readyz": 200}
    with ScriptedAgent(lambda asked: Answer(status=statuses[asked.path])) as instance:
        what = registration("asked", port=int(instance.url.rpartition(":")[2]))
        async with ConsulAPI(ConsulOptions(url=consul_server.url)) as api:
            options = ConsulRegistrarOptions(http_check="/readyz", http_check_interval=1.0)
            handle = await ConsulRegistrar(api, options).register(what)

            async def stands(http: str) -> bool:
                (entry,) = (await api.health("asked")).value
                checks = {each["Name"]: each["Status"] for each in entry["Checks"]}
                return (checks["heartbeat"], checks["http"]) == ("passing", http)

            try:
                await eventually(lambda: handle.confirmed)
                await eventually(lambda: instance.asked, what="the agent's question")
                statuses["/readyz"] = 503
                await eventually(lambda: stands("critical"), what="the check to fail")
                statuses["/readyz"] = 200
                await eventually(lambda: stands("passing"), what="the check to pass")
            finally:
                await handle.deregister()


async def found(api: ConsulAPI, service: str) -> list[tuple[str, str]]:
    """The ids of the service's instances, each with the status of its own check."""
    entries = (await api.health(service)).value
    return [(each["Service"]["ID"], each["Checks"][-1]["Status"]) for each in entries]


async def test_registered_beaten_and_deregistered_with_a_real_agent(
    consul_server: ConsulServer, register: Register
) -> None:
    told = [(Status.PASSING, "ready")]
    what = registration("registered", readiness=lambda: told[0])
    async with ConsulAPI(ConsulOptions(url=consul_server.url)) as api:
        handle = await register(consul_server.url, what, ttl=2.0)
        await eventually(lambda: handle.confirmed)

        async def passing() -> bool:
            return await found(api, "registered") == [(what.id, "passing")]

        await eventually(passing, what="the instance to be passing")
        told[0] = (Status.CRITICAL, "no database")

        async def critical() -> bool:
            return await found(api, "registered") == [(what.id, "critical")]

        await eventually(critical, what="the heartbeat to say so")
        told[0] = (Status.PASSING, "ready")
        await handle.deregister()
        assert await found(api, "registered") == []


async def test_case_18_registering_with_consul_down_succeeds_when_it_comes(
    own_consul_server: ConsulServer, register: Register
) -> None:
    await asyncio.to_thread(own_consul_server.stop)
    handle = await register(own_consul_server.url, registration("late"))
    await eventually(lambda: register.of(RegistrationUnreachable), what="the trouble")
    assert not handle.confirmed
    await asyncio.to_thread(own_consul_server.start)
    await eventually(lambda: handle.confirmed, 20, "confirmation")


async def test_cases_5_and_17_an_agent_that_came_back_blank_knows_the_instance_again_soon(
    own_consul_server: ConsulServer, register: Register
) -> None:
    what = registration("back")
    handle = await register(own_consul_server.url, what)
    await eventually(lambda: handle.confirmed)
    await asyncio.to_thread(own_consul_server.kill)
    await asyncio.to_thread(own_consul_server.start)
    async with ConsulAPI(ConsulOptions(url=own_consul_server.url)) as api:

        async def again() -> bool:
            return await found(api, "back") == [(what.id, "passing")]

        # Noticed by the catalog's watch or the next heartbeat (5.5 s at most), and renewed within a second
        # more; the rest is a busy machine's.
        await eventually(again, 12, "the renewal")


async def test_case_19_an_operator_is_overruled_in_deregistering_but_not_in_maintenance(
    consul_server: ConsulServer, register: Register
) -> None:
    what = registration("operated")
    async with ConsulAPI(ConsulOptions(url=consul_server.url)) as api:
        handle = await register(consul_server.url, what, ttl=1.5)
        await eventually(lambda: handle.confirmed)
        await asyncio.sleep(2.0)  # the time in which absence means nothing yet
        await api.deregister_service(what.id)

        async def again() -> bool:
            return await found(api, "operated") == [(what.id, "passing")]

        await eventually(again, 15, "the renewal")
        await api.service_maintenance(what.id, True, reason="a test")
        await asyncio.sleep(1.2)  # some heartbeats more

        async def kept_up() -> bool:
            (entry,) = (await api.health("operated")).value
            checks = {each["CheckID"]: each["Status"] for each in entry["Checks"]}
            own, operators = checks[f"service:{what.id}"], checks.get(f"_service_maintenance:{what.id}")
            return (own, operators, handle.confirmed) == ("passing", "critical", True)

        await eventually(kept_up, what="heartbeats to go on beneath the maintenance")


async def test_cases_19_and_40_a_real_agent_shows_what_was_changed_and_who_shares_the_address(
    consul_server: ConsulServer, register: Register
) -> None:
    async with ConsulAPI(ConsulOptions(url=consul_server.url)) as api:
        await api.register_service(
            {"ID": "neighbour", "Name": "neighbour", "Address": "127.0.0.1", "Port": 8099}
        )
        what = registration("changed", port=8099, tags=("blue",), meta={"version": "2"}, weight=3)
        handle = await register(consul_server.url, what)
        await eventually(lambda: handle.confirmed)
        shares = "shares_its_address_with"
        await eventually(lambda: handle.describe()[shares] == ["neighbour"], 5, "the neighbour to be seen")
        assert not register.of(RegistrationDrifted), "what was told is what is held"
        await api.register_service({"ID": what.id, "Name": "changed", "Address": "127.0.0.1", "Port": 8099})
        handle._machine._inspect_at = 0.0  # the minute is over
        handle._changed.set()
        await eventually(lambda: register.of(RegistrationDrifted), 5, "the drift to be seen")

        async def again() -> bool:
            held = await api.agent_service(what.id)
            return held is not None and held["Tags"] == ["blue"] and held["Weights"]["Passing"] == 3

        await eventually(again, 15, "the renewal")
        await api.deregister_service("neighbour")


async def test_without_heartbeats_consul_calls_the_instance_critical(
    own_consul_server: ConsulServer, register: Register
) -> None:
    what = registration("silent")
    handle = await register(own_consul_server.url, what, ttl=1.0)
    await eventually(lambda: handle.confirmed)
    handle._machine.end()  # as a process that hangs does
    handle._changed.set()
    async with ConsulAPI(ConsulOptions(url=own_consul_server.url)) as api:

        async def critical() -> bool:
            return await found(api, "silent") == [(what.id, "critical")]

        await eventually(critical, what="the TTL to run out")
