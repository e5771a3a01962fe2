"""The call line: what a caller of a service sees, in both colours and under both HTTP modules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from chassis.breaker import BreakerOptions, BreakerState
from chassis.client import ClientOptions
from chassis.client._instance import admit
from chassis.core import (
    BulkheadFull,
    CircuitOpen,
    Deadline,
    DeadlineExceeded,
    Instance,
    NoInstance,
    Outcome,
    Rejected,
    classify_error,
    deadline_scope,
)
from chassis.core.request import request_id
from chassis.discovery import MemoryDiscovery
from chassis.retries import BudgetOptions
from tests.client.calling import Caller, catalog
from tests.client.scripted import ScriptedServer, answer, cut_body, hang_up, slow_body
from tests.support.ports import free_port
from tests.support.waiting import wait_until

Serve = Callable[..., ScriptedServer]
Calling = Callable[..., Caller]


def test_calls_go_round_all_instances_by_the_services_name(serve: Serve, calling: Calling) -> None:
    servers = [serve() for _ in range(3)]
    caller = calling(catalog(*servers))
    for _ in range(9):
        assert caller.get("/items?page=2").text == "ok"
    assert [len(server.received) for server in servers] == [3, 3, 3]
    request = servers[0].received[0]
    assert request.target == "/items?page=2"
    assert request.headers["host"] == "catalog"


def test_the_answer_tells_its_instance_and_attempts_and_keeps_the_logical_url(
    serve: Serve, calling: Calling
) -> None:
    server = serve()
    response = calling(catalog(server)).get("/items")
    info = response.extensions["chassis"]
    assert (info.service, info.attempts) == ("catalog", 1)
    assert info.instance.port == server.port
    assert str(response.url) == "http://catalog/items"


def test_case_26_a_post_whose_connection_is_refused_goes_to_another_instance(
    serve: Serve, calling: Calling
) -> None:
    server = serve()
    caller = calling(catalog(free_port(), server))
    for _ in range(4):
        assert caller.post("/orders", content=b"one").status_code == 200
    assert [request.body for request in server.received] == [b"one"] * 4


def test_case_26_a_post_cut_after_it_was_sent_is_not_sent_again(serve: Serve, calling: Calling) -> None:
    servers = [serve(hang_up), serve(hang_up)]
    caller = calling(catalog(*servers))
    with pytest.raises(caller.http.module.RemoteProtocolError):
        caller.post("/orders", content=b"one")
    assert sum(len(server.received) for server in servers) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"Idempotency-Key": "7"}},
        {"extensions": {"chassis": {"idempotent": True}}},
    ],
)
def test_case_27_a_post_said_to_be_idempotent_is_sent_again(
    serve: Serve, calling: Calling, options: dict[str, object]
) -> None:
    servers = [serve(script=[hang_up]), serve()]
    caller = calling(catalog(*servers))
    for _ in range(2):
        assert caller.post("/orders", content=b"one", **options).status_code == 200


def test_case_27_a_streamed_body_is_never_sent_again(serve: Serve, calling: Calling) -> None:
    servers = [serve(hang_up), serve(hang_up)]
    caller = calling(catalog(*servers))

    def parts() -> Iterator[bytes]:
        yield b"one"

    async def parts_async():  # type: ignore[no-untyped-def]  # an async generator of bytes
        yield b"one"

    content = parts_async() if caller.asynchronous else parts()
    with pytest.raises(caller.http.module.RemoteProtocolError):
        caller.request("PUT", "/", content=content)
    assert sum(len(server.received) for server in servers) == 1


def test_case_24_a_killed_instance_costs_a_get_nothing(serve: Serve, calling: Calling) -> None:
    servers = [serve(), serve()]
    caller = calling(catalog(*servers))
    caller.get()
    caller.get()
    servers[0].close()
    for _ in range(20):
        assert caller.get().status_code == 200


def test_a_refusing_instance_is_asked_no_more_once_its_breaker_opens(serve: Serve, calling: Calling) -> None:
    server = serve()
    caller = calling(catalog(free_port(), server), None, BreakerOptions(consecutive_failures=3))
    attempts = [caller.get().extensions["chassis"].attempts for _ in range(20)]
    assert sum(attempts) == 23
    assert attempts[-5:] == [1] * 5


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_get_answered_by_a_gateway_error_is_tried_on_another_instance(
    serve: Serve, calling: Calling, status: int
) -> None:
    caller = calling(catalog(serve(answer(status)), serve()))
    for _ in range(4):
        assert caller.get().status_code == 200


def test_an_instance_that_was_tried_is_passed_over(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve(), serve()))
    caller.get()
    first, second = caller.upstream.endpoints.endpoints()
    for _ in range(6):
        admitted = admit(caller.upstream.endpoints, [first])
        assert admitted is not None
        assert admitted.pick.endpoint is second
        admitted.settle(Outcome.SUCCESS)
    assert admit(caller.upstream.endpoints, [first, second]) is None


def test_an_answer_that_says_no_retry_is_the_answer(serve: Serve, calling: Calling) -> None:
    refusing = answer(503, headers={"X-Chassis-No-Retry": "1"})
    servers = [serve(refusing), serve(refusing)]
    assert calling(catalog(*servers)).get().status_code == 503
    assert sum(len(server.received) for server in servers) == 1


def test_the_last_answer_is_given_when_all_retries_are_used(serve: Serve, calling: Calling) -> None:
    servers = [serve(answer(503, b"busy")) for _ in range(5)]
    response = calling(catalog(*servers), ClientOptions(retries=2)).get()
    assert (response.status_code, response.text) == (503, "busy")
    assert response.extensions["chassis"].attempts == 3
    assert max(len(server.received) for server in servers) == 1


def test_without_retries_the_first_error_is_the_callers(serve: Serve, calling: Calling) -> None:
    servers = [serve(answer(503)), serve(answer(503))]
    assert calling(catalog(*servers), ClientOptions(retries=0)).get().status_code == 503
    assert sum(len(server.received) for server in servers) == 1


def test_case_25_a_silent_instance_costs_one_attempts_timeout(serve: Serve, calling: Calling) -> None:
    silent, good = serve(answer(delay=30)), serve()
    caller = calling(catalog(silent, good), ClientOptions(timeout=0.2))
    began = time.monotonic()
    assert [caller.get().status_code for _ in range(2)] == [200, 200]
    assert time.monotonic() - began < 5  # it answers after thirty seconds, and the deadline is ten away


def test_a_timeout_given_with_one_request_is_that_attempts(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve(answer(delay=30))), ClientOptions(timeout=10, retries=0))
    began = time.monotonic()
    with pytest.raises(caller.http.module.TimeoutException):
        caller.get(timeout=0.1)
    assert time.monotonic() - began < 5  # the client's own were ten seconds


def test_trap_50_attempts_carry_what_remains_of_the_deadline(serve: Serve, calling: Calling) -> None:
    server = serve()
    caller = calling(catalog(server), ClientOptions(deadline=4))
    caller.get()
    told = int(server.received[0].headers["x-chassis-deadline-ms"])
    assert 3000 < told <= 3800  # less five per cent for the way
    assert server.received[0].headers["x-chassis-attempt"] == "1"


def test_a_passed_deadline_sends_nothing(serve: Serve, calling: Calling) -> None:
    server = serve()
    caller = calling(catalog(server))

    async def late() -> object:
        with deadline_scope(Deadline.after(-1)):
            return await caller.client.get("/")

    with pytest.raises(DeadlineExceeded) as raised:
        if caller.asynchronous:
            caller.wait(late())
        else:
            with deadline_scope(Deadline.after(-1)):
                caller.get()
    assert isinstance(raised.value, caller.http.module.TimeoutException)
    assert server.received == []
    # Nor is it a vote in a breaker around the call.
    assert not raised.value.conclusive
    assert classify_error(None, raised.value) is Outcome.IGNORED


def test_the_deadline_bounds_all_attempts_and_spares_the_breaker(serve: Serve, calling: Calling) -> None:
    """An attempt cut short by an impatient caller is no word about the instance."""
    caller = calling(
        catalog(serve(answer(delay=30))),
        ClientOptions(timeout=3, deadline=0.1),
        BreakerOptions(consecutive_failures=1),
    )
    with pytest.raises(DeadlineExceeded):
        caller.get()
    (endpoint,) = caller.upstream.endpoints.endpoints()
    assert endpoint.state.breaker.state is BreakerState.CLOSED


def test_no_instance_is_a_connect_error_that_says_why(calling: Calling) -> None:
    caller = calling(MemoryDiscovery())
    with pytest.raises(NoInstance) as raised:
        caller.get()
    assert isinstance(raised.value, caller.http.module.ConnectError)
    assert isinstance(raised.value, Rejected)
    assert raised.value.service == "catalog"
    assert "nothing is registered" in str(raised.value)
    assert raised.value.request.url.host == "catalog"


def test_when_every_breaker_is_open_the_soonest_return_is_told(serve: Serve, calling: Calling) -> None:
    caller = calling(
        catalog(serve(answer(500)), serve(answer(500))),
        None,
        BreakerOptions(consecutive_failures=1, open_for=30),
    )
    assert [caller.get().status_code for _ in range(2)] == [500, 500]
    with pytest.raises(CircuitOpen) as raised:
        caller.get()
    assert isinstance(raised.value, caller.http.module.ConnectError)
    assert raised.value.retry_after is not None
    assert 25 < raised.value.retry_after <= 33


def test_when_all_were_tried_the_last_real_error_surfaces(calling: Calling) -> None:
    caller = calling(catalog(free_port(), free_port()), ClientOptions(retries=1))
    with pytest.raises(caller.http.module.ConnectError) as raised:
        caller.get()
    assert not isinstance(raised.value, Rejected)


def test_case_39_an_instance_is_busy_until_its_body_is_closed(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve(answer(body=b"x" * 100_000))))
    if caller.asynchronous:

        async def stream() -> None:
            async with caller.client.stream("GET", "/") as response:
                assert response.status_code == 200
                assert caller.in_flight() == 1

        caller.wait(stream())
    else:
        with caller.client.stream("GET", "/"):
            assert caller.in_flight() == 1
    assert caller.in_flight() == 0


def test_an_event_stream_is_judged_by_its_headers(serve: Serve, calling: Calling) -> None:
    """It stays open for as long as both sides like, and a breaker's probe must not wait for its end."""
    events = answer(body=b"data: 1\n\n" * 10_000, headers={"Content-Type": "text/event-stream"})
    server = serve(script=[answer(500)], behaviour=events)
    breaker = BreakerOptions(consecutive_failures=1, open_for=0.1, probes=1)
    caller = calling(catalog(server), None, breaker)
    caller.get()
    (endpoint,) = caller.upstream.endpoints.endpoints()
    wait_until(lambda: endpoint.state.breaker.ready, what="a probe to be admitted")
    if caller.asynchronous:

        async def stream() -> None:
            async with caller.client.stream("GET", "/"):
                assert endpoint.state.breaker.state is BreakerState.CLOSED
                assert caller.in_flight() == 1

        caller.wait(stream())
    else:
        with caller.client.stream("GET", "/"):
            assert endpoint.state.breaker.state is BreakerState.CLOSED
            assert caller.in_flight() == 1


