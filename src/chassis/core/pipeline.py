"""Several policies around one operation, in an order that can be told and is checked.

The order that serves, outermost first::

    fallback → timeout of the whole → load shedding, rate limit, bulkhead → retry → hedge
    → breaker → timeout of one attempt

A fallback answers for all below it. The whole's time bounds the waits between attempts too. What
limits calls counts calls, not attempts. Each attempt is a vote in the breaker, and an open breaker
ends the attempts. The breaker sees what its attempts' timeout ends.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from chassis.core.errors import ConfigError
from chassis.core.events import Event, EventBus, Level, events
from chassis.core.policies import Operation, Policy, Role
from chassis.core.streams import Stream

T = TypeVar("T")


class PipelineWarning(UserWarning):
    """The order of a pipeline defeats one of its policies."""


@dataclass(frozen=True, kw_only=True)
class PipelineOrderDoubted(Event):
    """The order of a pipeline defeats one of its policies.

    :param outer: the one that stands outside.
    :param inner: the one that stands inside.
    :param reason: what comes of it.
    :param remedy: what to write instead.
    """

    name: ClassVar[str] = "pipeline.order_doubted"
    level: ClassVar[Level] = "warning"

    outer: str
    inner: str
    reason: str
    remedy: str


class Pipeline(Policy):
    """Policies around one operation, outermost first; itself a policy, so pipelines nest.

    On a function the stack is put together once, when it is decorated. An order that defeats one of
    the policies is told at once, as a :class:`PipelineWarning` and an event; it works as written.

    :param policies: in the order a call meets them.
    :param name: the subject of its events.
    :param bus: where its events go.
    :raises ConfigError: one of them is no policy.
    """

    def __init__(self, *policies: Policy, name: str = "pipeline", bus: EventBus = events) -> None:
        for each in policies:
            if not isinstance(each, Policy):
                raise ConfigError(
                    f"{each!r} is no policy",
                    setting="policies",
                    remedy="give policies, made: Retry(), not Retry",
                )
        self.name = name
        self.policies = policies
        self._compose()
        for doubt in _doubts(policies):
            bus.emit(PipelineOrderDoubted(subject=name, **doubt.__dict__))
            warnings.warn(f"{name}: {doubt}", PipelineWarning, stacklevel=2)

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(map(repr, self.policies))})"

    def _compose(self) -> None:
        # Put together here, not at each call.
        self._run = _compose([each.run for each in self.policies])
        self._run_sync = _compose([each.run_sync for each in self.policies])
        self._begin = _compose([each.begin for each in self.policies])
        self._begin_async = _compose([each.begin_async for each in self.policies])
        self._depends_on_call = any(type(each).for_call is not Policy.for_call for each in self.policies)

    def order(self) -> list[str]:
        """The policies as a call meets them, e.g. ``["Retry(payments)", "CircuitBreaker(payments)"]``.

        Those of a nested pipeline stand in its place. Of two that are called alike the second is
        ``Retry(retry)#2``.
        """
        return _labels(policy for policy, _ in _flat(self.policies))

    def describe(self) -> Mapping[str, Any]:
        """The order, what is wrong with it now, and what each policy tells of itself, as plain values.

        What is wrong may be news: a bulkhead that is given a queue at run time has another place.
        """
        order, described = self.order(), {}
        for label, (policy, _) in zip(order, _flat(self.policies), strict=True):
            describe = getattr(policy, "describe", None)
            if describe is not None:
                described[label] = describe()
        doubts = [str(doubt) for doubt in _doubts(self.policies, everywhere=True)]
        return {"order": order, "doubts": doubts, "policies": described}

    async def run(self, operation: Operation[T]) -> T:
        result: T = await self._run(operation)
        return result

    def run_sync(self, operation: Callable[[], T]) -> T:
        result: T = self._run_sync(operation)
        return result

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        for policy in reversed(self.policies):
            function = policy.guard(function)
        return function

    def guard_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        for policy in reversed(self.policies):
            function = policy.guard_async(function)
        return function

    def for_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Policy:
        if not self._depends_on_call:
            return self
        bound = object.__new__(Pipeline)  # its order has been told already
        bound.name = self.name
        bound.policies = tuple(each.for_call(args, kwargs) for each in self.policies)
        bound._compose()
        return bound

    def begin(self, start: Callable[[], Stream]) -> Stream:
        stream: Stream = self._begin(start)
        return stream

    async def begin_async(self, start: Operation[Stream]) -> Stream:
        stream: Stream = await self._begin_async(start)
        return stream


def _compose(methods: Sequence[Callable[[Callable[[], Any]], Any]]) -> Callable[[Callable[[], Any]], Any]:
    """One function that runs an operation under all of ``methods``, outermost first."""
    if not methods:
        return lambda operation: operation()
    outer, *inner = methods
    if not inner:
        return outer
    rest = _compose(inner)
    return lambda operation: outer(functools.partial(rest, operation))


# ── the order ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Doubt:
    outer: str
    inner: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.inner} stands inside {self.outer}: {self.reason}; {self.remedy}"


_FIRST_INSIDE_SECOND: Mapping[tuple[Role | None, Role | None], tuple[str, str]] = {
    (Role.RETRY, Role.BREAKER): (
        "all attempts of a call are one vote, and the breaker stops none of them",
        "put the retry outside the breaker",
    ),
    (Role.RETRY, Role.RETRY): ("their attempts multiply", "retry in one place"),
    (Role.RETRY, Role.HEDGE): (
        "each of the hedged calls makes attempts of its own",
        "put the retry outside the hedge",
    ),
    (Role.HEDGE, Role.HEDGE): ("their calls multiply", "hedge in one place"),
    (Role.FALLBACK, Role.RETRY): (
        "it answers the first failure, so nothing is tried again",
        "put the fallback outermost",
    ),
    (Role.FALLBACK, Role.HEDGE): (
        "its answer ends the hedged calls as a success",
        "put the fallback outermost",
    ),
    (Role.FALLBACK, Role.BREAKER): (
        "the breaker takes its answers for successes and never opens",
        "put the fallback outermost",
    ),
    (Role.QUEUE, Role.RETRY): (
        "every attempt waits in the queue anew",
        "put the bulkhead outside the retry, or give it no queue",
    ),
    (Role.QUEUE, Role.HEDGE): (
        "a slow call waits in the queue twice",
        "put the bulkhead outside the hedge, or give it no queue",
    ),
}
"""Pairs of policies where the first defeats itself or the second, and what to do."""

_UNSEEN = (
    "what the timeout ends is cancelled, which is no vote, so hanging calls never open the breaker",
    "put a timeout inside the breaker",
)


def _doubts(policies: Sequence[Policy], *, everywhere: bool = False) -> Iterator[_Doubt]:
    """What is wrong with this order.

    :param everywhere: also within one nested pipeline, which has told of that when it was made.
    """
    flat = list(_flat(policies))
    roles = [policy.role for policy, _ in flat]
    labels = _labels(policy for policy, _ in flat)
    for at, (outer, outer_part) in enumerate(flat):
        for below, (inner, inner_part) in enumerate(flat[at + 1 :], at + 1):
            found = _FIRST_INSIDE_SECOND.get((inner.role, outer.role))
            if (
                (outer.role, inner.role) == (Role.TIMEOUT, Role.BREAKER)
                # Around a retry it is the time of the whole; else it is meant for what it surrounds.
                and Role.RETRY not in roles[at:below]
                and Role.TIMEOUT not in roles[below:]
            ):
                found = _UNSEEN
            if found is not None and (everywhere or outer_part != inner_part):
                yield _Doubt(labels[at], labels[below], *found)


def _flat(policies: Sequence[Policy]) -> Iterator[tuple[Policy, int]]:
    """All policies, those of nested pipelines included, with the number of the part they stand in."""
    for number, policy in enumerate(policies):
        if isinstance(policy, Pipeline):
            for each, _ in _flat(policy.policies):
                yield each, number
        else:
            yield policy, number


def _labels(policies: Iterable[Policy]) -> list[str]:
    """What each is called, no two of them alike."""
    labels: list[str] = []
    counts: Counter[str] = Counter()
    for policy in policies:
        label = f"{type(policy).__name__}({policy.name})"
        counts[label] += 1
        labels.append(label if counts[label] == 1 else f"{label}#{counts[label]}")
    return labels
