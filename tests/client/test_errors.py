"""The clients' errors: ours and the HTTP module's in one, whole in any process, and whose fault they are."""

from __future__ import annotations

import copy
import errno
import pickle
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from chassis.client import ClientOptions, edge_error
from chassis.client._judge import judge_error
from chassis.client._module import http_module
from chassis.core import (
    BulkheadFull,
    CircuitOpen,
    Deadline,
    DeadlineExceeded,
    Instance,
    NoInstance,
    Outcome,
    Rejected,
    UpstreamError,
    classify_error,
    deadline_scope,
)
from chassis.discovery import MemoryDiscovery
from tests.client.calling import Caller, catalog
from tests.client.scripted import ScriptedServer, answer, cut_body, hang_up, slow_body
from tests.support.ports import free_port

Serve = Callable[..., ScriptedServer]
Calling = Callable[..., Caller]

ONCE = ClientOptions(retries=0)


def raised(caller: Caller, kind: type[BaseException] = Exception, **options: Any) -> Any:
    """The error of one call."""
    with pytest.raises(kind) as caught:
        caller.get("/", **options)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        CircuitOpen("payments", retry_after=4.25, last_failure="OSError: no", state="half_open"),
        BulkheadFull("orders", limit=64),
        NoInstance("x", reason="nothing is registered under this name", retry_after=1.0),
        DeadlineExceeded("too late", conclusive=False),
    ],
)
def test_an_error_of_two_kinds_goes_to_other_processes_whole(module: Any, error: Any) -> None:
    """As executors and task queues send it: of both kinds still, with all it says."""
    httpx = http_module(module).module
    error = copy.copy(error)
    error.add_note("seen by a worker")
    merged = edge_error(error, httpx.Request("POST", "http://catalog/orders", content=b"one"))
    own = httpx.TimeoutException if isinstance(error, DeadlineExceeded) else httpx.ConnectError
    for other in (pickle.loads(pickle.dumps(merged)), copy.copy(merged), copy.deepcopy(merged)):
        assert type(other) is type(merged)
        assert isinstance(other, own)
        assert isinstance(other, type(error))
        assert (str(other), other.args, other.__notes__) == (str(error), error.args, ["seen by a worker"])
        assert {name: value for name, value in other.state_of().items() if name != "_request"} == (
            error.state_of()
        )
        assert (other.request.method, str(other.request.url)) == ("POST", "http://catalog/orders")
        assert edge_error(other, other.request) is other


def test_what_a_call_raises_goes_to_other_processes_whole(serve: Serve, calling: Calling) -> None:
    """The errors as they really come, with the instance and a request that was sent."""
    error = raised(calling(catalog(serve(hang_up)), ONCE), UpstreamError)
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert (str(other), other.instance, other.attempts) == (str(error), error.instance, 1)
    assert str(other.request.url) == "http://catalog/"
    refused = raised(calling(MemoryDiscovery()), NoInstance)
    assert pickle.loads(pickle.dumps(refused)).reason == refused.reason


def test_a_service_that_cannot_be_reached_is_told_apart_from_one_that_may_have_worked(
    serve: Serve, calling: Calling
) -> None:
    """Each is the HTTP module's own error still, and a failure to whoever guards the call."""
    cases = [
        (free_port(), "ConnectError", "unreachable", 2),  # what never left is no retry
        (serve(hang_up), "RemoteProtocolError", "broken", 1),
        (serve(answer(delay=30)), "ReadTimeout", "late", 1),
    ]
    for server, name, failure, attempts in cases:
        # Only who is to be late gets little time.
        caller = calling(catalog(server), replace(ONCE, timeout=0.05) if failure == "late" else ONCE)
        error = raised(caller, getattr(caller.http.module, name))
        assert type(error).__name__ == name
        assert isinstance(error, UpstreamError)
        assert (error.service, error.failure, error.attempts) == ("catalog", failure, attempts)
        assert not isinstance(error, Rejected)
        assert classify_error(None, error) is Outcome.FAILURE


def test_a_body_that_breaks_off_is_the_same_kind_of_error(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve(cut_body)))
    error = raised(caller, caller.http.module.RemoteProtocolError)
    assert isinstance(error, UpstreamError)
    assert (error.service, error.failure) == ("catalog", "broken")
    assert error.instance is not None


def test_a_body_that_is_late_for_the_callers_deadline_is_no_failure_of_the_service(
    serve: Serve, calling: Calling
) -> None:
    caller = calling(catalog(serve(slow_body(30))))
    with deadline_scope(Deadline.after(0.1)):
        error = raised(caller, DeadlineExceeded)
    assert isinstance(error, caller.http.module.TimeoutException)
    assert not isinstance(error, UpstreamError)