def test_a_body_that_breaks_off_is_the_instances_failure(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve(cut_body)), None, BreakerOptions(consecutive_failures=1))
    with pytest.raises(caller.http.module.RemoteProtocolError):
        caller.get()
    (endpoint,) = caller.upstream.endpoints.endpoints()
    assert endpoint.state.breaker.state is BreakerState.OPEN
    assert caller.in_flight() == 0


def test_the_attempts_timeout_ends_with_the_headers(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve(slow_body(0.2))), ClientOptions(timeout=0.15))
    assert caller.get().text == "halfhalf"


def test_a_default_deadline_never_cuts_a_body_that_has_begun(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve(slow_body(0.45))), ClientOptions(deadline=0.4))
    assert caller.get().text == "halfhalf"


def test_the_callers_own_deadline_bounds_the_body_too(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve(slow_body(30))), None, BreakerOptions(consecutive_failures=1))

    async def read() -> None:
        with deadline_scope(Deadline.after(0.15)):
            await caller.client.get("/")

    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as raised:
        if caller.asynchronous:
            caller.wait(read())
        else:
            with deadline_scope(Deadline.after(0.15)):
                caller.get()
    assert time.monotonic() - began < 5  # the body were whole after thirty seconds
    assert isinstance(raised.value, caller.http.module.TimeoutException)
    assert caller.in_flight() == 0
    assert caller.breaker().state is BreakerState.CLOSED  # an impatient caller is no word about the instance


