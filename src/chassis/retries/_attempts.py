"""What one call has been through, and whether it goes on."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from chassis.core.deadline import current_deadline
from chassis.core.failures import failure_text, told_wait
from chassis.retries._refusals import is_refusal

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from chassis.retries._budget import RetryBudget
    from chassis.retries._strategy import Strategy

NO_ATTEMPTS_LEFT = "no attempts left"
DEADLINE_FIRST = "the deadline comes first"
BUDGET_SPENT = "the retry budget is spent"
_NOTE = "attempts of this call"
_FOREVER = 1e12  # an int may be too large for a float


class Attempts:
    """The state of one call, made when its first attempt has failed.

    :param started: when the first attempt began, on the policy's clock; only tenacity asks.
    """

    def __init__(self, strategy: Strategy, budget: RetryBudget, started: float) -> None:
        self.made = 0
        self.pause: float | None = None
        """Seconds until the next attempt; None if the caller gets what there is."""
        self.reason: str | None = None
        """Why there is none, if the failure was of a kind to try again."""
        self.failure = ""
        """What the last attempt failed with, as text."""
        self.result: Any = None
        self.error: Exception | None = None
        """What the caller gets if no attempt follows: this error, else the result."""
        self._strategy = strategy
        self._budget = budget
        self._started = started
        self._story: list[str] = []
        self._waited = 0.0
        self._met = False  # whether an attempt reached what it calls
        self._state: RetryCallState | None = None
        self._traceback: TracebackType | None = None

    def after(self, result: Any, error: Exception | None, now: float) -> None:
        """Take note of an attempt's end, and decide: with a pause, another attempt is reserved."""
        self.made += 1
        self.pause, self.reason = self._decide(result, error, now)
        if error is None and self.pause is None and self.reason is None:
            self.result, self.error = result, None
            return  # a good result
        self.failure = failure_text(error)
        self._keep(result, error)
        if self.pause is None:
            self._story.append(f"{self.made}. {self.failure}")
            self._write_note()
        else:
            self._story.append(f"{self.made}. {self.failure}, then {self.pause:.3g} s")
            self._waited += self.pause

    def call_off(self, reason: str) -> None:
        """The attempt that was reserved is not made after all."""
        self.pause, self.reason = None, reason
        self._write_note()

    def _decide(self, result: Any, error: Exception | None, now: float) -> tuple[float | None, str | None]:
        strategy = self._strategy
        state = self._tell_tenacity(result, error, now) if strategy.uses_tenacity else None
        try:
            passing = strategy.tries_again(result, error, state)
        except Exception as broken:  # noqa: BLE001 - the caller's is what the call came to, not this
            return None, f"what judges it failed: {failure_text(broken)}"
        if not passing:
            return None, None
        wait = strategy.pause(self.made, state)
        told = _told_to_wait(error)
        if told is not None:
            # The drawn pause comes on top, or all who were told the same would come at once.
            wait += told
        if state is not None:
            state.upcoming_sleep = wait
        if strategy.stops(self.made, state):
            return None, NO_ATTEMPTS_LEFT
        if told is not None and told > strategy.options.retry_after_max:
            return None, f"told to wait {told:g} s"
        if not self.fits(wait):
            return None, DEADLINE_FIRST
        if not self._budget.reserve(now):
            return None, BUDGET_SPENT
        return wait, None

    def fits(self, wait: float) -> bool:
        """Whether an attempt that begins in ``wait`` seconds begins before the deadline."""
        deadline = current_deadline()
        return deadline is None or deadline.remaining() > wait + self._strategy.options.minimum_attempt_time

    def _keep(self, result: Any, error: Exception | None) -> None:
        """Keep what the caller gets if this was the last attempt.

        A refusal (a breaker that opened meanwhile, say) is less than the real failure before it.
        """
        refused = is_refusal(error)
        if refused and self._met:
            return
        self._met = not refused
        self.result, self.error = result, error
        if error is not None:
            self._traceback = error.__traceback__
            if self.pause is not None:
                # Should the callee raise the very same object again, its traceback does not grow
                # with each attempt.
                error.with_traceback(None)

    def _write_note(self) -> None:
        error = self.error
        if error is None:
            return
        error.with_traceback(self._traceback)
        if self.made > 1 or self.reason not in {None, NO_ATTEMPTS_LEFT}:
            # An object that is raised again and again carries one note, not one per call.
            notes = [each for each in getattr(error, "__notes__", ()) if not each.startswith(_NOTE)]
            ending = "" if self.reason is None else f" ({self.reason})"
            # Not by the error's own __setattr__: frozen dataclasses are raised too.
            BaseException.__setattr__(
                error, "__notes__", [*notes, f"{_NOTE}: {'; '.join(self._story)}{ending}"]
            )

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


def _told_to_wait(error: BaseException | None) -> float | None:
    """The seconds that ``error`` asks for; of a group, the most that one of its members does."""
    if isinstance(error, BaseExceptionGroup):
        waits = (_told_to_wait(member) for member in error.exceptions)
        return max((wait for wait in waits if wait is not None), default=None)
    told = told_wait(error)
    return None if told is None else float(min(told, _FOREVER))
