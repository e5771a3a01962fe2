"""What may be sent again, and how an answer is judged. Pure functions.

Sources: RFC 9110 section 9.2.2 (idempotent methods), section 10.2.3 (Retry-After); the
Idempotency-Key header is an IETF draft in wide use.
"""

from __future__ import annotations

from typing import Any

from chassis.client._module import HTTPModule
from chassis.core import Outcome
from chassis.core.headers import NO_RETRY

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
_ANOTHER_INSTANCE_MAY_DO_BETTER = frozenset({502, 503, 504})
_COME_BACK_LATER = frozenset({429, 503})


def idempotent(request: Any) -> bool:
    """Whether sending the request twice does what sending it once does.

    True by its method, by an ``Idempotency-Key``, or where the caller says so:
    ``client.post(..., extensions={"chassis": {"idempotent": True}})``.
    """
    said = request.extensions.get("chassis") or {}
    return (
        request.method in IDEMPOTENT_METHODS
        or "Idempotency-Key" in request.headers
        or said.get("idempotent") is True
    )


def replayable(request: Any, http: HTTPModule) -> bool:
    """Whether the body can be sent again: bytes can, a stream that may be consumed cannot."""
    return isinstance(request.stream, http.module.ByteStream)


def judge_status(status: int) -> Outcome:
    """What an answer's status says of the instance: 5xx is a failure, all else a success."""
    return Outcome.FAILURE if status >= 500 else Outcome.SUCCESS


def worth_retrying(response: Any) -> bool:
    """Whether another attempt may be answered better.

    502, 503 and 504 are; 429 only where it says when to come back. Never an answer that says its
    server has retried already, so that retries do not multiply from layer to layer.
    """
    if NO_RETRY in response.headers:
        return False
    status = response.status_code
    return status in _ANOTHER_INSTANCE_MAY_DO_BETTER or (status == 429 and "Retry-After" in response.headers)


def told_to_wait(response: Any) -> str | None:
    """The Retry-After value of an answer that may carry one."""
    if response.status_code in _COME_BACK_LATER:
        value: str | None = response.headers.get("Retry-After")
        return value
    return None
