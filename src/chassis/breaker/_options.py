from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeAlias, TypedDict, get_args

from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_count, check_fraction, check_seconds

Mode: TypeAlias = Literal["automatic", "forced_open", "disabled", "metrics_only"]
"""Who decides: the breaker itself (``automatic``), or an operator."""

_WINDOW = 30.0
_LEAST_PROBE_TIMEOUT = 30.0
_MOST_CALLS = 1_000_000  # each takes a byte


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions:
    """When a circuit breaker opens, and how it finds its way back.

    :param mode: ``automatic``; or, for an operator, ``forced_open`` (refuses every call),
        ``disabled`` (lets every call through and counts nothing), ``metrics_only`` (lets every call
        through, counts, and tells when it would have opened).
    :param failure_rate: opens when at least this fraction of the window's calls failed.
    :param slow_after: a call that takes longer than this many seconds is slow; None looks at no
        call's duration. A stream's is the time to its first item.
    :param slow_rate: opens when at least this fraction of the window's calls were slow.
    :param window: looks at the calls of the last so many seconds. None is 30 s, unless
        ``window_calls`` is given.
    :param window_calls: looks at the last so many calls instead, however old they are; a million at most.
    :param minimum_calls: the rates say nothing before the window holds this many calls.
    :param consecutive_failures: opens after this many failures in a row; None leaves it to the rates.
    :param open_for: seconds it stays open the first time; doubled after each failed round of
        probes, and drawn within 10 % at each opening so that replicas do not probe together.
    :param open_for_max: seconds the doubling ends at.
    :param retry_after_max: when the failure that opens it bears a ``retry_after`` (seconds), it stays
        open for at least that long, but for no longer than this many seconds on that account. None
        pays no heed to what servers tell.
    :param probes: calls in a round of probes.
    :param probe_concurrency: probes in flight at once.
    :param probe_failures: how many probes of a round may fail, or be slow, for it to close all the
        same. It closes or opens again as soon as the rest of the round can change nothing.
    :param probe_timeout: seconds after which a probe without a result counts as failed. None is
        ``open_for``, and at least 30 s.
    :raises ConfigError: a value is impossible.
    """

    settings_alternatives: ClassVar[tuple[tuple[str, ...], ...]] = (("window", "window_calls"),)

    mode: Mode = "automatic"
    failure_rate: float = 0.5
    slow_after: Seconds | None = None
    slow_rate: float = 0.5
    window: Seconds | None = None
    window_calls: int | None = None
    minimum_calls: int = 20
    consecutive_failures: int | None = 5
    open_for: Seconds = 5.0
    open_for_max: Seconds = 60.0
    retry_after_max: Seconds | None = 300.0
    probes: int = 3
    probe_concurrency: int = 1
    probe_failures: int = 0
    probe_timeout: Seconds | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(
                f"{self.mode!r} is no mode", setting="mode", remedy=f"give one of {', '.join(get_args(Mode))}"
            )
        check_fraction("failure_rate", self.failure_rate)
        if self.slow_after is not None:
            check_seconds("slow_after", self.slow_after)
        check_fraction("slow_rate", self.slow_rate)
        check_count("minimum_calls", self.minimum_calls)
        check_count("probes", self.probes)
        self._check_window()
        if self.consecutive_failures is not None:
            check_count("consecutive_failures", self.consecutive_failures)
        check_seconds("open_for", self.open_for)
        check_seconds("open_for_max", self.open_for_max)
        if self.open_for_max < self.open_for:
            raise ConfigError(
                f"{self.open_for_max!r} is below open_for ({self.open_for!r})",
                setting="open_for_max",
                remedy="give at least open_for",
            )
        if self.retry_after_max is not None:
            check_seconds("retry_after_max", self.retry_after_max)
        check_count("probe_concurrency", self.probe_concurrency)
        _at_most("probe_concurrency", self.probe_concurrency, self.probes, "probes of a round", "probes")
        check_count("probe_failures", self.probe_failures, least=0)
        if self.probe_failures >= self.probes:
            raise ConfigError(
                f"with {self.probe_failures!r} of {self.probes!r} probes allowed to fail, every round is passed",
                setting="probe_failures",
                remedy="give less than probes",
            )
        if self.probe_timeout is not None:
            check_seconds("probe_timeout", self.probe_timeout)

    def _check_window(self) -> None:
        if self.window is not None:
            check_seconds("window", self.window)
        if self.window_calls is None:
            return
        check_count("window_calls", self.window_calls)
        if self.window_calls > _MOST_CALLS:
            raise ConfigError(
                f"a window of {self.window_calls!r} calls forgets nothing",
                setting="window_calls",
                remedy=f"give some hundreds, at most {_MOST_CALLS}",
            )
        if self.window is not None:
            raise ConfigError(
                f"{self.window_calls!r} calls are given beside a window of {self.window!r} s",
                setting="window_calls",
                remedy="give one of window and window_calls, and leave the other out",
            )
        for field in ("minimum_calls", "probes"):
            _at_most(field, getattr(self, field), self.window_calls, "calls of the window", "window_calls")

    @property
    def window_seconds(self) -> float | None:
        """The window in seconds; None if it is one of calls."""
        if self.window_calls is not None:
            return None
        return _WINDOW if self.window is None else self.window

    @property
    def lease(self) -> float:
        """Seconds after which a probe without a result counts as failed."""
        return max(self.open_for, _LEAST_PROBE_TIMEOUT) if self.probe_timeout is None else self.probe_timeout

    def describe(self) -> dict[str, Any]:
        """As plain values, with what the breaker makes of ``window`` and ``probe_timeout``."""
        return {**asdict(self), "window": self.window_seconds, "probe_timeout": self.lease}


class BreakerFields(TypedDict, total=False):
    """Single fields of :class:`BreakerOptions`, as keywords."""

    mode: Mode
    failure_rate: float
    slow_after: float | None
    slow_rate: float
    window: float | None
    window_calls: int | None
    minimum_calls: int
    consecutive_failures: int | None
    open_for: float
    open_for_max: float
    retry_after_max: float | None
    probes: int
    probe_concurrency: int
    probe_failures: int
    probe_timeout: float | None


def _at_most(field: str, value: int, limit: int, what: str, other: str) -> None:
    if value > limit:
        raise ConfigError(
            f"{value!r} is more than the {limit!r} {what}",
            setting=field,
            remedy=f"give at most {other}, {limit!r}",
        )
