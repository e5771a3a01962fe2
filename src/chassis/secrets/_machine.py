"""The life of one secret in use: pure. Reads go in, decisions come out."""

from __future__ import annotations

import random as _random
from collections.abc import Callable

from chassis.core.secrets import SecretVersion

_BASE = 0.25
_JITTER = 0.1
_MOST_DOUBLINGS = 30


class Rotation:
    """What is known of the secrets at one place, and when to look again.

    The last good version stays whatever happens to the store.

    :param poll: seconds between two reads while all is well, give or take a tenth, so that many
        processes do not ask at once.
    :param random: draws from [0, 1).
    """

    def __init__(self, poll: float, *, random: Callable[[], float] = _random.random) -> None:
        self._poll = poll
        self._random = random
        self._failures = 0
        self.current: SecretVersion | None = None
        self.reason = ""

    @property
    def lost(self) -> bool:
        """Whether the last read failed."""
        return self._failures > 0

    def read(self, version: SecretVersion) -> tuple[str, ...]:
        """A read went well.

        What counts is the values: a store that was rebuilt may count versions from the beginning,
        and one that was written with the same values has not rotated anything.

        :returns: the names of the fields that differ from the version before; none at first.
        """
        before, self.current = self.current, version
        self._failures = 0
        self.reason = ""
        if before is None:
            return ()
        names = before.values.keys() | version.values.keys()
        return tuple(sorted(each for each in names if before.values.get(each) != version.values.get(each)))

    def failed(self, reason: str) -> bool:
        """A read failed.

        :returns: whether that is news: the first failure since the secret was there.
        """
        self._failures += 1
        self.reason = reason
        return self._failures == 1 and self.current is not None

    def delay(self) -> float:
        """Seconds until the next read: the poll's, or after failures less, doubling up to it."""
        if self._failures == 0:
            return self._poll * (1 + _JITTER * (2 * self._random() - 1))
        longest = min(self._poll, _BASE * 2.0 ** min(self._failures, _MOST_DOUBLINGS))
        # Between half and all of it: a pause of nothing would only add to what ails the store.
        return longest * (0.5 + 0.5 * self._random())
