from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._errors import (
    ConsulError,
    ConsulNotFound,
    ConsulUnavailable,
    ConsulUnreachable,
)
from chassis.adapters.consul._hub import ServiceQuery, Told, hub
from chassis.adapters.consul._protocol import ConsulRequest, duration, parse, path
from chassis.background import background
from chassis.core.clock import monotonic
from chassis.core.contracts import Registration
from chassis.core.errors import ConfigError
from chassis.core.events import Event, events
from chassis.core.instances import Reason, Status
from chassis.core.options import Seconds, check_seconds
from chassis.discovery import (
    AddressShared,
    Deregistered,
    MaintenanceBegun,
    MaintenanceEnded,
    RegistrationMachine,
    Task,
    WatchFailed,
    check_registration,
    readiness,
)

_CHECK_STATUS = {Status.PASSING: "passing", Status.WARNING: "warning"}
_DEREGISTER_CAP = 3.0
_BY_SERVICE = " (asked for by the service itself)"
"""Ends the reason of a maintenance that the service set, so that its other workers may end it."""
_META_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, kw_only=True)
class ConsulRegistrarOptions:
    """How a registration is kept alive.

    :param ttl: seconds without a heartbeat after which Consul calls the instance critical; a
        heartbeat is sent every third of it.
    :param deregister_after: seconds of being critical after which Consul forgets the instance; it
        is for ghosts of processes that were killed. Consul takes no less than 60.
    :raises ConfigError: a value cannot be used.
    """

    ttl: Seconds = 15.0
    deregister_after: Seconds = 600.0

    def __post_init__(self) -> None:
        check_seconds("ttl", self.ttl)
        check_seconds("deregister_after", self.deregister_after)
        if self.deregister_after < 60:
            raise ConfigError(
                f"{self.deregister_after!r} is too short",
                setting="deregister_after",
                remedy="give at least 60 seconds, which is Consul's own least",
            )


class ConsulRegistrar:
    """Announces this process to a Consul agent: a ``Registrar``.

    Heartbeats have a connection of their own, so that watches, which may take all connections an
    agent grants one client, never starve them.

    :param api: the agent.
    """

    def __init__(self, api: ConsulAPI, options: ConsulRegistrarOptions | None = None) -> None:
        self._api = api
        self.options = options or ConsulRegistrarOptions()

    def __repr__(self) -> str:
        return f"ConsulRegistrar({self._api.options.url!r})"

    async def register(self, registration: Registration) -> ConsulRegistration:
        """Announce ``registration`` and keep it announced until it is deregistered.

        Returns at once, whether Consul answers or not; ``confirmed`` tells when it did.

        :raises ConfigError: the registration itself cannot be accepted.
        """
        check_registration(registration)
        check_meta(registration)
        registered = ConsulRegistration(self._api, registration, self.options)
        await _in_background(registered.start, name=f"register:{registration.id}")
        return registered


