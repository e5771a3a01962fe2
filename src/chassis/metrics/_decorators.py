"""``@timed`` and ``@counted``: a metric around any function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chassis.core.clock import monotonic
from chassis.core.outcomes import Outcome, classify_error
from chassis.core.policies import Admission
from chassis.metrics._instruments import BUCKETS, family

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Histogram

# An admission that refuses nobody: its permit learns how each call ended, to the end of a generator.


class timed(Admission):  # noqa: N801 - a decorator is read as a word
    """Record how long each call of a function takes: ``@timed("price_load_seconds")``.

    A histogram with the label ``outcome``: ``success``, ``failure``, or ``ignored`` for what says
    nothing about the work (cancellation, a local refusal). For plain, async, generator and async
    generator functions; a generator's time runs from its first item to its end, its consumer's
    pauses included.

    :param name: the metric's name; several functions may share it.
    :param documentation: one line for its readers.
    :raises ValueError: the name is empty, or another metric has it already.
    """

    classify = staticmethod(classify_error)

    def __init__(
        self, name: str, documentation: str = "", *, registry: CollectorRegistry | None = None
    ) -> None:
        from prometheus_client import Histogram

        def make(registry: CollectorRegistry) -> Histogram:
            text = documentation or f"Duration of {name}."
            return Histogram(name, text, ["outcome"], buckets=BUCKETS, registry=registry)

        self.name = name
        histogram = family(name, registry, make)
        self._children = {outcome: histogram.labels(outcome.value) for outcome in Outcome}

    def acquire(self) -> _Timing:
        return _Timing(self._children)


class _Timing:
    __slots__ = ("_begun", "_children")

    def __init__(self, children: dict[Outcome, Any]) -> None:
        self._children = children
        self._begun = monotonic()

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        self._children[outcome].observe(monotonic() - self._begun)


class counted(Admission):  # noqa: N801 - a decorator is read as a word
    """Count the calls of a function by how they ended: ``@counted("orders_placed_total")``.

    A counter with the label ``outcome``, as :class:`timed` has it; ``_total`` is added to its name
    if it is not there.

    :param name: the metric's name; several functions may share it.
    :param documentation: one line for its readers.
    :raises ValueError: the name is empty, or another metric has it already.
    """

    classify = staticmethod(classify_error)

    def __init__(
        self, name: str, documentation: str = "", *, registry: CollectorRegistry | None = None
    ) -> None:
        from prometheus_client import Counter

        def make(registry: CollectorRegistry) -> Counter:
            return Counter(name, documentation or f"Calls of {name}.", ["outcome"], registry=registry)

        self.name = name
        counter = family(name, registry, make)
        self._children = {outcome: counter.labels(outcome.value) for outcome in Outcome}

    def acquire(self) -> _Count:
        return _Count(self._children)


class _Count:
    __slots__ = ("_children",)

    def __init__(self, children: dict[Outcome, Any]) -> None:
        self._children = children

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        self._children[outcome].inc()
