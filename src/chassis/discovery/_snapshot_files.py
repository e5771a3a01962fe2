"""What a registry said last, kept in a file for the day both the registry and this process start anew."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chassis.core.clock import monotonic
from chassis.core.events import events
from chassis.core.instances import Instance, Status
from chassis.discovery._addresses import is_host
from chassis.discovery._events import SnapshotFileUnusable

_SCHEMA = 1
_FIELDS = tuple(each.name for each in fields(Instance))


class SnapshotFile:
    """One service's instances on disk: JSON, replaced atomically, readable by its owner alone.

    A file that is missing, damaged, of another schema, another user's or writable by others is as good
    as none. Both methods do file I/O and so belong in a thread; neither raises: what is wrong with a file
    becomes a :class:`~chassis.discovery.SnapshotFileUnusable` event.

    :param directory: made if it is not there.
    :param question: what was asked of whom. An answer to another question is another file.
    """

    def __init__(self, directory: str, service: str, question: Mapping[str, Any]) -> None:
        self._service = service
        self._write_failed = False
        self._question = json.loads(json.dumps({"service": service, **question}))
        asked = json.dumps(self._question, sort_keys=True).encode()
        # File names have a limit of 255 bytes on most systems.
        name = quote(service, safe="")[:150]
        self.path = Path(directory, f"{name}-{hashlib.sha256(asked).hexdigest()[:12]}.json")

    def read(self) -> tuple[tuple[Instance, ...], float] | None:
        """The instances, and the monotonic second at which they were told; None without any."""
        try:
            with open(self.path, "rb", opener=_open_untrusted) as file:
                about = os.fstat(file.fileno())
                if not stat.S_ISREG(about.st_mode) or about.st_mode & 0o022:
                    # Whoever writes it says where this process sends its requests.
                    raise ValueError("it can be written by others; allow that to its owner alone")
                if about.st_uid not in (os.geteuid(), 0):
                    raise ValueError(
                        "it belongs to another user; keep the snapshots in a folder of this one's own"
                    )
                return self._parse(json.loads(file.read()))
        except FileNotFoundError:
            return None
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            self._unusable(error)
            return None

    def write(self, instances: Iterable[Instance]) -> bool:
        """Keep these instances; without any there is no file.

        :returns: whether that was done. Of several failures in a row the first is told.
        """
        written = {
            "schema": _SCHEMA,
            "question": self._question,
            "written_at": time.time_ns() // 1_000_000,
            "instances": [_dump(each) for each in instances],
        }
        try:
            if not written["instances"]:
                self.path.unlink(missing_ok=True)
                self._write_failed = False
                return True
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made by mkstemp, hence 0600 from the start.
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".", suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(written, file, indent=1)
                Path(temporary).replace(self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
                raise
        except (OSError, ValueError, TypeError) as error:
            if not self._write_failed:
                self._unusable(error)
            self._write_failed = True
            return False
        self._write_failed = False
        return True

    def _parse(self, kept: Any) -> tuple[tuple[Instance, ...], float]:
        if kept["schema"] != _SCHEMA:
            raise ValueError(f"it has the schema {kept['schema']!r}, and {_SCHEMA} is known")
        if kept["question"] != self._question:
            raise ValueError("it answers another question")
        # Only for showing the age: a clock that was set makes it wrong, and decides nothing.
        age = max(0.0, time.time_ns() / 1e9 - float(kept["written_at"]) / 1e3)
        return tuple(_load(each) for each in kept["instances"]), monotonic() - age

    def _unusable(self, error: Exception) -> None:
        told = f"{type(error).__name__}: {error}"
        events.emit(SnapshotFileUnusable(subject=self._service, file=str(self.path), error=told))


class SnapshotKeeper:
    """Writes what changes to a :class:`SnapshotFile`, in a thread, at most once in ``interval`` seconds.

    For use on one event loop.
    """

    def __init__(self, file: SnapshotFile, *, interval: float = 5.0) -> None:
        self._file = file
        self._interval = interval
        self._pending: tuple[Instance, ...] | None = None
        self._kept: tuple[Instance, ...] | None = None
        self._next_at = 0.0
        self._hurry = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    async def read(self) -> tuple[tuple[Instance, ...], float] | None:
        """As :meth:`SnapshotFile.read`, given up after a second: a disk may hang too."""
        try:
            async with asyncio.timeout(1.0):
                return await asyncio.to_thread(self._file.read)
        except TimeoutError:
            return None

    def keep(self, instances: tuple[Instance, ...]) -> None:
        """Write these instances soon, unless others come before that."""
        if self._pending is None and instances == self._kept:
            return
        self._pending = instances
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_soon(), name="chassis:snapshot")

    async def flush(self) -> None:
        """Write what is pending now."""
        if self._writing is not None:
            self._hurry.set()
            await asyncio.wait({self._writing})
            self._hurry.clear()

    async def _write_soon(self) -> None:
        while self._pending is not None:
            try:
                async with asyncio.timeout(max(0.0, self._next_at - monotonic())):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            instances, self._pending = self._pending, None
            self._next_at = monotonic() + self._interval
            self._kept = instances
            if not await asyncio.to_thread(self._file.write, instances):
                # The next answer brings them again, be they the same.
                self._kept = None
        self._writing = None


def _open_untrusted(path: str, flags: int) -> int:
    """As ``open`` does it, but through no link, and without waiting for whoever writes to a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _dump(instance: Instance) -> dict[str, Any]:
    values = {name: getattr(instance, name) for name in _FIELDS}
    return {**values, "status": instance.status.value, "meta": dict(instance.meta)}


def _load(kept: Any) -> Instance:
    """An instance as :func:`_dump` wrote it, checked like one that came over the wire."""
    values = {name: kept[name] for name in _FIELDS}
    texts = (values[name] for name in ("id", "service", "host", "scheme", "zone", "datacenter"))
    counts = (values[name] for name in ("port", "priority", "weight"))
    if not all(isinstance(each, str) for each in texts) or not all(type(each) is int for each in counts):
        raise ValueError("an instance is not of the form that was written")
    if not is_host(values["host"]):
        raise ValueError("an instance has no usable host")
    if not 0 < values["port"] < 65536 or values["scheme"] not in ("http", "https"):
        raise ValueError("an instance has no usable address")
    values["status"] = Status(values["status"])
    values["tags"] = tuple(str(tag) for tag in values["tags"])
    values["meta"] = {str(key): str(value) for key, value in values["meta"].items()}
    return Instance(**values)
