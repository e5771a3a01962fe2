from __future__ import annotations

import asyncio
import os
import random as _random
import threading
import weakref
from collections.abc import Callable
from typing import Any

from chassis.background import Job, background
from chassis.core.clock import monotonic
from chassis.core.contracts import SecretResolver
from chassis.core.errors import ConfigError
from chassis.core.events import events
from chassis.core.secrets import Secret, SecretError, SecretVersion
from chassis.secrets._events import SecretLost, SecretRestored, SecretRotated
from chassis.secrets._machine import Rotation
from chassis.secrets._reference import Reference, parse_reference, scheme_of

_BUILT_IN = {
    "file": "add FileSecrets to the store",
    "vault": "set BAO_ADDR or VAULT_ADDR to the address of the secret store",
}
_FRESH = 1.0
"""Seconds a read may be used again: the fields of one secret are then of one version."""
_LOAD_LIMIT = 30.0

_stores: weakref.WeakSet[SecretStore] = weakref.WeakSet()


class _Place:
    """One path of one store: what is read and rotates as one."""

    def __init__(self, resolver: SecretResolver, reference: Reference, random: Callable[[], float]) -> None:
        self.resolver = resolver
        self.path = reference.path
        self.name = reference.place
        self.rotation = Rotation(resolver.poll, random=random)
        self.read_at = float("-inf")
        self.forget_running()

    def forget_running(self) -> None:
        """As after a fork: nobody follows it in this process."""
        self.turn = asyncio.Lock()
        self.job: Job | None = None
        self._lock = threading.Lock()
        self._listeners: tuple[Callable[[], None], ...] = ()

    def add(self, listener: Callable[[], None]) -> None:
        """Tell ``listener`` of changes; the first one begins the following."""
        with self._lock:
            self._listeners = (*self._listeners, listener)
            if self.job is None:
                self.job = background.start(self.follow, name=f"secret {self.name}")

    def remove(self, listener: Callable[[], None]) -> None:
        """Tell ``listener`` no more; the last one ends the following."""
        with self._lock:
            left = list(self._listeners)
            if listener in left:
                left.remove(listener)
            self._listeners = tuple(left)
            if not left:
                self._end()

    def remove_all(self) -> None:
        """Tell nobody any more."""
        with self._lock:
            self._listeners = ()
            self._end()

    def _end(self) -> None:
        if self.job is not None:
            self.job.cancel()
            self.job = None

    async def poll(self) -> None:
        """Read it once, and tell what is new.

        :raises SecretError: it cannot be had and never was.
        """
        rotation = self.rotation
        was_lost = rotation.lost and rotation.current is not None
        try:
            version = await self.resolver.read(self.path)
        except SecretError as error:
            if rotation.failed(str(error)):
                events.emit(SecretLost(subject=self.name, reason=str(error)))
            if rotation.current is None:
                raise
            return
        self.read_at = monotonic()
        changed = rotation.read(version)
        if was_lost:
            events.emit(SecretRestored(subject=self.name))
        if changed:
            events.emit(SecretRotated(subject=self.name, version=version.version, fields=changed))
            for listener in self._listeners:
                listener()

    async def follow(self) -> None:
        """Read it again and again; ends by cancellation."""
        while True:
            await asyncio.sleep(self.rotation.delay())
            async with self.turn:
                try:
                    await self.poll()
                except SecretError:
                    continue  # the machine knows, and waits longer each time

    async def version(self) -> SecretVersion:
        """What is there: from memory if it is followed or was read a moment ago.

        :raises SecretError: it cannot be had and never was.
        """
        async with self.turn:
            fresh = self.job is not None or monotonic() - self.read_at < _FRESH
            if self.rotation.current is None or not fresh:
                await self.poll()
            current = self.rotation.current
        if current is None:
            raise SecretError(f"{self.name} has not been read", permanent=False)
        return current


class _Following:
    def __init__(self, place: _Place, listener: Callable[[], None]) -> None:
        self._place = place
        self._listener = listener
        self._closed = False

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._place.remove(self._listener)


