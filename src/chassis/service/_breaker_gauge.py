"""Which breakers are open, as a gauge: made when the page is rendered."""

from __future__ import annotations

from collections.abc import Callable

from chassis.core import PolicyRegistry, policies
from chassis.metrics import register_gauge

_OPEN = frozenset({"open", "half_open", "forced_open"})


def register_breaker_gauge(own: PolicyRegistry) -> Callable[[], None]:
    """Show how many breakers are open, by name: those in code, families of them, those of each instance called.

    :param own: the policies of a service's clients; all others are in the process-wide registry.
    :returns: a function that takes the gauge away again.
    """

    def opened() -> dict[tuple[str, ...], float]:
        states: dict[tuple[str, ...], float] = {}
        for key, described in {**policies.describe(), **own.describe()}.items():
            if key.startswith("breaker:"):
                # A family is one series: its keys may be many, and are for describe().
                each_of = described.get("breakers", {"": described}).values()
                states[(key,)] = float(sum(each["state"] in _OPEN for each in each_of))
            elif key.startswith("client:") and key.endswith("/breaker"):
                for instance, each in described["instances"].items():
                    states[(f"{key}/{instance}",)] = float(each["state"] in _OPEN)
        return states

    return register_gauge(
        "chassis_breaker_open",
        "1 while a circuit breaker is open, half-open or forced open, else 0; of a family how many are.",
        ["breaker"],
        opened,
    )
