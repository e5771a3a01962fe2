"""One watch per question in this process, however many ask it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._errors import ConsulError, ConsulUnreachable
from chassis.adapters.consul._options import ConsulOptions
from chassis.adapters.consul._protocol import ConsulAnswer
from chassis.adapters.consul._slots import QuerySlots
from chassis.adapters.consul._watch import Observation, observe
from chassis.core.clock import monotonic
from chassis.core.events import events
from chassis.core.forks import tell_after_fork
from chassis.core.instances import Reason
from chassis.discovery import ChurnLimit, RegistryCrowded, WatchFailed, WatchLimitNear

_POLL_EVERY = 1.0
_POLLS_AT_ONCE = 4
_RESTART_DELAY = 1.0
_EXPLAINED_FOR = 10.0

Entries: TypeAlias = list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceQuery:
    """What is asked of an agent about one service; who asks the same shares one watch.

    :param datacenter: "" for the agent's own.
    :param filter: an expression in Consul's own language.
    :param stale: any server may answer, not the leader alone.
    :param max_stale: seconds without a leader beyond which an answer is not used.
    """

    service: str
    datacenter: str = ""
    filter: str = ""
    stale: bool = False
    max_stale: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What followers are told: an observation, and why there is nothing in it if there is nothing.

    :param empty: the reason for an answer without entries; None for any other.
    """

    observation: Observation[Entries]
    empty: Reason | None = None


class Following:
    """One follower of a shared watch.

    :ivar wait: seconds a blocking query may wait; the smallest of all followers holds.
    """

    def __init__(self, watch: SharedWatch, tell: Callable[[Told], None], *, wait: float, limit: int) -> None:
        self._watch = watch
        self.tell = tell
        self.wait = wait
        self.limit = limit

    @property
    def mode(self) -> str:
        """How it is asked now: ``blocking``, ``cached`` or ``polled``."""
        return self._watch.mode

    @property
    def index(self) -> int:
        """The index of the last answer."""
        return self._watch.index

    def close(self) -> None:
        """Follow no more; twice does nothing."""
        self._watch.leave(self)


class SharedWatch:
    """Asks one question of one agent for ever and tells all its followers. Lives on one event loop."""

    def __init__(self, api: ConsulAPI, query: ServiceQuery, slots: QuerySlots, hub: WatchHub) -> None:
        self._api = api
        self._query = query
        self._slots = slots
        self._hub = hub
        self._followers: tuple[Following, ...] = ()
        self._answer: Told | None = None
        self._trouble: Told | None = None
        self._slot = False
        self._cached = True
        self._poll_at = 0.0
        self._explained: tuple[float, Reason] | None = None
        self._churn = ChurnLimit()
        self.mode = "blocking"
        self.index = 0
        self._task = asyncio.create_task(self._run(), name=f"chassis:consul:watch:{query.service}")

    def join(self, tell: Callable[[Told], None], *, wait: float, limit: int) -> Following:
        following = Following(self, tell, wait=wait, limit=limit)
        self._followers = (*self._followers, following)
        # Who comes later begins with what the others have been told last.
        if self._answer is not None:
            self._tell_one(following, self._answer)
        if self._trouble is not None:
            self._tell_one(following, self._trouble)
        return following

    def leave(self, following: Following) -> None:
        self._followers = tuple(each for each in self._followers if each is not following)
        if not self._followers:
            self._task.cancel()
            self._give_back()
            self._hub.ended(self._api, self._query, self)

    async def _run(self) -> None:
        while True:
            try:
                told = observe(self._ask, max_stale=self._query.max_stale, churn=self._churn)
                async with aclosing(told) as observations:
                    async for each in observations:
                        self._tell(await self._explain(each))
            except Exception as error:  # noqa: BLE001 - a defect met once must not end the watch
                self._failed("watcher", error)
            await asyncio.sleep(_RESTART_DELAY)

    # asking

    async def _ask(self, index: int | None) -> ConsulAnswer[Entries]:
        if self._may_block():
            self.mode = "blocking"
            wait = min((each.wait for each in self._followers), default=1.0)
            asked_at = monotonic()
            try:
                return await self._health(index=index, wait=wait)
            except ConsulError as error:
                if not _is_crowded(error, monotonic() - asked_at):
                    raise
                self._give_back()
                self._churn.delay(monotonic())
                if self._slots.crowded(now=monotonic()):
                    limit = self._slots.ceiling
                    events.emit(RegistryCrowded(subject=repr(self._api), limit=limit, error=str(error)))
        await asyncio.sleep(max(0.0, self._poll_at - monotonic()))
        # Many watches that begin together need not go on asking together.
        self._poll_at = monotonic() + _POLL_EVERY * random.uniform(1.0, 1.2)
        async with self._hub.polling:
            return await self._poll()

    async def _poll(self) -> ConsulAnswer[Entries]:
        """Ask without waiting for a change; the agent's cache answers where it has one."""
        if self._cached:
            self.mode = "cached"
            try:
                return await self._health(cached=True)
            except ConsulError as error:
                if error.status not in (400, 501):
                    raise
                self._cached = False
        self.mode = "polled"
        return await self._health()

    async def _health(self, **how: Any) -> ConsulAnswer[Entries]:
        query = self._query
        return await self._api.health(
            query.service, datacenter=query.datacenter, filter=query.filter, stale=query.stale, **how
        )

    def _may_block(self) -> bool:
        limit = max((each.limit for each in self._followers), default=0)
        now = monotonic()
        if self._slot and not self._slots.keeps(limit, now=now):
            self._give_back()
        if not self._slot:
            self._slot = self._slots.take(limit, now=now)
            if self._slots.near(limit):
                events.emit(WatchLimitNear(subject=repr(self._api), open=self._slots.open, limit=limit))
        return self._slot

    def _give_back(self) -> None:
        if self._slot:
            self._slot = False
            self._slots.give_back()

    # telling

    async def _explain(self, observation: Observation[Entries]) -> Told:
        """Why an answer is empty: the ones that look alike are told apart by asking once more."""
        answer = observation.answer
        if answer is None or answer.value:
            return Told(observation=observation)
        if answer.acl_filtered:
            return Told(observation=observation, empty=Reason.ACL_FILTERED)
        if self._explained is None or monotonic() - self._explained[0] >= _EXPLAINED_FOR:
            self._explained = monotonic(), await self._reason()
        return Told(observation=observation, empty=self._explained[1])

    async def _reason(self) -> Reason:
        query = self._query
        # A question more now is one less later.
        self._churn.delay(monotonic())
        if await self._api.may_read(query.service) is False:
            return Reason.ACL_FILTERED
        if query.filter:
            self._churn.delay(monotonic())
            try:
                answer = await self._api.health(query.service, datacenter=query.datacenter, stale=query.stale)
            except ConsulError:
                return Reason.NOT_REGISTERED
            if answer.value:
                return Reason.FILTERED
        return Reason.NOT_REGISTERED

    def _tell(self, told: Told) -> None:
        answer = told.observation.answer
        if answer is None:
            self._trouble = told
        else:
            self.index = answer.index
            # To who comes later it shows how things stand, not that they changed.
            self._answer = replace(told, observation=replace(told.observation, wake=None))
            self._trouble = None
        for each in self._followers:
            self._tell_one(each, told)

    def _tell_one(self, following: Following, told: Told) -> None:
        try:
            following.tell(told)
        except Exception as error:  # noqa: BLE001 - a broken follower must not end the others' watch
            self._failed("follower", error)

    def _failed(self, who: str, error: Exception) -> None:
        told = f"{who}: {type(error).__name__}: {error}"
        events.emit(WatchFailed(subject=self._query.service, error=told))


