"""How the number of series of one metric is held below a limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

ChildT = TypeVar("ChildT")

OVERFLOW = "__overflow__"
"""The value of every label of the series that takes what is beyond the limit."""

_METHODS = {
    name: name
    for name in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "QUERY")
}


def known_method(method: str) -> str:
    """``method`` if it is one of HTTP's own, else ``_OTHER``: anybody may send any word."""
    return _METHODS.get(method, "_OTHER")


class BoundedChildren(Generic[ChildT]):
    """The children of one metric by their label values, at most ``limit`` of them.

    :param make: makes the child of a label set; called once for each.
    :param limit: how many label sets get a child of their own.
    :param labels: how many labels the metric has.
    :param overflowed: called for each observation that went to the common child.
    """

    def __init__(
        self, make: Callable[..., ChildT], *, limit: int, labels: int, overflowed: Callable[[], object]
    ) -> None:
        self._make = make
        self._limit = limit
        self._labels = labels
        self._overflowed = overflowed
        self._children: dict[tuple[str | int, ...], ChildT] = {}
        self._overflow: ChildT | None = None
        self._lock = threading.Lock()

    def get(self, *values: str | int) -> ChildT:
        """The child of these label values, or the common one if the limit is reached."""
        child = self._children.get(values)
        return child if child is not None else self._add(values)

    def _add(self, values: tuple[str | int, ...]) -> ChildT:
        with self._lock:
            child = self._children.get(values)
            if child is not None:
                return child
            if len(self._children) < self._limit:
                child = self._children[values] = self._make(*map(str, values))
                return child
            if self._overflow is None:
                self._overflow = self._make(*[OVERFLOW] * self._labels)
            child = self._overflow
        self._overflowed()
        return child
