from __future__ import annotations

import asyncio
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chassis.core.clock import monotonic
from chassis.core.errors import ConfigError
from chassis.core.instances import Snapshot, Source
from chassis.core.options import Seconds, check_seconds
from chassis.discovery._last_known_good import LastKnownGood
from chassis.discovery._located import Located
from chassis.discovery._topic import Listening, Topic
from chassis.discovery._watches import Watches


class FileDiscovery:
    """Services from a TOML or JSON file, which is followed while it changes: a ``Discovery``.

    The file has one table, ``services``, as :class:`StaticDiscovery` takes it::

        [services]
        catalog = "http://10.0.0.1:8001,http://10.0.0.2:8001"
        orders = [{ url = "http://10.0.0.3:8002", zone = "a", weight = 3 }]

    A file that cannot be read or used changes nothing: what it said last is kept, as STALE, until it
    can. One that was written to in place is believed when it was read twice alike, since the first
    time it may have been half-written; one that was replaced (by a rename, or by a link that now
    points elsewhere) is believed at once.

    :param path: the file; ``.json`` is read as JSON, everything else as TOML.
    :param poll: seconds between two reads, while somebody listens.
    :param setting: where the path stands, for a message that the file cannot be read.
    :param origin: where that setting comes from, for the same.
    :raises ConfigError: the file cannot be read or used at the start.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        poll: Seconds = 1.0,
        setting: str = "path",
        origin: str | None = None,
    ) -> None:
        check_seconds("poll", poll)
        self.path = Path(path)
        self._poll = poll
        try:
            self._followed = FollowedFile(str(path), *_read(self.path))
        except OSError as error:
            raise ConfigError(
                f"{str(path)!r} cannot be read: {error.strerror}",
                setting=setting,
                origin=origin,
                remedy="put a file there that this process may read",
            ) from error
        self._reading: asyncio.Task[None] | None = None
        self._read_at = monotonic()
        self._watches = Watches(self._watch, name="file")

    def __repr__(self) -> str:
        return f"FileDiscovery({str(self.path)!r})"

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services it tells of now."""
        return self._followed.located.services

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Listening:
        """Tell ``listener`` of the service: what the file says, and each change of it."""
        return self._watches.subscribe(service, listener)

    def describe(self) -> Mapping[str, Any]:
        """Per service that is listened to: its instances, the file, and what is wrong with it."""
        more = {"file": str(self.path), "error": self._followed.error or None}
        return {service: {**each, **more} for service, each in self._watches.describe().items()}

    async def _watch(self, topic: Topic) -> None:
        # What a file says is meant, an empty list too: no grace.
        machine = LastKnownGood(
            topic.service, source=Source.FILE, known=topic.snapshot, empty_grace=0.0, quiet_time=0.0
        )
        while True:
            followed = self._followed
            if followed.error:
                topic.take(machine.failed(followed.error, now=monotonic()))
            else:
                instances = followed.located.of(topic.service)
                topic.take(machine.answered(instances, now=monotonic(), woke=True))
            await asyncio.sleep(self._poll)
            await self._refresh()

    async def _refresh(self) -> None:
        """Read the file, once for all services that are watched. On the background loop."""
        if self._reading is None or self._reading.get_loop() is not asyncio.get_running_loop():
            self._reading = None  # of the parent, if this is a forked child
            if monotonic() - self._read_at < self._poll / 2:
                return
            self._reading = asyncio.create_task(self._read_once(), name="chassis:services-file")
        await asyncio.shield(self._reading)

    async def _read_once(self) -> None:
        try:
            # In a thread: a network file system that hangs must not stop the heartbeats.
            content, identity = await asyncio.to_thread(_read, self.path)
        except OSError as error:
            self._followed.unreadable(f"{str(self.path)!r} cannot be read: {error.strerror}")
        else:
            self._followed.read(content, identity)
        finally:
            self._read_at = monotonic()
            self._reading = None


class FollowedFile:
    """What to believe of a file that is read again and again. Does no I/O.

    :param origin: the file's name, for errors.
    :param content: what it holds at first.
    :param identity: which file it is: another one was put in its place if this changes.
    :raises ConfigError: it cannot be used.
    """

    def __init__(self, origin: str, content: bytes, identity: tuple[int, int]) -> None:
        self._origin = origin
        self._identity: tuple[int, int] | None = identity
        self._settled = self._seen = content
        self.located = parse_services(content, origin)
        """What it said when it last could be used."""
        self.error = ""
        """What is wrong with it now; "" if nothing is."""

    def read(self, content: bytes, identity: tuple[int, int]) -> None:
        """The file was read."""
        twice, self._seen = content == self._seen, content
        replaced, self._identity = self._identity not in (None, identity), identity
        if content == self._settled and not self.error:
            return
        if not (twice or replaced):
            return  # perhaps half-written
        try:
            self.located = parse_services(content, self._origin)
        except ConfigError as error:
            self.error = str(error)
        else:
            self._settled = content
            self.error = ""

    def unreadable(self, error: str) -> None:
        """The file could not be read."""
        # What comes next may be written where it stands.
        self._identity = None
        self.error = error


def parse_services(content: bytes, origin: str) -> Located:
    """The services a file names.

    :param origin: its name; ``.json`` at its end makes it JSON.
    :raises ConfigError: it cannot be used.
    """
    kind = "JSON" if origin.endswith(".json") else "TOML"
    try:
        text = content.decode()
        document = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"the file is not {kind}: {error}", origin=origin, remedy="write a table services"
        ) from error
    unknown = sorted(set(document) - {"services"}) if isinstance(document, dict) else []
    services = document.get("services") if isinstance(document, dict) else None
    if unknown or not isinstance(services, dict):
        problem = f"{', '.join(unknown)} is not known here" if unknown else "there is no table services"
        raise ConfigError(problem, origin=origin, remedy="write one table services, and nothing else")
    return Located(services, origin=origin)


def _read(path: Path) -> tuple[bytes, tuple[int, int]]:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        return file.read(), (status.st_dev, status.st_ino)
