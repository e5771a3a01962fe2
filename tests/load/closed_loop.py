"""A closed loop of workers over chassis's client, and what came of their calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

from chassis.adapters.consul import ConsulAPI, ConsulDiscovery, ConsulOptions
from chassis.background import background
from chassis.client import ClientOptions, ServiceUpstreams, async_client
from chassis.core import PolicyRegistry

WORKERS = 12
PAUSE = 0.015
"""Seconds between an answer and the worker's next call: it keeps the whole within one core."""


@dataclass(frozen=True, slots=True)
class Call:
    began: float
    took: float
    attempts: int
    error: str | None


@dataclass
class Figures:
    """What came of the calls of a stretch of time."""

    calls: int
    errors: dict[str, int]
    p50: float
    p99: float
    longest: float
    attempts: float
    """Per call, over the last third of the time."""

    @classmethod
    def of(cls, calls: list[Call]) -> Figures:
        times = sorted(call.took for call in calls)
        settled = calls[-1].began - (calls[-1].began - calls[0].began) / 3
        late = [call for call in calls if call.began >= settled]
        return cls(
            calls=len(calls),
            errors=dict(Counter(call.error for call in calls if call.error is not None)),
            p50=times[len(times) // 2],
            p99=times[int(len(times) * 0.99)],
            longest=times[-1],
            attempts=sum(call.attempts for call in late) / len(late),
        )


@dataclass
class ClosedLoop:
    """Twelve workers in one event loop, each calling again when it has been answered.

    Runs in a thread of its own, so that what starts and kills processes does not hold it up.
    """

    consul: str
    options: ClientOptions
    calls: list[Call] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._api = ConsulAPI(ConsulOptions(url=self.consul))
        self.upstreams = ServiceUpstreams(lambda: ConsulDiscovery(self._api), registry=PolicyRegistry())
        self.upstream = self.upstreams.upstream("load-catalog", self.options)
        self.upstream.open()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        return self

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(20)
        background.start(self._api.aclose, name="consul").result(10)

    def run_for(self, seconds: float) -> Figures:
        """What comes of the calls of the next so many seconds."""
        before = len(self.calls)
        time.sleep(seconds)
        return Figures.of(self.calls[before:])

    async def _run(self) -> None:
        async with async_client(self.upstreams, "load-catalog") as client:
            await asyncio.gather(*(self._work(client) for _ in range(WORKERS)))
        self.upstreams.close()
        await asyncio.sleep(0)  # now the pools begin to close
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=5)

    async def _work(self, client: Any) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            attempts, error = 0, None
            try:
                response = await client.get("/")
                attempts = response.extensions["chassis"].attempts
                if response.status_code != 200 or "pid" not in response.json():
                    error = f"{response.status_code} {response.text[:80]}"
            except Exception as raised:
                error = repr(raised)
            self.calls.append(Call(began, time.monotonic() - began, attempts, error))
            await asyncio.sleep(PAUSE)
