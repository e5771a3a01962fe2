"""A script for :class:`ScriptedAgent` that knows Consul's health endpoint, and a listener that keeps all it hears."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from chassis.adapters.consul import ConsulAPI, ConsulDiscovery, ConsulDiscoveryOptions, ConsulOptions
from chassis.background import background
from chassis.core import Event, Snapshot, Subscription, events
from tests.support.scripted_agent import Answer, Asked
from tests.support.waiting import eventually


def entry(
    name: str,
    *,
    status: str = "passing",
    tags: tuple[str, ...] = (),
    meta: dict[str, str] | None = None,
    port: int = 80,
    datacenter: str = "dc1",
) -> dict[str, Any]:
    """One entry as ``/v1/health/service`` gives it."""
    return {
        "Node": {"Address": "10.0.0.1", "Datacenter": datacenter},
        "Service": {"ID": name, "Service": "catalog", "Port": port, "Tags": list(tags), "Meta": meta or {}},
        "Checks": [{"CheckID": "c", "Status": status}],
    }


class Place:
    """What one datacenter knows: its entries change with :meth:`set`, which wakes blocked queries."""

    def __init__(self, *entries: dict[str, Any], index: int = 10) -> None:
        self.entries = list(entries)
        self.index = index
        self.headers: dict[str, str] = {}
        self.override: Answer | None = None
        self.patience = 3.0
        """Seconds a query waits at most, whatever it asks for, so that no thread outlives its test for long."""

    def set(self, *entries: dict[str, Any], index: int | None = None) -> None:
        self.entries = list(entries)
        self.index = self.index + 1 if index is None else index

    def answer(self, asked: Asked) -> Answer:
        wait = float(asked.query.get("wait", "0ms").removesuffix("ms")) / 1000
        end = time.monotonic() + min(wait, self.patience)
        while (
            self.override is None and asked.query.get("index") == str(self.index) and time.monotonic() < end
        ):
            time.sleep(0.005)
        if self.override is not None:
            return self.override
        # Read before what it stands for: else a change in between would be missed by who waits on it.
        index = self.index
        return Answer(json.dumps(self.entries), headers={"X-Consul-Index": str(index), **self.headers})


class Agent(Place):
    """An agent with a datacenter of its own, and others in :attr:`others`.

    :ivar blocked: the blocking queries that are open, and the most that ever were.
    """

    def __init__(self, *entries: dict[str, Any], index: int = 10) -> None:
        super().__init__(*entries, index=index)
        self.others: dict[str, Place] = {}
        self.blocked = self.most_blocked = 0
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Answer:
        blocking = "wait" in asked.query
        with self._lock:
            self.blocked += blocking
            self.most_blocked = max(self.most_blocked, self.blocked)
        try:
            datacenter = asked.query.get("dc", "")
            return (self.others[datacenter] if datacenter else self).answer(asked)
        finally:
            with self._lock:
                self.blocked -= blocking


class Watching:
    """Watches one service of an agent, and keeps what it was told."""

    def __init__(self, url: str, service: str, options: ConsulDiscoveryOptions, **agent: Any) -> None:
        self.api = ConsulAPI(ConsulOptions(**{"url": url, "timeout": 1.0, **agent}))
        self.discovery = ConsulDiscovery(self.api, options)
        self.service = service
        self.heard: list[tuple[float, Snapshot]] = []
        self.events: list[Event] = []
        self._unsubscribe = events.subscribe(self.events.append)
        # What nobody heard when it happened is replayed, and is another test's.
        self.events.clear()
        self.subscription = self.subscribe()

    def subscribe(self) -> Subscription:
        return self.discovery.subscribe(
            self.service, lambda snapshot: self.heard.append((time.monotonic(), snapshot))
        )

    @property
    def newest(self) -> Snapshot:
        return self.heard[-1][1]

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.newest.instances]

    @property
    def described(self) -> dict[str, Any]:
        return dict(self.discovery.describe()[self.service])

    def of(self, kind: type[Event]) -> list[Event]:
        return [each for each in self.events if isinstance(each, kind)]

    async def until(self, condition: Callable[[Snapshot], bool], what: str, timeout: float = 5.0) -> Snapshot:
        await eventually(lambda: self.heard and condition(self.newest), timeout, what)
        return self.newest

    async def until_ids(self, *ids: str, timeout: float = 5.0) -> Snapshot:
        return await self.until(
            lambda told: [each.id for each in told.instances] == list(ids), f"{ids} to be told", timeout
        )

    async def close(self) -> None:
        self.subscription.close()
        await background.run(self.discovery.aclose, name="close")
        self._unsubscribe()
        await background.run(self.api.aclose, name="close")


class Watch:
    """Makes watchings, and closes them: what a fixture gives."""

    def __init__(self) -> None:
        self.made: list[Watching] = []

    def __call__(
        self, url: str, service: str = "catalog", *, agent: dict[str, Any] | None = None, **options: Any
    ) -> Watching:
        self.made.append(Watching(url, service, ConsulDiscoveryOptions(**options), **(agent or {})))
        return self.made[-1]

    async def close(self) -> None:
        for each in self.made:
            await each.close()
