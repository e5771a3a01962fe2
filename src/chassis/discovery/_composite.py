from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from chassis.core.contracts import Discovery, ServiceSubscription
from chassis.core.errors import ConfigError
from chassis.core.events import events
from chassis.core.forks import tell_after_fork
from chassis.core.instances import Freshness, Instance, Reason, Snapshot
from chassis.core.options import check_count
from chassis.discovery._events import WatchFailed
from chassis.discovery._last_known_good import count_fit
from chassis.discovery._topic import Listening, Topic, describe

_Newest: TypeAlias = Sequence[Snapshot | None]
"""Per source its newest snapshot; None for one that has not answered."""
_Combined: TypeAlias = tuple[Snapshot, tuple[int, ...]]
"""What the sources come to, and the places of those whose word is in it."""

_ORDER = (Freshness.FRESH, Freshness.STALE, Freshness.EXPIRED)


class CompositeDiscovery:
    """Several sources as one: for each service the first that knows an instance of it.

    A source knows a service when its newest snapshot holds instances, be they fit or not. One
    that comes to know it later takes over from those behind it. Nothing is told before each source
    ahead of the one that knows has answered, so that calls do not begin at the wrong place. A source
    that fails costs the others nothing.

    :param sources: the most trusted first.
    """

    def __init__(self, sources: Sequence[Discovery]) -> None:
        self._sources = tuple(sources)
        self._lock = threading.Lock()
        self._choices: dict[str, _Choice] = {}
        tell_after_fork(self)

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Listening:
        """Tell ``listener`` of the service as the sources in use tell."""
        with self._lock:
            choice = self._choices.get(service)
            new = choice is None
            if choice is None:
                choice = _Choice(service, len(self._sources), self._combine, left=self._left)
                self._choices[service] = choice
            listening = choice.topic.join(listener)
        if new:
            # Without the lock: a source may tell what it knows before this returns.
            choice.follow(self._sources)
        listening.deliver()
        return listening

    def describe(self) -> Mapping[str, Any]:
        """Per service that is listened to: what the source in use says of it."""
        with self._lock:
            choices = list(self._choices.values())
        return {each.topic.service: self._describe(each) for each in choices}

    def after_fork_in_child(self) -> None:
        """Make the lock anew: see :mod:`chassis.core.forks`."""
        self._lock = threading.Lock()

    def _combine(self, newest: _Newest) -> _Combined | None:
        return choose(newest)

    def _describe(self, choice: _Choice) -> Mapping[str, Any]:
        described = [self._sources[place].describe().get(choice.topic.service) for place in choice.in_use]
        return described[0] if described and described[0] else describe(choice.topic.snapshot)

    def _left(self, topic: Topic) -> None:
        with self._lock:
            choice = self._choices.get(topic.service)
            if choice is None or choice.topic is not topic or topic.listened_to:
                return
            del self._choices[topic.service]
        choice.close()


class MergedDiscovery(CompositeDiscovery):
    """Several sources as one: for each service the instances of all of them together.

    An address that two sources know is the earlier one's. The snapshot is as fresh as the stalest of
    the sources that have instances in it. A source that fails, or does not answer, costs the others
    nothing.

    :param sources: the most trusted first.
    :param priorities: added to :attr:`Instance.priority` of each source's instances. A higher one
        makes a source the fallback for those with lower ones, and nothing is told before those have
        answered. None gives all of them 0.
    :raises ConfigError: there are not as many priorities as sources, or one is below 0.
    """

    def __init__(self, sources: Sequence[Discovery], *, priorities: Sequence[int] | None = None) -> None:
        super().__init__(sources)
        self._priorities = (0,) * len(self._sources) if priorities is None else tuple(priorities)
        for each in self._priorities:
            check_count("priorities", each, least=0)
        if len(self._priorities) != len(self._sources):
            raise ConfigError(
                f"{len(self._priorities)} priorities for {len(self._sources)} sources",
                setting="priorities",
                remedy="give one for each source",
            )

    def _combine(self, newest: _Newest) -> _Combined | None:
        return merge(newest, self._priorities)

    def _describe(self, choice: _Choice) -> Mapping[str, Any]:
        service = choice.topic.service
        told = [self._sources[place].describe().get(service) for place in choice.in_use]
        return {**describe(choice.topic.snapshot), "sources": [each for each in told if each is not None]}


