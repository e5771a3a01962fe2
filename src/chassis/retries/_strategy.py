"""What is tried again, after what pause and how often: by options, or by tenacity's objects in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from chassis.core.errors import ConfigError, Rejected
from chassis.core.functions import is_async_callable
from chassis.core.outcomes import Classifier, Outcome, classify_error, judge_error
from chassis.retries._backoff import Backoff
from chassis.retries._options import RetryOptions
from chassis.retries._refusals import is_refusal

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.retry import RetryBaseT
    from tenacity.stop import StopBaseT
    from tenacity.wait import WaitBaseT

ErrorTypes: TypeAlias = type[Exception] | tuple[type[Exception], ...]


class Strategy:
    """Judges what an attempt came to. It has no state of any call.

    :param given: names of the options that were given by themselves.
    :raises ConfigError: ``on`` names no errors, one of tenacity's objects is async, or takes the
        place of what was given as well.
    """

    def __init__(
        self,
        options: RetryOptions,
        *,
        given: set[str],
        on: ErrorTypes | Callable[[Exception], bool] | None,
        classify: Classifier,
        stop: StopBaseT | None,
        wait: WaitBaseT | None,
        retry: RetryBaseT | None,
    ) -> None:
        if on is not None:
            check_errors("on", on)
            given = given | {"on"}
        for instead, strategy, replaced in (
            ("stop", stop, given & {"retries"}),
            ("wait", wait, given & {"wait_base", "wait_max"}),
            ("retry", retry, given & {"on"}),
        ):
            if strategy is not None and replaced:
                raise ConfigError(
                    f"takes the place of {', '.join(sorted(replaced))}",
                    setting=instead,
                    remedy="give one of them",
                )
            if strategy is not None and is_async_callable(strategy):
                raise ConfigError("is async", setting=instead, remedy="give one of tenacity's plain objects")
        self.uses_tenacity = any(each is not None for each in (stop, wait, retry))
        self.judges_results = retry is not None or classify is not classify_error
        self._classify = classify
        self._on: tuple[type[Exception], ...] | Callable[[Exception], bool] | None = (
            (on,) if isinstance(on, type) else on
        )
        self._on_refusals: tuple[type[Exception], ...] = (
            tuple(each for each in self._on if issubclass(each, Rejected))
            if isinstance(self._on, tuple)
            else ()
        )
        self._stop = stop
        self._wait = wait
        self._retry = retry
        self.follow(options)

    def follow(self, options: RetryOptions) -> None:
        """Go by ``options`` from now on."""
        self.options = options
        self._backoff = Backoff(options.wait_base, options.wait_max)

    # ``state`` is what tenacity's objects ask; it is there if :attr:`uses_tenacity`.

    def tries_again(self, result: Any, error: Exception | None, state: RetryCallState | None) -> bool:
        """Whether this is a failure of a kind that may pass."""
        if self._retry is not None:
            return bool(self._retry(state)) if state is not None else False
        if error is None:
            return self._classify(result, None) is Outcome.FAILURE
        if self._on is None:
            return judge_error(self._classify, error) is Outcome.FAILURE
        # ``on`` is asked of a group itself, as ``except`` is: that one of its errors is of a kind that
        # passes does not say that it is harmless to do all of it twice.
        if not isinstance(self._on, tuple):
            return self._on(error)
        if not isinstance(error, self._on):
            return False
        # To wait for a refusal is a decision of its own: ``on=Exception`` does not take it.
        return not is_refusal(error) or is_refusal(error, self._on_refusals)

    def pause(self, made: int, state: RetryCallState | None) -> float:
        """Seconds to wait after ``made`` attempts."""
        if self._wait is not None and state is not None:
            return float(self._wait(state))
        return self._backoff.delay(made - 1)

    def stops(self, made: int, state: RetryCallState | None) -> bool:
        """Whether ``made`` attempts are all there may be."""
        if self._stop is not None and state is not None:
            return bool(self._stop(state))
        return made > self.options.retries


def check_errors(field: str, errors: Any) -> None:
    """Refuse what is neither a type of ``Exception``, nor a tuple of them, nor a function of the error."""
    if isinstance(errors, type | tuple):
        types: tuple[Any, ...] = errors if isinstance(errors, tuple) else (errors,)
        good = all(isinstance(each, type) and issubclass(each, Exception) for each in types)
    else:
        good = callable(errors)
    if not good:
        raise ConfigError(
            f"{errors!r} names no types of Exception",
            setting=field,
            remedy="give an exception type, a tuple of them, or a function of the error",
        )
