"""An instance that takes no connection is known for dead sooner than one that answers badly."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from chassis.breaker import BreakerOpened, BreakerOptions, BreakerState
from chassis.client import ClientOptions
from chassis.core import ChassisError, ConfigError, Deadline, deadline_scope
from chassis.retries import BudgetOptions
from tests.client.calling import Caller, catalog
from tests.client.scripted import ScriptedServer, answer, hang_up
from tests.support.ports import free_port

Serve = Callable[..., ScriptedServer]
Calling = Callable[..., Caller]

RATES_ALONE = BreakerOptions(consecutive_failures=None, minimum_calls=100_000)


@pytest.fixture
def module() -> str:
    """One HTTP module for what it has no part in."""
    return "httpx2"


def failures_until_open(caller: Caller, most: int = 8) -> int:
    """Attempts that fail until the first instance's breaker is open; 0 if it never is."""
    # Or a call would be sent once more, as its first attempt never left.
    caller.policy("/budget").reconfigure(BudgetOptions(ratio=1e-6, per_second=0))
    for number in range(1, most + 1):
        with pytest.raises(caller.http.module.TransportError):
            caller.get()
        if caller.breaker().state is BreakerState.OPEN:
            return number
    return 0


def once(**options: Any) -> ClientOptions:
    return ClientOptions(retries=0, **options)


@pytest.mark.parametrize(
    ("options", "breaker", "expected"),
    [
        pytest.param(once(), None, 3, id="three by default"),
        pytest.param(once(connect_failures=2), None, 2, id="as configured"),
        pytest.param(once(connect_failures=None), None, 5, id="left to the breaker"),
        pytest.param(once(), BreakerOptions(consecutive_failures=2), 2, id="the breaker may be stricter"),
        pytest.param(once(), RATES_ALONE, 3, id="also where failures in a row are left to the rates"),
        pytest.param(once(connect_failures=None), RATES_ALONE, 0, id="unless that is, too"),
        pytest.param(once(), BreakerOptions(mode="disabled"), 0, id="a disabled breaker opens for nothing"),
    ],
)
def test_case_24_attempts_that_could_not_connect_open_a_breaker(
    calling: Calling, options: ClientOptions, breaker: BreakerOptions | None, expected: int
) -> None:
    caller = calling(catalog(free_port()), options, breaker)
    told: list[Any] = []
    caller.bus.subscribe(told.append)
    assert failures_until_open(caller) == expected
    if expected == 3:
        (event,) = [each for each in told if isinstance(each, BreakerOpened)]
        assert event.reason == "3 consecutive attempts could not connect"
        assert "Connect" in (event.last_failure or "")


def test_the_limit_can_be_changed_while_the_client_is_in_use(calling: Calling) -> None:
    caller = calling(catalog(free_port()), once(connect_failures=None), RATES_ALONE)
    assert failures_until_open(caller, 6) == 0
    caller.policy().reconfigure(once(connect_failures=3))
    assert failures_until_open(caller) == 1  # the row is that long already


def test_only_attempts_in_a_row_that_could_not_connect_count(serve: Serve, calling: Calling) -> None:
    """One that got through begins the row anew, whatever the answer."""
    for behaviour in (answer(), answer(500), answer(429)):
        server = serve(behaviour)
        caller = calling(catalog(server), once(), RATES_ALONE)
        state = caller.upstream.endpoints
        caller.get()
        state.endpoints()[0].state.refusals = 2
        caller.get()
        assert state.endpoints()[0].state.refusals == 0


def test_an_attempt_that_got_through_and_was_lost_begins_the_row_anew(serve: Serve, calling: Calling) -> None:
    """Also one that says nothing of the instance, as its caller's time was cut short."""
    for behaviour, deadline in ((hang_up, 10.0), (answer(delay=5.0), 0.1)):
        caller = calling(catalog(serve(behaviour)), once(), RATES_ALONE)
        caller.upstream.open()
        (endpoint,) = caller.upstream.endpoints.endpoints()
        for _ in range(20):
            endpoint.state.refusals = 2
            with deadline_scope(Deadline.after(deadline)), pytest.raises(ChassisError):
                caller.get()
            if endpoint.state.refusals == 0:
                break  # else this process was too slow to connect in so short a time
        assert endpoint.state.refusals == 0


def test_a_full_pool_of_our_own_is_no_attempt_to_connect(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve()), once(timeout=2, max_connections=1), RATES_ALONE)
    caller.policy("/budget").reconfigure(BudgetOptions(ratio=1e-6, per_second=0))
    refused = 0
    if caller.asynchronous:
        held = caller.wait(caller.client.send(caller.client.build_request("GET", "/"), stream=True))
    else:
        held = caller.client.send(caller.client.build_request("GET", "/"), stream=True)
    caller.policy().reconfigure(once(timeout=0.1, max_connections=1))
    for _ in range(12):
        with pytest.raises(caller.http.module.TimeoutException) as caught:
            caller.get()
        refused += isinstance(caught.value, caller.http.module.PoolTimeout)
        if refused == 3:
            break  # else this process was late by 5 ms, and the attempt was over before its wait for a place
    assert refused == 3
    assert caller.breaker().state is BreakerState.CLOSED
    caller.wait(held.aclose()) if caller.asynchronous else held.close()


@pytest.fixture
def unresponsive() -> Iterator[int]:
    """A port whose machine answers no attempt to connect: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        while True:
            filling = stack.enter_context(socket.socket())
            filling.settimeout(0.1)
            try:
                filling.connect(address)
            except TimeoutError:
                break
        yield address[1]


def test_a_connection_that_is_not_answered_in_time_counts_as_one_refused(
    calling: Calling, unresponsive: int
) -> None:
    """Those that this process was too slow for do not: a crowded machine may need more of them."""
    caller = calling(catalog(unresponsive), once(connect_timeout=0.1), RATES_ALONE)
    told: list[Any] = []
    caller.bus.subscribe(told.append)
    assert failures_until_open(caller, 30) >= 3
    (event,) = [each for each in told if isinstance(each, BreakerOpened)]
    assert event.reason == "3 consecutive attempts could not connect"
    assert event.failures == 3


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_a_limit_that_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="connect_failures"):
        ClientOptions(connect_failures=value)
