"""What users need to test their own policies and services, without sleeping and without servers.

:class:`ManualClock` and :class:`ScriptedDependency` for policies, :func:`capture_events` and the
assertions for what came of it, :class:`MemoryDiscovery`, :func:`dev_agent` and :func:`mock_services`
for services. Everything here is a real object of the domain, none a patch of one, but for what
respx does. pytest finds the fixtures ``chassis_clock``, ``chassis_events``, ``chassis_policies``,
``chassis_discovery``, ``chassis_dev_agent`` and ``chassis_services`` by itself.

Names are imported when they are first used, as pytest loads this package at every start.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chassis.discovery import MemoryDiscovery
    from chassis.testing._agent import RunningAgent, dev_agent
    from chassis.testing._assertions import assert_order, assert_state
    from chassis.testing._clock import ManualClock
    from chassis.testing._dependency import ScriptedDependency
    from chassis.testing._events import RecordedEvents, capture_events
    from chassis.testing._isolation import isolated_policies
    from chassis.testing._respx import mock_services
    from chassis.testing._script import Call, Delay, Hang, Items, ScriptExhausted

_HOMES = {
    "Call": "chassis.testing._script",
    "Delay": "chassis.testing._script",
    "Hang": "chassis.testing._script",
    "Items": "chassis.testing._script",
    "ManualClock": "chassis.testing._clock",
    "MemoryDiscovery": "chassis.discovery",
    "RecordedEvents": "chassis.testing._events",
    "RunningAgent": "chassis.testing._agent",
    "ScriptExhausted": "chassis.testing._script",
    "ScriptedDependency": "chassis.testing._dependency",
    "assert_order": "chassis.testing._assertions",
    "assert_state": "chassis.testing._assertions",
    "capture_events": "chassis.testing._events",
    "dev_agent": "chassis.testing._agent",
    "isolated_policies": "chassis.testing._isolation",
    "mock_services": "chassis.testing._respx",
}

__all__ = [
    "Call",
    "Delay",
    "Hang",
    "Items",
    "ManualClock",
    "MemoryDiscovery",
    "RecordedEvents",
    "RunningAgent",
    "ScriptExhausted",
    "ScriptedDependency",
    "assert_order",
    "assert_state",
    "capture_events",
    "dev_agent",
    "isolated_policies",
    "mock_services",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "chassis":
            raise
        raise ImportError(
            f"{name} needs the package {error.name}: pip install 'chassis-kit[testing]'"
        ) from error
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return __all__
