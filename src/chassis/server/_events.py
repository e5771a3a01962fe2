from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core import Event, Level


@dataclass(frozen=True, kw_only=True)
class AnnouncementFailed(Event):
    """The process serves, but could not be registered.

    :param error: what was wrong.
    """

    name: ClassVar[str] = "service.announcement_failed"
    level: ClassVar[Level] = "error"

    error: str


@dataclass(frozen=True, kw_only=True)
class Draining(Event):
    """The process was told to stop: it is not ready any more, and leaves the registry.

    :param drain: seconds it goes on serving after that.
    """

    name: ClassVar[str] = "service.draining"

    drain: float


@dataclass(frozen=True, kw_only=True)
class Stopping(Event):
    """Draining is over: the server takes no more connections and finishes what is in flight.

    :param skipped: whether it was cut short by a second SIGTERM.
    """

    name: ClassVar[str] = "service.stopping"

    skipped: bool


@dataclass(frozen=True, kw_only=True)
class LoopBlocked(Event):
    """The application's event loop does not answer: something blocks it, and every request with it.

    :param lag: seconds for which it has not answered.
    """

    name: ClassVar[str] = "service.loop_blocked"
    level: ClassVar[Level] = "warning"

    lag: float


@dataclass(frozen=True, kw_only=True)
class LoopRecovered(Event):
    """The application's event loop answers again.

    :param lag: seconds its last answer took.
    """

    name: ClassVar[str] = "service.loop_recovered"

    lag: float


@dataclass(frozen=True, kw_only=True)
class DeadlineMalformed(Event):
    """A caller's deadline could not be read, so the server's own holds; told only while somebody listens.

    :param header: the header that told it. Its value is left out: callers choose it.
    """

    name: ClassVar[str] = "server.deadline_malformed"
    level: ClassVar[Level] = "debug"
    transition: ClassVar[bool] = False

    header: str