class SecretStore:
    """Finds secrets by reference, remembers the last good ones, and follows those in use.

    ``file:/run/secrets/db`` and ``vault:secret/payments#api_key`` are references; what they name is
    decided by the resolvers. A rotated secret is seen without a restart; a store that is down takes
    no secret away that was read before.

    :param resolvers: of one scheme each.
    :param random: draws from [0, 1); spreads the reads of many processes.
    """

    def __init__(self, *resolvers: SecretResolver, random: Callable[[], float] = _random.random) -> None:
        self._resolvers: dict[str, SecretResolver] = {}
        self._random = random
        self._places: dict[str, _Place] = {}
        for each in resolvers:
            self.add(each)
        _stores.add(self)

    def __repr__(self) -> str:
        return f"SecretStore({', '.join(sorted(self._resolvers))})"

    def add(self, resolver: SecretResolver) -> None:
        """Resolve its scheme from now on.

        :raises ConfigError: the scheme has a resolver already.
        """
        if resolver.scheme in self._resolvers:
            raise ConfigError(
                f"two resolvers of {resolver.scheme!r}", setting="secrets", remedy="give one of them"
            )
        self._resolvers[resolver.scheme] = resolver

    def refers(self, text: str) -> bool:
        """Whether ``text`` is written as a reference: ``file:`` and ``vault:`` always are."""
        scheme = scheme_of(text)
        return scheme is not None and (scheme in self._resolvers or scheme in _BUILT_IN)

    def remote(self, reference: str) -> bool:
        """Whether it names a store on another machine."""
        resolver = self._resolvers.get(scheme_of(reference) or "")
        return resolver.remote if resolver else scheme_of(reference) != "file"

    async def get(self, reference: str) -> Secret:
        """The secret now; may be awaited in any event loop.

        :raises SecretError: it cannot be had and was never had before, or has no such field.
        :raises ConfigError: the reference cannot be understood.
        """
        parsed = parse_reference(reference)
        place = self._place(parsed)
        if background.here():
            return _field(parsed, await place.version())
        return _field(parsed, await background.run(place.version, name="secrets"))

    def secret(self, reference: str) -> LiveSecret:
        """A live handle on the secret; nothing is read yet.

        :raises ConfigError: the reference cannot be understood.
        """
        return LiveSecret(self, parse_reference(reference))

    def subscribe(self, reference: str, listener: Callable[[], None]) -> _Following:
        """Follow the secret, and call ``listener`` on the background loop when it has changed."""
        place = self._place(parse_reference(reference))
        place.add(listener)
        return _Following(place, listener)

    def describe(self) -> dict[str, Any]:
        """Every place read so far, without any value."""
        return {
            name: {
                "version": place.rotation.current.version if place.rotation.current else None,
                "bad": place.rotation.lost,
                "detail": place.rotation.reason or "good",
            }
            for name, place in sorted(self._places.items())
        }

    async def aclose(self) -> None:
        """Follow nothing any more and close the resolvers; what was read stays readable."""
        await background.run(self._close, name="secrets")

    def close(self) -> None:
        """As :meth:`aclose`, from a thread without an event loop."""
        background.start(self._close, name="secrets").result(_LOAD_LIMIT)

    async def _close(self) -> None:
        for place in self._places.values():
            place.remove_all()
        for resolver in self._resolvers.values():
            await resolver.aclose()

    def _place(self, reference: Reference) -> _Place:
        place = self._places.get(reference.place)
        if place is None:
            resolver = self._resolvers.get(reference.scheme)
            if resolver is None:
                raise ConfigError(
                    f"nothing resolves {reference.scheme!r} references",
                    setting=str(reference),
                    remedy=_BUILT_IN.get(reference.scheme, f"add a resolver of {reference.scheme!r}"),
                )
            place = self._places.setdefault(reference.place, _Place(resolver, reference, self._random))
        return place

    def _after_fork(self) -> None:
        for place in self._places.values():
            place.forget_running()


class LiveSecret:
    """A secret that is kept current: ask it anew each time it is needed."""

    def __init__(self, store: SecretStore, reference: Reference) -> None:
        self._store = store
        self._reference = reference

    def __repr__(self) -> str:
        return f"<LiveSecret {self._reference}>"

    @property
    def current(self) -> Secret:
        """The secret now. The first use reads it, blocking the calling thread.

        :raises SecretError: it cannot be had and was never had before.
        """
        return _field(self._reference, self._version())

    def reveal(self) -> str:
        """The secret itself, now."""
        return self.current.reveal()

    @property
    def version(self) -> str:
        """The store's word for the version in use."""
        return self._version().version

    async def load(self) -> None:
        """Read it, and follow it from now on, without blocking the event loop.

        :raises SecretError: it cannot be had.
        """
        await self._store.get(str(self._reference))
        self._follow()

    def _version(self) -> SecretVersion:
        place = self._store._place(self._reference)
        if place.job is not None and place.rotation.current is not None:
            return place.rotation.current
        if background.here():
            raise ConfigError(
                "a secret is read on the background thread before it was loaded",
                setting=str(self._reference),
                remedy="await secret.load() first",
            )
        job = background.start(place.version, name="secrets")
        try:
            version: SecretVersion = job.result(_LOAD_LIMIT)
        except TimeoutError:
            job.cancel()
            raise SecretError(f"{place.name}: no answer in {_LOAD_LIMIT:g} s", permanent=False) from None
        self._follow()
        return version

    def _follow(self) -> None:
        if self._store._place(self._reference).job is None:
            self._store.subscribe(str(self._reference), _nothing)


def _nothing() -> None:
    """The handle reads the place itself; only the following is wanted."""


def _field(reference: Reference, version: SecretVersion) -> Secret:
    values = version.values
    if reference.field in values:
        return values[reference.field]
    if not reference.field and len(values) == 1:
        return next(iter(values.values()))
    names = ", ".join(sorted(values)) or "none"
    raise SecretError(
        f"{reference.place} has no field {reference.field!r}; its fields are: {names}"
        if reference.field
        else f"{reference.place} has several fields; name one of them as {reference.place}#field: {names}",
        permanent=True,
    )


def _after_fork_in_child() -> None:
    for each in _stores:
        each._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
