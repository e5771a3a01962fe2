"""Where documents of settings come from, and what a source may answer."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Protocol, TypeAlias

from chassis.config._layers import Layer, Leaf, Path, leaves
from chassis.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Found:
    """The document's content, TOML in UTF-8."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Absent:
    """The source answered: there is no document."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The source did not answer."""

    reason: str


Reading: TypeAlias = Found | Absent | Unreachable


class Source(Protocol):
    """Something that holds a TOML document of settings and tells of its changes."""

    name: str
    """As a person would find it: ``chassis.toml``, ``consul kv config/orders/data``."""
    remote: bool
    """Whether it is another machine: then it may not say how it is reached, nor name local files."""
    shared: bool
    """Whether several services read it: then what a service does not know is another's."""

    def readings(self) -> AsyncIterator[Reading]:
        """The state now, then every change of it (and repeats, which do no harm), without end.

        Runs on the background loop; retries by itself and never raises.
        """
        ...


class FileSource:
    """A TOML file, read anew each ``interval`` seconds.

    :param path: the file; may be replaced, and may be a link that is changed (Kubernetes).
    """

    remote = False
    shared = False

    def __init__(self, path: str | FilePath, *, interval: float = 1.0) -> None:
        self.path = FilePath(path)
        self.name = str(path)
        self.interval = interval

    def read(self) -> Reading:
        """What it holds now."""
        # Content, not a signature of times and sizes: a restored backup has an older time, two
        # writes may share one, and reading a page a second costs nothing that could be saved.
        try:
            return Found(self.path.read_bytes())
        except FileNotFoundError:
            return Absent()
        except OSError as error:
            return Unreachable(f"cannot be read: {error.strerror or error}")

    async def readings(self) -> AsyncIterator[Reading]:
        """Yield what it holds, each ``interval`` seconds."""
        while True:
            # In a thread: a network file system that hangs must not stop the heartbeats.
            yield await asyncio.to_thread(self.read)
            await asyncio.sleep(self.interval)


class MemorySource:
    """A document held in memory: for tests, and for settings that the program itself makes.

    :param content: the document, or None for none.
    """

    def __init__(
        self, name: str, content: str | None = None, *, remote: bool = False, shared: bool = False
    ) -> None:
        self.name = name
        self.remote = remote
        self.shared = shared
        self._reading: Reading = Absent() if content is None else Found(content.encode())
        self._changed: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def set(self, content: str | None) -> None:
        """Replace the document, from any thread; None removes it."""
        self._say(Absent() if content is None else Found(content.encode()))

    def fail(self, reason: str) -> None:
        """Answer no more, until the next :meth:`set`."""
        self._say(Unreachable(reason))

    async def readings(self) -> AsyncIterator[Reading]:
        """Yield the document, and again after each :meth:`set`."""
        changed = asyncio.Event()
        entry = (asyncio.get_running_loop(), changed)
        self._changed.append(entry)
        try:
            while True:
                changed.clear()
                yield self._reading
                await changed.wait()
        finally:
            self._changed.remove(entry)

    def _say(self, reading: Reading) -> None:
        self._reading = reading
        for loop, changed in self._changed:
            loop.call_soon_threadsafe(changed.set)


def parse(content: bytes, source: str, *, remote: bool = False) -> dict[Path, Leaf]:
    """The leaves of a TOML document.

    :raises ConfigError: it is not TOML; says where.
    """
    try:
        return leaves(tomllib.loads(content.decode("utf-8-sig")), source, remote=remote)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"is not UTF-8 at byte {error.start}", origin=source, remedy="save it as UTF-8"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}", origin=source, remedy="mend it there") from None


def parse_path(text: str) -> Path:
    """``policies."breaker:payments".failure_rate`` as a path.

    :raises ConfigError: it is no dotted name.
    """
    try:
        table: Any = tomllib.loads(f"{text} = 0") if "\n" not in text else None
    except tomllib.TOMLDecodeError:
        table = None
    path: Path = ()
    while isinstance(table, dict) and len(table) == 1:
        ((key, table),) = table.items()
        path = (*path, key)
    if table != 0:
        raise ConfigError(
            f"{json.dumps(text)} is no setting's name", remedy='write it as in TOML: a.b."c:d".e'
        )
    return path


def parse_assignments(assignments: Iterable[str]) -> Layer:
    """The layer that ``name=value`` arguments make: ``chassis.timeout=2s``.

    :raises ConfigError: one of them has no ``=``, or no name.
    """
    layer: dict[Path, Leaf] = {}
    for each in assignments:
        name, sign, value = each.partition("=")
        if not sign:
            raise ConfigError(
                "an argument without a value", setting=name, origin="command line", remedy="write name=value"
            )
        layer[parse_path(name.strip())] = Leaf(value.strip(), f"command line {name.strip()}")
    return layer
