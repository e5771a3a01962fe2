"""What the end of an attempt says of its instance. Pure functions.

Sources: RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from chassis.client._module import HTTPModule
from chassis.core import ChassisError, Outcome
from chassis.retries import retry_after_seconds

_COME_BACK_LATER = frozenset({429, 503})
# This process, or its machine, has no descriptors or no memory left for a connection to anybody.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class BadAnswer(Exception):
    """An answer whose status is a failure, in the form in which breakers are told of failures.

    :param retry_after: seconds after which the server wants to be asked again.
    """

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(status, retry_after)
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return str(self.status)


def judge_status(status: int) -> Outcome:
    """What an answer's status says of the instance: 5xx is a failure, all else a success."""
    return Outcome.FAILURE if status >= 500 else Outcome.SUCCESS


def judge_error(error: BaseException, http: HTTPModule, *, excused: bool) -> Outcome:
    """What a failed attempt says of its instance.

    Only what is known to come from the other side is a failure. Anything else (a cancellation, a
    request that cannot be sent, the caller's own body that raises) is not the instance's fault.

    :param excused: the time was cut short, or this process was too slow to see the answer; then a
        timeout is none either.
    """
    if isinstance(error, ChassisError) or not isinstance(error, http.unsent_errors + http.broken_errors):
        # Of another call, say, whose answer the caller's body is made of.
        return Outcome.IGNORED
    if isinstance(error, http.module.PoolTimeout) or _never_got_away(error):
        # Our own pool was full, our own resolver does not answer, or we can open nothing more.
        return Outcome.IGNORED
    if excused and isinstance(error, http.module.TimeoutException):
        return Outcome.IGNORED
    return Outcome.FAILURE


def _never_got_away(error: BaseException) -> bool:
    """Whether nobody can be called from here for now: no name looked up, no connection opened.

    A name that does not exist is another matter.
    """
    for each in _system_errors(error):
        if isinstance(each, socket.gaierror):
            return each.errno == socket.EAI_AGAIN
        if each.errno in _EXHAUSTED:
            return True
    return False


def _system_errors(error: BaseException) -> Iterator[OSError]:
    """What the system said; the HTTP modules and their backends keep it as a cause or an argument of theirs."""
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for each in (error.__cause__, *error.args, *members):
        if isinstance(each, OSError):
            yield each
        if isinstance(each, BaseException):
            yield from _system_errors(each)


def told_to_wait(response: Any) -> float | None:
    """The seconds after which an answer's server wants to be asked again; None if it does not say."""
    if response.status_code not in _COME_BACK_LATER:
        return None
    now = time.time()  # noqa: TID251 - the header may be a date
    return retry_after_seconds(response.headers.get("Retry-After"), now)
