from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._definition import (
    check_meta,
    check_status,
    definition,
    differences,
    is_lost,
    maintenance_reasons,
    service_id,
)
from chassis.adapters.consul._errors import ConsulError, ConsulUnavailable, ConsulUnreachable
from chassis.adapters.consul._hub import ServiceQuery, Told, hub
from chassis.adapters.consul._protocol import ConsulRequest, parse, path
from chassis.adapters.consul._registrar_options import ConsulRegistrarOptions
from chassis.background import background
from chassis.core.clock import monotonic
from chassis.core.contracts import Registration
from chassis.core.events import Event, events
from chassis.core.instances import Reason
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

_DEREGISTER_CAP = 3.0
_BY_SERVICE = " (asked for by the service itself)"
"""Ends the reason of a maintenance that the service set, so that its other workers may end it."""


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
        self._registering = False
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
        # Whoever discovers this very service in the process shares the watch. It is registered in the
        # agent's own datacenter, whichever others are looked up in.
        agent = replace(self._agent.options, datacenter="")
        query = ServiceQuery(service=self._registration.service)
        self._watching = hub.follow(agent, query, self._saw_catalog)

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
                on_its_way = self._registering
                await self._agent.deregister_service(self._registration.id)
                if on_its_way:
                    # It may have arrived behind what was to follow it, answered meanwhile or not.
                    await asyncio.wait({self._keeping})
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
                happened = self._missed(task, str(error), now=monotonic())
                failed = f"{task.value}: {type(error).__name__}: {error}"
                events.emit(WatchFailed(subject=self._registration.id, error=failed))
            _emit(happened)

    async def _do(self, task: Task) -> Event | None:
        machine = self._machine
        try:
            if task is Task.REGISTER:
                self._registering = True
                try:
                    await self._agent.register_service(self._definition())
                finally:
                    self._registering = False
                machine.registered(now=monotonic())
                return None
            if task is Task.MAINTAIN:
                await self._maintain()
                machine.maintained()
                return None
            if task is Task.INSPECT:
                return await self._inspect()
            status, note = readiness(self._registration)
            told = check_status(status)
            await self._agent.update_check(self._check_id, told, output=note)
            self._told = told, note, monotonic()
            return machine.beaten(now=monotonic())
        except ConsulError as error:
            now = monotonic()
            if task is Task.INSPECT:
                return self._missed(task, str(error), now=now)
            if task is not Task.REGISTER and is_lost(error):
                return self._lost(str(error), now=now)
            if isinstance(error, ConsulUnreachable | ConsulUnavailable):
                return self._missed(task, str(error), now=now)
            return machine.refused(task, str(error), now=now)

    def _lost(self, error: str, *, now: float) -> Event | None:
        """The agent does not know what it was to renew."""
        if self._machine.maintenance is not None:
            # It went with the registration. An answer of the catalog from before it is told again shows
            # none, however late that is handled, and must not read as its end by somebody else.
            self._maintenance = None
        return self._machine.lost(error, now=now)

    def _missed(self, task: Task, error: str, *, now: float) -> Event | None:
        """What was to be done was not, and it is unknown why: it is tried again."""
        if task is Task.INSPECT:
            # The next heartbeat meets the same trouble, if it is any.
            self._machine.inspected(now=now)
            return None
        return self._machine.unreachable(task, error, now=now)

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
            return self._lost("it was removed from the agent", now=now)
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
            other
            for other, each in services.items()
            if isinstance(each, Mapping)
            and (each.get("Address"), each.get("Port")) == (self._registration.host, port)
            and other != self._registration.id
        ]

    def _saw_catalog(self, told: Told) -> None:
        """See whether the catalog shows the registration, which heartbeats do not tell."""
        answer = told.observation.answer
        if answer is None or told.empty is Reason.ACL_FILTERED:
            return
        entry = next((entry for entry in answer.value if service_id(entry) == self._registration.id), None)
        if entry is None:
            _emit(self._machine.absent(now=monotonic()))
        else:
            self._machine.present()
            self._saw_maintenance(next(maintenance_reasons(entry), None))
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


def _emit(event: Event | None) -> None:
    if event is not None:
        events.emit(event)


async def _in_background(function: Any, *, name: str) -> None:
    if background.here():
        await function()
    else:
        await background.run(function, name=name)
