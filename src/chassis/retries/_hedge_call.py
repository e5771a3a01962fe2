"""What one hedged call has sent, and when it is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from chassis.core.outcomes import Classifier, Outcome
from chassis.retries._budget import RetryBudget
from chassis.retries._hedge_machine import HedgeMachine
from chassis.retries._refusals import is_refusal


class Ended(NamedTuple):
    """How the attempt ``number`` ended."""

    number: int
    result: Any
    error: BaseException | None


class HedgedCall:
    """The state of one call; pure, so that tasks and threads are driven by the same.

    Its attempts are numbered: 0 is the call itself, the others were sent because it was slow.

    :param delay: seconds after which, and then again, another one may be sent.
    :param permanent: whether an error is one that every other attempt would meet as well.
    """

    def __init__(
        self,
        machine: HedgeMachine,
        budget: RetryBudget | None,
        *,
        classify: Classifier,
        permanent: Callable[[Exception], bool],
        delay: float,
        now: float,
    ) -> None:
        self.sent = 1
        """How many attempts were sent."""
        self.winner: int | None = None
        """The number of the one that succeeded."""
        self.result: Any = None
        self.error: BaseException | None = None
        """Once over: what the caller gets, the error if there is one, else the result."""
        self._machine = machine
        self._budget = budget
        self._classify = classify
        self._permanent = permanent
        self.delay = delay
        self._began = now
        self._due: float | None = now + delay
        self._running = {0}
        self._met = False  # whether an attempt that has ended reached what it calls

    def wait(self, now: float) -> float | None:
        """Seconds until another attempt may be sent; None if there is nothing to wait for."""
        return None if self._due is None else max(0.0, self._due - now)

    def send(self, now: float) -> int | None:
        """The wait is over: the number of the attempt to send now, or None.

        Refused, the call goes on as it is: it is not asked again.
        """
        if not self._machine.allow(now, self._budget):
            self._due = None
            return None
        number = self.sent
        self.sent += 1
        self._running.add(number)
        self._due = now + self.delay if number < self._machine.options.extra else None
        return number

    def unsent(self, number: int) -> None:
        """The attempt ``number`` could not be begun after all; nothing waits for it."""
        self._running.discard(number)

    def over(self, ended: Ended, now: float) -> bool:
        """Take note of an attempt's end, and say whether it is the call's.

        The first success ends it. A failure waits for the others, unless it is permanent.
        """
        number, result, error = ended
        self._running.discard(number)
        if error is None and is_good(result, self._classify):
            self.winner, self.result, self.error = number, result, None
            if number == 0 or 0 in self._running:
                # Overtaken, it has taken at least this long.
                self._machine.observe(now - self._began, now)
            return True
        refused = is_refusal(error)
        if not refused or not self._met:
            self.result, self.error = result, error
        self._met = self._met or not refused
        if error is not None and (not isinstance(error, Exception) or self._is_permanent(error)):
            self.result, self.error = None, error
            return True
        return not self._running

    def _is_permanent(self, error: Exception) -> bool:
        try:
            return self._permanent(error)
        except Exception:  # noqa: BLE001 - the attempts' own errors are the caller's, not this one
            return False


def is_good(result: Any, classify: Classifier) -> bool:
    """Whether a result ends the call. A classifier that raises says no, and then the result stands all the same."""
    try:
        return classify(result, None) is not Outcome.FAILURE
    except Exception:  # noqa: BLE001 - the guarded call's own result must stand
        return False
