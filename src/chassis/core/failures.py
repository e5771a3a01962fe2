"""What is kept of an error: text and number, as the error itself would keep frames and bodies alive."""

from __future__ import annotations

import math

_LONGEST = 200


def failure_text(error: BaseException | None) -> str:
    """Type and message of ``error``, cut; without one, that the result was judged."""
    if error is None:
        return "its result was judged a failure"
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an error that cannot be printed is still a failure
        text = type(error).__name__
    return text[:_LONGEST]


def told_wait(error: BaseException | None) -> float | None:
    """The seconds after which ``error`` asks to be called again, if it bears such a number."""
    try:
        told = getattr(error, "retry_after", None)
    except Exception:  # noqa: BLE001 - the property's own error; the failure counts all the same
        return None
    if isinstance(told, int | float) and not isinstance(told, bool) and 0 <= told < math.inf:
        return told
    return None
