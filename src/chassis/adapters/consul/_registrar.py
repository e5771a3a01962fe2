from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._errors import (
    ConsulError,
    ConsulNotFound,
    ConsulUnavailable,
    ConsulUnreachable,
)
from chassis.adapters.consul._protocol import ConsulAnswer, duration
from chassis.adapters.consul._watch import observe
from chassis.background import background
from chassis.core.clock import monotonic
from chassis.core.contracts import Registration
from chassis.core.errors import ConfigError
from chassis.core.events import Event, events
from chassis.core.instances import Status
from chassis.core.options import Seconds, check_seconds
from chassis.discovery import (
    Deregistered,
    RegistrationMachine,
    Task,
    WatchFailed,
    check_registration,
    readiness,
)

_CHECK_STATUS = {Status.PASSING: "passing", Status.WARNING: "warning"}
_DEREGISTER_CAP = 3.0
_MAX_STALE = 30.0
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
        self._catalog = api
        self._agent = ConsulAPI(api.options)
        self._registration = registration
        self._options = options
        self._machine = RegistrationMachine(registration.id, ttl=options.ttl, now=monotonic())
        self._check_id = f"service:{registration.id}"
        self._ended = False

    def __repr__(self) -> str:
        return f"ConsulRegistration({self._registration.id!r}, confirmed={self.confirmed})"

    @property
    def confirmed(self) -> bool:
        """Whether Consul has taken the registration and the last heartbeat went through."""
        return self._machine.confirmed

    async def start(self) -> None:
        """Begin, on the background loop."""
        self._changed = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep(), name=f"chassis:beat:{self._registration.id}")
        self._watching = asyncio.create_task(
            self._watch_catalog(), name=f"chassis:reconcile:{self._registration.id}"
        )

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
        self._watching.cancel()
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
                await self._agent.register_service(
                    definition(self._registration, self._options, check_id=self._check_id)
                )
                machine.registered(now=monotonic())
                return None
            status, note = readiness(self._registration)
            await self._agent.update_check(self._check_id, _CHECK_STATUS.get(status, "critical"), output=note)
            return machine.beaten(now=monotonic())
        except ConsulError as error:
            now = monotonic()
            if task is Task.BEAT and is_lost(error):
                return machine.lost(str(error), now=now)
            if isinstance(error, ConsulUnreachable | ConsulUnavailable):
                return machine.unreachable(task, str(error), now=now)
            return machine.refused(task, str(error), now=now)

    async def _watch_catalog(self) -> None:
        """See whether the catalog shows the registration, which heartbeats do not tell."""
        service, own = self._registration.service, self._registration.id

        def query(index: int | None) -> Awaitable[ConsulAnswer[list[Any]]]:
            return self._catalog.health(service, index=index)

        async with aclosing(observe(query, max_stale=_MAX_STALE)) as observations:
            async for each in observations:
                if each.answer is None or each.answer.acl_filtered:
                    continue
                if any(_id(entry) == own for entry in each.answer.value):
                    self._machine.present()
                else:
                    _emit(self._machine.absent(now=monotonic()))
                self._changed.set()


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


def _emit(event: Event | None) -> None:
    if event is not None:
        events.emit(event)


async def _in_background(function: Any, *, name: str) -> None:
    if background.here():
        await function()
    else:
        await background.run(function, name=name)
