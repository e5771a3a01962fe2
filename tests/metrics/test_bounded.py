"""The limit on the number of series."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from chassis.metrics._bounded import OVERFLOW, BoundedChildren, known_method


class Child:
    """Counts, as a metric's child does."""

    def __init__(self, *values: str) -> None:
        self.values = values
        self.count = 0


class Metric:
    """Makes children and remembers them."""

    def __init__(self, limit: int) -> None:
        self.made: list[Child] = []
        self.overflowed = 0
        self.children = BoundedChildren(self.make, limit=limit, labels=2, overflowed=self.overflow)

    def make(self, *values: str) -> Child:
        self.made.append(Child(*values))
        return self.made[-1]

    def overflow(self) -> None:
        self.overflowed += 1


class Slow(Metric):
    """Lets other threads run while a child is made."""

    def make(self, *values: str) -> Child:
        time.sleep(0.005)
        return super().make(*values)


LABELS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 5)), max_size=60)


@given(LABELS, st.integers(1, 8))
def test_case_34_the_limit_holds_and_totals_stay_right(observations, limit: int) -> None:
    """At most ``limit`` series and one for the rest; every observation lands in exactly one."""
    metric = Metric(limit)
    for values in observations:
        metric.children.get(*values).count += 1
    own = list(dict.fromkeys(observations))[:limit]
    assert len(metric.made) == len(own) + (len(set(observations)) > limit)
    for child in metric.made:
        if child.values == (OVERFLOW, OVERFLOW):
            assert child.count == metric.overflowed == sum(values not in own for values in observations)
        else:
            assert child.count == sum(tuple(map(str, values)) == child.values for values in observations)
    assert sum(child.count for child in metric.made) == len(observations)


def test_the_same_labels_give_the_same_child() -> None:
    """A child is made once and kept: that is what makes it cheap."""
    metric = Metric(5)
    assert metric.children.get("a", 1) is metric.children.get("a", 1)
    assert metric.children.get("a", 1) is not metric.children.get("a", 2)
    assert [child.values for child in metric.made] == [("a", "1"), ("a", "2")]


def test_many_threads_make_one_child() -> None:
    """Two children of one label set would be an error in prometheus_client."""
    metric = Slow(3)
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        for number in range(5):
            metric.children.get("x", number)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(metric.made) == 4


def test_case_33_methods_are_an_allow_list() -> None:
    """HTTP's own, in upper case as they are sent; everything else is one word."""
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "QUERY"):
        assert known_method(method) == method
    assert {known_method(method) for method in ("FOO", "get", "", "X" * 999)} == {"_OTHER"}