def test_case_26_the_error_names_the_instance_that_may_have_done_the_work(
    serve: Serve, calling: Calling
) -> None:
    server = serve(hang_up)
    caller = calling(catalog(server))
    with pytest.raises(
        caller.http.module.RemoteProtocolError, match=rf"catalog-0 \(127.0.0.1:{server.port}\)"
    ):
        caller.post("/orders", content=b"one")


def test_the_error_tells_how_many_attempts_were_made_and_where_it_arose(
    serve: Serve, calling: Calling
) -> None:
    error = raised(calling(catalog(serve(hang_up), serve(hang_up))), UpstreamError)
    assert error.attempts == 3
    assert isinstance(error.instance, Instance)
    told = "".join(traceback.format_exception(error))
    assert "handle_request" in told or "handle_async_request" in told
    assert "During handling" not in told


def test_a_handler_somebody_has_for_the_modules_own_errors_comes_before_ours(
    serve: Serve, calling: Calling
) -> None:
    """Frameworks take the first class of an error that they have a handler for."""
    caller = calling(catalog(free_port()), ONCE)
    kinds = type(raised(caller)).__mro__
    assert kinds.index(caller.http.module.HTTPError) < kinds.index(UpstreamError)


def test_what_the_caller_did_wrong_is_no_failure_of_the_service(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog(serve()))
    error = raised(caller, caller.http.module.LocalProtocolError, headers={"X-Bad": "a\nb"})
    assert not isinstance(error, UpstreamError)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(socket.EAI_AGAIN, Outcome.IGNORED), (socket.EAI_NONAME, Outcome.FAILURE), (None, Outcome.FAILURE)],
)
def test_a_resolver_that_does_not_answer_is_no_failure_of_the_instance(
    module: Any, code: int | None, outcome: Outcome
) -> None:
    """It would open the breakers of all at once. An instance's name that does not exist is one."""
    http = http_module(module)
    system = ConnectionRefusedError(111, "refused") if code is None else socket.gaierror(code, "resolving")
    for cause in (system, OSError(system)):
        error = http.module.ConnectError("connecting failed")
        error.__cause__ = cause
        assert judge_error(error, http, excused=False) is outcome


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (errno.EMFILE, Outcome.IGNORED),
        (errno.ENFILE, Outcome.IGNORED),
        (errno.ENOBUFS, Outcome.IGNORED),
        (errno.ENOMEM, Outcome.IGNORED),
        (errno.ECONNREFUSED, Outcome.FAILURE),
        (errno.EHOSTUNREACH, Outcome.FAILURE),
    ],
)
def test_a_process_that_can_open_nothing_more_blames_no_instance(
    module: Any, code: int, outcome: Outcome
) -> None:
    """It would open the breakers of all at once. Told plainly, wrapped as anyio does, or among several."""
    http = http_module(module)
    system = OSError(code, "system's own")
    wrapped, several = OSError("All connection attempts failed"), OSError("All connection attempts failed")
    wrapped.__cause__ = system
    several.__cause__ = ExceptionGroup("multiple connection attempts failed", [system, system])
    for cause in (system, wrapped, several):
        error, inner = http.module.ConnectError("connecting failed"), Exception(cause)
        error.__cause__ = inner
        assert judge_error(error, http, excused=False) is outcome


def test_an_error_of_the_callers_that_is_its_own_cause_comes_out_as_it_is(module: Any) -> None:
    """As ``raise error from error`` makes it; whose cause is of no interest is not asked for one."""
    error = ValueError("no body")
    error.__cause__ = error
    assert judge_error(error, http_module(module), excused=False) is Outcome.IGNORED


def test_a_body_made_of_another_services_answer_is_not_this_instances_fault(
    serve: Serve, calling: Calling
) -> None:
    """A relay whose source breaks off: its error comes out as it is, and no breaker counts it."""
    source, sink = calling(catalog(serve(cut_body))), serve()
    caller = calling(catalog(sink))
    error = raised(source, UpstreamError)

    def body() -> Iterator[bytes]:
        yield b"part"
        raise error

    async def abody() -> AsyncIterator[bytes]:
        yield b"part"
        raise error

    for _ in range(6):
        with pytest.raises(UpstreamError) as caught:
            caller.post("/", content=abody() if caller.asynchronous else body())
        assert caught.value is error
    described = caller.breaker().describe()
    assert (described["state"], described["calls"]) == ("closed", 0)
    assert caller.in_flight() == 0
