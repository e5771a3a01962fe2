from __future__ import annotations

import itertools
from collections.abc import Iterator

EVERY = 64


class Ticks:
    """Counts what happens far more often than anybody asks, for the price of one ``next``.

    Whoever counts takes the next of :attr:`ring`, in any thread; whoever gets a 0, which is one in
    64, sees to it that :meth:`take` is called. The ticks are the same few numbers over and over, as
    a number made for each would be half of the cost. So what is taken is a difference between two
    of them: should a thread be stopped right between its 0 and the taking, while others go once
    around, that round of 64 is lost. Nothing is ever counted that did not happen.
    """

    __slots__ = ("_taken", "ring")

    def __init__(self) -> None:
        self.ring: Iterator[int] = itertools.cycle(range(EVERY))
        """What is counted with."""
        self._taken = 0
        self.take()

    def take(self) -> int:
        """How often it was counted since this was asked last. Its caller holds a lock."""
        tick = next(self.ring)
        counted = (tick - self._taken - 1) % EVERY
        while not tick:
            # Not this 0: from it to the next one, a full round would look like none.
            tick = next(self.ring)
        self._taken = tick
        return counted
