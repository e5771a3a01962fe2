"""The life of one token of a secret store: pure. Time goes in, what to do next comes out."""

from __future__ import annotations

import random as _random
from collections.abc import Callable
from enum import Enum

_RENEW_AT = 2 / 3
_JITTER = 0.1
_SHRUNK = 0.9
_MARGIN = 5.0
_SOON = 1.0
_SILENT_BASE, _SILENT_CAP = 0.25, 30.0
_REFUSED_BASE, _REFUSED_CAP = 5.0, 60.0
_MOST_DOUBLINGS = 30


class Due(Enum):
    """What a session needs before its token may be used."""

    NOTHING = "the token is good"
    RENEW = "renew the token"
    LOGIN = "log in"
    HOLD = "logging in failed a moment ago; do not try yet"


class TokenSession:
    """Decides when to log in, when to renew, and when to leave the store alone.

    A token is renewed at two thirds of its life, give or take a tenth. One whose renewal the store
    cuts short is near its greatest age: the session logs in anew at once rather than ride it down.
    While renewal fails and the token lives, it goes on being used.

    :param random: draws from [0, 1).
    """

    def __init__(self, *, random: Callable[[], float] = _random.random) -> None:
        self._random = random
        self._valid = False
        self._renewable = False
        self._granted = 0.0
        self._expires = 0.0
        self._renew_at = 0.0
        self._try_at = 0.0
        self._failures = 0

    def due(self, now: float) -> Due:
        """What is to be done before the token is used at ``now``."""
        if self._usable(now) and now < self._renew_at:
            return Due.NOTHING
        if now < self._try_at:
            return Due.NOTHING if self._usable(now) else Due.HOLD
        if self._usable(now) and self._renewable and now < self._expires - self._margin():
            return Due.RENEW
        return Due.LOGIN

    def retry_in(self, now: float) -> float:
        """Seconds until something may be tried again; 0 if it may be now."""
        return max(0.0, self._try_at - now)

    def logged_in(self, now: float, *, ttl: float, renewable: bool) -> None:
        """A login gave a token.

        :param ttl: seconds it lives; 0 for ever.
        """
        self._granted = ttl
        self._renewable = renewable
        self._extended(now, ttl)

    def renewed(self, now: float, *, ttl: float) -> None:
        """A renewal gave the token ``ttl`` more seconds, counted from now."""
        self._extended(now, ttl)
        if 0 < ttl < _SHRUNK * self._granted:
            self._renewable = False
            self._renew_at = now

    def silent(self, now: float) -> None:
        """The store did not answer a login or renewal, or cannot serve it now."""
        self._failed(now, _SILENT_BASE, _SILENT_CAP)

    def refused(self, now: float) -> None:
        """The store refused to log in or renew: trying again helps only when somebody acts."""
        self._failed(now, _REFUSED_BASE, _REFUSED_CAP)

    def dead(self) -> None:
        """The store no longer knows the token: it was revoked, or the store is another one."""
        self._valid = False

    def not_renewable(self) -> None:
        """The store will not renew this token; a new one has to be got."""
        self._renewable = False

    def _usable(self, now: float) -> bool:
        return self._valid and now < self._expires

    def _margin(self) -> float:
        """Seconds before the end at which hope of renewal is given up."""
        return min(_MARGIN, self._granted * 0.1)

    def _extended(self, now: float, ttl: float) -> None:
        self._valid = True
        self._failures = 0
        self._try_at = now
        if ttl <= 0:
            self._expires = self._renew_at = float("inf")
            return
        self._expires = now + ttl
        spread = 1 + _JITTER * (2 * self._random() - 1)
        self._renew_at = now + max(_SOON, ttl * _RENEW_AT * spread)

    def _failed(self, now: float, base: float, cap: float) -> None:
        longest = min(cap, base * 2.0 ** min(self._failures, _MOST_DOUBLINGS))
        self._failures += 1
        self._try_at = now + longest * (0.5 + 0.5 * self._random())
