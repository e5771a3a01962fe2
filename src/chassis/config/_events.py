from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core.events import Event, Level


@dataclass(frozen=True, kw_only=True)
class ConfigChanged(Event):
    """New settings are in use.

    :param subject: what the settings are for.
    :param settings: the names of those that changed; never their values.
    :param origins: where the new values came from, in the same order.
    :param generation: counts the changes since the start.
    """

    name: ClassVar[str] = "config.changed"

    settings: tuple[str, ...]
    origins: tuple[str, ...]
    generation: int


@dataclass(frozen=True, kw_only=True)
class ConfigRejected(Event):
    """A change cannot be used; the last good settings go on.

    :param subject: the source it came from.
    :param settings: the names of those at fault; empty if the document cannot be read at all.
    :param origins: where their values came from, in the same order.
    :param reason: what is wrong with the document as a whole.
    """

    name: ClassVar[str] = "config.rejected"
    level: ClassVar[Level] = "error"

    settings: tuple[str, ...]
    origins: tuple[str, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class ConfigSourceLost(Event):
    """A source of settings does not answer, or its document is gone; the last good one goes on."""

    name: ClassVar[str] = "config.source_lost"
    level: ClassVar[Level] = "warning"

    reason: str


@dataclass(frozen=True, kw_only=True)
class ConfigSourceRestored(Event):
    """A source of settings that was in trouble is in use again."""

    name: ClassVar[str] = "config.source_restored"


@dataclass(frozen=True, kw_only=True)
class ConfigUnknown(Event):
    """A variable under a service's own prefix sets nothing.

    :param subject: the variable.
    :param suggestion: the variable that may have been meant, or "".
    """

    name: ClassVar[str] = "config.unknown"
    level: ClassVar[Level] = "warning"

    suggestion: str


@dataclass(frozen=True, kw_only=True)
class ConfigCallbackFailed(Event):
    """A function that was told of a change raised.

    :param callback: its name.
    :param error: the type of what it raised.
    """

    name: ClassVar[str] = "config.callback_failed"
    level: ClassVar[Level] = "error"

    callback: str
    error: str
