"""Errors as answers: problem+json (RFC 9457), and which of our errors becomes which status."""

from __future__ import annotations

import json
import math
from http import HTTPStatus

from chassis.core import DeadlineExceeded, RateLimited, Rejected
from chassis.limits import rate_limit_fields

CONTENT_TYPE = "application/problem+json"


def problem_for(
    error: Rejected | DeadlineExceeded, request_id: str | None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body that answer ``error``.

    A ``Rejected`` is 503, a ``RateLimited`` 429 (RFC 6585), both with Retry-After where a time is
    known, the latter also with the RateLimit fields where its quota is; a ``DeadlineExceeded`` is 504. The body names what was refused, never why in the words of
    an exception from further below.
    """
    headers: dict[str, str] = {}
    if isinstance(error, DeadlineExceeded):
        status, detail = 504, "the deadline of this request passed"
    else:
        status, detail = 429 if isinstance(error, RateLimited) else 503, str(error)
        if error.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        if isinstance(error, RateLimited) and error.quota is not None and error.window is not None:
            seconds = error.retry_after or 0.0
            headers |= rate_limit_fields(error.name, error.quota, error.window, remaining=0, seconds=seconds)
    return status, headers, problem(status, detail, request_id)


def problem(status: int, detail: str, request_id: str | None) -> bytes:
    """A problem+json body."""
    body: dict[str, object] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if request_id is not None:
        body["request_id"] = request_id
    return json.dumps(body).encode()