class _Choice:
    """What every source says of one service, and what they come to together."""

    def __init__(
        self,
        service: str,
        sources: int,
        combine: Callable[[_Newest], _Combined | None],
        *,
        left: Callable[[Topic], None],
    ) -> None:
        self.topic = Topic(service, left=left)
        self.topic.doubted = self._doubted
        self.in_use: tuple[int, ...] = ()
        self._combine = combine
        self._lock = threading.Lock()
        self._newest: list[Snapshot | None] = [None] * sources
        self._subscriptions: list[ServiceSubscription | None] = []
        self._closed = False
        tell_after_fork(self)

    def follow(self, sources: Sequence[Discovery]) -> None:
        service = self.topic.service
        for place, source in enumerate(sources):
            subscription: ServiceSubscription | None = None
            try:
                subscription = source.subscribe(service, partial(self._heard, place))
            except Exception as error:  # noqa: BLE001 - whatever a source raises, the others go on
                events.emit(WatchFailed(subject=service, error=f"source: {type(error).__name__}: {error}"))
                self._heard(place, Snapshot(service=service, reason=Reason.REGISTRY_DOWN))
            with self._lock:
                self._subscriptions.append(subscription)
                closed = self._closed
            if closed and subscription is not None:
                subscription.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            subscriptions = tuple(self._subscriptions)
        for each in subscriptions:
            if each is not None:
                each.close()

    def after_fork_in_child(self) -> None:
        """Make the lock anew: see :mod:`chassis.core.forks`."""
        self._lock = threading.Lock()

    def _heard(self, place: int, snapshot: Snapshot) -> None:
        with self._lock:
            self._newest[place] = snapshot
            combined = self._combine(self._newest)
            if combined is None:
                return
            chosen, self.in_use = combined
            if chosen is self.topic.snapshot:
                return
            # In one breath with the choice, or another source's older choice could overtake it.
            self.topic.offer(chosen)
        self.topic.deliver()

    def _doubted(self) -> None:
        """Pass the doubt on to those whose word is in use."""
        with self._lock:
            subscriptions = [
                self._subscriptions[place] for place in self.in_use if place < len(self._subscriptions)
            ]
        for each in subscriptions:
            if each is not None:
                each.doubt()


def choose(newest: _Newest) -> _Combined | None:
    """The first source that has instances; None while that cannot be said."""
    for place, each in enumerate(newest):
        if each is None:
            return None
        if each.instances:
            return each, (place,)
    return _nobody_knows(newest)


def merge(newest: _Newest, priorities: Sequence[int]) -> _Combined | None:
    """The instances of all sources together; None while that cannot be said.

    :param priorities: per source, added to that of its instances.
    """
    known = {place: each for place, each in enumerate(newest) if each is not None and each.instances}
    if not known:
        return None if None in newest else _nobody_knows(newest)
    best = min(priorities[place] for place in known)
    if any(each is None and priorities[place] < best for place, each in enumerate(newest)):
        # It may be about to name instances that those known so far are the fallback for.
        return None
    merged: dict[str, Instance] = {}
    for place, each in known.items():
        for instance in each.instances:
            priority = instance.priority + priorities[place]
            merged.setdefault(instance.address, replace(instance, priority=priority))
    instances = tuple(sorted(merged.values(), key=lambda each: each.key))
    first = next(iter(known.values()))
    snapshot = Snapshot(
        service=first.service,
        instances=instances,
        source=first.source,
        freshness=max((each.freshness for each in known.values()), key=_ORDER.index),
        fetched_at=min(each.fetched_at for each in known.values()),
        reason=None if count_fit(instances) else Reason.NO_PASSING,
    )
    return snapshot, tuple(known)


def _nobody_knows(newest: _Newest) -> _Combined | None:
    """What says more than that nothing is registered is the better reason."""
    answered = [(each, place) for place, each in enumerate(newest) if each is not None]
    telling = [each for each in answered if each[0].reason is not Reason.NOT_REGISTERED]
    chosen = next(iter(telling or answered), None)
    return None if chosen is None else (chosen[0], (chosen[1],))
