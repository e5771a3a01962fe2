from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chassis.background import Job, background
from chassis.core.clock import monotonic
from chassis.core.events import events
from chassis.core.instances import Freshness, Snapshot
from chassis.discovery._events import WatchFailed
from chassis.discovery._topic import Listening, Topic, describe

_RESTART_DELAY = 1.0
_REMEMBERED = 1_000


@dataclass
class _Watched:
    topic: Topic
    job: Job
    left_at: float = 0.0
    ending: Job | None = None
    """Waits for the end of the idle time, once somebody has left."""


class Watches:
    """One watcher per service in the background, for as long as somebody listens, and a while longer.

    What a watch knew when it ended is remembered: the next one begins with it, as STALE, so that the
    first call after a long rest need not wait.

    :param watch: watches one service for ever and publishes to its topic; cancelled when nobody
        has listened for a while. If it raises, it is begun anew after a second.
    :param name: what it watches, for the tasks' names.
    :param idle: seconds a service is watched on when nobody listens any more.
    """

    def __init__(
        self,
        watch: Callable[[Topic], Coroutine[Any, Any, None]],
        *,
        name: str,
        idle: Callable[[str], float] = lambda service: 0.0,
    ) -> None:
        self._watch = watch
        self._name = name
        self._idle = idle
        self._lock = threading.Lock()
        self._watched: dict[str, _Watched] = {}
        self._remembered: dict[str, Snapshot] = {}
        _all.add(self)

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Listening:
        """Tell ``listener`` of the service, watching it if nobody does yet."""
        with self._lock:
            watched = self._watched.get(service)
            if watched is not None:
                listening = watched.topic.join(listener)
            else:
                topic = Topic(service, left=self._left)
                remembered = self._remembered.pop(service, None)
                if remembered is not None:
                    topic.offer(remembered)
                listening = topic.join(listener)
                self._watched[service] = _Watched(topic, self._start(topic))
        listening.deliver()
        return listening

    def describe(self) -> Mapping[str, Any]:
        """Per watched service: source, age in seconds, instances, the reason when empty."""
        with self._lock:
            topics = [each.topic for each in self._watched.values()]
        return {topic.service: describe(topic.snapshot) for topic in topics}

    def rest(self) -> tuple[str, ...]:
        """End every watch that nobody listens to. Any thread.

        :returns: the services that were watched; their watches are cancelled, and about to end.
        """
        with self._lock:
            idle = [each for each in self._watched.values() if not each.topic.listened_to]
            for each in idle:
                self._forget(each)
        for each in idle:
            each.job.cancel()
            if each.ending is not None:
                each.ending.cancel()
        return tuple(each.topic.service for each in idle)

    def _start(self, topic: Topic) -> Job:
        return background.start(lambda: self._keep_watching(topic), name=f"{self._name}:{topic.service}")

    def _left(self, topic: Topic) -> None:
        idle = self._idle(topic.service)
        with self._lock:
            watched = self._watched.get(topic.service)
            if watched is None or watched.topic is not topic or topic.listened_to:
                return
            watched.left_at = monotonic()
            if idle == 0:
                self._forget(watched)
            elif watched.ending is None:
                watched.ending = background.start(
                    lambda: self._end_idle(watched, idle), name=f"{self._name}:{topic.service}:idle"
                )
        if idle == 0:
            watched.job.cancel()

    async def _end_idle(self, watched: _Watched, idle: float) -> None:
        while True:
            await asyncio.sleep(max(0.0, watched.left_at + idle - monotonic()))
            with self._lock:
                if self._watched.get(watched.topic.service) is not watched:
                    return
                if watched.topic.listened_to:
                    watched.ending = None
                    return
                # Somebody may have come and left meanwhile: then the time began anew.
                if monotonic() - watched.left_at >= idle:
                    self._forget(watched)
                    break
        watched.job.cancel()

    def _forget(self, watched: _Watched) -> None:
        """Watch it no more, and remember what it knew. With the lock held."""
        topic = watched.topic
        del self._watched[topic.service]
        if topic.snapshot is not None and topic.snapshot.instances:
            self._remembered[topic.service] = replace(topic.snapshot, freshness=Freshness.STALE)
            if len(self._remembered) > _REMEMBERED:
                del self._remembered[next(iter(self._remembered))]

    async def _keep_watching(self, topic: Topic) -> None:
        while True:
            try:
                await self._watch(topic)
            except Exception as error:  # noqa: BLE001 - a defect met once must not end the watch
                events.emit(
                    WatchFailed(subject=topic.service, error=f"watcher: {type(error).__name__}: {error}")
                )
            await asyncio.sleep(_RESTART_DELAY)

    def _after_fork_in_child(self) -> None:
        # The parent's watchers do not run here: without new ones the child would go on for ever
        # with what was known at the fork.
        self._lock = threading.Lock()
        for each in list(self._watched.values()):
            if each.topic.listened_to:
                each.job, each.ending = self._start(each.topic), None
            else:
                self._forget(each)


_all: weakref.WeakSet[Watches] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for each in list(_all):
        each._after_fork_in_child()


# Not by chassis.core.forks: this must come after the background thread is ready to start anew, and
# after every topic has its lock again.
os.register_at_fork(after_in_child=_after_fork_in_child)
