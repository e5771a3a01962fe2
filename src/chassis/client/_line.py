"""One call, one straight line.

The line is a generator: it decides and yields effects, and an async or a sync driver performs them
(:mod:`chassis.client._effects`), so both clients run the same line. Its order, outermost first,
with the reason at each step::

    logical span and metrics → deadline → bulkhead of the service → retry with budget
    → pick of an instance not yet tried → breaker of that instance → attempt timeout and span → wire

When the answer's body is closed the line is walked back (:class:`chassis.client._ending.Ending`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chassis.client._effects import Attempt, Await, Discard, Enter, Line, Pause
from chassis.client._ending import Ending
from chassis.client._module import HTTPModule
from chassis.client._resend import (
    idempotent,
    judge_status,
    replayable,
    told_to_wait,
    worth_retrying,
)
from chassis.core import (
    ChassisError,
    CircuitOpen,
    Deadline,
    DeadlineExceeded,
    Instance,
    NoInstance,
    Outcome,
    Permit,
    Reason,
    classify_error,
    current_deadline,
    monotonic,
)
from chassis.core.headers import ATTEMPT, DEADLINE, REQUEST_ID
from chassis.core.request import request_id
from chassis.loadbalancing import Endpoint, Pick
from chassis.retries import retry_after_seconds
from chassis.tracing import begin_client_span, inject

if TYPE_CHECKING:
    from chassis.client._upstream import InstanceState, Upstream

# An attempt whose time the deadline has cut below this share of its normal timeout says nothing
# about the instance when it times out: impatient callers must not open the breaker for all.
_USEFUL_SHARE = 0.5


@dataclass(slots=True)
class CallInfo:
    """How a call went; in ``response.extensions["chassis"]``.

    :param service: the service asked.
    :param instance: the instance that gave this answer.
    :param attempts: how many attempts were made, the last one included.
    """

    service: str
    instance: Instance | None = None
    attempts: int = 0


@dataclass(slots=True)
class _Admitted:
    """One instance that may be called: chosen, and let in by its breaker."""

    pick: Pick[InstanceState]
    permit: Permit

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        self.permit.settle(outcome, error)
        self.pick.settle(outcome)


def call_line(upstream: Upstream, request: Any, http: HTTPModule) -> Line[Any]:
    """Make one call.

    :returns: the answer, its body unread; closing it ends the call.
    """
    ending = Ending()
    info = CallInfo(upstream.service)
    method = request.method
    try:
        # The logical span and the metrics stand outermost: they see what the caller sees, with
        # refusals and all attempts in one.
        span = begin_client_span(method, upstream.service)
        try:
            upstream.metrics.begin(upstream.service)
            began = monotonic()
            status: list[int] = []

            def end_call(outcome: Outcome, error: BaseException | None) -> None:
                code = status[0] if status else None
                upstream.metrics.end(upstream.service, method, code, monotonic() - began)
                span.end(code, error)

            ending.owe(end_call)

            # The deadline bounds everything below, the waits between attempts included.
            callers_deadline = current_deadline()
            deadline = Deadline.after(upstream.options.deadline)
            if callers_deadline is not None and callers_deadline.at < deadline.at:
                deadline = callers_deadline
            if deadline.remaining() <= 0:
                raise DeadlineExceeded(f"the deadline had passed before {upstream.service!r} was called")

            # The bulkhead counts calls, not attempts: a queue must not multiply by retries.
            if upstream.bulkhead is not None:
                permit = yield Enter(upstream.bulkhead)
                ending.owe(permit.settle)

            upstream.open()
            if not upstream.answered.done():
                yield Await(upstream.answered, min(upstream.options.discovery_timeout, deadline.remaining()))

            upstream.budget.deposit(monotonic())
            response = yield from _attempts(upstream, request, http, deadline, callers_deadline, ending, info)
            status.append(response.status_code)
            return response
        finally:
            # The caller's own span is current again from here on, though this one ends later.
            span.detach()
    except ChassisError as error:
        ending.close(classify_error(None, error), error)
        raise http.edge_error(error, request) from error.__cause__
    except BaseException as error:
        ending.close(classify_error(None, error), error)
        raise


def _attempts(
    upstream: Upstream,
    request: Any,
    http: HTTPModule,
    deadline: Deadline,
    callers_deadline: Deadline | None,
    ending: Ending,
    info: CallInfo,
) -> Line[Any]:
    """Attempts until one is answered well or no further one is allowed."""
    options = upstream.options
    asked = (request.extensions.get("timeout") or {}).get("read")
    normal_timeout = options.timeout if asked is None else asked
    replay = replayable(request, http)
    resend = replay and idempotent(request)
    tried: list[Endpoint[InstanceState]] = []
    # Attempts that may have reached an instance, and those at an instance tried before. A first
    # attempt that never left costs budget alone: there may be many dead instances, and all of them
    # are passed over; but waiting for the same ones again is bounded like any retry.
    counted = 0

    admitted = _admit(upstream, tried)
    if admitted is None:
        raise _nothing_to_call(upstream)
    while True:
        endpoint = admitted.pick.endpoint
        info.instance = endpoint.instance
        info.attempts += 1
        # The breaker stands outside the attempt's timeout, so that it sees timeouts.
        timeout = min(normal_timeout, deadline.remaining())
        timeouts = _timeout_table(options.connect_timeout, timeout)
        # One span per attempt: its headers carry this attempt's own context.
        span = begin_client_span(request.method, upstream.service, attempt=info.attempts)
        span.set("server.address", endpoint.instance.host)
        span.set("server.port", endpoint.instance.port)
        try:
            outgoing = _outgoing(request, http, endpoint.instance, info.attempts, deadline, timeouts)
            response = yield Attempt(endpoint.state.pool(http), outgoing, timeout)
        except BaseException as error:
            span.detach()
            span.end(None, error)
            unsent = isinstance(error, http.unsent_errors)
            outcome = _judge_error(error, http, timeout < normal_timeout * _USEFUL_SHARE)
            admitted.settle(outcome, error)
            upstream.metrics.attempt(upstream.service, outcome, endpoint.instance.id)
            if not isinstance(error, http.unsent_errors + http.broken_errors):
                raise
            counted += not unsent or endpoint in tried
            tried.append(endpoint)
            if deadline.remaining() <= 0:
                raise DeadlineExceeded(
                    f"the deadline passed after {info.attempts} attempts to call {upstream.service!r}"
                ) from error
            # What never left may be sent elsewhere whatever the method.
            allowed = (replay if unsent else resend) and counted <= options.retries
            further = (yield from _further(upstream, tried, deadline, counted, None)) if allowed else None
            if further is None:
                raise
            admitted = further
            continue
        span.detach()
        outcome = judge_status(response.status_code)
        upstream.metrics.attempt(upstream.service, outcome, endpoint.instance.id)
        counted += 1
        if resend and worth_retrying(response) and counted <= options.retries:
            tried.append(endpoint)
            wait = told_to_wait(response)
            try:
                further = yield from _further(upstream, tried, deadline, counted, wait)
            except BaseException as error:
                span.end(response.status_code, error)
                admitted.settle(outcome)
                yield Discard(response)
                raise
            if further is not None:
                span.end(response.status_code, None)
                admitted.settle(outcome)
                yield Discard(response)
                admitted = further
                continue
        return _answer(
            response, http, ending, admitted, span, outcome, callers_deadline, timeouts, upstream, info
        )


def _further(
    upstream: Upstream,
    tried: list[Endpoint[InstanceState]],
    deadline: Deadline,
    counted: int,
    told: str | None,
) -> Line[_Admitted | None]:
    """A further attempt's instance, or None if there shall be none.

    Untried instances first and at once. When all were tried, any that admits, after a backoff
    (or the time the server told, if that is longer) that must fit into the deadline.
    """
    if not upstream.budget.withdraw(monotonic()):
        upstream.budget_exhausted()
        return None
    admitted = _admit(upstream, tried)
    if admitted is not None:
        return admitted
    delay = upstream.backoff.delay(counted)
    if told is not None:
        delay = max(delay, retry_after_seconds(told, time.time()) or 0.0)  # noqa: TID251 - it may be a date
    if delay >= deadline.remaining():
        return None
    yield Pause(delay)
    return _admit(upstream, [])


def _admit(upstream: Upstream, tried: list[Endpoint[InstanceState]]) -> _Admitted | None:
    """An instance that is not among ``tried`` and whose breaker lets this call in."""
    passed_over = list(tried)
    while True:
        pick = upstream.endpoints.pick(exclude=passed_over, ready=_ready)
        if pick is None:
            return None
        try:
            return _Admitted(pick, pick.endpoint.state.breaker.acquire())
        except CircuitOpen:
            # Another call took its last probe since ``ready`` was asked: another instance's turn.
            pick.settle(Outcome.IGNORED)
            passed_over.append(pick.endpoint)


def _ready(endpoint: Endpoint[InstanceState]) -> bool:
    return endpoint.state.breaker.ready


def _nothing_to_call(upstream: Upstream) -> NoInstance | CircuitOpen:
    """Why not even a first attempt can be made."""
    waits = [endpoint.state.breaker.retry_after for endpoint in upstream.endpoints.callable_endpoints()]
    if waits:
        return CircuitOpen(
            f"{upstream.service} (all {len(waits)} instances)",
            retry_after=min(waits),
        )
    snapshot = upstream.endpoints.snapshot
    reason = (snapshot.reason if snapshot is not None else None) or Reason.NOT_ASKED_YET
    return NoInstance(upstream.service, reason=reason.value, retry_after=1.0)


def _judge_error(error: BaseException, http: HTTPModule, cut_short: bool) -> Outcome:
    """What a failed attempt says of its instance."""
    if isinstance(error, http.module.PoolTimeout):
        # Our own pool was full: that is no word about the instance.
        return Outcome.IGNORED
    if cut_short and isinstance(error, http.module.TimeoutException):
        return Outcome.IGNORED
    return classify_error(None, error)


def _timeout_table(connect: float, timeout: float) -> dict[str, float | None]:
    """The stock transport's timeouts by phase; it reads them anew at each chunk of the body."""
    return {"connect": min(connect, timeout), "read": timeout, "write": timeout, "pool": timeout}


