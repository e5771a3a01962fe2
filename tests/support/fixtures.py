"""Fixtures of real servers, and the rules for tests: for those that use them, and for the session.

A test that asks for one of these fixtures carries the marker ``integration`` without saying so.
Where a server cannot be had the test is skipped with the reason; with ``CHASSIS_REQUIRE_SERVERS=1``
it fails.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.servers import BaoServer, ConsulServer, Unavailable, find_bao, find_consul

# What the tests are told is none of a service's business, which would call the setting unknown: it is
# taken out of the environment that services inherit, in this process and others.
_REQUIRED = os.environ.pop("CHASSIS_REQUIRE_SERVERS", "") == "1"
# An example that takes 0.2 s, or draws that take a second, tell of a busy machine. The import takes no time of
# its own, for Hypothesis's plugin imports it for each session's summary; but that is after the freeze (see
# below), when it looks for who holds trio's random numbers, finds nobody and warns.
settings.register_profile("chassis", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("chassis")
_REAL_SERVERS = {"consul_server", "own_consul_server", "bao_server", "own_bao_server"}


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _REAL_SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    # Thousands of collected tests stay until the end: what a test leaves is found among its own objects
    # alone, and a test that collects garbage does so in milliseconds.
    gc.collect()
    gc.freeze()


def require(find: Callable[[], Path]) -> Path:
    """What ``find`` gives; the test is skipped, or fails, where it cannot be had."""
    try:
        return find()
    except Unavailable as error:
        if _REQUIRED:
            pytest.fail(f"CHASSIS_REQUIRE_SERVERS=1, but {error}", pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def consul_server() -> Iterator[ConsulServer]:
    """A real Consul agent all tests share: use names of your own, and leave it running."""
    server = ConsulServer(require(find_consul))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def own_consul_server() -> Iterator[ConsulServer]:
    """A blank real Consul agent of the test's own: to stop, kill, pause and start again."""
    server = ConsulServer(require(find_consul))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def bao_server() -> Iterator[BaoServer]:
    """A real OpenBao server all tests share: use paths of your own, and leave it running."""
    server = BaoServer(require(find_bao))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def own_bao_server() -> Iterator[BaoServer]:
    """A blank real OpenBao server of the test's own: to seal, stop, kill and start again."""
    server = BaoServer(require(find_bao))
    try:
        yield server.start()
    finally:
        server.close()