class WatchHub:
    """All shared watches of this process. For use on the background loop alone."""

    def __init__(self) -> None:
        self._begin()
        tell_after_fork(self)

    def _begin(self) -> None:
        self.slots = QuerySlots()
        self.polling = asyncio.Semaphore(_POLLS_AT_ONCE)
        self._apis: dict[ConsulOptions, ConsulAPI] = {}
        self._watches: dict[tuple[ConsulOptions, ServiceQuery], SharedWatch] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def follow(
        self,
        options: ConsulOptions,
        query: ServiceQuery,
        tell: Callable[[Told], None],
        *,
        wait: float = 30.0,
        limit: int = 50,
    ) -> Following:
        """Tell ``tell`` of every answer and every error of a watch, which begins if there is none.

        It is told at once, before this returns, what the watch told last.

        :param wait: seconds a blocking query may wait for a change; see :class:`Following`.
        :param limit: how many blocking queries this process may hold open.
        """
        watch = self._watches.get((options, query))
        if watch is None:
            api = self._apis.get(options)
            if api is None:
                api = self._apis[options] = ConsulAPI(options)
            watch = self._watches[options, query] = SharedWatch(api, query, self.slots, self)
        return watch.join(tell, wait=wait, limit=limit)

    @property
    def watching(self) -> int:
        """How many watches there are."""
        return len(self._watches)

    def ended(self, api: ConsulAPI, query: ServiceQuery, watch: SharedWatch) -> None:
        """A watch has lost its last follower; with the last watch of an agent its connections go."""
        options = api.options
        if self._watches.get((options, query)) is watch:
            del self._watches[options, query]
        if not any(each == options for each, _ in self._watches):
            del self._apis[options]
            closing = asyncio.create_task(api.aclose(), name="chassis:consul:close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def after_fork_in_child(self) -> None:
        """Every watch and connection stayed with the parent: see :mod:`chassis.core.forks`."""
        self._begin()


def _is_crowded(error: ConsulError, took: float) -> bool:
    """Whether the agent seems to refuse further connections of this client.

    It closes them as they come (newer ones answer 429); a query that had been waiting fails for other
    reasons.
    """
    return error.status == 429 or (isinstance(error, ConsulUnreachable) and error.dropped and took < 1.0)


hub = WatchHub()
"""The process-wide hub."""
