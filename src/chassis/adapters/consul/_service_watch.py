from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from chassis.adapters.consul._datacenter_watch import DatacenterWatch
from chassis.adapters.consul._discovery_options import ConsulDiscoveryOptions
from chassis.adapters.consul._options import ConsulOptions
from chassis.core.clock import monotonic
from chassis.core.events import events
from chassis.core.instances import Snapshot, Status
from chassis.discovery import Step, Topic, count_fit

_SILENT_START = 1.0
"""Seconds after which a start counts as one without Consul."""
_CALM = 60.0
"""Seconds for which the further datacenters are watched on when the own one is whole again."""


class ServiceWatch:
    """One service in all its datacenters, watched and told to one topic. Lives on the background loop.

    Each datacenter has a watch, an index and a last known good of its own: one that cannot be reached
    changes nothing for the others.
    """

    def __init__(self, agent: ConsulOptions, options: ConsulDiscoveryOptions, topic: Topic) -> None:
        self._topic = topic
        self._options = options
        self._heard_of = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._silent_until = monotonic() + _SILENT_START
        self._leave_at: float | None = None
        self._all = [
            DatacenterWatch(
                agent,
                options,
                service=topic.service,
                datacenter=datacenter,
                priority=priority,
                heard=self._heard,
            )
            for priority, datacenter in enumerate(("", *options.datacenters))
        ]
        self._own, *self._others = self._all
        topic.doubted = self._doubted_from_anywhere

    async def run(self) -> None:
        """Watch until cancelled."""
        for each in self._all:
            each.begin(self._topic.snapshot)
        await asyncio.gather(*(each.read() for each in self._all))
        self._own.follow()
        if self._options.preconnect:
            self._follow_others()
        while True:
            # Whatever is heard ends the wait, and what is due next is looked at anew.
            self._heard_of.clear()
            due = self._elapse(monotonic())
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - monotonic())):
                    await self._heard_of.wait()
            except TimeoutError:
                pass

    def close(self) -> None:
        """Watch no more."""
        self._topic.doubted = lambda: None
        for each in self._all:
            each.leave()

    async def flush(self) -> None:
        """Write to disk what is to be kept there."""
        for each in self._all:
            if each.keeper is not None:
                await each.keeper.flush()

    def describe(self) -> dict[str, Any]:
        """How each datacenter is asked, and what went wrong there."""
        others = {each.datacenter: each.describe() for each in self._others}
        return {**self._own.describe(), "datacenters": others}

    def _elapse(self, now: float) -> float | None:
        """Do what is due; when the next thing is."""
        unheard = self._own.machine.snapshot is None
        if unheard and now >= self._silent_until:
            self._own.restore(now)
            unheard = False
        for each in self._all:
            each.elapse(now)
        if self._leave_at is not None and now >= self._leave_at:
            self._leave_at = None
            for each in self._others:
                each.leave()
            self._publish()
        due = [each.machine.expires_at for each in self._all if each.followed]
        due += [self._leave_at, self._silent_until if unheard else None]
        return min((each for each in due if each is not None), default=None)

    def _heard(self, place: DatacenterWatch, step: Step) -> None:
        self._heard_of.set()
        if place is self._own and not self._options.preconnect:
            self._follow_as_needed()
        self._publish()
        for each in step.events:
            events.emit(each)

    def _follow_as_needed(self) -> None:
        own = self._own.machine.snapshot
        if (
            own is None
            or not own.instances
            or any(each.status is not Status.PASSING for each in own.instances)
        ):
            self._leave_at = None
            self._follow_others()
        elif self._leave_at is None and any(each.followed for each in self._others):
            # Not at once: a service that comes and goes would begin a watch each time.
            self._leave_at = monotonic() + _CALM

    def _follow_others(self) -> None:
        for each in self._others:
            each.follow()

    def _publish(self) -> None:
        own = self._own.machine.snapshot
        if own is None:
            # What others know is told when it is known whether the own datacenter has any.
            return
        merged = merge(own, (each.machine.snapshot for each in self._others if each.followed))
        before = self._topic.snapshot
        changed = before is None or replace(before, fetched_at=merged.fetched_at) != merged
        self._topic.take(Step(snapshot=merged, changed=changed))

    def _doubted_from_anywhere(self) -> None:
        # Looked at before the loop is woken: callers doubt often, and mostly nothing is held back.
        if any(each.machine.holding for each in self._all):
            self._loop.call_soon_threadsafe(self._doubted)

    def _doubted(self) -> None:
        for each in self._all:
            each.machine.doubted()


def merge(own: Snapshot, others: Iterable[Snapshot | None]) -> Snapshot:
    """The own datacenter's snapshot with the instances of the others; how fresh it is, it alone says."""
    instances = {each.key: each for each in own.instances}
    for other in others:
        if other is not None:
            for each in other.instances:
                # Networks that know nothing of each other may use the same addresses.
                instances.setdefault(each.key, each)
    if len(instances) == len(own.instances):
        return own
    found = tuple(sorted(instances.values(), key=lambda each: each.key))
    return replace(own, instances=found, reason=None if count_fit(found) else own.reason)
