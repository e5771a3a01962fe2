from __future__ import annotations

from chassis.core import ChassisError


class AuthError(ChassisError):
    """The caller did not show who it is.

    :param why: one sentence that may be shown to the caller: it never holds the credential, and
        tells nothing that helps to forge one.
    :param challenge: the value of ``WWW-Authenticate`` for the 401 (RFC 9110, 11.6.1).
    """

    def __init__(self, why: str, *, challenge: str) -> None:
        super().__init__(why)
        self.why = why
        self.challenge = challenge


class KeysUnavailable(ChassisError):
    """The token cannot be judged: its provider's keys could not be fetched. Answer 503, not 401.

    :param retry_after: seconds until the next fetch is due.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