def test_the_idle_timeout_holds_between_chunks(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve(slow_body(30))), ClientOptions(idle_timeout=0.05))
    with pytest.raises(caller.http.module.ReadTimeout):
        caller.get()


def test_a_full_bulkhead_refuses_before_anything_is_sent(serve: Serve, calling: Calling) -> None:
    server = serve(answer(body=b"x" * 100_000))
    caller = calling(catalog(server), ClientOptions(max_in_flight=1))
    if caller.asynchronous:

        async def twice() -> None:
            async with caller.client.stream("GET", "/"):
                await caller.client.get("/")

        with pytest.raises(BulkheadFull):
            caller.wait(twice())
    else:
        with caller.client.stream("GET", "/"), pytest.raises(BulkheadFull):
            caller.get()
    assert len(server.received) == 1
    assert caller.get().status_code == 200


def test_the_retry_budget_bounds_the_extra_load(serve: Serve, calling: Calling) -> None:
    servers = [serve(answer(503)) for _ in range(3)]
    caller = calling(catalog(*servers), None, BreakerOptions(consecutive_failures=None, minimum_calls=10_000))
    for _ in range(80):
        assert caller.get().status_code == 503
    # 20 % of 80, and the floor of 10 a second over the budget's window of 10 s; without it 160.
    extra = sum(len(server.received) for server in servers) - 80
    assert 100 < extra <= 16 + 100


