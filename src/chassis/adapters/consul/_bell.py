from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from contextlib import aclosing
from dataclasses import dataclass

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._protocol import ConsulAnswer, ConsulRequest, path, query
from chassis.adapters.consul._slots import QuerySlots
from chassis.adapters.consul._watch import observe
from chassis.core.clock import monotonic
from chassis.discovery import Wake

_WAIT = 30.0
_MAX_STALE = 30.0
_ECHO = 1.5
"""Seconds after a change in which services are asked again, because the agent's cache may lag behind."""
_AFTER = (0.03, 0.13)
"""Seconds between a change and the first question, drawn evenly."""
_NOTHING = 'CheckID == ""'
"""A filter that no check passes: only the index of the answer is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rope:
    """One question whose index moves when something changes that the others do not tell of."""

    path: str
    filter: str = ""


_ROPES = (
    _Rope(path=path("health", "state", "any"), filter=_NOTHING),
    _Rope(path=path("catalog", "services")),
)


class Bell:
    """Tells whoever polls that something has changed in the datacenter, so that they need not ask otherwise.

    Two blocking queries: one wakes when any check changes, one when any service does. While either fails,
    nobody can rely on it, and services are asked once a second.

    Lives on one event loop. It listens while somebody uses it.
    """

    QUERIES = len(_ROPES)

    def __init__(self, api: ConsulAPI, slots: QuerySlots) -> None:
        self._api = api
        self._slots = slots
        self._users = 0
        self._failing: set[str] = set()
        self._rung_at = 0.0
        self._rung = asyncio.Event()
        self._listening: dict[_Rope, asyncio.Task[None]] = {}

    @property
    def listening(self) -> bool:
        """Whether its queries are open."""
        return bool(self._listening)

    def use(self) -> None:
        """Begin to rely on it; :meth:`release` ends that."""
        self._users += 1
        for each in _ROPES:
            if each not in self._listening:
                self._failing.add(each.path)
                self._slots.reserve()
                task = asyncio.create_task(self._listen(each), name=f"chassis:consul:{each.path}")
                self._listening[each] = task

    def release(self) -> None:
        """Rely on it no more. Its queries under way are not abandoned; they are its last."""
        self._users -= 1

    async def quiet(self, seconds: float) -> None:
        """Return when something has changed, or may have, and in any case after ``seconds``."""
        if self._failing or monotonic() - self._rung_at < _ECHO:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
            # The agent's cache hears of it when we do; and not all need to ask in one moment.
            await asyncio.sleep(random.uniform(*_AFTER))
        except TimeoutError:
            pass

    async def _listen(self, rope: _Rope) -> None:
        def ask(index: int | None) -> Awaitable[ConsulAnswer[None]]:
            params = query(
                datacenter=self._api.options.datacenter, index=index, wait=_WAIT, filter=rope.filter
            )
            wait = 0.0 if index is None else _WAIT
            request = ConsulRequest(method="GET", path=rope.path, params=params, wait=wait)
            return self._api.call(request, lambda body: None)

        try:
            async with aclosing(observe(ask, max_stale=_MAX_STALE)) as observations:
                async for each in observations:
                    if each.answer is None:
                        self._fail(rope)
                    else:
                        self._failing.discard(rope.path)
                        if each.wake is not Wake.UNCHANGED:
                            self._ring()
                    if not self._users:
                        break
        finally:
            self._fail(rope)
            del self._listening[rope]
            self._slots.give_back()

    def _fail(self, rope: _Rope) -> None:
        if rope.path not in self._failing:
            self._failing.add(rope.path)
            self._ring()

    def _ring(self) -> None:
        self._rung_at = monotonic()
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()
