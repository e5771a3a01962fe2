"""What an inbound request's headers say of its context. Pure functions."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Iterable

from chassis.core.headers import DEADLINE, REQUEST_ID

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_DEADLINE = DEADLINE.lower().encode()
_REQUEST_ID_NAME = REQUEST_ID.lower().encode()


def read_context(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, float | None]:
    """The request id and the seconds the caller still waits.

    An id that is missing, too long or not plain text is replaced by a new one, so that none of it
    reaches a log line. A deadline that is no number is taken as missing.
    """
    request_id: str | None = None
    seconds: float | None = None
    for name, value in headers:
        if name == _REQUEST_ID_NAME:
            text = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text):
                request_id = text
        elif name == _DEADLINE:
            try:
                milliseconds = float(value)
            except ValueError:
                continue
            if math.isfinite(milliseconds):
                seconds = milliseconds / 1000
    return request_id or secrets.token_hex(16), seconds
