"""Fixtures for pytest. Loading it imports no other part of chassis; a fixture does when it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import respx

    from chassis.core import PolicyRegistry
    from chassis.testing import ManualClock, MemoryDiscovery, RecordedEvents, RunningAgent


@pytest.fixture
def chassis_clock() -> ManualClock:
    """A clock that goes only when it is told to."""
    from chassis.testing import ManualClock

    return ManualClock()


@pytest.fixture
def chassis_events() -> Iterator[RecordedEvents]:
    """The events of the process's bus, recorded during the test."""
    from chassis.testing import capture_events

    with capture_events() as recorded:
        yield recorded


@pytest.fixture
def chassis_policies() -> Iterator[PolicyRegistry]:
    """The process's registry of policies; names and overrides of the test are undone after it."""
    from chassis.testing import isolated_policies

    with isolated_policies() as registry:
        yield registry


@pytest.fixture
def chassis_discovery() -> MemoryDiscovery:
    """A registry in memory: for ``Chassis(..., discovery=chassis_discovery)``."""
    from chassis.testing import MemoryDiscovery

    return MemoryDiscovery()


@pytest.fixture
def chassis_dev_agent() -> Iterator[RunningAgent]:
    """A blank agent that speaks Consul's HTTP API, in this process."""
    from chassis.testing import dev_agent

    with dev_agent() as running:
        yield running


@pytest.fixture
def chassis_services() -> Iterator[respx.MockRouter]:
    """A respx router that answers for services: ``chassis_services.get("http://catalog/items")``."""
    from chassis.testing import mock_services

    with mock_services() as router:
        yield router
