"""One hedged call, by the pure machine that tasks and threads are driven by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core.errors import Rejected
from chassis.core.outcomes import Classifier, Outcome, classify_error
from chassis.retries import HedgeMachine, HedgeOptions, RetryBudget
from chassis.retries._hedge_call import Ended, HedgedCall


def call(
    *,
    extra: int = 1,
    share: bool = True,
    machine: HedgeMachine | None = None,
    budget: RetryBudget | None = None,
    classify: Classifier = classify_error,
    permanent: Callable[[Exception], bool] = lambda error: isinstance(error, KeyError),
    now: float = 0.0,
) -> HedgedCall:
    machine = machine or HedgeMachine(HedgeOptions(delay=1.0, extra=extra, extra_load=1.0))
    for _ in range(10 if share else 0):
        machine.begin(0.0)
    return HedgedCall(
        machine,
        budget,
        classify=classify,
        permanent=permanent,
        delay=1.0,
        now=now,
    )


def test_waits_for_each_delay_in_turn() -> None:
    """And for nothing once all may be sent that there are."""
    each = call(extra=2)
    assert each.wait(0.25) == 0.75
    assert each.wait(9.0) == 0.0
    assert each.send(1.0) == 1
    assert each.wait(1.5) == 0.5
    assert each.send(2.0) == 2
    assert each.wait(2.0) is None


def test_refused_it_waits_for_nothing_more() -> None:
    """Load that is spent now is not asked for again by the same call."""
    each = call(share=False)
    assert each.send(1.0) is None
    assert each.wait(1.0) is None
    assert each.sent == 1
    assert each.over(Ended(0, "answer", None), 2.0)


def test_trap_17_judgement_that_raises_does_not_end_the_call_for_the_others() -> None:
    """An error nobody could judge is not permanent, a result nobody could judge is not good."""

    def broken(*judged: Any) -> Any:
        raise ZeroDivisionError("mistake")

    for ended in (Ended(0, None, OSError()), Ended(0, "unjudged", None)):
        each = call(classify=broken, permanent=broken)
        each.send(1.0)
        assert not each.over(ended, 2.0)
        assert each.over(Ended(1, None, OSError()), 2.0)


def test_what_could_not_be_sent_is_not_waited_for() -> None:
    """The call's own end is the end."""
    each = call()
    number = each.send(1.0)
    assert number is not None
    each.unsent(number)
    error = OSError()
    assert each.over(Ended(0, None, error), 2.0)
    assert each.error is error


@pytest.mark.parametrize(
    ("winner", "others", "observed"),
    [(0, (), 3.0), (1, (), 3.0), (1, (0,), None)],
)
def test_what_is_observed(winner: int, others: tuple[int, ...], observed: float | None) -> None:
    """The call itself, to its success or to the moment it was overtaken; not one that had failed."""
    machine = HedgeMachine(HedgeOptions(minimum_calls=1, extra_load=1.0))
    each = call(machine=machine)
    each.send(1.0)
    for number in others:
        each.over(Ended(number, None, OSError()), 2.0)
    assert each.over(Ended(winner, "answer", None), 3.0)
    assert machine.delay(3.0) == (None if observed is None else pytest.approx(observed, rel=0.07))


REAL, OTHER = OSError("real"), OSError("other")
REFUSED, AGAIN = Rejected("refused"), Rejected("again")
ALL_REFUSED = ExceptionGroup("tasks", [Rejected("one"), Rejected("another")])


@pytest.mark.parametrize(
    ("errors", "surfaces"),
    [
        ([REAL, REFUSED], REAL),
        ([REFUSED, REAL], REAL),
        ([REAL, OTHER], OTHER),
        ([REFUSED, AGAIN], AGAIN),
        ([REFUSED, REAL, AGAIN], REAL),
        ([REAL, ALL_REFUSED], REAL),
    ],
)
def test_last_real_error_surfaces(errors: list[Exception], surfaces: Exception) -> None:
    """A refusal of one attempt does not hide what another one met."""
    each = call(extra=2)
    for number in range(1, len(errors)):
        assert each.send(float(number)) == number
    overs = [each.over(Ended(number, None, error), 9.0) for number, error in enumerate(errors)]
    assert overs == [False] * (len(errors) - 1) + [True]
    assert each.error is surfaces
    assert each.winner is None


def test_result_that_is_a_failure_is_judged_as_it_is() -> None:
    """The classifier sees the result; while another attempt runs it is no answer."""
    seen = []

    def judge(result: Any, error: BaseException | None) -> Outcome:
        seen.append((result, error))
        return Outcome.FAILURE if result == 503 else Outcome.SUCCESS

    each = call(classify=judge)
    each.send(1.0)
    assert not each.over(Ended(1, 503, None), 2.0)
    assert each.over(Ended(0, 200, None), 3.0)
    assert (each.result, each.error, each.winner) == (200, None, 0)
    assert seen == [(503, None), (200, None)]


def test_further_attempt_is_paid_from_the_budget() -> None:
    """That of the retries, whichever it is given."""
    budget = RetryBudget(per_second=0.1)
    assert call(budget=budget).send(1.0) == 1
    assert call(budget=budget).send(1.0) is None


def test_time_is_counted_from_when_the_call_began() -> None:
    """Not from the clock's origin."""
    machine = HedgeMachine(HedgeOptions(minimum_calls=1))
    call(machine=machine, now=100.0).over(Ended(0, "answer", None), 100.5)
    assert machine.delay(100.5) == pytest.approx(0.5, rel=0.07)


ends = st.sampled_from(["answer", "fails", "is refused", "is permanent", "is cancelled"])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), ends), max_size=12), st.integers(1, 3))
def test_call_is_over_with_its_first_success_or_its_last_failure(
    steps: list[tuple[bool, int, str]], extra: int
) -> None:
    """In whatever order its attempts are sent and end."""
    each, running, ended = call(extra=extra), {0}, list[Any]()
    for number_of_step, (send, number, end) in enumerate(steps):
        if send:
            if each.wait(number_of_step) is not None:
                sent = each.send(number_of_step)
                assert sent == each.sent - 1 <= extra
                assert sent is not None
                running.add(sent)
            continue
        if number not in running:
            continue
        running.discard(number)
        error: BaseException | None = {
            "answer": None,
            "fails": OSError(number),
            "is refused": Rejected(str(number)),
            "is permanent": KeyError(number),
            "is cancelled": GeneratorExit(),
        }[end]
        over = each.over(Ended(number, number, error), float(number_of_step))
        ended.append(error)
        assert over == (end in {"answer", "is permanent", "is cancelled"} or not running)
        if over:
            assert each.winner == (number if end == "answer" else None)
            if end == "answer":
                assert (each.result, each.error) == (number, None)
            elif end != "is refused":
                assert each.error is error
            else:
                real = [one for one in ended if not isinstance(one, Rejected)]
                assert each.error is (real or ended)[-1]
            return