def test_without_a_retry_budget_a_refused_connection_is_not_failed_over(
    serve: Serve, calling: Calling
) -> None:
    caller = calling(catalog(free_port(), serve()))
    policy = caller.registry.get("client:catalog/budget")
    assert policy is not None
    policy.reconfigure(BudgetOptions(ratio=1e-6, per_second=0))
    with pytest.raises(caller.http.module.ConnectError):
        for _ in range(2):
            caller.get()
    assert policy.describe()["refused"] == 1
    policy.reconfigure(policy.defaults)
    assert [caller.get().status_code for _ in range(2)] == [200, 200]


def test_a_registered_instance_is_called_and_one_that_left_is_not(serve: Serve, calling: Calling) -> None:
    first, second = serve(), serve()
    discovery = catalog(first)
    caller = calling(discovery)
    caller.get()
    discovery.put(Instance(id="catalog-9", service="catalog", host="127.0.0.1", port=second.port))
    discovery.remove("catalog", "catalog-0")
    for _ in range(3):
        caller.get()
    assert (len(first.received), len(second.received)) == (1, 3)
    wait_until(lambda: first.open_connections == 0, what="the departed instance's connections to close")


def test_the_request_id_and_the_trace_go_on_to_the_service(serve: Serve, calling: Calling) -> None:
    server = serve()
    caller = calling(catalog(server))

    async def call() -> None:
        request_id.set("request-7")
        await caller.client.get("/")

    if caller.asynchronous:
        caller.wait(call())
    else:
        token = request_id.set("request-7")
        caller.get()
        request_id.reset(token)
    headers = server.received[0].headers
    assert headers["x-request-id"] == "request-7"
    version, trace, span, _ = headers["traceparent"].split("-")
    assert (version, len(trace), len(span)) == ("00", 32, 16)


def test_a_url_with_a_port_of_its_own_is_no_service(calling: Calling) -> None:
    caller = calling(MemoryDiscovery())
    with pytest.raises(caller.http.module.UnsupportedProtocol, match="plain client"):
        caller.get("http://127.0.0.1:9/")


def test_options_take_effect_while_the_client_is_in_use(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve(answer(delay=0.15))), ClientOptions(timeout=3, retries=0))
    assert caller.get().status_code == 200
    policy = caller.registry.get("client:catalog")
    assert policy is not None
    policy.reconfigure(ClientOptions(timeout=0.05, retries=0))
    with pytest.raises(caller.http.module.TimeoutException):
        caller.get()


@pytest.mark.parametrize("module", ["httpx2", "httpx"])
def test_case_38_cancelled_calls_leak_neither_slots_nor_counts(serve: Serve, module: str) -> None:
    """Httpx 0.28 loses a slot of its pool for ever with each call cancelled while it waits."""
    server = serve()
    options = ClientOptions(max_connections=5, retries=0)
    with Caller("async", module, catalog(server), options) as caller:  # type: ignore[arg-type]  # by parameter

        async def cancel_many() -> None:
            for turns in range(60):
                tasks = [asyncio.create_task(caller.client.get("/")) for _ in range(12)]
                for _ in range(turns % 14):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        caller.wait(cancel_many())
        caller.wait(caller.settle())
        for _ in range(10):
            assert caller.get().status_code == 200
        wait_until(lambda: caller.in_flight() == 0, what="all picks to be given back")
        (endpoint,) = caller.upstream.endpoints.endpoints()
        assert endpoint.state.breaker.state is BreakerState.CLOSED


def test_what_was_closed_is_opened_by_the_next_call_with_the_same_options(
    serve: Serve, calling: Calling
) -> None:
    """A service that is stopped and started again has the clients it had."""
    server = serve()
    options = ClientOptions(timeout=1.5)
    caller = calling(catalog(server), options)
    for _ in range(2):
        assert caller.get().status_code == 200
        caller.upstreams.close()
        wait_until(lambda: server.open_connections == 0, what="the connections to close")
        assert caller.upstream.endpoints.endpoints() == ()
    assert caller.upstreams.upstream("catalog") is caller.upstream
    assert caller.upstream.options == options
