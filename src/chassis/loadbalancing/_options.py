from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from chassis.core.contracts import Balancer
from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_count, check_fraction, check_seconds

PolicyName: TypeAlias = Literal[
    "round_robin", "random", "weighted", "least_request", "peak_ewma", "consistent_hash", "ordered"
]
"""The policies that come with this package."""
Panic: TypeAlias = Literal["off", "ejection", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancingOptions:
    """Which instance of a service takes the next call, and which are passed over for a while.

    :param policy: how to choose among the fit. ``round_robin``: each in turn. ``random``.
        ``weighted``: in turn, as often as their weights say. ``least_request``: of a few drawn, the
        one with the fewest calls in flight for its weight. ``peak_ewma``: of a few drawn, the one
        where latency and calls in flight promise the shortest wait. ``consistent_hash``: the one
        that a key belongs to. ``ordered``: the heaviest, then by id; the others stand by. Or a
        function that makes a :class:`~chassis.core.contracts.Balancer`, asked once per tier.
    :param choices: how many ``least_request`` and ``peak_ewma`` draw, 2 to 10.
    :param zone: this process's zone: instances elsewhere are the next tier; "" for no preference.
    :param spill_over: a tier takes all calls while at least ``1 / spill_over`` of it is healthy;
        of what is below that, the rest flows to the next tier.
    :param subset: call only so many instances of a tier, other ones in other processes; 0 for all.
    :param slow_start: seconds in which an instance that has just come is brought to its full share;
        0 gives it at once.
    :param ejection_cap: the largest share of the instances that may be ejected at once, and never
        the last one; 0 ejects none.
    :param ejection_rate: ejects an instance of whose calls more than this fraction fails, while of
        its peers' calls at most half as many do.
    :param ejection_deviations: ejects an instance whose success rate is more than so many standard
        deviations below the mean of at least five, and a fifth of all calls below it; None for never.
    :param ejection_window: seconds of calls that are compared.
    :param ejection_minimum: calls within them before an instance is judged.
    :param ejection_time: seconds of the first ejection, drawn within 20 %; doubled each time until
        there has been good time between.
    :param ejection_time_max: seconds the doubling ends at.
    :param panic_below: below this fraction of healthy instances, comparing with peers is no guide.
    :param panic: what happens then. ``ejection``: the ejected are called as well. ``all``: so are
        those their registry calls critical. ``off``: nothing.
    :param retry_after_max: the longest that an instance which answered 429 or 503 with Retry-After
        is passed over while others are fit; 0 does not heed it.
    :param latency_decay: seconds in which an old latency loses about two thirds of its say.
    :param failure_cost: seconds that ``peak_ewma`` fears of an instance that failed, or that has
        calls in flight and never answered yet.
    :raises ConfigError: a value is impossible.
    """

    policy: PolicyName | Callable[[], Balancer] = "round_robin"
    choices: int = 2
    zone: str = ""
    spill_over: float = 1.4
    subset: int = 0
    slow_start: Seconds = 0.0
    ejection_cap: float = 0.5
    ejection_rate: float = 0.5
    ejection_deviations: float | None = 1.9
    ejection_window: Seconds = 10.0
    ejection_minimum: int = 20
    ejection_time: Seconds = 5.0
    ejection_time_max: Seconds = 300.0
    panic_below: float = 0.5
    panic: Panic = "ejection"
    retry_after_max: Seconds = 30.0
    latency_decay: Seconds = 10.0
    failure_cost: Seconds = 1.0

    def __post_init__(self) -> None:
        if not callable(self.policy):
            _check_choice("policy", self.policy, get_args(PolicyName))
        _check_choice("panic", self.panic, get_args(Panic))
        check_count("choices", self.choices, least=2)
        if self.choices > 10:
            raise ConfigError(
                f"{self.choices!r} are too many",
                setting="choices",
                remedy="give 2 to 10: two are nearly as good as all",
            )
        if not isinstance(self.zone, str):
            raise ConfigError(f"{self.zone!r} is no zone", setting="zone", remedy="give its name")
        check_count("subset", self.subset, least=0)
        check_count("ejection_minimum", self.ejection_minimum)
        for field in ("ejection_window", "ejection_time", "latency_decay", "failure_cost"):
            check_seconds(field, getattr(self, field))
        for field in ("slow_start", "retry_after_max"):
            check_seconds(field, getattr(self, field), zero=True)
        check_seconds("ejection_time_max", self.ejection_time_max)
        if self.ejection_time_max < self.ejection_time:
            raise ConfigError(
                f"{self.ejection_time_max!r} is less than ejection_time, {self.ejection_time!r}",
                setting="ejection_time_max",
                remedy="give at least as much",
            )
        # Zero is a fraction here: no ejection at all.
        if self.ejection_cap != 0 or isinstance(self.ejection_cap, bool):
            check_fraction("ejection_cap", self.ejection_cap)
        check_fraction("ejection_rate", self.ejection_rate)
        check_fraction("panic_below", self.panic_below)
        _check_at_least("spill_over", self.spill_over, 1.0)
        if self.ejection_deviations is not None:
            _check_at_least("ejection_deviations", self.ejection_deviations, 0.0)


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(
            f"{value!r} is none of the choices", setting=field, remedy=f"use {', '.join(choices)}"
        )


def _check_at_least(field: str, value: object, least: float) -> None:
    # Written so that NaN, which compares with nothing, is refused as well.
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
        raise ConfigError(
            f"{value!r} is too small or no number", setting=field, remedy=f"give {least:g} or more"
        )
