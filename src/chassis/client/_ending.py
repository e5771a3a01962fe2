from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from chassis.core import Outcome

Step: TypeAlias = Callable[[Outcome, BaseException | None], None]


class Ending:
    """What a call owes, given back in reverse when the answer's body is closed.

    A permit, a pick and a span end at body close and not at headers: a body that breaks off after
    good headers is a failure, and an instance busy with a body is not idle.
    """

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def owe(self, step: Step) -> None:
        """Call ``step(outcome, error)`` at the end."""
        self._steps.append(step)

    def close(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Walk back. A second call finds nothing left to do."""
        while self._steps:
            self._steps.pop()(outcome, error)
