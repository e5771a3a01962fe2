from __future__ import annotations

_ONE_MORE_AFTER = 10.0
_TOLD_AFTER = 60.0
_NEAR = 0.8


class QuerySlots:
    """How many blocking queries may be open at once: an agent serves one client so many connections.

    Whoever finds no slot asks without waiting on a change. When an agent turns out to grant fewer
    connections than were thought (several processes of one host are one client to it), the number is
    brought down to half of what is open, so that short questions get through, and grows by one for
    every ten seconds without a refusal: additive increase, multiplicative decrease, as TCP shares a line
    among senders who do not know of each other (RFC 5681).
    """

    def __init__(self) -> None:
        self.open = 0
        self._near = False
        self._ceiling = 0
        self._refused_at: float | None = None
        self._told_at: float | None = None

    def limit(self, wanted: int, *, now: float) -> int:
        """How many may be open now, of the ``wanted`` ones."""
        if self._refused_at is None:
            return wanted
        return min(wanted, self._ceiling + int((now - self._refused_at) / _ONE_MORE_AFTER))

    def take(self, wanted: int, *, now: float) -> bool:
        """Take leave for one, if one is left.

        None is in the first ten seconds after a refusal, or whoever has none would be refused again with
        every question.
        """
        if self._refused_at is not None and now < self._refused_at + _ONE_MORE_AFTER:
            return False
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
        """The agent has just refused a connection; the one it would have served is not open any more.

        A refusal that comes before the last one's consequences brings the number no further down:
        it goes by what is open.

        :returns: whether to tell of it: once a minute.
        """
        self._ceiling = max(1, self.limit(self.open // 2, now=now))
        self._refused_at = now
        if self._told_at is not None and now < self._told_at + _TOLD_AFTER:
            return False
        self._told_at = now
        return True

    @property
    def ceiling(self) -> int:
        """What the last refusal brought the number down to."""
        return self._ceiling
