"""One call, one straight line.

The line is a generator: it decides and yields effects, and an async or a sync driver performs them
(:mod:`chassis.client._effects`), so both clients run the same line. Its order, outermost first,
with the reason at each step::

    logical span and metrics → deadline → bulkhead of the service → retry with budget → hedge
    → pick of an instance not yet tried → breaker of that instance → attempt timeout and span → wire

From the retry on it is in :mod:`chassis.client._attempts`. When the answer's body is closed the
line is walked back (:class:`chassis.client._ending.Ending`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chassis.client._attempts import Answered, Attempts
from chassis.client._body import AsyncBody, SyncBody
from chassis.client._effects import Await, Enter, Line
from chassis.client._ending import Ending
from chassis.client._info import CallInfo
from chassis.client._module import HTTPModule
from chassis.core import (
    Deadline,
    DeadlineExceeded,
    Outcome,
    classify_error,
    current_deadline,
    monotonic,
)
from chassis.tracing import begin_client_span

if TYPE_CHECKING:
    from chassis.client._upstream import Upstream


def call_line(upstream: Upstream, request: Any, http: HTTPModule, *, hedging: bool) -> Line[Any]:
    """Make one call.

    :param hedging: whether the driver can run two attempts at once.
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
                raise DeadlineExceeded(
                    f"the deadline had passed before {upstream.service!r} was called", conclusive=False
                )

            # The bulkhead counts calls, not attempts: a queue must not multiply by retries.
            if upstream.bulkhead is not None:
                permit = yield Enter(upstream.bulkhead)
                ending.owe(permit.settle)

            upstream.open()
            if not upstream.known:
                yield Await(upstream.answered, min(upstream.options.discovery_timeout, deadline.remaining()))

            upstream.budget.deposit(monotonic())
            attempts = Attempts(upstream, request, http, deadline, info, hedging=hedging)
            answered = yield from attempts.run()
            status.append(answered.response.status_code)
            return _answer(answered, http, ending, callers_deadline, upstream.options.idle_timeout, info)
        finally:
            # The caller's own span is current again from here on, though this one ends later.
            span.detach()
    except http.told_errors as error:
        ending.close(classify_error(None, error), error)
        raise http.edge_error(error, request, info) from error.__cause__
    except BaseException as error:
        ending.close(classify_error(None, error), error)
        raise


def _answer(
    answered: Answered,
    http: HTTPModule,
    ending: Ending,
    callers_deadline: Deadline | None,
    idle_timeout: float,
    info: CallInfo,
) -> Any:
    """The answer for the caller: what is still owed falls due when its body is closed."""
    response, attempt = answered.response, answered.attempt
    if response.headers.get("Content-Type", "").startswith("text/event-stream"):
        # Open for as long as both sides like: the breaker has its answer with the headers, and a
        # probe must not wait for the stream's end.
        attempt.admitted.permit.settle(answered.outcome, answered.bad)

    ending.owe(answered.settle)
    # After the headers an idle timeout between chunks holds in place of the attempt's.
    attempt.timeouts["read"] = idle_timeout
    asynchronous = isinstance(response.stream, http.module.AsyncByteStream)
    body = http.stream_class(AsyncBody if asynchronous else SyncBody)
    response.stream = body(
        response.stream,
        http,
        attempt.request,
        ending=ending,
        outcome=answered.outcome,
        deadline=callers_deadline,
        timeouts=attempt.timeouts,
        info=info,
    )
    response.extensions["chassis"] = info
    return response
