"""One attempt: the request as it leaves, its span, and what it owes."""

from __future__ import annotations

from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from chassis.client._effects import Attempt
from chassis.client._instance import Admitted
from chassis.client._judge import BadAnswer
from chassis.client._module import HTTPModule
from chassis.client._timeouts import PhaseTimeouts, told_deadline
from chassis.core import Deadline, DeadlineExceeded, Instance, Outcome
from chassis.core.headers import ATTEMPT, DEADLINE, REQUEST_ID
from chassis.core.request import request_id
from chassis.tracing import begin_client_span, inject

if TYPE_CHECKING:
    from chassis.client._upstream import Upstream


class Try(Attempt):
    """An attempt that is accounted for: begun with a span, settled once.

    :param body: what is sent as the body of ``request``.
    :param timeout: seconds until the answer's headers must be there.
    :param deadline: of the whole call; what remains leaves as a header.
    :param number: 1 for the call's first attempt.
    :raises DeadlineExceeded: nothing remains; then ``admitted`` has been given back.
    """

    __slots__ = ("_upstream", "admitted", "span")

    def __init__(
        self,
        upstream: Upstream,
        request: Any,
        body: Any,
        http: HTTPModule,
        admitted: Admitted,
        *,
        timeout: float,
        deadline: Deadline,
        number: int,
    ) -> None:
        self._upstream = upstream
        self.admitted = admitted
        # One span per attempt: its headers carry this attempt's own context.
        self.span = begin_client_span(request.method, upstream.service, attempt=number)
        try:
            told = told_deadline(deadline.remaining())
            if told is None:
                raise DeadlineExceeded(
                    f"the deadline had passed when {upstream.service!r} was about to be called",
                    conclusive=number > 1,
                )
            endpoint = admitted.pick.endpoint
            self.span.set("server.address", endpoint.instance.host)
            self.span.set("server.port", endpoint.instance.port)
            timeouts = PhaseTimeouts(timeout, upstream.options.connect_timeout)
            server_name = upstream.server_name(endpoint.instance)
            extensions = {**request.extensions, "timeout": timeouts, "sni_hostname": server_name}
            # Who writes https gets TLS, also where the registry knows nothing of it.
            secure = "https" in (request.url.scheme, endpoint.instance.scheme)
            outgoing = _outgoing(request, body, http, endpoint.instance, secure, number, told, extensions)
            super().__init__(endpoint.state.pool(http, secure=secure), outgoing, timeout, timeouts)
        except BaseException as error:
            self.span.detach()
            self.settle(Outcome.IGNORED, error=error)
            raise

    def context(self) -> Context:
        """The context it is to be sent in, where others are under way beside it.

        Its span is current there and, from now on, no more in the caller's.
        """
        context = copy_context()
        self.span.detach()
        return context

    def settle(
        self,
        outcome: Outcome,
        *,
        status: int | None = None,
        error: BaseException | None = None,
        bad: BadAnswer | None = None,
        retry_after: float | None = None,
    ) -> None:
        """It is over, its body included.

        :param error: what was raised.
        :param bad: in its place, the answer that is a failure: the breaker is told of it.
        """
        self.admitted.settle(outcome, error or bad, retry_after=retry_after)
        self.span.end(status, error)

    def count(self, outcome: Outcome) -> None:
        """Count it: once, when it is known how it ended or that its headers came."""
        self._upstream.metrics.attempt(
            self._upstream.service, outcome, self.admitted.pick.endpoint.instance.id
        )


def _outgoing(
    request: Any,
    body: Any,
    http: HTTPModule,
    instance: Instance,
    secure: bool,
    number: int,
    told: int,
    extensions: dict[str, Any],
) -> Any:
    """The request for one instance. The caller's own object stays as it is.

    The Host header stays the service's name, and redirects of the caller's client still see the
    logical URL.
    """
    scheme = "https" if secure else "http"
    url = request.url.copy_with(scheme=scheme, host=instance.host, port=instance.port)
    headers = http.module.Headers(request.headers)
    headers[ATTEMPT] = str(number)
    headers[DEADLINE] = str(told)
    current_request = request_id.get()
    if current_request is not None and REQUEST_ID not in headers:
        headers[REQUEST_ID] = current_request
    inject(headers.__setitem__)
    return http.module.Request(request.method, url, headers=headers, stream=body, extensions=extensions)
