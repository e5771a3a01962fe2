"""What runs on the background loop: reads the sources, decides, and puts new settings into use."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path as FilePath
from typing import Any

from chassis.config._errors import every, is_temporary, raise_all
from chassis.config._events import (
    ConfigRejected,
    ConfigSourceLost,
    ConfigSourceRestored,
)
from chassis.config._handles import Handles
from chassis.config._layers import Layer, Path
from chassis.config._machine import Reload, SourceState, SourceStatus
from chassis.config._prepare import Inputs, Wanted, guard_remote, prepare
from chassis.config._settings import Settings
from chassis.config._sources import (
    Absent,
    FileSource,
    Found,
    Reading,
    Source,
    Unreachable,
    parse,
    parse_assignments,
)
from chassis.core.clock import monotonic
from chassis.core.contracts import Secrets
from chassis.core.errors import ConfigError
from chassis.core.events import events

OWN_TABLE = "chassis"


class Engine:
    """Everything a :class:`Configuration` does; all coroutines run on the background loop.

    Parameters as there.
    """

    def __init__(
        self,
        file: FileSource,
        *,
        file_required: bool,
        environment: Mapping[str, str] | None,
        arguments: tuple[str, ...],
        secrets: Secrets | None,
        secrets_dir: FilePath | None,
        local_only: tuple[Path, ...],
        known: frozenset[str],
        patience: float,
        retry: float,
        prepare: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self.file = file
        self.sources: list[Source] = [file]
        self._file_required = file_required
        self._environment = environment
        self.arguments = arguments
        self._secrets = secrets
        self.handles = Handles(secrets, self._inputs, self._secret_changed)
        self.secrets_dir = secrets_dir
        self._prepare = prepare
        self._local_only = local_only
        self._known = known
        self._patience = patience
        self._retry_every = retry
        self._machine = Reload()
        self._errors: dict[str, ConfigError] = {}
        self._content: dict[str, tuple[bytes, SourceStatus]] = {}
        self._variables: Mapping[str, str] = {}
        self._secret_files: dict[str, str] = {}
        self._assigned: Layer = {}
        self._reset()

    def _reset(self) -> None:
        """As if nothing ran: at first, and in the child after a fork, whose threads are gone."""
        self._turn = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._answered: dict[str, asyncio.Event] = {}
        self._wait_until = 0.0
        self.running = False

    async def start(self, required: bool, timeout: float | None) -> None:
        await self._open()
        limit = self._patience if timeout is None else timeout
        silent = await self._wait_for_sources(limit)
        if required and silent:
            raise ConfigError(
                f"did not answer within {limit:g} s",
                setting=", ".join(silent),
                remedy="see that it is reachable, or do not require it",
            )
        errors = self._errors_of_unused()
        for handle in () if errors else self.handles.all:
            try:
                await self._bind(handle)
            except ConfigError as error:
                if required or not is_temporary(error):
                    errors.extend(every(error))
        raise_all(errors)

    async def load(self, handle: Settings[Any]) -> None:
        await self._open()
        await self._wait_for_sources(min(self._patience, self._wait_until - monotonic()))
        raise_all(self._errors_of_unused())
        await self._bind(handle)

    def _errors_of_unused(self) -> list[ConfigError]:
        """What keeps a source out of which no good document has been seen."""
        return [
            error
            for name, each in self._errors.items()
            if name not in self._machine.accepted
            for error in every(each)
        ]

    async def bootstrap(self, wanted: Wanted) -> Any:
        document = self._read_file()
        return (await prepare(wanted, self._inputs(), {self.file.name: document})).value

    async def _open(self) -> None:
        """Read what is local, and set the watchers off; once."""
        async with self._turn:
            if self.running:
                return
            if self._prepare is not None:
                await self._prepare()
            if self.file.name not in self._machine.accepted:
                self._machine.accept({**self._machine.accepted, self.file.name: self._read_file()})
            self._inputs()
            self.running = True
            self._wait_until = monotonic() + self._patience
            for source in self.sources:
                answered = self._answered[source.name] = asyncio.Event()
                self._spawn(self._watch(source, answered))
            self._spawn(self._maintain())

    def _read_file(self) -> Layer:
        """The file's document; empty if it is not there and need not be."""
        reading = self.file.read()
        if isinstance(reading, Found):
            return parse(reading.content, self.file.name)
        if isinstance(reading, Unreachable):
            raise ConfigError(reading.reason, origin=self.file.name, remedy="make it readable")
        if self._file_required:
            raise ConfigError(
                "there is no such file", origin=self.file.name, remedy="create it, or name another one"
            )
        return {}

    def _inputs(self) -> Inputs:
        if not self.running:
            self._variables = dict(os.environ if self._environment is None else self._environment)
            self._assigned = parse_assignments(self.arguments)
            self._secret_files = self._list_secrets()
        return Inputs(
            sources=self.sources,
            environment=self._variables,
            secret_files=self._secret_files,
            arguments=self._assigned,
            owned=frozenset([OWN_TABLE, *(each._table[0] for each in self.handles.all if each._table)]),
            known=self._known,
            prefixes=frozenset(each._prefix for each in self.handles.all),
            secrets=self._secrets,
        )

    def _list_secrets(self) -> dict[str, str]:
        if self.secrets_dir is None:
            return {}
        try:
            return {each.name: str(each) for each in sorted(self.secrets_dir.iterdir()) if each.is_file()}
        except OSError as error:
            raise ConfigError(
                f"the secrets directory {str(self.secrets_dir)!r} cannot be read: {error.strerror}",
                setting="secrets_dir",
                remedy="name a folder that is there",
            ) from None

    async def _wait_for_sources(self, limit: float) -> list[str]:
        """Wait until every source has answered; returns the names of those that have not in time."""
        waits = [asyncio.ensure_future(each.wait()) for each in self._answered.values()]
        if waits:
            try:
                await asyncio.wait(waits, timeout=max(limit, 0.0))
            finally:
                for each in waits:
                    each.cancel()
        return [name for name, each in self._answered.items() if not each.is_set()]

    async def _watch(self, source: Source, answered: asyncio.Event) -> None:
        while True:
            try:
                async for reading in source.readings():
                    async with self._turn:
                        await self._take(source, reading)
                    if not isinstance(reading, Unreachable):
                        answered.set()
            except Exception as error:  # noqa: BLE001 - a foreign source's error must not end the watch
                async with self._turn:
                    await self._take(source, Unreachable(f"{type(error).__name__}: {error}"))
            await asyncio.sleep(self._retry_every)

    async def _maintain(self) -> None:
        """Look for new secret files, and try again what a silent secret store kept from getting in."""
        last_try = monotonic()
        while True:
            await asyncio.sleep(self.file.interval)
            try:
                files = await asyncio.to_thread(self._list_secrets)
            except ConfigError:
                files = {}
            async with self._turn:
                if not files.keys() <= self._secret_files.keys():
                    # A file that is gone stays listed: its last good content goes on.
                    self._secret_files = {**self._secret_files, **files}
                    await self._refresh("secrets directory")
                if monotonic() - last_try >= self._retry_every:
                    last_try = monotonic()
                    await self._retry()

    async def _retry(self) -> None:
        for name, document in self._machine.retries():
            source = next(each for each in self.sources if each.name == name)
            await self._offer(source, document)
        for handle in self.handles.all:
            if handle._pending is not None:
                with contextlib.suppress(ConfigError):
                    await self.handles.fill(handle, self._machine.accepted)

    async def _take(self, source: Source, reading: Reading) -> None:
        """One answer of one source."""
        name = source.name
        if isinstance(reading, Unreachable):
            self._set_status(name, SourceStatus(SourceState.UNREACHABLE, reading.reason))
            return
        if isinstance(reading, Absent):
            gone = bool(self._machine.accepted.get(name)) or name in self._content
            self._set_status(name, SourceStatus(SourceState.VANISHED if gone else SourceState.ABSENT))
            return
        content, standing = self._content.get(name, (None, None))
        if content == reading.content and standing is not None:
            self._set_status(name, standing)
            return
        try:
            document = parse(reading.content, name, remote=source.remote)
            if source.remote:
                guard_remote(document, self._local_only)
        except ConfigError as error:
            self._machine.withdraw(name)
            self._rejected(name, error)
        else:
            await self._offer(source, document)
        self._content[name] = (reading.content, self._machine.status(name))

    async def _offer(self, source: Source, document: Layer) -> None:
        """Let a document in if all settings validate with it."""
        name = source.name
        failure: ConfigError | None = None
        for documents in self._machine.candidates(name, document):
            try:
                prepared = await self.handles.prepare(documents)
            except ConfigError as error:
                failure = error
                continue
            self._machine.accept(documents)
            for each in self.sources:
                if self._machine.status(
                    each.name
                ).state is SourceState.REJECTED and not self._machine.rejects(each.name):
                    self._ready(each.name)
            self._ready(name)
            self.handles.commit(prepared)
            return
        if failure is None:
            if not self._machine.rejects(name):
                self._ready(name)
            return
        if self._machine.reject(name, document, temporary=is_temporary(failure)):
            self._rejected(name, failure)

    async def _refresh(self, why: str) -> None:
        """Prepare all settings anew from the same documents: a secret changed."""
        try:
            prepared = await self.handles.prepare(self._machine.accepted)
        except ConfigError as error:
            _emit_rejected(why, error)
        else:
            self.handles.commit(prepared)

    async def _bind(self, handle: Settings[Any]) -> None:
        async with self._turn:
            if handle._view is None:
                await self.handles.fill(handle, self._machine.accepted)

    def _secret_changed(self) -> None:
        self._spawn(self._after_rotation())

    async def _after_rotation(self) -> None:
        async with self._turn:
            await self._refresh("secrets")

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.handles.unfollow()
        self._reset()

    def describe(self) -> dict[str, Any]:
        """How every source and handle stands."""
        sources = {}
        for source in self.sources:
            status = self._machine.status(source.name)
            sources[source.name] = {
                "state": status.state.name.lower(),
                "detail": status.reason or status.state.value,
                "bad": status.bad,
            }
        return {"sources": sources, "settings": self.handles.describe()}

    def after_fork(self) -> None:
        self._reset()
        self.handles.after_fork()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._tasks = [each for each in self._tasks if not each.done()]
        self._tasks.append(asyncio.get_running_loop().create_task(coroutine))

    def _set_status(self, name: str, status: SourceStatus) -> None:
        before = self._machine.set_status(name, status)
        if before is None:
            return
        if status.state in (SourceState.UNREACHABLE, SourceState.VANISHED):
            events.emit(ConfigSourceLost(subject=name, reason=status.reason or status.state.value))
        elif before.bad and not status.bad:
            events.emit(ConfigSourceRestored(subject=name))

    def _ready(self, name: str) -> None:
        self._errors.pop(name, None)
        status = SourceStatus(SourceState.READY)
        self._set_status(name, status)
        if name in self._content:
            self._content[name] = (self._content[name][0], status)

    def _rejected(self, name: str, error: ConfigError) -> None:
        self._errors[name] = error
        self._set_status(name, SourceStatus(SourceState.REJECTED, str(error)))
        _emit_rejected(name, error)


def _emit_rejected(source: str, error: ConfigError) -> None:
    single = [each for each in every(error) if each.setting]
    events.emit(
        ConfigRejected(
            subject=source,
            settings=tuple(each.setting or "" for each in single),
            origins=tuple(each.origin or "" for each in single),
            reason="; ".join(each.message for each in every(error) if not each.setting),
        )
    )
