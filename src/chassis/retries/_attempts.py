"""What one call has been through, and whether it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from chassis.core.deadline import current_deadline
from chassis.core.errors import Rejected

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from chassis.retries._policy import Retry

NO_ATTEMPTS_LEFT = "no attempts left"
_NOTE = "attempts of this call"
_LONGEST_FAILURE = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after a failed attempt.

    :param wait: seconds until the next attempt; None if there is none.
    :param reason: why there is none, if the failure was of a kind to try again.
    """

    wait: float | None
    reason: str | None = None


class Attempts:
    """The state of one call, made when its first attempt has failed.

    :param started: when the first attempt began, on the policy's clock.
    """

    def __init__(self, policy: Retry, started: float) -> None:
        self.made = 0
        self._policy = policy
        self._started = started
        self._story: list[str] = []
        self._waited = 0.0
        self._state: RetryCallState | None = None
        self.last_error: Exception
        """Once given up: the error that the caller gets."""
        self._real: tuple[Exception, TracebackType | None] | None = None

    def after(self, result: Any, error: Exception | None, now: float) -> Verdict:
        """Take note of an attempt's end and say what follows."""
        self.made += 1
        policy = self._policy
        state = self._tell_tenacity(result, error, now) if policy.uses_tenacity else None
        if not policy.tries_again(result, error, state):
            return Verdict(None)
        wait = policy.pause(self.made, state)
        told = _told_to_wait(error)
        if told is not None:
            # The drawn pause comes on top, or all who were told the same would come at once.
            wait += told
        if state is not None:
            state.upcoming_sleep = wait
        if policy.stops(self.made, state):
            return Verdict(None, NO_ATTEMPTS_LEFT)
        if told is not None and told > policy.options.retry_after_max:
            return Verdict(None, f"told to wait {told:g} s")
        deadline = current_deadline()
        if deadline is not None and deadline.remaining() <= wait:
            return Verdict(None, "the deadline comes first")
        if not policy.budget.withdraw(now):
            return Verdict(None, "the retry budget is spent")
        self._waited += wait
        return Verdict(wait)

    def go_on(self, failure: str, error: Exception | None, wait: float) -> None:
        """Another attempt follows after ``wait`` seconds."""
        self._story.append(f"{self.made}. {failure}, then {wait:.3g} s")
        if error is not None:
            if not isinstance(error, Rejected):
                self._real = (error, error.__traceback__)
            # It has been dealt with: its frames go now, and should the callee raise the very same
            # object again, its traceback does not grow with each attempt.
            error.__traceback__ = None

    def give_up(self, error: Exception, failure: str, reason: str | None) -> None:
        """No other attempt follows; ``last_error`` is now what the caller gets, with a note of them all.

        A refusal (a breaker that opened meanwhile, say) is less than the real error before it.
        """
        self._story.append(f"{self.made}. {failure}")
        if isinstance(error, Rejected) and self._real is not None:
            error, traceback = self._real
            error.__traceback__ = traceback
        if self.made > 1 or reason not in {None, NO_ATTEMPTS_LEFT}:
            # An object that is raised again and again carries one note, not one per call.
            notes = [each for each in getattr(error, "__notes__", ()) if not each.startswith(_NOTE)]
            ending = "" if reason is None else f" ({reason})"
            error.__notes__ = [*notes, f"{_NOTE}: {'; '.join(self._story)}{ending}"]
        self.last_error = error

    def _tell_tenacity(self, result: Any, error: Exception | None, now: float) -> RetryCallState:
        from tenacity import RetryCallState, Retrying

        state = self._state
        if state is None:
            state = self._state = RetryCallState(Retrying(), None, (), {})
            state.start_time = self._started
        else:
            state.prepare_for_next_attempt()
        state.idle_for = self._waited
        if error is None:
            state.set_result(result)
        else:
            state.set_exception((type(error), error, error.__traceback__))
        state.outcome_timestamp = now
        return state


def _told_to_wait(error: Exception | None) -> float | None:
    told = getattr(error, "retry_after", None)
    if isinstance(told, bool) or not isinstance(told, int | float) or not told >= 0:
        return None
    return float(told)


def failure_text(error: Exception | None) -> str:
    """Type and message of ``error``, as it goes into notes and events."""
    if error is None:
        return "its result was judged a failure"
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an error that cannot be printed is still a failure
        text = type(error).__name__
    return text[:_LONGEST_FAILURE]
