"""What is known of the services this process calls, as gauges: made when the page is rendered.

So a service that is listened to no more, and a status no instance has, leave no series behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from chassis.metrics import register_gauge

Samples: TypeAlias = dict[tuple[str, ...], float]

_FRESHNESS = {"fresh": 0.0, "stale": 1.0, "expired": 2.0}


def register_discovery_gauges(
    told: Callable[[], Mapping[str, Any]], watched: Callable[[], Mapping[str, Any]]
) -> Callable[[], None]:
    """Show how old and how full each service's snapshot is.

    :param told: per service what callers go by, as ``Discovery.describe`` gives it.
    :param watched: the same of the registry's own watches, with ``errors`` and ``empty_answer_held``.
    :returns: a function that takes them away again.
    """

    def age() -> Samples:
        return {(name,): each["age"] for name, each in told().items() if each.get("age") is not None}

    def instances() -> Samples:
        return {
            (name, status): float(number)
            for name, each in told().items()
            for status, number in Counter(one["status"] for one in each.get("instances", ())).items()
        }

    def freshness() -> Samples:
        known = {name: each.get("freshness") for name, each in told().items()}
        return {(name,): _FRESHNESS[each] for name, each in known.items() if each in _FRESHNESS}

    def held() -> Samples:
        return {(name,): float(each.get("empty_answer_held", False)) for name, each in watched().items()}

    def errors() -> Samples:
        return {
            (name, kind): float(number)
            for name, each in watched().items()
            for kind, number in each.get("errors", {}).items()
        }

    undo = [
        register_gauge(
            "chassis_discovery_snapshot_age_seconds",
            "Seconds since the source last confirmed where the service is.",
            ["service"],
            age,
        ),
        register_gauge(
            "chassis_discovery_instances",
            "Instances known of the service, by the status their registry gives them.",
            ["service", "status"],
            instances,
        ),
        register_gauge(
            "chassis_discovery_freshness",
            "0 while the source answers, 1 while what it told last is kept, 2 when that has expired.",
            ["service"],
            freshness,
        ),
        register_gauge(
            "chassis_discovery_empty_answer_held",
            "1 while the registry says that there are no or fewer instances and is not believed, else 0.",
            ["service"],
            held,
        ),
        register_gauge(
            "chassis_discovery_watch_errors",
            "Answers of the registry that could not be had or used, by kind, since the watch began.",
            ["service", "kind"],
            errors,
        ),
    ]

    def remove() -> None:
        for each in undo:
            each()

    return remove