class ConsulRegistration:
    """One registration that is being kept alive: a ``Registered``."""

    def __init__(self, api: ConsulAPI, registration: Registration, options: ConsulRegistrarOptions) -> None:
        self._agent = ConsulAPI(api.options)
        self._registration = registration
        self._options = options
        self._machine = RegistrationMachine(registration.id, ttl=options.ttl, now=monotonic())
        self._check_id = f"service:{registration.id}"
        self._told: tuple[str, str, float] | None = None
        self._maintenance: str | None = None
        self._sharing: tuple[str, ...] = ()
        self._ended = False

    def __repr__(self) -> str:
        return f"ConsulRegistration({self._registration.id!r}, confirmed={self.confirmed})"

    @property
    def confirmed(self) -> bool:
        """Whether Consul has taken the registration and the last heartbeat went through."""
        return self._machine.confirmed

    def maintenance(self, reason: str | None) -> None:
        """Ask that nobody be sent here for ``reason``, or end that with None.

        Any thread; returns at once. Consul is told in the background, and again after each
        registration. Maintenance that an operator set is not ended by it.
        """

        def ask() -> None:
            self._machine.maintain(reason, now=monotonic())
            self._changed.set()

        if background.here():
            ask()
        elif not self._ended:
            self._loop.call_soon_threadsafe(ask)

    def describe(self) -> Mapping[str, Any]:
        """Id, whether it is confirmed, what is wrong if not, the last heartbeat, maintenance."""
        told, maintenance = self._told, self._maintenance
        described: dict[str, Any] = {
            "id": self._registration.id,
            "confirmed": self.confirmed,
            "trouble": self._machine.trouble or None,
            "heartbeat": None,
            "maintenance": None,
            "shares_its_address_with": list(self._sharing),
        }
        if told is not None:
            status, note, at = told
            described["heartbeat"] = {"status": status, "note": note, "age": round(monotonic() - at, 1)}
        if maintenance is not None:
            described["maintenance"] = {
                "reason": maintenance.removesuffix(_BY_SERVICE),
                "operator": not maintenance.endswith(_BY_SERVICE),
            }
        return described

    async def start(self) -> None:
        """Begin, on the background loop."""
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep(), name=f"chassis:beat:{self._registration.id}")
        # Whoever discovers this very service in the process shares the watch.
        query = ServiceQuery(service=self._registration.service)
        self._watching = hub.follow(self._agent.options, query, self._saw_catalog)

    async def deregister(self) -> None:
        """Stop the heartbeat, then remove the registration.

        Never raises; takes at most 3 s. A second time does nothing.
        """
        if not self._ended:
            self._ended = True
            await _in_background(self._deregister, name=f"deregister:{self._registration.id}")

    async def abandon(self) -> None:
        """Stop the heartbeat and leave the registration to the other workers of this address.

        Never raises; takes at most 1 s. A second time does nothing.
        """
        if not self._ended:
            self._ended = True
            await _in_background(self._abandon, name=f"abandon:{self._registration.id}")

    async def _end_beats(self) -> None:
        self._machine.end()
        self._changed.set()
        self._watching.close()
        # A registration on its way is not cut off: it could arrive after a deregistration and
        # leave a ghost.
        await asyncio.wait({self._keeping}, timeout=_DEREGISTER_CAP / 3)

    async def _abandon(self) -> None:
        await self._end_beats()
        self._keeping.cancel()
        await self._agent.aclose()

    async def _deregister(self) -> None:
        error = ""
        try:
            async with asyncio.timeout(_DEREGISTER_CAP):
                await self._end_beats()
                await self._agent.deregister_service(self._registration.id)
        except TimeoutError:
            error = f"Consul did not answer within {_DEREGISTER_CAP:g} s"
        except Exception as raised:  # noqa: BLE001 - nothing may keep a process from stopping
            error = str(raised)
        self._keeping.cancel()
        await self._agent.aclose()
        events.emit(Deregistered(subject=self._registration.id, error=error))

    async def _keep(self) -> None:
        while (due := self._machine.next()) is not None:
            task, at = due
            delay = at - monotonic()
            if delay > 0:
                self._changed.clear()
                try:
                    async with asyncio.timeout(delay):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                continue
            try:
                happened = await self._do(task)
            except Exception as error:  # noqa: BLE001 - a defect must not end the heartbeat
                happened = self._machine.unreachable(task, str(error), now=monotonic())
                failed = f"{task.value}: {type(error).__name__}: {error}"
                events.emit(WatchFailed(subject=self._registration.id, error=failed))
            _emit(happened)

    async def _do(self, task: Task) -> Event | None:
        machine = self._machine
        try:
            if task is Task.REGISTER:
                await self._agent.register_service(self._definition())
                machine.registered(now=monotonic())
                return None
            if task is Task.MAINTAIN:
                await self._maintain()
                machine.maintained()
                return None
            if task is Task.INSPECT:
                return await self._inspect()
            status, note = readiness(self._registration)
            told = _CHECK_STATUS.get(status, "critical")
            await self._agent.update_check(self._check_id, told, output=note)
            self._told = told, note, monotonic()
            return machine.beaten(now=monotonic())
        except ConsulError as error:
            now = monotonic()
            if task is Task.INSPECT:
                # The next heartbeat meets the same trouble, if it is any.
                machine.inspected(now=now)
                return None
            if task is not Task.REGISTER and is_lost(error):
                return machine.lost(str(error), now=now)
            if isinstance(error, ConsulUnreachable | ConsulUnavailable):
                return machine.unreachable(task, str(error), now=now)
            return machine.refused(task, str(error), now=now)

    def _definition(self) -> dict[str, Any]:
        return definition(self._registration, self._options, check_id=self._check_id)

    async def _maintain(self) -> None:
        """Say that the instance is under maintenance, or that it is no more."""
        reason, seen = self._machine.maintenance, self._maintenance
        if reason is not None:
            await self._agent.service_maintenance(self._registration.id, True, reason=reason + _BY_SERVICE)
        elif seen is None or seen.endswith(_BY_SERVICE):
            await self._agent.service_maintenance(self._registration.id, False)
        # Else an operator has set it meanwhile, and it is theirs to end.

    async def _inspect(self) -> Event | None:
        """See whether the agent holds what it was told, and nobody else at the same address."""
        held = await self._agent.agent_service(self._registration.id)
        now = monotonic()
        if held is None:
            return self._machine.lost("it was removed from the agent", now=now)
        changed = differences(self._definition(), held)
        if changed:
            return self._machine.drifted(f"the agent holds another {', '.join(changed)}", now=now)
        self._machine.inspected(now=now)
        sharing = tuple(sorted(await self._others_at_this_address()))
        news, self._sharing = sharing != self._sharing, sharing
        return AddressShared(subject=self._registration.id, others=sharing) if sharing and news else None

    async def _others_at_this_address(self) -> list[str]:
        port = self._registration.port
        request = ConsulRequest(
            method="GET", path=path("agent", "services"), params={"filter": f"Port == {port}"}
        )
        services = (await self._agent.call(request, lambda body: parse(request.what, body, dict))).value
        return [
            service_id
            for service_id, each in services.items()
            if (each.get("Address"), each.get("Port")) == (self._registration.host, port)
            and service_id != self._registration.id
        ]

    def _saw_catalog(self, told: Told) -> None:
        """See whether the catalog shows the registration, which heartbeats do not tell."""
        answer = told.observation.answer
        if answer is None or told.empty is Reason.ACL_FILTERED:
            return
        entry = next((entry for entry in answer.value if _id(entry) == self._registration.id), None)
        if entry is None:
            _emit(self._machine.absent(now=monotonic()))
        else:
            self._machine.present()
            self._saw_maintenance(next(_maintenance_reasons(entry), None))
        self._changed.set()

    def _saw_maintenance(self, reason: str | None) -> None:
        before, self._maintenance = self._maintenance, reason
        if reason == before or self._ended:
            return
        if reason is None:
            if before is not None and before.endswith(_BY_SERVICE):
                self._machine.maintenance_ended()
            elif self._machine.maintenance is not None:
                # Consul holds one maintenance of an instance, and an operator's stood in the way of ours.
                self._machine.maintain(self._machine.maintenance, now=monotonic())
            events.emit(MaintenanceEnded(subject=self._registration.id))
            return
        events.emit(
            MaintenanceBegun(
                subject=self._registration.id,
                reason=reason.removesuffix(_BY_SERVICE),
                operator=not reason.endswith(_BY_SERVICE),
            )
        )


