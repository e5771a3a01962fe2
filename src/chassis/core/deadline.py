"""The deadline of the whole call: an absolute monotonic instant carried by a context variable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from chassis.core.clock import monotonic
from chassis.core.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant on the monotonic clock after which the caller no longer wants the answer.

    :param at: seconds on :data:`chassis.core.clock.monotonic`.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline ``seconds`` from now."""
        return cls(monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at - monotonic()

    def check(self) -> None:
        """Raise :class:`DeadlineExceeded` if it has passed."""
        if self.remaining() <= 0:
            raise DeadlineExceeded("the deadline of this call has passed")


_current: ContextVar[Deadline | None] = ContextVar("chassis_deadline", default=None)


def current_deadline() -> Deadline | None:
    """The deadline that holds here, or None."""
    return _current.get()


def hold_deadline(deadline: Deadline) -> None:
    """Make ``deadline`` hold for the rest of this context, for contexts made for one request."""
    _current.set(deadline)


@contextmanager
def deadline_scope(deadline: Deadline | None) -> Iterator[Deadline | None]:
    """Make ``deadline`` hold inside the block, unless an earlier one holds already.

    ``None`` lifts the deadline: for work that must outlive the request that began it.

    :yields: the deadline that holds inside.
    """
    outer = _current.get()
    if deadline is not None and outer is not None and outer.at < deadline.at:
        deadline = outer
    token = _current.set(deadline)
    try:
        yield deadline
    finally:
        _current.reset(token)
