"""One definition of failure for breaker, retry, balancer and metrics."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeAlias

from chassis.core.errors import DeadlineExceeded, Rejected


class Outcome(Enum):
    """How a guarded call ended, as seen by whoever judges the dependency."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"
    """Says nothing about the dependency: cancellation, an ignored error, a local refusal."""


_SUCCESS = Outcome.SUCCESS  # Python 3.11 takes ten times as long to find it in its class

Classifier: TypeAlias = Callable[[Any, BaseException | None], Outcome]
"""``(result, error) -> Outcome``; exactly one of the two is meaningful (``error`` is None on a result)."""


def classify_error(result: Any, error: BaseException | None) -> Outcome:
    """The default classifier: results are successes, errors are failures, with three exceptions.

    A :class:`~chassis.core.errors.Rejected` never reached the dependency; a
    :class:`~chassis.core.errors.DeadlineExceeded` that is not ``conclusive`` left it no fair chance; and
    what is not an ``Exception`` (cancellation, KeyboardInterrupt, GeneratorExit) is the caller's own
    will. All are :attr:`Outcome.IGNORED`. An exception group is judged by its members.
    """
    if error is None:
        return _SUCCESS
    if isinstance(error, BaseExceptionGroup):
        return judge_error(classify_error, error)
    if isinstance(error, Rejected) or not isinstance(error, Exception):
        return Outcome.IGNORED
    if isinstance(error, DeadlineExceeded) and not error.conclusive:
        return Outcome.IGNORED
    return Outcome.FAILURE


def judge_error(classify: Classifier, error: BaseException) -> Outcome:
    """What ``classify`` makes of an error, as every admission asks it.

    A group is judged by its members: a failure if one is, else a success if one is, else ignored. So a
    classifier need not know of groups. Cancellation and its like are ignored without asking it: the
    caller changed its mind, which says nothing of the callee.
    """
    if isinstance(error, BaseExceptionGroup):
        outcomes = [judge_error(classify, member) for member in error.exceptions]
        for outcome in (Outcome.FAILURE, Outcome.SUCCESS):
            if outcome in outcomes:
                return outcome
    elif isinstance(error, Exception):
        return classify(None, error)
    return Outcome.IGNORED
