"""One watch per question in this process, however many ask it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._bell import Bell
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
_FIRST_WAIT = 1.0
_BLOCKING = 50
"""How many blocking queries may be open where nobody says."""

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

    def __init__(
        self, watch: SharedWatch, tell: Callable[[Told], None], *, wait: float, limit: int | None
    ) -> None:
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

    def __init__(self, agent: SharedAgent, query: ServiceQuery) -> None:
        self._agent = agent
        self._api = agent.api
        self._slots = agent.slots
        self._query = query
        self._followers: tuple[Following, ...] = ()
        self._answer: Told | None = None
        self._trouble: Told | None = None
        self._slot = False
        self._waiting = False
        self._hearing = False
        self._cached = True
        self._refused = False
        self._patience = _FIRST_WAIT
        self._poll_at = 0.0
        self._explained: tuple[float, Reason] | None = None
        self._churn = ChurnLimit()
        self.mode = "blocking"
        self.index = 0
        self._task = asyncio.create_task(self._run(), name=f"chassis:consul:watch:{query.service}")

    def join(self, tell: Callable[[Told], None], *, wait: float, limit: int | None) -> Following:
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
        # A query that waits at the agent is not abandoned: the agent would hold its connection all
        # the same, and nobody would count it.
        if not self._followers and not self._waiting:
            self._end()

    def _end(self) -> None:
        self._task.cancel()
        self._give_back()
        if self._hearing:
            self._hearing = False
            self._agent.bell.release()
        self._agent.ended(self._query, self)

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
        if not self._may_block():
            return await self._poll(index)
        self.mode = "blocking"
        asked_at = monotonic()
        try:
            return await self._wait(index)
        except ConsulError as error:
            if not _may_be_crowded(error, monotonic() - asked_at):
                raise
            self._give_back()
            self._churn.delay(monotonic())
            try:
                answer = await self._poll(None)
            except ConsulError as other:
                if isinstance(other, ConsulUnreachable) and not other.dropped:
                    # It is not there any more: that is why it dropped the query.
                    raise
                self._crowded(error)
                raise
            self._crowded(error)
            return answer

    def _crowded(self, error: ConsulError) -> None:
        if self._slots.crowded(now=monotonic()):
            limit = self._slots.ceiling
            events.emit(RegistryCrowded(subject=repr(self._api), limit=limit, error=str(error)))

    async def _wait(self, index: int | None) -> ConsulAnswer[Entries]:
        # Who is answered first must not hold, for long, the connections others need for their first
        # answer: an agent's limit shows only when it refuses, and what waits then cannot be called back.
        wait = min(self._patience, min((each.wait for each in self._followers), default=1.0))
        self._patience = _FIRST_WAIT
        self._waiting = index is not None
        try:
            answer = await self._health(index=index, wait=wait)
            if index is not None:
                self._patience = 2 * wait
            return answer
        finally:
            self._waiting = False
            if not self._followers:
                self._end()

    async def _poll(self, index: int | None) -> ConsulAnswer[Entries]:
        """Ask without waiting for a change; the agent's cache answers where it has one."""
        await asyncio.sleep(max(0.0, self._poll_at - monotonic()))
        if self._hear() and index is not None:
            await self._agent.bell.quiet(min((each.wait for each in self._followers), default=1.0))
        # Many watches that begin together need not go on asking together.
        self._poll_at = monotonic() + _POLL_EVERY * random.uniform(1.0, 1.2)
        async with self._agent.polling:
            asked_at = monotonic()
            try:
                answer = await self._ask_now()
            except ConsulError as error:
                # Once may be an agent that ends or a connection that had been idle for too long.
                again, self._refused = self._refused, _may_be_crowded(error, monotonic() - asked_at)
                if again and self._refused:
                    self._crowded(error)
                raise
        self._refused = False
        return answer

    async def _ask_now(self) -> ConsulAnswer[Entries]:
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

    def _hear(self) -> bool:
        """Whether the bell may be relied on; it rings for the agent's own datacenter."""
        if not self._hearing and not self._query.datacenter and self._wanted() >= 0:
            self._hearing = True
            self._agent.bell.use()
        return self._hearing

    def _allowed(self) -> int:
        """How many blocking queries may be open."""
        limits = self.limits() or [each for watch in self._agent.watches.values() for each in watch.limits()]
        return max(limits, default=_BLOCKING)

    def limits(self) -> list[int]:
        """What its followers allow, those who do not mind left out."""
        return [each.limit for each in self._followers if each.limit is not None]

    def _wanted(self) -> int:
        """How many of them watches may take: until the bell has its own, these are left free for it."""
        return self._allowed() - (0 if self._agent.bell.listening else Bell.QUERIES)

    def _may_block(self) -> bool:
        limit = self._wanted()
        now = monotonic()
        if self._slot and not self._slots.keeps(limit, now=now):
            self._give_back()
        if not self._slot:
            self._slot = self._slots.take(limit, now=now)
            allowed = self._allowed()
            if allowed and self._slots.near(allowed):
                events.emit(WatchLimitNear(subject=repr(self._api), open=self._slots.open, limit=allowed))
        if self._slot and self._hearing:
            self._hearing = False
            self._agent.bell.release()
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