def definition(
    registration: Registration, options: ConsulRegistrarOptions, *, check_id: str
) -> dict[str, Any]:
    """What the agent is told of a registration."""
    status, _ = readiness(registration)
    meta = dict(registration.meta)
    if registration.scheme != "http":
        meta.setdefault("scheme", registration.scheme)
    if registration.zone:
        meta.setdefault("zone", registration.zone)
    return {
        "ID": registration.id,
        "Name": registration.service,
        "Address": registration.host,
        "Port": registration.port,
        "Tags": list(registration.tags),
        "Meta": meta,
        "Weights": {"Passing": registration.weight, "Warning": 1},
        "Check": {
            "CheckID": check_id,
            "Name": "heartbeat",
            "TTL": duration(options.ttl),
            "DeregisterCriticalServiceAfter": duration(options.deregister_after),
            # Without it a new instance is critical until its first heartbeat.
            "Status": _CHECK_STATUS.get(status, "critical"),
        },
    }


def differences(told: Mapping[str, Any], held: Mapping[str, Any]) -> list[str]:
    """The fields of a service that an agent holds otherwise than it was told, by Consul's names."""
    as_held = {"Name": "Service"}

    def plain(value: Any) -> Any:
        # Consul writes what is empty as null, or leaves it out.
        return value or None

    return [
        name
        for name in ("Name", "Address", "Port", "Tags", "Meta", "Weights")
        if plain(told[name]) != plain(held.get(as_held.get(name, name)))
    ]


def check_meta(registration: Registration) -> None:
    """Refuse meta that Consul would refuse later.

    :raises ConfigError: naming what cannot be used.
    """

    def refuse(problem: str, remedy: str) -> ConfigError:
        return ConfigError(problem, setting="meta", remedy=remedy)

    if len(registration.meta) > 62:
        # Consul takes 64; scheme and zone may be added.
        raise refuse(f"{len(registration.meta)} keys are too many", "give at most 62")
    for key, value in registration.meta.items():
        if not _META_KEY.fullmatch(key):
            raise refuse(f"{key!r} cannot be a key", "use up to 128 letters, digits, _ and -")
        if len(value) > 512:
            raise refuse(f"the value of {key!r} is {len(value)} long", "give at most 512 characters")


def is_lost(error: ConsulError) -> bool:
    """Whether it tells that the agent does not know the check: 404, before Consul 1.9 a 500."""
    if isinstance(error, ConsulNotFound):
        return True
    return isinstance(error, ConsulUnavailable) and "does not have associated TTL" in error.body


def _id(entry: Any) -> str:
    service: Mapping[str, Any] = entry.get("Service") or {} if isinstance(entry, Mapping) else {}
    return str(service.get("ID") or "")


def _maintenance_reasons(entry: Mapping[str, Any]) -> Iterator[str]:
    """Why an entry of the catalog is under maintenance; nothing if it is not."""
    for check in entry.get("Checks") or ():
        check_id = str(check.get("CheckID") or "")
        if check_id == "_node_maintenance" or check_id.startswith("_service_maintenance:"):
            yield str(check.get("Notes") or "no reason given")


def _emit(event: Event | None) -> None:
    if event is not None:
        events.emit(event)


async def _in_background(function: Any, *, name: str) -> None:
    if background.here():
        await function()
    else:
        await background.run(function, name=name)
