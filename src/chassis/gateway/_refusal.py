"""What the gateway answers on its own account."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Any

from chassis.core import ChassisError
from chassis.core.request import request_id
from chassis.gateway._asgi import Headers, Send
from chassis.server import PROBLEM_TYPE
from chassis.tracing import current_ids


class Refusal(Exception):
    """A request that is answered here, with a problem document.

    :param detail: one sentence for the caller: nothing of the inside, nothing of the credentials.
    :param headers: further headers of the answer.
    """

    def __init__(self, status: int, detail: str, *, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


class ClientGone(Exception):
    """The client closed its connection; there is nobody to answer."""


class UpstreamAborted(ChassisError):
    """An upstream's answer broke off after its head had been passed on.

    Raised through the server, which then cuts the client's connection: an answer that looks whole
    and is not would be worse.
    """


def retry_after(seconds: float | None) -> Headers:
    """The Retry-After header: whole seconds, at least one; a second where nobody can know."""
    return ((b"retry-after", str(max(1, math.ceil(seconds or 1.0))).encode()),)


async def send_refusal(send: Send, refusal: Refusal) -> None:
    """Answer with problem+json (RFC 9457)."""
    problem: dict[str, Any] = {
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
    }
    if (current := request_id.get()) is not None:
        problem["request_id"] = current
    if (ids := current_ids()) is not None:
        problem["trace_id"] = ids[0]
    body = json.dumps(problem).encode()
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *refusal.headers,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
