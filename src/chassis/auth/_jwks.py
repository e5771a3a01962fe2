from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from chassis.auth._errors import KeysUnavailable
from chassis.auth._events import KeysChanged, KeysFetchFailed
from chassis.auth._keyset import Key, parse_key_set
from chassis.auth._machine import KeyMachine, Need
from chassis.auth._options import JWKSOptions
from chassis.core import Clock, ConfigError, events, monotonic

Fetch: TypeAlias = Callable[[], Awaitable[bytes]]
"""Brings the JWKS document, or raises. Bounded by :attr:`JWKSOptions.fetch_timeout`."""


class JWKS:
    """A provider's keys, fetched when first needed and again as :class:`JWKSOptions` says.

    One fetch at a time, whoever asks for it; a caller that is cancelled does not cancel it for the
    others. While the provider is down the last good keys keep verifying. One event loop.

    :param fetch: brings the document.
    :param name: what events call it.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        name: str = "jwks",
        options: JWKSOptions | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.name = name
        self._fetch = fetch
        self._machine = KeyMachine(options or JWKSOptions())
        self._clock = clock
        self._flight: asyncio.Task[None] | None = None

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        name: str = "jwks",
        options: JWKSOptions | None = None,
        clock: Clock = monotonic,
    ) -> JWKS:
        """Keys from a file, read now and again at every refresh.

        :raises ConfigError: the file cannot be read, or is no JWKS with a usable key.
        """
        file = Path(path)
        jwks = cls(lambda: asyncio.to_thread(file.read_bytes), name=name, options=options, clock=clock)
        try:
            keys = parse_key_set(file.read_bytes())
        except OSError as error:
            raise ConfigError(
                f"the JWKS file {str(file)!r} cannot be read: {error.strerror}",
                setting="jwks",
                remedy="name a readable file; a relative path counts from the file it is written in",
            ) from None
        except ValueError as error:
            raise ConfigError(
                f"the JWKS file {str(file)!r} cannot be used: {error}",
                setting="jwks",
                remedy='write a JSON Web Key Set (RFC 7517): {"keys": [{"kty": "RSA", "kid": ..., "n": ..., "e": ...}]}',
            ) from None
        jwks._machine.loaded(keys, clock())
        return jwks

    def holds(self, key: Key) -> bool:
        """Whether the provider still publishes ``key``, as far as is known."""
        return self._machine.holds(key.fingerprint)

    async def freshen(self) -> None:
        """Fetch if the set's age asks for it; wait only if nothing can be judged before.

        :raises KeysUnavailable: there is no key at all, and none could be fetched.
        """
        need = self._machine.need(self._clock())
        if need is not Need.NOTHING:
            flight = self._fly(0.0)
            if need is Need.WAIT:
                await asyncio.shield(flight)
        if not self._machine.keys:
            raise self._unavailable()

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key for a token with this header; None if the provider has none, by all that is known.

        :raises KeysUnavailable: the provider would have to be asked and does not answer.
        """
        asked = self._clock()
        await self.freshen()
        while (key := self._machine.find(kid, algorithm)) is None:
            if self._machine.began_at is not None and self._machine.began_at >= asked and not self._flying():
                break  # a fetch that began after the token came did not bring its key
            if self._flying():
                await asyncio.shield(self._fly(0.0))
            else:
                wait = self._machine.wait_for_unknown(self._clock())
                if wait is None:
                    break
                await asyncio.shield(self._fly(wait))
        if key is None and self._machine.failing:
            raise self._unavailable()
        return key

    def describe(self) -> Mapping[str, Any]:
        """Key ids, age of the set in seconds (None before the first fetch), whether fetching fails."""
        return {
            "keys": [key.kid for key in self._machine.keys],
            "age": self._machine.age(self._clock()),
            "failing": self._machine.failing,
        }

    def _unavailable(self) -> KeysUnavailable:
        return KeysUnavailable(
            f"the keys of {self.name!r} cannot be fetched, so the token cannot be judged",
            retry_after=self._machine.retry_after(self._clock()),
        )

    def _flying(self) -> bool:
        return self._flight is not None and not self._flight.done()

    def _fly(self, wait: float) -> asyncio.Task[None]:
        if self._flight is None or self._flight.done():
            # An empty context: the fetch serves everyone, so neither the deadline nor the trace of
            # the request that happened to cause it is its own.
            self._flight = asyncio.get_running_loop().create_task(
                self._load(wait), name=f"chassis:{self.name}", context=contextvars.Context()
            )
        return self._flight

    async def _load(self, wait: float) -> None:
        if wait > 0:
            await asyncio.sleep(wait)
        machine = self._machine
        machine.began(self._clock())
        try:
            async with asyncio.timeout(machine.options.fetch_timeout):
                document = await self._fetch()
            keys = parse_key_set(document)
        except Exception as error:  # noqa: BLE001 - whatever it is, the last good keys must serve on
            if machine.failed(self._clock()):
                events.emit(
                    KeysFetchFailed(
                        subject=self.name, error=f"{type(error).__name__}: {error}", keys=len(machine.keys)
                    )
                )
            return
        added, removed = machine.loaded(keys, self._clock())
        if added or removed:
            events.emit(KeysChanged(subject=self.name, added=added, removed=removed))
