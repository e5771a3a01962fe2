"""What a scripted dependency can be told to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Delay:
    """Answer after ``seconds`` on the script's clock.

    :param then: what then happens: a value, an error, or another step.
    """

    __slots__ = ("seconds", "then")

    def __init__(self, seconds: float, then: Any = None) -> None:
        self.seconds = seconds
        self.then = then

    def __repr__(self) -> str:
        return f"Delay({self.seconds!r}, then={self.then!r})"


class Hang:
    """Do not answer before :meth:`ScriptedDependency.release` is called.

    :param then: what then happens: a value, an error, or another step.
    """

    __slots__ = ("then",)

    def __init__(self, then: Any = None) -> None:
        self.then = then

    def __repr__(self) -> str:
        return f"Hang(then={self.then!r})"


class Items:
    """For :meth:`ScriptedDependency.stream` and its async twin: what is yielded, one by one.

    :param items: values, errors and steps: ``Items("a", Delay(1.0, then="b"), ConnectionError)``.
    """

    __slots__ = ("items",)

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __repr__(self) -> str:
        return f"Items({', '.join(map(repr, self.items))})"


class ScriptExhausted(BaseException):
    """A scripted dependency was called more often than its script foresees, or hung and nobody released it.

    Not an ``Exception``: no retry tries it again and no fallback answers for it, so the test fails.
    """


@dataclass(slots=True, eq=False)
class Call:
    """One call that a scripted dependency received.

    :param args: its positional arguments.
    :param kwargs: its keyword arguments.
    :param at: when it came, on the script's clock.
    :param ended_at: when it ended; None while it is running.
    :param outcome: ``running``, ``returned``, ``raised``, ``cancelled``, or ``closed`` (a stream that
        its consumer left).
    :param error: what it raised, or what cancelled it.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    at: float
    ended_at: float | None = None
    outcome: str = "running"
    error: BaseException | None = None

    def __str__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"({', '.join(arguments)})"
