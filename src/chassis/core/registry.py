"""The process-wide registry of named policies.

It is how ``@CircuitBreaker("payments")`` in a module that never saw a ``Chassis`` still reaches
logs, metrics, ``/health`` and live configuration.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from chassis.core.errors import ConfigError
from chassis.core.forks import tell_after_fork


class NamedPolicy(Protocol):
    """What the registry needs of a policy."""

    kind: str
    """``breaker``, ``retry``, ``bulkhead``, ``client``, ..."""
    name: str

    @property
    def defaults(self) -> Any:
        """The options given in code: what every override starts from."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """State and options, as plain values."""
        ...

    def reconfigure(self, options: Any) -> None:
        """Take ``options`` (of the type of :attr:`defaults`) from now on."""


class PolicyRegistry:
    """Named policies by ``kind:name``, held weakly; overrides for those not known yet are kept."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._policies: weakref.WeakValueDictionary[str, NamedPolicy] = weakref.WeakValueDictionary()
        self._given: dict[object, Mapping[str, Callable[[Any], Any]]] = {}
        tell_after_fork(self)

    def register(self, policy: NamedPolicy) -> str:
        """Make ``policy`` known, and apply the override waiting for it.

        :returns: its key, ``kind:name``.
        :raises ConfigError: another live policy has this kind and name, or the name is none.
        """
        name: object = policy.name  # a function, where a policy that wants a name is a bare decorator
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"{name!r} is not a name",
                setting="name",
                remedy=f'write {type(policy).__name__}("payments", ...), as a decorator too',
            )
        key = f"{policy.kind}:{policy.name}"
        with self._lock:
            other = self._policies.get(key)
            if other is not None and other is not policy:
                raise ConfigError(
                    f"two live policies are called {key!r}",
                    setting=key,
                    remedy="give one of them another name, or share the one object",
                )
            override = self._overrides.get(key)
            if override is not None:
                policy.reconfigure(override(policy.defaults))
            self._policies[key] = policy
        return key

    def get(self, key: str) -> NamedPolicy | None:
        """The live policy of this key, or None."""
        return self._policies.get(key)

    def items(self) -> list[tuple[str, NamedPolicy]]:
        """All live policies by key, sorted."""
        with self._lock:  # others may register meanwhile, and a dictionary that grows cannot be gone through
            return sorted(self._policies.items(), key=lambda item: item[0])

    def describe(self) -> dict[str, Mapping[str, Any]]:
        """What every live policy tells of itself, by key."""
        return {key: policy.describe() for key, policy in self.items()}

    @property
    def _overrides(self) -> dict[str, Callable[[Any], Any]]:
        """Those of everybody; of two for one policy, the one of who came later."""
        return {key: each for given in self._given.values() for key, each in given.items()}

    def override(self, overrides: Mapping[str, Callable[[Any], Any]], *, by: object = None) -> set[str]:
        """Replace the overrides ``by`` gives: each key's function makes the new options from the defaults.

        A policy whose override went away gets its defaults back, or what another one gives for it. One
        that is not known yet gets its override when it registers.

        :param by: who gives them, so that two services in one process do not undo each other's.
        :returns: the keys that no live policy bears now.
        :raises Exception: what a function raised for bad options; then nothing has been changed.
        """
        with self._lock:
            touched = {**self._given.get(by, {}), **overrides}
            before, self._given = self._given, {**self._given, by: dict(overrides)}
            if not overrides:
                del self._given[by]
            now = self._overrides
            try:
                changes = [
                    (policy, now[key](policy.defaults) if key in now else policy.defaults)
                    for key, policy in self.items()
                    if key in touched
                ]
            except BaseException:
                self._given = before
                raise
            for policy, options in changes:
                policy.reconfigure(options)
            return {key for key in overrides if key not in self._policies}

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Undo at the end of the block what it did: the names registered inside and the overrides."""
        with self._lock:
            known, given = dict(self._policies), dict(self._given)
        try:
            yield
        finally:
            with self._lock:
                for by in {**self._given, **given}:
                    self.override(given.get(by, {}), by=by)
                self._policies.clear()
                self._policies.update(known)

    def after_fork_in_child(self) -> None:
        """Another thread may have held the lock."""
        self._lock = threading.RLock()


policies = PolicyRegistry()
"""The process-wide registry."""
