"""Which documents hold: pure, documents in and decisions out.

A document that does not validate waits; the last good one of its source goes on holding. It gets
in when it is replaced by a better one, or when a change of another document makes it fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from chassis.config._layers import Layer

Documents: TypeAlias = Mapping[str, Layer]
"""The document of each source, by the source's name."""


class SourceState(Enum):
    """How a source of settings stands."""

    WAITING = "has not answered yet"
    READY = "in use"
    ABSENT = "has no document"
    UNREACHABLE = "does not answer"
    VANISHED = "its document is gone; the last good one is in use"
    REJECTED = "its document cannot be used; the last good one is in use"


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A state and, where it is a bad one, the reason."""

    state: SourceState
    reason: str = ""

    @property
    def bad(self) -> bool:
        """Whether somebody should look."""
        return self.state in (SourceState.UNREACHABLE, SourceState.VANISHED, SourceState.REJECTED)


class Reload:
    """The documents that hold, those that wait, and the status of every source."""

    def __init__(self) -> None:
        self.accepted: Documents = {}
        self._waiting: dict[str, Layer] = {}
        self._unreadable: set[str] = set()
        self._temporary: set[str] = set()
        self._status: dict[str, SourceStatus] = {}

    def candidates(self, source: str, document: Layer) -> list[Documents]:
        """The sets of documents to try for this new one, best first; none if there is nothing to try.

        First with all that wait, since together they may be right; then this one alone.
        """
        self._unreadable.discard(source)
        known = self._waiting.get(source)
        if source in self.accepted and self.accepted[source] == document:
            self._forget(source)
            return []
        if known == document and source not in self._temporary:
            return []
        alone = {**self.accepted, source: document}
        others = {name: each for name, each in self._waiting.items() if name != source}
        return [{**alone, **others}, alone] if others else [alone]

    def retries(self) -> list[tuple[str, Layer]]:
        """The documents whose rejection may have passed by itself."""
        return [(name, self._waiting[name]) for name in sorted(self._temporary)]

    def accept(self, documents: Documents) -> None:
        """These hold from now on."""
        self.accepted = documents
        for name in [name for name, each in self._waiting.items() if documents.get(name) == each]:
            self._forget(name)

    def reject(self, source: str, document: Layer, *, temporary: bool = False) -> bool:
        """This one does not hold; it waits.

        :param temporary: whether trying the same again may succeed.
        :returns: whether that is news.
        """
        news = self._waiting.get(source) != document
        self._waiting[source] = document
        self._temporary.discard(source)
        if temporary:
            self._temporary.add(source)
        return news

    def withdraw(self, source: str) -> None:
        """The newest document of this source cannot even be read, so an older one waits no longer."""
        self._forget(source)
        self._unreadable.add(source)

    def rejects(self, source: str) -> bool:
        """Whether the newest document of this source does not hold."""
        return source in self._waiting or source in self._unreadable

    def status(self, source: str) -> SourceStatus:
        """How ``source`` stands."""
        return self._status.get(source, SourceStatus(SourceState.WAITING))

    def set_status(self, source: str, status: SourceStatus) -> SourceStatus | None:
        """Note how ``source`` stands; returns how it stood if that was another state."""
        before = self.status(source)
        self._status[source] = status
        return None if before.state is status.state else before

    def _forget(self, source: str) -> None:
        self._waiting.pop(source, None)
        self._temporary.discard(source)
