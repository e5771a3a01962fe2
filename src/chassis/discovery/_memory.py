from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

from chassis.background import Job, background
from chassis.core.clock import monotonic
from chassis.core.contracts import Registration
from chassis.core.events import events
from chassis.core.forks import tell_after_fork
from chassis.core.instances import Instance, Snapshot, Source, Status
from chassis.core.options import Seconds, check_seconds
from chassis.discovery._events import (
    Deregistered,
    MaintenanceBegun,
    MaintenanceEnded,
    RegistrationConfirmed,
)
from chassis.discovery._last_known_good import LastKnownGood
from chassis.discovery._registration import check_registration, readiness
from chassis.discovery._topic import Listening, Topic, describe


class MemoryDiscovery:
    """A registry in this process: for tests, and for services that run in one process.

    It is both a ``Discovery`` and a ``Registrar``, and keeps their promises as the adapter of a
    real registry does. Beside that it can be told what to hold (:meth:`put`, :meth:`remove`) and to be
    unreachable (:meth:`stop`, :meth:`start`).

    :param beat: seconds between two looks at a registration's readiness.
    """

    def __init__(self, *, beat: Seconds = 1.0) -> None:
        check_seconds("beat", beat)
        self._beat = beat
        self._lock = threading.RLock()
        self._running = True
        self._instances: dict[str, dict[str, Instance]] = {}
        self._watched: dict[str, tuple[Topic, LastKnownGood]] = {}
        tell_after_fork(self)

    # the registry

    def put(self, *instances: Instance) -> None:
        """Hold these instances; each replaces the one of its service and id."""
        with self._lock:
            for each in instances:
                self._instances.setdefault(each.service, {})[each.id] = each
            services = {each.service for each in instances}
        self._tell(*services)

    def remove(self, service: str, instance_id: str) -> None:
        """Hold this instance no more; one that is not there is no error."""
        with self._lock:
            self._instances.get(service, {}).pop(instance_id, None)
        self._tell(service)

    def instances(self, service: str) -> tuple[Instance, ...]:
        """What is held of a service, ordered by id."""
        with self._lock:
            return tuple(sorted(self._instances.get(service, {}).values(), key=lambda each: each.key))

    def stop(self) -> None:
        """Answer nobody: what listeners know turns stale."""
        with self._lock:
            self._running = False
            services = tuple(self._watched)
        self._tell(*services)

    def start(self) -> None:
        """Answer again."""
        with self._lock:
            self._running = True
            services = tuple(self._watched)
        self._tell(*services)

    # Discovery

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Listening:
        """Tell ``listener`` what is held of the service, now and after each change."""
        with self._lock:
            watched = self._watched.get(service)
            if watched is None:
                # Nothing comes between the registry and its listeners, so an empty service is
                # believed to be empty.
                machine = LastKnownGood(service, source=Source.MEMORY, empty_grace=0.0, quiet_time=0.0)
                watched = self._watched[service] = Topic(service, left=self._left), machine
            listening = watched[0].join(listener)
        self._tell(service)
        listening.deliver()
        return listening

    def describe(self) -> Mapping[str, Any]:
        """Per service that is listened to: source, age in seconds, instances, the reason when empty."""
        with self._lock:
            return {service: describe(topic.snapshot) for service, (topic, _) in self._watched.items()}

    # Registrar

    async def register(self, registration: Registration) -> MemoryRegistration:
        """Hold the registration until it is ended, with the status its readiness tells.

        :raises ConfigError: the registration itself cannot be accepted.
        """
        check_registration(registration)
        registered = MemoryRegistration(self, registration)
        registered.look()
        registered.job = background.start(
            lambda: registered.keep_looking(self._beat), name=f"memory:{registration.id}"
        )
        return registered

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._running

    def after_fork_in_child(self) -> None:
        """Make the lock anew: see :mod:`chassis.core.forks`."""
        self._lock = threading.RLock()

    def _left(self, topic: Topic) -> None:
        with self._lock:
            known, _ = self._watched.get(topic.service, (None, None))
            # Another topic may have taken the place of one that two listeners leave at once.
            if known is topic and not topic.listened_to:
                del self._watched[topic.service]

    def _tell(self, *services: str) -> None:
        for service in services:
            with self._lock:
                watched = self._watched.get(service)
                if watched is None:
                    continue
                topic, machine = watched
                if self._running:
                    step = machine.answered(self.instances(service), now=monotonic(), woke=True)
                else:
                    step = machine.failed("it has been stopped", now=monotonic())
                if step.changed:
                    topic.offer(step.snapshot)
            topic.deliver()
            for each in step.events:
                events.emit(each)


class MemoryRegistration:
    """One registration with a :class:`MemoryDiscovery`: a ``Registered``."""

    def __init__(self, registry: MemoryDiscovery, registration: Registration) -> None:
        self._registry = registry
        self._registration = registration
        self._ended = threading.Event()
        self._told: tuple[str, str] | None = None
        self._maintenance: str | None = None
        self.job: Job | None = None
        self.confirmed = False

    def maintenance(self, reason: str | None) -> None:
        """Ask that nobody be sent here for ``reason``, or end that with None; it holds at once."""
        before, self._maintenance = self._maintenance, reason
        self.look()
        if reason is None and before is not None:
            events.emit(MaintenanceEnded(subject=self._registration.id))
        elif reason is not None and reason != before:
            events.emit(MaintenanceBegun(subject=self._registration.id, reason=reason, operator=False))

    def describe(self) -> Mapping[str, Any]:
        """Id, whether it is confirmed, the last look at its readiness, maintenance."""
        told, reason = self._told, self._maintenance
        return {
            "id": self._registration.id,
            "confirmed": self.confirmed,
            "trouble": None if self._registry.running else "the registry has been stopped",
            "heartbeat": None if told is None else {"status": told[0], "note": told[1]},
            "maintenance": None if reason is None else {"reason": reason, "operator": False},
        }

    async def deregister(self) -> None:
        """Take it out of the registry. Never raises; a second time does nothing."""
        if self._ended.is_set():
            return
        await self.abandon()
        self._registry.remove(self._registration.service, self._registration.id)
        events.emit(Deregistered(subject=self._registration.id))

    async def abandon(self) -> None:
        """Look no more, and leave what the registry holds."""
        self._ended.set()
        self.confirmed = False
        if self.job is not None:
            self.job.cancel()

    def look(self) -> None:
        """Ask for the readiness, and hold what it tells."""
        if self._ended.is_set() or not self._registry.running:
            self.confirmed = False
            return
        told = self._registration
        status, note = readiness(told)
        self._told = status.value, note
        if self._maintenance is not None:
            status = Status.MAINTENANCE
        instance = Instance(
            id=told.id,
            service=told.service,
            host=told.host,
            port=told.port,
            scheme=told.scheme,
            zone=told.zone,
            tags=told.tags,
            meta=told.meta,
            weight=told.weight,
            status=status,
        )
        if instance not in self._registry.instances(told.service):
            self._registry.put(instance)
            if self._ended.is_set():  # meanwhile, in another thread
                self._registry.remove(told.service, told.id)
                return
        if not self.confirmed:
            self.confirmed = True
            events.emit(RegistrationConfirmed(subject=told.id))

    async def keep_looking(self, beat: float) -> None:
        """Do so at each beat."""
        while not self._ended.is_set():
            await asyncio.sleep(beat)
            self.look()
