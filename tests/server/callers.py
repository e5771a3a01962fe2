"""Callers that follow the registry and retry nothing: what they see is what a server does to them."""

from __future__ import annotations

import asyncio
import collections
import random
import threading
from typing import Self

import httpx2

from chassis.adapters.consul import ConsulAPI, ConsulDiscovery, ConsulDiscoveryOptions, ConsulOptions
from chassis.core import Snapshot


class Callers:
    """Sixteen keep-alive callers of ``served`` in a thread of their own.

    :param registry: URL of the Consul agent.
    """

    def __init__(self, registry: str, *, path: str = "/work", number: int = 16) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.instances: tuple[str, ...] = ()
        self._path = path
        self._number = number
        self._stop = threading.Event()
        options = ConsulDiscoveryOptions(idle=0)  # the registry ends with the test
        self._discovery = ConsulDiscovery(ConsulAPI(ConsulOptions(url=registry)), options)
        self._subscription = self._discovery.subscribe("served", self._update)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._subscription.close()

    @property
    def good(self) -> int:
        return self.outcomes["200"]

    @property
    def bad(self) -> dict[str, int]:
        return {what: count for what, count in self.outcomes.items() if what != "200"}

    def _update(self, snapshot: Snapshot) -> None:
        self.instances = tuple(each.url for each in snapshot.instances if each.status.value == "passing")

    async def _run(self) -> None:
        async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=10) as client:
            await asyncio.gather(*(self._call(client) for _ in range(self._number)))

    async def _call(self, client: httpx2.AsyncClient) -> None:
        while not self._stop.is_set():
            if not self.instances:
                await asyncio.sleep(0.01)
                continue
            try:
                answer = await client.get(random.choice(self.instances) + self._path)
                self.outcomes[str(answer.status_code)] += 1
            except httpx2.HTTPError as error:
                self.outcomes[type(error).__name__] += 1
            await asyncio.sleep(0.005)
