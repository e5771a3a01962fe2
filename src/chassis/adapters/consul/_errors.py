from __future__ import annotations

from chassis.core.errors import DiscoveryError


class ConsulError(DiscoveryError):
    """Consul refused a request, or answered what cannot be used.

    :param status: the HTTP status of the answer; None if there was none.
    :param body: the beginning of the answer's text.
    """

    def __init__(self, message: str, *, status: int | None = None, body: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class ConsulUnreachable(ConsulError):
    """No answer came: refused, reset or timed out.

    :param dropped: whether a connection stood and was closed without a word. An agent that ends does
        so, and one to which this client has more connections than it grants.
    """

    def __init__(self, message: str, *, dropped: bool = False) -> None:
        super().__init__(message)
        self.dropped = dropped


class ConsulUnavailable(ConsulError):
    """The agent answered with a 5xx: it has no leader, or lost its servers; or 429: it has too much to do."""


class ConsulForbidden(ConsulError):
    """The token may not do this, or does not exist."""


class ConsulNotFound(ConsulError):
    """What was asked for does not exist."""


class ConsulConflict(ConsulError):
    """A transaction was rolled back."""


class ConsulAnswerError(ConsulError):
    """The answer is not what Consul's API promises."""


_ERRORS = {403: ConsulForbidden, 404: ConsulNotFound, 409: ConsulConflict}


def status_error(what: str, status: int, body: str, *, location: str = "") -> ConsulError:
    """The error for an answer that is not 2xx.

    :param location: where it sends us, for a redirect.
    """
    body = " ".join(body.split())[:300]
    remedy = "; check the ACL token and its policy" if status == 403 else ""
    if location and 300 <= status < 400:
        # An agent sends nobody elsewhere, and a token is not taken along.
        remedy = f"; it redirects to {location[:300]}, which is not followed"
    kind = ConsulUnavailable if status >= 500 or status == 429 else _ERRORS.get(status, ConsulError)
    return kind(
        f"Consul answered {status} to {what}: {body or 'no explanation'}{remedy}", status=status, body=body
    )
