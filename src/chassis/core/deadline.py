"""The deadline of the whole call: an absolute monotonic instant carried by a context variable.

Of nested deadlines the earliest holds. Tasks and threads that are begun with a copy of the context
inherit it; :func:`detach_deadline` is for work that must outlive its caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType

from chassis.core.clock import Clock, monotonic
from chassis.core.errors import DeadlineExceeded

clock: Clock = monotonic
"""What deadlines are counted on. To be read from this module at each use, see :func:`deadlines_go_by`."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant on the monotonic clock after which the caller no longer wants the answer.

    :param at: seconds on :data:`clock`.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline ``seconds`` from now."""
        return cls(clock() + seconds)

    def remaining(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at - clock()

    def check(self, *, begun: bool = True) -> None:
        """Raise :class:`DeadlineExceeded` if it has passed.

        :param begun: False before anything was done: the error is then not ``conclusive``.
        """
        if self.remaining() <= 0:
            raise DeadlineExceeded(PASSED, conclusive=begun)


PASSED = "the deadline of this call has passed"

deadline_at: ContextVar[float | None] = ContextVar("chassis_deadline", default=None)
"""The instant itself, for policies that cannot afford an object per call. Others ask
:func:`current_deadline` or :func:`remaining`, and set it by :func:`deadline_scope`."""


def current_deadline() -> Deadline | None:
    """The deadline that holds here, or None."""
    at = deadline_at.get()
    return None if at is None else Deadline(at)


def remaining() -> float | None:
    """Seconds the caller of what runs here still waits, or None if nobody said.

    Negative once the deadline has passed.
    """
    at = deadline_at.get()
    return None if at is None else at - clock()


def hold_deadline(deadline: Deadline) -> None:
    """Make ``deadline`` hold for the rest of this context, for contexts made for one request."""
    deadline_at.set(deadline.at)


def deadline_scope(
    deadline: Deadline | None, *, shield: bool = False
) -> AbstractContextManager[Deadline | None]:
    """Make ``deadline`` hold inside a ``with`` block, unless an earlier one holds already.

    The block gets the deadline that holds inside. Use it once, and enter and leave it in the same
    context: held across a ``yield`` of a generator it would hold in the consumer's code meanwhile.

    :param deadline: None lifts the deadline, see :func:`detach_deadline`.
    :param shield: it holds also where an earlier one does: for what must be cleaned up or made
        good, and needs time of its own, when the caller's is spent.
    """
    return _Scope(deadline, shield)


def detach_deadline() -> AbstractContextManager[Deadline | None]:
    """No deadline holds inside the ``with`` block, nor in tasks begun there.

    For background work that must outlive the request that began it.
    """
    return _Scope(None, True)


_ONCE = "a deadline scope is entered once and left once: make a new one for each use"


class _Scope:
    """As a class: a generator would cost several times as much, once per request."""

    __slots__ = ("_deadline", "_shield", "_token")

    def __init__(self, deadline: Deadline | None, shield: bool) -> None:
        self._deadline = deadline
        self._shield = shield
        self._token: Token[float | None] | None = None

    def __enter__(self) -> Deadline | None:
        if self._token is not None:
            raise RuntimeError(_ONCE)
        deadline = self._deadline
        if deadline is not None and not self._shield:
            outer = deadline_at.get()
            if outer is not None and outer < deadline.at:
                deadline = Deadline(outer)
        self._token = deadline_at.set(None if deadline is None else deadline.at)
        return deadline

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is None:
            raise RuntimeError(_ONCE)
        deadline_at.reset(token)


@contextmanager
def deadlines_go_by(other: Clock) -> Iterator[None]:
    """Count deadlines on ``other`` while the block runs, in the whole process: for tests, whose time is theirs.

    It begins at what the monotonic clock shows, so that deadlines held already keep what they have left.

    :raises RuntimeError: they go by another one already.
    """
    global clock  # noqa: PLW0603 - what each call asks must cost no more than a name
    if clock is not monotonic:
        raise RuntimeError("deadlines go by another clock already: let its block end first")
    ahead = monotonic() - other()
    clock = lambda: other() + ahead  # noqa: E731 - a function of this one block
    try:
        yield
    finally:
        clock = monotonic