class SharedAgent:
    """One agent as all of this process asks it: its connections, its limits, its watches."""

    def __init__(self, options: ConsulOptions) -> None:
        self.api = ConsulAPI(options)
        self.slots = QuerySlots()
        self.bell = Bell(self.api, self.slots)
        self.polling = asyncio.Semaphore(_POLLS_AT_ONCE)
        self.watches: dict[ServiceQuery, SharedWatch] = {}
        self._closing: asyncio.Task[None] | None = None

    def watch(self, query: ServiceQuery) -> SharedWatch:
        watch = self.watches.get(query)
        if watch is None:
            watch = self.watches[query] = SharedWatch(self, query)
        return watch

    def ended(self, query: ServiceQuery, watch: SharedWatch) -> None:
        if self.watches.get(query) is watch:
            del self.watches[query]
            if not self.watches:
                self._closing = asyncio.create_task(self._close(), name="chassis:consul:close")

    async def _close(self) -> None:
        if not self.watches:
            await self.api.aclose()


class WatchHub:
    """All shared watches of this process. For use on the background loop alone."""

    def __init__(self) -> None:
        self._agents: dict[ConsulOptions, SharedAgent] = {}
        tell_after_fork(self)

    def follow(
        self,
        options: ConsulOptions,
        query: ServiceQuery,
        tell: Callable[[Told], None],
        *,
        wait: float = 30.0,
        limit: int | None = None,
    ) -> Following:
        """Tell ``tell`` of every answer and every error of a watch, which begins if there is none.

        It is told at once, before this returns, what the watch told last.

        :param wait: seconds a blocking query may wait for a change; see :class:`Following`.
        :param limit: how many blocking queries this process may hold open at the agent; None for as many
            as those who watch other services allow.
        """
        return self.agent(options).watch(query).join(tell, wait=wait, limit=limit)

    def agent(self, options: ConsulOptions) -> SharedAgent:
        """The agent these options lead to."""
        agent = self._agents.get(options)
        if agent is None:
            agent = self._agents[options] = SharedAgent(options)
        return agent

    @property
    def watching(self) -> int:
        """How many watches there are."""
        return sum(len(each.watches) for each in self._agents.values())

    def after_fork_in_child(self) -> None:
        """Every watch and connection stayed with the parent: see :mod:`chassis.core.forks`."""
        self._agents = {}


def _may_be_crowded(error: ConsulError, took: float) -> bool:
    """Whether the agent seems to refuse further connections of this client.

    It closes them as they come (newer ones answer 429); a query that had been waiting fails for other
    reasons.
    """
    return error.status == 429 or (isinstance(error, ConsulUnreachable) and error.dropped and took < 1.0)


hub = WatchHub()
"""The process-wide hub."""
