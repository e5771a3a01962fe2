from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from chassis.core.clock import monotonic
from chassis.core.events import events
from chassis.core.forks import tell_after_fork
from chassis.core.instances import Snapshot
from chassis.discovery._events import WatchFailed
from chassis.discovery._last_known_good import Step


class Topic:
    """One service's newest snapshot, and who is told of it. Safe to use from any thread.

    A listener gets snapshots in order and one at a time; one that is slow gets the newest when it
    is done, and never keeps another listener or the source waiting for a lock. What it raises
    becomes a :class:`~chassis.discovery.WatchFailed` event.

    :param left: called without a lock after a listener has left.
    :ivar doubted: called when a listener doubts what it was told (see
        :meth:`chassis.core.contracts.ServiceSubscription.doubt`); whoever publishes may replace it. It runs
        in the listener's thread and must not block.
    """

    def __init__(self, service: str, *, left: Callable[[Topic], None] | None = None) -> None:
        self.service = service
        self.doubted: Callable[[], None] = lambda: None
        self._left = left
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._listening: tuple[Listening, ...] = ()
        tell_after_fork(self)

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot; None before the first."""
        return self._snapshot

    @property
    def listened_to(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listening)

    def join(self, listener: Callable[[Snapshot], None]) -> Listening:
        """Add a listener; :meth:`Listening.deliver` then tells it what is known already."""
        listening = Listening(self, listener)
        with self._lock:
            listening.pending = self._snapshot
            self._listening = (*self._listening, listening)
        return listening

    def subscribe(self, listener: Callable[[Snapshot], None]) -> Listening:
        """Add a listener, and tell it what is known already."""
        listening = self.join(listener)
        listening.deliver()
        return listening

    def publish(self, snapshot: Snapshot) -> None:
        """Tell every listener of ``snapshot``."""
        self.offer(snapshot)
        self.deliver()

    def offer(self, snapshot: Snapshot) -> None:
        """Make ``snapshot`` the newest; calls no listener, so it may be used with a lock held."""
        with self._lock:
            self._snapshot = snapshot
            for each in self._listening:
                each.pending = snapshot

    def deliver(self) -> None:
        """Tell every listener what it has not been told yet."""
        for each in self._listening:
            each.deliver()

    def take(self, step: Step) -> None:
        """Follow a step of :class:`~chassis.discovery.LastKnownGood`: publish, and emit its events."""
        if step.changed:
            self.publish(step.snapshot)
        else:
            # Nothing to tell, but the age that describe() shows is that of the newest answer.
            self._snapshot = step.snapshot
        for each in step.events:
            events.emit(each)

    def after_fork_in_child(self) -> None:
        """Whoever held the lock or was delivering is a thread that does not exist here."""
        self._lock = threading.Lock()
        for each in self._listening:
            each.delivering = False

    def _next(self, listening: Listening) -> Snapshot | None:
        with self._lock:
            if listening.closed or listening.delivering or listening.pending is None:
                return None
            snapshot, listening.pending = listening.pending, None
            listening.delivering = True
            return snapshot

    def _leave(self, listening: Listening) -> None:
        with self._lock:
            if listening.closed:
                return
            listening.closed = True
            self._listening = tuple(each for each in self._listening if each is not listening)
        if self._left is not None:
            self._left(self)


class Listening:
    """One listener of a topic: a :class:`~chassis.core.contracts.Subscription`.

    The attributes belong to the topic, and change under its lock.
    """

    def __init__(self, topic: Topic, listener: Callable[[Snapshot], None]) -> None:
        self._topic = topic
        self._listener = listener
        self.pending: Snapshot | None = None
        self.delivering = False
        self.closed = False

    def deliver(self) -> None:
        """Tell the listener what is pending, unless another thread is at it: that one goes on."""
        while (snapshot := self._topic._next(self)) is not None:
            try:
                self._listener(snapshot)
            except Exception as error:  # noqa: BLE001 - a broken listener must not end the watch
                events.emit(
                    WatchFailed(subject=snapshot.service, error=f"listener: {type(error).__name__}: {error}")
                )
            finally:
                self.delivering = False

    def doubt(self) -> None:
        """Tell the source that none of the instances it told of takes connections any more."""
        if not self.closed:
            self._topic.doubted()

    def close(self) -> None:
        """End it; no call of the listener begins afterwards. Closing twice does nothing."""
        self._topic._leave(self)


def describe(snapshot: Snapshot | None) -> Mapping[str, Any]:
    """A snapshot as plain values, for ``Discovery.describe``."""
    if snapshot is None:
        return {"source": None, "age": None, "freshness": None, "instances": [], "reason": "not asked yet"}
    return {
        "source": snapshot.source.value,
        "age": round(monotonic() - snapshot.fetched_at, 3),
        "freshness": snapshot.freshness.value,
        "instances": [
            {
                "id": each.id,
                "url": each.url,
                "status": each.status.value,
                "zone": each.zone,
                "datacenter": each.datacenter,
                "priority": each.priority,
                "weight": each.weight,
                "tags": list(each.tags),
            }
            for each in snapshot.instances
        ],
        "reason": None if snapshot.reason is None else snapshot.reason.value,
    }
