"""What an inbound request's headers say of its context. Pure functions."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from chassis.core.headers import DEADLINE, REQUEST_ID

GRPC_TIMEOUT = b"grpc-timeout"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_MILLISECONDS = re.compile(rb"-?[0-9]{1,15}(\.[0-9]{1,9})?")
_GRPC = re.compile(rb"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_REQUEST_ID_NAME = REQUEST_ID.lower().encode()

Form = Callable[[bytes], float | None]
"""Seconds that a header's value says, or None if it is malformed."""


def milliseconds(value: bytes) -> float | None:
    """``1500``, as our own header and those that end in ``-Ms`` have it."""
    return float(value) / 1000 if _MILLISECONDS.fullmatch(value) else None


def grpc_timeout(value: bytes) -> float | None:
    """``1500m``: at most eight digits and a unit (gRPC over HTTP/2, "Requests")."""
    found = _GRPC.fullmatch(value)
    return float(found[1]) * _GRPC_UNITS[found[2]] if found else None


OWN: Mapping[bytes, Form] = MappingProxyType({DEADLINE.lower().encode(): milliseconds})


def deadline_forms(names: Iterable[str]) -> Mapping[bytes, Form]:
    """How the deadline is read from each header that may tell it: ours, and those of ``names``."""
    lower = (name.lower().encode() for name in names)
    return {**OWN, **{name: grpc_timeout if name == GRPC_TIMEOUT else milliseconds for name in lower}}


def read_context(
    headers: Iterable[tuple[bytes, bytes]], forms: Mapping[bytes, Form] = OWN
) -> tuple[str, float | None, list[str]]:
    """The request id, the seconds the caller still waits, and the headers whose deadline is malformed.

    An id that is missing, too long or not plain text is replaced by a new one, so that none of it
    reaches a log line. A malformed deadline is taken as missing; of several the earliest holds.
    """
    request_id: str | None = None
    seconds: float | None = None
    malformed: list[str] = []
    for name, value in headers:
        if name == _REQUEST_ID_NAME:
            text = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text):
                request_id = text
        elif name in forms:
            told = forms[name](value)
            if told is None:
                malformed.append(name.decode("latin-1"))
            elif seconds is None or told < seconds:
                seconds = told
    return request_id or secrets.token_hex(16), seconds, malformed
