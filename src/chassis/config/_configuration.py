"""All sources of settings of one process, put over one another, and kept current."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, TypeVar

from chassis.background import background
from chassis.config._engine import Engine
from chassis.config._errors import ConfigUnavailable
from chassis.config._layers import Path
from chassis.config._prepare import Wanted
from chassis.config._settings import Settings
from chassis.config._sources import FileSource, Source, parse_assignments, parse_path
from chassis.core.contracts import Secrets
from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_seconds

T = TypeVar("T")

_DEFAULT_FILE = "chassis.toml"
_LOAD_LIMIT = 30.0
"""Seconds a thread waits for its first settings; what takes longer is stuck, not slow."""

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Configuration:
    """Settings from code, a file, remote documents, the environment and the command line.

    Later ones win: defaults in the types, ``chassis.toml``, remote documents in the order they were
    added, the secrets directory, the environment, arguments. Constructing it reads nothing; the
    first use, or :meth:`start`, does, and then everything but environment and arguments is watched.

    :param service: the service's name; the prefix of its own variables comes from it.
    :param file: the TOML file; it must exist. None takes ``chassis.toml`` if there is one.
    :param environment: in place of ``os.environ``.
    :param arguments: ``name=value`` texts, names as in the file: ``chassis.timeout=2s``.
    :param secrets: resolves references such as ``vault:secret/payments#api_key``.
    :param secrets_dir: folder whose files are secrets, each called as its variable would be.
    :param local_only: tables (dotted) that remote documents may not set, since they tell how
        remote sources are reached.
    :param known: variables under a settings' prefix that somebody else reads.
    :param interval: seconds between two looks at files.
    :param patience: seconds the first use waits for remote sources.
    :param retry: seconds between two tries of what a silent secret store keeps from getting in.
    :param prepare: awaited on the background loop before the first read; it may add sources that
        local settings (:meth:`bootstrap_async`) tell of. It may be called again after it raised.
    """

    def __init__(
        self,
        service: str,
        *,
        file: str | FilePath | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: Iterable[str] = (),
        secrets: Secrets | None = None,
        secrets_dir: str | FilePath | None = None,
        local_only: Iterable[str] = (),
        known: Iterable[str] = (),
        interval: Seconds = 1.0,
        patience: Seconds = 2.0,
        retry: Seconds = 5.0,
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        check_seconds("interval", interval)
        check_seconds("patience", patience, zero=True)
        check_seconds("retry", retry)
        self.service = service
        self.file = str(file or _DEFAULT_FILE)
        self._engine = Engine(
            FileSource(self.file, interval=interval),
            file_required=file is not None,
            environment=environment,
            arguments=tuple(arguments),
            secrets=secrets,
            secrets_dir=None if secrets_dir is None else FilePath(secrets_dir),
            local_only=tuple(parse_path(each) for each in local_only),
            known=frozenset(known),
            patience=patience,
            retry=retry,
            prepare=prepare,
        )
        _engines.add(self._engine)

    def settings(
        self,
        type_: type[T],
        *,
        table: str = "",
        prefix: str | None = None,
        name: str | None = None,
        strict: bool = False,
    ) -> Settings[T]:
        """A live handle on one table's settings; nothing is read yet. The same again for the same arguments.

        :param type_: a pydantic model or a dataclass.
        :param table: the dotted name of its table; "" for all of the document that nobody else
            (``[chassis]``, other settings' tables) has taken.
        :param prefix: of its environment variables; by default the model's own ``env_prefix``,
            else the service's name in capitals, with the table: ``INVOICES_``, ``INVOICES_MAIL__``.
        :param name: what it is called in events and messages; the type's name by default.
        :param strict: whether an unknown variable under the prefix is an error rather than an
            event. Off by default: Kubernetes makes variables of its own under a service's name.
        """
        path = parse_path(table) if table else ()
        name = name or type_.__name__
        prefix = self._prefix(type_, path) if prefix is None else prefix
        for each in self._engine.handles.all:
            if each.made_of(type_, name, path, prefix, strict):
                return each
        handle = Settings(
            self.load, type_, file=self.file, name=name, table=path, prefix=prefix, strict=strict
        )
        self._engine.handles.all.append(handle)
        return handle

    def bootstrap(self, type_: type[T], *, table: str = "", prefix: str = "") -> T:
        """Settings from arguments, environment, files and the secrets directory alone.

        For what decides how remote sources are reached. Names that ``type_`` does not know are
        left to whoever reads the same table whole.

        :raises ConfigError: what cannot be used.
        """
        wanted = Wanted(type_=type_, table=parse_path(table) if table else (), prefix=prefix, partial=True)
        value: T = self._in_background(functools.partial(self._engine.bootstrap, wanted))
        return value

    async def bootstrap_async(self, type_: type[T], *, table: str = "", prefix: str = "") -> T:
        """As :meth:`bootstrap`, on the background loop: for ``prepare``."""
        wanted = Wanted(type_=type_, table=parse_path(table) if table else (), prefix=prefix, partial=True)
        value: T = await self._engine.bootstrap(wanted)
        return value

    def override(self, arguments: Iterable[str]) -> None:
        """Put ``name=value`` texts over everything else, beside those given before. Before the start.

        :raises ConfigError: the configuration is in use, or a text is no ``name=value``.
        """
        arguments = tuple(arguments)
        parse_assignments(arguments)
        if self._engine.running:
            raise ConfigError(
                "the configuration is in use", setting="override", remedy="override before its first use"
            )
        self._engine.arguments = (*self._engine.arguments, *arguments)

    def set_secrets_dir(self, folder: str | FilePath) -> None:
        """Take the files of ``folder`` for secrets, as the constructor's ``secrets_dir``; for ``prepare``."""
        self._engine.secrets_dir = FilePath(folder)

    def add(self, source: Source) -> None:
        """Put ``source`` over the documents known so far, beneath the environment. Before the start."""
        if self._engine.running:
            raise ConfigError(
                "the configuration is in use", setting=source.name, remedy="add sources before its first use"
            )
        self._engine.sources.append(source)

    async def start(self, *, required: bool = False, timeout: float | None = None) -> None:
        """Load everything and keep it current from now on.

        Remote sources that do not answer within the time are retried in the background.

        :param required: whether it is an error when they do not, or a secret cannot be had.
        :param timeout: seconds to wait for remote sources; None for ``patience``.
        :raises ConfigError: what cannot be used.
        """
        await background.run(functools.partial(self._engine.start, required, timeout), name="settings")

    def start_sync(self, *, required: bool = False, timeout: float | None = None) -> None:
        """As :meth:`start`, from a thread without an event loop."""
        self._in_background(
            functools.partial(self._engine.start, required, timeout), limit=(timeout or 0) + _LOAD_LIMIT
        )

    def load(self, handle: Settings[Any]) -> None:
        """Fill one handle, blocking the calling thread. Handles do this themselves on first use.

        :raises ConfigError: what cannot be used.
        """
        self._in_background(functools.partial(self._engine.load, handle))

    async def stop(self) -> None:
        """Watch no more; the settings in use stay."""
        await background.run(self._engine.stop, name="settings")

    def stop_sync(self) -> None:
        """As :meth:`stop`, from a thread without an event loop."""
        self._in_background(self._engine.stop)

    def describe(self) -> dict[str, Any]:
        """How every source and handle stands, as plain values without any setting's value."""
        return self._engine.describe()

    def _in_background(
        self, function: Callable[[], Coroutine[Any, Any, Any]], *, limit: float = _LOAD_LIMIT
    ) -> Any:
        if background.here():
            raise ConfigError(
                "settings are read on the background thread before they were loaded",
                remedy="await configuration.start() first",
            )
        job = background.start(function, name="settings")
        try:
            return job.result(limit)
        except TimeoutError:
            if job.done:
                raise
            job.cancel()
            raise ConfigUnavailable(
                f"no settings within {limit:g} s", remedy="see the sources' state"
            ) from None

    def _prefix(self, type_: Any, table: Path) -> str:
        own = getattr(type_, "model_config", {}).get("env_prefix") or getattr(type_, "env_prefix", "")
        if isinstance(own, str) and own:
            return own
        service = self.service.upper().replace("-", "_").replace(".", "_")
        return service + "_" + "".join(f"{each.upper().replace('-', '_')}__" for each in table)


def _after_fork_in_child() -> None:
    for each in _engines:
        each.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
