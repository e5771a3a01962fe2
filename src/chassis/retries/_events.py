from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core.events import Event, Level


@dataclass(frozen=True, kw_only=True)
class RetryScheduled(Event):
    """A call failed and will be tried again; told only while somebody listens.

    :param attempt: the number of the attempt that failed, from 1.
    :param wait: seconds until the next one.
    :param failure: type and message of the error, or that the result was a failure.
    """

    name: ClassVar[str] = "retry.scheduled"
    transition: ClassVar[bool] = False

    attempt: int
    wait: float
    failure: str


@dataclass(frozen=True, kw_only=True)
class RetryGaveUp(Event):
    """A call that could have been tried again was not; told only while somebody listens.

    :param attempts: how many were made.
    :param reason: why, as a phrase.
    :param failure: type and message of the last error, or that the result was a failure.
    """

    name: ClassVar[str] = "retry.gave_up"
    level: ClassVar[Level] = "warning"
    transition: ClassVar[bool] = False

    attempts: int
    reason: str
    failure: str


@dataclass(frozen=True, kw_only=True)
class HedgeSent(Event):
    """A call that was slow was sent once more; told only while somebody listens.

    :param number: the how manieth further attempt of this call it is, from 1.
    :param delay: seconds after which the call counted as slow.
    """

    name: ClassVar[str] = "hedge.sent"
    transition: ClassVar[bool] = False

    number: int
    delay: float


@dataclass(frozen=True, kw_only=True)
class HedgeWon(Event):
    """A further attempt succeeded before the call itself; told only while somebody listens.

    :param number: the how manieth further attempt of this call it was, from 1.
    """

    name: ClassVar[str] = "hedge.won"
    transition: ClassVar[bool] = False

    number: int
