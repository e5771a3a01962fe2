"""The attempts of one call: which instance each goes to, and whether there is a further one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextvars import Context
from typing import TYPE_CHECKING, Any

from chassis.client._attempt import Try
from chassis.client._body import Upload
from chassis.client._effects import Discard, Ended, Line, Pause, Race
from chassis.client._instance import Admitted, InstanceState, admit, left_to_others, on_probation, soonest
from chassis.client._judge import BadAnswer, judge_error, judge_status, told_to_wait
from chassis.client._lag import own_lag
from chassis.client._module import HTTPModule
from chassis.client._resend import idempotent, may_overlap, replayable, said, worth_retrying
from chassis.core import (
    ChassisError,
    CircuitOpen,
    Deadline,
    DeadlineExceeded,
    NoInstance,
    Outcome,
    Reason,
    monotonic,
)
from chassis.loadbalancing import Endpoint
from chassis.retries import HedgeOptions

if TYPE_CHECKING:
    from chassis.client._info import CallInfo
    from chassis.client._upstream import Upstream

# An attempt whose time the deadline has cut below this share of its normal timeout says nothing
# about the instance when it times out: impatient callers must not open the breaker for all.
_USEFUL_SHARE = 0.5
# Seconds. With less left, no attempt is worth a pause before it.
_LEAST_USEFUL = 0.005


class Answered:
    """An attempt that was answered, and how the answer is judged by its headers."""

    __slots__ = ("attempt", "bad", "outcome", "response", "retry_after")

    def __init__(self, attempt: Try, response: Any) -> None:
        self.attempt = attempt
        self.response = response
        self.outcome = judge_status(response.status_code)
        self.retry_after = told_to_wait(response)
        failed = self.outcome is Outcome.FAILURE
        self.bad = BadAnswer(response.status_code, self.retry_after) if failed else None

    def settle(self, outcome: Outcome | None = None, error: BaseException | None = None) -> None:
        """It is over.

        :param outcome: what became of the body after good headers; bad headers' verdict stands.
        """
        self.attempt.settle(
            self.outcome if self.bad is not None or outcome is None else outcome,
            status=self.response.status_code,
            error=error,
            bad=self.bad,
            retry_after=self.retry_after,
        )


class Attempts:
    """The attempts of one call.

    :param hedging: whether this caller can hedge.
    """

    def __init__(
        self,
        upstream: Upstream,
        request: Any,
        http: HTTPModule,
        deadline: Deadline,
        info: CallInfo,
        *,
        hedging: bool,
    ) -> None:
        self._upstream = upstream
        self._options = options = upstream.options
        self._request = request
        self._http = http
        self._deadline = deadline
        self._info = info
        asked = (request.extensions.get("timeout") or {}).get("read")
        self._normal_timeout: float = options.timeout if asked is None else asked
        self._replay = replayable(request, http)
        self._body = request.stream if self._replay else http.stream_class(Upload)(request.stream)
        self._resend = self._replay and idempotent(request)
        key = said(request).get("key")
        if key is None and options.hash_header:
            key = request.headers.get(options.hash_header)
        self._key = None if key is None else str(key)
        self._hedging = hedging and options.hedges and self._replay and may_overlap(request)
        self._tried: list[Endpoint[InstanceState]] = []
        # Attempts that may have reached an instance, and those at an instance tried before. A first
        # attempt that never left costs budget alone: there may be many dead instances, and all of
        # them are passed over; but waiting for the same ones again is bounded like any retry.
        self._counted = 0

    def run(self) -> Line[Answered]:
        """Attempts until one is answered well or no further one is allowed.

        :returns: what the caller gets; its attempt is not settled yet.
        """
        admitted = self._admit(self._tried)
        if admitted is None:
            raise self._nothing_to_call()
        while True:
            ended = yield from self._send(admitted)
            error, ended.error = ended.error, None
            try:
                if error is None:
                    answered = Answered(ended.attempt, ended.response)
                    further = yield from self._after_answer(answered)
                    if further is None:
                        return answered
                else:
                    further = yield from self._after_error(ended.attempt, error)
                    if further is None:
                        raise error
            finally:
                # Its traceback holds this frame.
                error = None
            admitted = further

    # ── sending ──────────────────────────────────────────────────────────────────────────────

    def _send(self, admitted: Admitted) -> Line[Ended[Try]]:
        """One attempt to its end; with others beside it where it is slow and that is wanted."""
        # Not beside a probe: were it overtaken, it would have probed nothing.
        hedging = self._hedging and not self._info.hedged and not admitted.probing
        began = monotonic()
        alone_for = self._upstream.hedging.begin(began) if hedging else None
        attempt = self._begin(admitted)
        if alone_for is None:
            ended = yield from self._send_alone(attempt)
        else:
            ended = yield from self._race(attempt, alone_for)
        if hedging and self._good(ended.response):
            # Also where another one was quicker: so long, at least, did the first one take.
            now = monotonic()
            self._upstream.hedging.observe(now - began, now)
        return ended

    def _begin(self, admitted: Admitted) -> Try:
        number = self._info.attempts + 1
        attempt = Try(
            self._upstream,
            self._request,
            self._body,
            self._http,
            admitted,
            timeout=min(self._normal_timeout, self._deadline.remaining()),
            deadline=self._deadline,
            number=number,
        )
        self._info.attempts = number
        return attempt

    def _send_alone(self, attempt: Try) -> Line[Ended[Try]]:
        try:
            response = yield attempt
        except Exception as error:  # noqa: BLE001 - judged by the caller of this, and raised there
            attempt.span.detach()
            return Ended(attempt, error=error)
        except BaseException as error:
            attempt.span.detach()
            self._fail(attempt, error)
            raise
        attempt.span.detach()
        return Ended(attempt, response)

    def _race(self, first: Try, delay: float) -> Line[Ended[Try]]:
        hedge = self._options.hedge or HedgeOptions()
        racing = [first]

        def another() -> tuple[Try, Context] | None:
            if len(racing) > hedge.extra or self._deadline.remaining() < _LEAST_USEFUL:
                return None
            here = [each.admitted.pick.endpoint for each in racing]
            admitted = self._admit([*self._tried, *here], on_probation)
            if admitted is None:
                return None
            if not self._upstream.hedging.allow(monotonic(), self._upstream.budget):
                admitted.settle(Outcome.IGNORED)
                return None
            attempt = self._begin(admitted)
            racing.append(attempt)
            self._info.hedged = True
            return attempt, attempt.context()

        try:
            all_ended = yield Race(
                first, first.context(), delay=delay, another=another, good=self._good, grace=hedge.grace
            )
        except BaseException as error:
            for each in racing:
                self._fail(each, error)
            raise
        ended: list[Ended[Try]] = all_ended
        for overtaken in set(racing) - {each.attempt for each in ended}:
            overtaken.settle(Outcome.IGNORED)
            overtaken.count(Outcome.IGNORED)
        # Where none was good an answer says more than an error. The others' ends count all the same.
        chosen = next((each for each in reversed(ended) if each.response is not None), ended[-1])
        for other in ended:
            if other is not chosen:
                yield from self._put_aside(other)
        return chosen

    def _put_aside(self, ended: Ended[Try]) -> Line[None]:
        """Account for an attempt beside which another one was chosen."""
        self._tried.append(ended.attempt.admitted.pick.endpoint)
        if ended.error is not None:
            self._fail(ended.attempt, ended.error)
            return
        answered = Answered(ended.attempt, ended.response)
        ended.attempt.admitted.answered()
        ended.attempt.count(answered.outcome)
        answered.settle()
        yield Discard(ended.response)

    def _good(self, response: Any) -> bool:
        return (
            response is not None
            and judge_status(response.status_code) is Outcome.SUCCESS
            and not worth_retrying(response)
        )

    # ── what the end of one leads to ─────────────────────────────────────────────────────────

    def _fail(self, attempt: Try, error: BaseException) -> None:
        """Settle an attempt that ended in an error."""
        http = self._http
        excused = False
        if isinstance(error, http.module.TimeoutException):
            cut_short = attempt.timeout < self._normal_timeout * _USEFUL_SHARE
            lagging = own_lag(attempt.given, late=attempt.late, lost=attempt.lost)
            if lagging:
                self._upstream.note_own_lag(attempt.late, attempt.lost)
            excused = cut_short or lagging
        outcome = judge_error(error, http, excused=excused)
        attempt.settle(outcome, error=error)
        attempt.count(outcome)
        if isinstance(error, http.unsent_errors):
            if outcome is Outcome.FAILURE:
                attempt.admitted.refused(self._options.connect_failures)
                self._upstream.doubt_if_none_connects()
        elif isinstance(error, http.broken_errors):
            # It got through, whosever fault the rest was.
            attempt.admitted.pick.endpoint.state.refusals = 0

    def _after_error(self, attempt: Try, error: Exception) -> Line[Admitted | None]:
        """A further attempt's instance; None if the error is the caller's."""
        self._fail(attempt, error)
        http = self._http
        if isinstance(error, ChassisError) or not isinstance(error, http.unsent_errors + http.broken_errors):
            return None
        endpoint = attempt.admitted.pick.endpoint
        self._info.instance = attempt.admitted.pick.instance
        unsent = isinstance(error, http.unsent_errors)
        self._counted += not unsent or endpoint in self._tried
        self._tried.append(endpoint)
        if self._deadline.remaining() <= 0:
            raise DeadlineExceeded(
                f"the deadline passed after {self._info.attempts} attempts to call {self._upstream.service!r}"
            ) from error
        # What never left may be sent elsewhere whatever the method, if there is still a body to send.
        untouched = self._replay or not self._body.begun
        if not (untouched if unsent else self._resend) or self._counted > self._options.retries:
            return None
        return (yield from self._further(None))

    def _after_answer(self, answered: Answered) -> Line[Admitted | None]:
        """A further attempt's instance; None if the answer is the caller's."""
        attempt = answered.attempt
        endpoint = attempt.admitted.pick.endpoint
        attempt.admitted.answered()
        attempt.count(answered.outcome)
        self._info.instance = attempt.admitted.pick.instance
        self._counted += 1
        if not (
            self._resend and worth_retrying(answered.response) and self._counted <= self._options.retries
        ):
            return None
        self._tried.append(endpoint)
        # Its verdict stands, whatever its body; and a probe's place may be wanted for the next attempt.
        attempt.admitted.permit.settle(answered.outcome, answered.bad)
        try:
            further = yield from self._further(answered.retry_after)
        except BaseException:
            answered.settle()
            yield Discard(answered.response)
            raise
        if further is not None:
            answered.settle()
            yield Discard(answered.response)
        return further

    def _further(self, told: float | None) -> Line[Admitted | None]:
        """A further attempt's instance, or None if there shall be none.

        Untried instances first and at once. When all were tried, any that admits, after a backoff
        (on top of the time the server told) that must fit into the deadline.
        """
        upstream, budget = self._upstream, self._upstream.budget
        admitted = self._admit(self._tried)
        if admitted is not None:
            if budget.withdraw(monotonic()):
                return admitted
            admitted.settle(Outcome.IGNORED)
            upstream.budget_exhausted()
            return None
        if told is not None and told > self._options.retry_after_max:
            return None
        delay = upstream.backoff.delay(self._counted) + (told or 0.0)
        wait = soonest(upstream.endpoints.callable_endpoints())
        if wait is None or wait > delay or delay + _LEAST_USEFUL > self._deadline.remaining():
            return None
        # Asked after all else, so that only what can be sent is reserved, and only what is sent is paid.
        if not budget.reserve(monotonic()):
            upstream.budget_exhausted()
            return None
        try:
            yield Pause(delay)
            admitted = self._admit([])
        except BaseException:
            budget.release()
            raise
        if admitted is None:
            budget.release()
        elif not budget.launch(monotonic()):
            admitted.settle(Outcome.IGNORED)
            upstream.budget_exhausted()
            return None
        return admitted

    # ── choosing ─────────────────────────────────────────────────────────────────────────────

    def _admit(
        self,
        tried: Collection[Endpoint[InstanceState]],
        spare: Callable[[Endpoint[InstanceState]], bool] | None = None,
    ) -> Admitted | None:
        endpoints = self._upstream.endpoints
        if not self._resend:
            admitted = admit(endpoints, tried, key=self._key, spare=left_to_others)
            return admitted or admit(endpoints, tried, key=self._key)
        admitted = admit(endpoints, tried, key=self._key, spare=spare)
        if admitted is not None:
            admitted.pick.endpoint.state.spared_since = None
        return admitted

    def _nothing_to_call(self) -> NoInstance | CircuitOpen:
        """Why not even a first attempt can be made."""
        upstream = self._upstream
        endpoints = upstream.endpoints.callable_endpoints()
        if endpoints:
            return CircuitOpen(
                f"{upstream.service} (all {len(endpoints)} instances)", retry_after=soonest(endpoints)
            )
        snapshot = upstream.endpoints.snapshot
        reason = (snapshot.reason if snapshot is not None else None) or Reason.NOT_ASKED_YET
        return NoInstance(upstream.service, reason=reason.value, retry_after=1.0)
