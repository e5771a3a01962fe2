from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core import Event
from chassis.core.events import Level


@dataclass(frozen=True, kw_only=True)
class KeysChanged(Event):
    """A fetched key set differs from the one before.

    :param added: key ids that verify from now on.
    :param removed: key ids that no longer do; tokens they signed are refused at once.
    """

    name: ClassVar[str] = "auth.keys_changed"

    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class KeysFetchFailed(Event):
    """The provider's keys could not be fetched; the last good ones keep verifying.

    Emitted once per outage, not once per try.

    :param error: type and message.
    :param keys: how many keys are still known.
    """

    name: ClassVar[str] = "auth.keys_fetch_failed"
    level: ClassVar[Level] = "warning"

    error: str
    keys: int
