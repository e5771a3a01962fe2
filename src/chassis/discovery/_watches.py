from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from chassis.background import Job, background
from chassis.core.events import events
from chassis.core.instances import Snapshot
from chassis.discovery._events import WatchFailed
from chassis.discovery._topic import Listening, Topic, describe

_RESTART_DELAY = 1.0


class Watches:
    """One watcher per service in the background, for as long as somebody listens.

    :param watch: watches one service for ever and publishes to its topic; cancelled when nobody
        listens any more. If it raises, it is begun anew after a second.
    :param name: what it watches, for the tasks' names.
    """

    def __init__(self, watch: Callable[[Topic], Coroutine[Any, Any, None]], *, name: str) -> None:
        self._watch = watch
        self._name = name
        self._lock = threading.Lock()
        self._watched: dict[str, tuple[Topic, Job]] = {}
        _all.add(self)

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Listening:
        """Tell ``listener`` of the service, watching it if nobody does yet."""
        with self._lock:
            if service in self._watched:
                topic = self._watched[service][0]
                listening = topic.join(listener)
            else:
                topic = Topic(service, left=self._left)
                listening = topic.join(listener)
                self._watched[service] = topic, self._start(topic)
        listening.deliver()
        return listening

    def describe(self) -> Mapping[str, Any]:
        """Per watched service: source, age in seconds, instances, the reason when empty."""
        with self._lock:
            topics = [topic for topic, _ in self._watched.values()]
        return {topic.service: describe(topic.snapshot) for topic in topics}

    def _start(self, topic: Topic) -> Job:
        return background.start(lambda: self._keep_watching(topic), name=f"{self._name}:{topic.service}")

    def _left(self, topic: Topic) -> None:
        with self._lock:
            watched = self._watched.get(topic.service)
            if watched is None or watched[0] is not topic or topic.listened_to:
                return
            del self._watched[topic.service]
        watched[1].cancel()

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
        for service, (topic, _) in list(self._watched.items()):
            self._watched[service] = topic, self._start(topic)


_all: weakref.WeakSet[Watches] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for each in list(_all):
        each._after_fork_in_child()


# Not by chassis.core.forks: this must come after the background thread is ready to start anew, and
# after every topic has its lock again.
os.register_at_fork(after_in_child=_after_fork_in_child)
