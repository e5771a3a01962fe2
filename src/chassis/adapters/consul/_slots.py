from __future__ import annotations

_CROWDED_FOR = 60.0
_NEAR = 0.8
_SPARED = 0.2


class QuerySlots:
    """How many blocking queries may be open at once: an agent serves one client so many connections.

    Whoever finds no slot asks without waiting on a change. When an agent turns out to grant fewer
    connections than were thought (several processes of one host are one client to it), the number is
    brought down for a minute, and a fifth below what is open, so that short questions get through.
    """

    def __init__(self) -> None:
        self.open = 0
        self._near = False
        self._ceiling = 0
        self._crowded_until: float | None = None

    def limit(self, wanted: int, *, now: float) -> int:
        """How many may be open now, of the ``wanted`` ones."""
        if self._crowded_until is None or now >= self._crowded_until:
            return wanted
        return min(wanted, self._ceiling)

    def take(self, wanted: int, *, now: float) -> bool:
        """Take leave for one, if one is left."""
        if self.open >= self.limit(wanted, now=now):
            return False
        self.open += 1
        return True

    def keeps(self, wanted: int, *, now: float) -> bool:
        """Whether who holds one may go on; if not, it gives it back."""
        return self.open <= self.limit(wanted, now=now)

    def reserve(self) -> None:
        """Take leave for one that cannot do without."""
        self.open += 1

    def give_back(self) -> None:
        """End one."""
        self.open -= 1

    def near(self, wanted: int) -> bool:
        """Whether four fifths are open for the first time since they were not."""
        before, self._near = self._near, self.open >= _NEAR * wanted
        return self._near and not before

    def crowded(self, *, now: float) -> bool:
        """The agent has just refused a connection for one that was given back since.

        :returns: whether this is the first refusal in a while.
        """
        first = self._crowded_until is None or now >= self._crowded_until
        fewer = self.open - max(1, int(self.open * _SPARED))
        self._ceiling = max(1, fewer if first else min(fewer, self._ceiling))
        self._crowded_until = now + _CROWDED_FOR
        return first

    @property
    def ceiling(self) -> int:
        """The number a crowded agent was found to bear."""
        return self._ceiling
