"""What may be sent again. Pure functions.

Sources: RFC 9110 section 9.2.2 (idempotent methods); the Idempotency-Key header is an IETF draft
in wide use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chassis.client._module import HTTPModule
from chassis.core.headers import NO_RETRY

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
_READING_METHODS = frozenset({"GET", "HEAD", "QUERY"})
_ANOTHER_INSTANCE_MAY_DO_BETTER = frozenset({502, 503, 504})


def said(request: Any) -> Mapping[str, Any]:
    """What the caller says of one request: ``extensions={"chassis": {...}}``."""
    return request.extensions.get("chassis") or {}


def idempotent(request: Any) -> bool:
    """Whether sending the request twice does what sending it once does.

    True by its method, by an ``Idempotency-Key``, or where the caller says so:
    ``client.post(..., extensions={"chassis": {"idempotent": True}})``.
    """
    return request.method in IDEMPOTENT_METHODS or _said_to_be_idempotent(request)


def may_overlap(request: Any) -> bool:
    """Whether two of it may be under way at once: reading methods, and what is said to be idempotent.

    PUT and DELETE are idempotent one after the other; whether they are side by side, nobody said.
    """
    return request.method in _READING_METHODS or _said_to_be_idempotent(request)


def _said_to_be_idempotent(request: Any) -> bool:
    return "Idempotency-Key" in request.headers or said(request).get("idempotent") is True


def replayable(request: Any, http: HTTPModule) -> bool:
    """Whether the body can be sent again: bytes can, a stream that may be consumed cannot."""
    return isinstance(request.stream, http.module.ByteStream)


def worth_retrying(response: Any) -> bool:
    """Whether another attempt may be answered better.

    502, 503 and 504 are; 429 only where it says when to come back. Never an answer that says its
    server has retried already, so that retries do not multiply from layer to layer.
    """
    if NO_RETRY in response.headers:
        return False
    status = response.status_code
    return status in _ANOTHER_INSTANCE_MAY_DO_BETTER or (status == 429 and "Retry-After" in response.headers)
