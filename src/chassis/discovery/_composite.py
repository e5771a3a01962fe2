from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from chassis.core.contracts import Discovery, Subscription
from chassis.core.forks import tell_after_fork
from chassis.core.instances import Reason, Snapshot
from chassis.discovery._topic import Listening, Topic, describe


class CompositeDiscovery:
    """Several sources as one: for each service the first that knows an instance of it.

    A source knows a service when its newest snapshot holds instances, be they fit or not. One
    that comes to know it later takes over from those behind it. Nothing is told before each source
    ahead of the one that knows has answered, so that calls do not begin at the wrong place.

    :param sources: the most trusted first.
    """

    def __init__(self, sources: Sequence[Discovery]) -> None:
        self._sources = tuple(sources)
        self._lock = threading.Lock()
        self._choices: dict[str, _Choice] = {}
        tell_after_fork(self)

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Listening:
        """Tell ``listener`` of the service as the first source that knows it tells."""
        with self._lock:
            choice = self._choices.get(service)
            new = choice is None
            if choice is None:
                choice = self._choices[service] = _Choice(service, len(self._sources), left=self._left)
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
        return {each.topic.service: describe(each.topic.snapshot) for each in choices}

    def after_fork_in_child(self) -> None:
        """Make the lock anew: see :mod:`chassis.core.forks`."""
        self._lock = threading.Lock()

    def _left(self, topic: Topic) -> None:
        with self._lock:
            choice = self._choices.get(topic.service)
            if choice is None or choice.topic is not topic or topic.listened_to:
                return
            del self._choices[topic.service]
        choice.close()


class _Choice:
    """What every source says of one service, and which of them is believed."""

    def __init__(self, service: str, sources: int, *, left: Callable[[Topic], None]) -> None:
        self.topic = Topic(service, left=left)
        self._lock = threading.Lock()
        self._newest: list[Snapshot | None] = [None] * sources
        self._subscriptions: list[Subscription] = []
        self._closed = False
        tell_after_fork(self)

    def follow(self, sources: Sequence[Discovery]) -> None:
        for place, source in enumerate(sources):
            subscription = source.subscribe(self.topic.service, partial(self._heard, place))
            with self._lock:
                self._subscriptions.append(subscription)
                closed = self._closed
            if closed:
                subscription.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            subscriptions = tuple(self._subscriptions)
        for each in subscriptions:
            each.close()

    def after_fork_in_child(self) -> None:
        """Make the lock anew: see :mod:`chassis.core.forks`."""
        self._lock = threading.Lock()

    def _heard(self, place: int, snapshot: Snapshot) -> None:
        with self._lock:
            self._newest[place] = snapshot
            chosen = choose(self._newest)
            if chosen is None or chosen is self.topic.snapshot:
                return
            # In one breath with the choice, or another source's older choice could overtake it.
            self.topic.offer(chosen)
        self.topic.deliver()


def choose(newest: Sequence[Snapshot | None]) -> Snapshot | None:
    """Which of the sources' snapshots holds; None while that cannot be said.

    :param newest: per source, in order of trust; None for one that has not answered.
    """
    for each in newest:
        if each is None:
            return None
        if each.instances:
            return each
    # Nobody knows the service: what says more than that nothing is registered is the better reason.
    telling = [each for each in newest if each is not None and each.reason is not Reason.NOT_REGISTERED]
    return next(iter(telling or newest), None)
