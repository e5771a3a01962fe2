from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from chassis.adapters.consul._errors import ConsulError, ConsulUnavailable
from chassis.adapters.consul._protocol import ConsulAnswer
from chassis.core.clock import monotonic
from chassis.discovery import Backoff, ChurnLimit, Wake, WatchIndex

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation(Generic[T]):
    """One turn of a watch: an answer that may be trusted, or an error.

    :param wake: what the answer's index tells; None with an error.
    :param at: monotonic seconds at which it came.
    """

    answer: ConsulAnswer[T] | None = None
    error: ConsulError | None = None
    wake: Wake | None = None
    at: float = field(default_factory=monotonic)


async def observe(
    query: Callable[[int | None], Awaitable[ConsulAnswer[T]]],
    *,
    max_stale: float,
    churn: ChurnLimit | None = None,
) -> AsyncGenerator[Observation[T], None]:
    """Ask ``query`` for ever, and yield what comes.

    It is called with the index to wait on, or None for an answer at once. Questions follow each other
    at most once a second after a burst of three; after an error the next one waits longer each time.
    Close the iterator to end it (:func:`contextlib.aclosing`).

    :param max_stale: seconds since the answering server last heard from the leader, or the agent's
        cache from a server, beyond which the answer counts as an error.
    :param churn: to be shared with what else the caller asks.
    """
    index, backoff, churn = WatchIndex(), Backoff(), churn or ChurnLimit()
    while True:
        try:
            answer = await query(index.index or None)
            _check(answer, max_stale)
        except ConsulError as error:
            index.failed()
            yield Observation(error=error)
            # An agent that answers every other question wears no backoff down.
            await asyncio.sleep(max(backoff.delay(), churn.delay(monotonic())))
            continue
        backoff.reset()
        yield Observation(answer=answer, wake=index.answered(answer.index))
        await asyncio.sleep(churn.delay(monotonic()))


def _check(answer: ConsulAnswer[T], max_stale: float) -> None:
    if not answer.known_leader:
        raise ConsulUnavailable("Consul's servers have no leader, so the answer may be old")
    if answer.last_contact > max_stale:
        raise ConsulUnavailable(
            f"the Consul server that answered has not heard from its leader for {answer.last_contact:g} s"
        )
    if answer.age > max_stale:
        raise ConsulUnavailable(f"the agent's cache has not heard from a Consul server for {answer.age:g} s")
