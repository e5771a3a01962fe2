"""Which key verifies a token, and when the keys are to be fetched again.

Two promises pull in opposite directions. A provider rotates its signing key: tokens signed with
the new one must not be refused, although nobody here has seen it yet. And an attacker sends tokens
with invented key ids: they must not make this process fetch without end. So an unknown key id
causes a fetch at once, but not sooner than ``floor`` after the last one began (the token waits that
long), and only while an allowance lasts. A provider that publishes a key before it signs with it
therefore never sees a token refused; under a flood of invented ids this still holds if it publishes
``refresh`` seconds ahead, for the periodic fetch asks for no allowance.
"""

from __future__ import annotations

from enum import Enum

from chassis.auth._keyset import Key
from chassis.auth._options import JWKSOptions

_FIRST_RETRY = 1.0
_LONGEST_RETRY = 30.0


class Need(Enum):
    """Whether a fetch is due, for a token whose key may be known."""

    NOTHING = "nothing"
    REFRESH = "refresh"
    """Fetch, but let requests go on with the keys at hand."""
    WAIT = "wait"
    """Fetch, and judge no token before it ended: there are no keys, or too old ones."""


class KeyMachine:
    """The state of one key set. Synchronous; the shell fetches and tells it how that went."""

    def __init__(self, options: JWKSOptions) -> None:
        self.options = options
        self.keys: tuple[Key, ...] = ()
        self.began_at: float | None = None
        """When the newest fetch began."""
        self._by_fingerprint: dict[str, Key] = {}
        self._loaded_at: float | None = None
        self._failures = 0
        self._retry_at = float("-inf")
        self._allowance = float(options.unknown_burst)
        self._allowance_at = 0.0

    @property
    def failing(self) -> bool:
        """Whether the newest fetch failed."""
        return self._failures > 0

    def age(self, now: float) -> float | None:
        """Seconds since the last good fetch; None before the first."""
        return None if self._loaded_at is None else now - self._loaded_at

    def retry_after(self, now: float) -> float:
        """Seconds until a fetch is allowed again after failures."""
        return max(0.0, self._retry_at - now)

    def holds(self, fingerprint: str) -> bool:
        """Whether the key is in the set as it is now."""
        return fingerprint in self._by_fingerprint

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key for a token of this key id and algorithm, or None.

        A token without a key id is judged only where one single key could have signed it
        (RFC 7515, 4.1.4 leaves it optional; trying several would let keys stand in for each other).
        """
        fitting = [key for key in self.keys if algorithm in key.algorithms and kid in (None, key.kid)]
        if kid is None and len(fitting) > 1:
            return None
        return fitting[0] if fitting else None

    def need(self, now: float) -> Need:
        """Whether age asks for a fetch."""
        if now < self._retry_at:
            return Need.NOTHING
        if self._loaded_at is None:
            return Need.WAIT
        age = now - self._loaded_at
        if age < self.options.refresh:
            return Need.NOTHING
        # Not used for long: a key may have been withdrawn since, so the first request waits.
        return Need.REFRESH if age < 2 * self.options.refresh else Need.WAIT

    def wait_for_unknown(self, now: float) -> float | None:
        """Take leave to fetch because of an unknown key id.

        :returns: seconds to wait before the fetch; None if there is no leave.
        """
        if now < self._retry_at:
            return None
        refilled = (now - self._allowance_at) / self.options.unknown_refill
        self._allowance = min(float(self.options.unknown_burst), self._allowance + refilled)
        self._allowance_at = now
        if self._allowance < 1:
            return None
        self._allowance -= 1
        if self.began_at is None:
            return 0.0
        return max(0.0, self.began_at + self.options.floor - now)

    def began(self, now: float) -> None:
        """A fetch begins."""
        self.began_at = now

    def loaded(self, keys: tuple[Key, ...], now: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """A fetch brought ``keys``.

        :returns: the key ids that came and those that went.
        """
        old, new = self._by_fingerprint, {key.fingerprint: key for key in keys}
        self.keys, self._by_fingerprint = keys, new
        self._loaded_at = now
        self._failures = 0
        self._retry_at = float("-inf")
        added = tuple(key.kid for fingerprint, key in new.items() if fingerprint not in old)
        removed = tuple(key.kid for fingerprint, key in old.items() if fingerprint not in new)
        return added, removed

    def failed(self, now: float) -> bool:
        """A fetch failed: what is known stays, and the next try waits, twice as long each time.

        :returns: whether this is the first failure in a row.
        """
        # The exponent is capped too: an outage of hours must not end in an overflow.
        pause: float = min(_FIRST_RETRY * 2 ** min(self._failures, 10), _LONGEST_RETRY)
        self._retry_at = now + pause
        self._failures += 1
        return self._failures == 1
