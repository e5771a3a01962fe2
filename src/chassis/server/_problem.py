"""Errors as answers: problem+json (RFC 9457), and which of our errors becomes which status."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeAlias

from chassis.core import DeadlineExceeded, RateLimited, Rejected, UpstreamError, UpstreamFailure
from chassis.core.headers import NO_RETRY
from chassis.limits import rate_limit_fields

CONTENT_TYPE = "application/problem+json"

Answerable: TypeAlias = Rejected | DeadlineExceeded | UpstreamError
"""What is answered as it says; any other error is a defect of the application, and a 500."""
ANSWERABLE = (Rejected, DeadlineExceeded, UpstreamError)
"""The same, for ``except`` and ``isinstance``."""

_STATUSES: Mapping[UpstreamFailure, int] = {"unreachable": 503, "late": 504, "broken": 502}
_DETAILS: Mapping[UpstreamFailure, str] = {
    "unreachable": "cannot be reached",
    "late": "did not answer in time",
    "broken": "gave no whole answer",
}


def answerable(error: BaseException) -> Answerable | None:
    """What answers for ``error``; None if it is a defect of the application.

    Calls made side by side in a task group end in a group of their errors. It is answered by the first
    of them, unless one is a defect.
    """
    if isinstance(error, ANSWERABLE):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    members = [answerable(each) for each in error.exceptions]
    return None if None in members else members[0]


def status_for(error: Answerable) -> int:
    """The status that answers ``error``.

    429 (RFC 6585) for a ``RateLimited``, 503 for any other ``Rejected``, 504 for a
    ``DeadlineExceeded``. A service that was called is 503 if nothing could be sent to it, 504 if it was
    late, 502 if its answer broke off (RFC 9110 section 15.6).
    """
    if isinstance(error, Rejected):
        return 429 if isinstance(error, RateLimited) else 503
    return 504 if isinstance(error, DeadlineExceeded) else _STATUSES[error.failure]


def problem_for(error: Answerable, request_id: str | None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body that answer ``error``.

    With Retry-After where a time is known, and the RateLimit fields where a quota is. What failed in a
    service that was called was tried as often as is worth it, so the answer asks for no retry, or they
    would multiply from layer to layer. The body names what was refused or failed, never why in the words
    of an exception from further below.
    """
    headers: dict[str, str] = {}
    if isinstance(error, DeadlineExceeded):
        detail = "the deadline of this request passed"
    elif isinstance(error, UpstreamError):
        detail = f"{error.service} {_DETAILS[error.failure]}"
        headers[NO_RETRY] = "1"
    else:
        detail = str(error)
        if error.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        if isinstance(error, RateLimited) and error.quota is not None and error.window is not None:
            seconds = error.retry_after or 0.0
            headers |= rate_limit_fields(error.name, error.quota, error.window, remaining=0, seconds=seconds)
    status = status_for(error)
    return status, headers, problem(status, detail, request_id)


def problem(status: int, detail: str, request_id: str | None) -> bytes:
    """A problem+json body."""
    body: dict[str, object] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if request_id is not None:
        body["request_id"] = request_id
    return json.dumps(body).encode()