def _outgoing(
    request: Any,
    http: HTTPModule,
    instance: Instance,
    number: int,
    deadline: Deadline,
    timeouts: dict[str, float | None],
) -> Any:
    """The request for one instance. The caller's own object stays as it is.

    The Host header stays the service's name, and redirects of the caller's client still see the
    logical URL.
    """
    url = request.url.copy_with(scheme=instance.scheme, host=instance.host, port=instance.port)
    headers = http.module.Headers(request.headers)
    headers[ATTEMPT] = str(number)
    # Relative, and less the way there, as no two clocks need agree on it.
    remaining_ms = deadline.remaining() * 1000
    headers[DEADLINE] = str(max(1, int(remaining_ms - max(5.0, remaining_ms * 0.05))))
    current_request = request_id.get()
    if current_request is not None and REQUEST_ID not in headers:
        headers[REQUEST_ID] = current_request
    inject(headers.__setitem__)
    extensions = {**request.extensions, "timeout": timeouts}
    return http.module.Request(
        request.method, url, headers=headers, stream=request.stream, extensions=extensions
    )


def _answer(
    response: Any,
    http: HTTPModule,
    ending: Ending,
    admitted: _Admitted,
    span: Any,
    outcome: Outcome,
    callers_deadline: Deadline | None,
    timeouts: dict[str, float | None],
    upstream: Upstream,
    info: CallInfo,
) -> Any:
    """The answer for the caller: what is still owed falls due when its body is closed."""
    status = response.status_code
    if response.headers.get("Content-Type", "").startswith("text/event-stream"):
        # Open for as long as both sides like: the breaker has its answer with the headers, and a
        # probe must not wait for the stream's end.
        admitted.permit.settle(outcome)
    ending.owe(
        admitted.settle if outcome is Outcome.SUCCESS else lambda _, error: admitted.settle(outcome, error)
    )
    ending.owe(lambda _, error: span.end(status, error))
    # After the headers an idle timeout between chunks holds in place of the attempt's.
    timeouts["read"] = upstream.options.idle_timeout
    asynchronous = isinstance(response.stream, http.module.AsyncByteStream)
    body = http.async_body if asynchronous else http.sync_body
    response.stream = body(
        response.stream, ending=ending, outcome=outcome, deadline=callers_deadline, timeouts=timeouts
    )
    response.extensions["chassis"] = info
    return response
