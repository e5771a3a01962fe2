"""Which errors are refusals: nothing was sent, and nothing is known of what is called."""

from __future__ import annotations

from chassis.core.errors import Rejected


def is_refusal(
    error: BaseException | None, kinds: type[Exception] | tuple[type[Exception], ...] = Rejected
) -> bool:
    """Whether ``error`` is one of ``kinds``, or a group with nothing else in it."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_refusal(member, kinds) for member in error.exceptions)
    return isinstance(error, kinds)
