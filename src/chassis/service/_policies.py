"""The ``policies`` table: options of named policies, which hold while the service runs."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from chassis.config import apply
from chassis.core import Event, Level, PolicyRegistry, events, policies
from chassis.service._options import TABLE, ChassisOptions

if TYPE_CHECKING:
    from chassis.config import Settings

_Overrides: TypeAlias = dict[str, Callable[[Any], Any]]


@dataclass(frozen=True, kw_only=True)
class PolicyUnknown(Event):
    """Settings name a policy that is not there; they wait for one that registers under this name.

    :param suggestion: the policy that may have been meant, or "".
    """

    name: ClassVar[str] = "policy.unknown"
    level: ClassVar[Level] = "warning"

    suggestion: str


class LivePolicies:
    """Lays the ``policies`` table over the options given in code, and takes it away again.

    :param settings: whose table it is; a change that a live policy could not take does not get in.
    :param own: the policies of the service's clients. All others are in the process-wide registry.
    """

    def __init__(self, settings: Settings[ChassisOptions], own: PolicyRegistry) -> None:
        self._settings = settings
        self._own = own
        self._told_unknown: set[str] = set()
        settings.check(self._check)

    def hold(self) -> None:
        """What the table says now holds from now on.

        :raises ConfigError: a policy cannot take it; then none has.
        """
        own, others = self._overrides(self._settings.current)
        unknown = self._own.override(own, by=self) | policies.override(others, by=self)
        for key in sorted(unknown - self._told_unknown):
            # It may be a misspelling, or the name of one that registers when its module is imported.
            close = difflib.get_close_matches(key, self._names(), n=1)
            events.emit(PolicyUnknown(subject=key, suggestion="".join(close)))
        self._told_unknown |= unknown

    def hold_of_clients(self) -> None:
        """The same for the service's clients alone."""
        self._own.override(self._overrides(self._settings.current)[0], by=self)

    def withdraw(self) -> None:
        """The options given in code hold again, or what another service in this process says."""
        self._own.override({}, by=self)
        policies.override({}, by=self)

    def _names(self) -> list[str]:
        return [key for registry in (self._own, policies) for key, _ in registry.items()]

    def _check(self, options: ChassisOptions) -> None:
        """Veto options that a live policy could not take, before they get in."""
        own, others = self._overrides(options)
        for registry, overrides in ((self._own, own), (policies, others)):
            for key, override in overrides.items():
                policy = registry.get(key)
                if policy is not None:
                    override(policy.defaults)

    def _overrides(self, options: ChassisOptions) -> tuple[_Overrides, _Overrides]:
        """Those of the service's clients, and all others."""
        own: _Overrides = {}
        others: _Overrides = {}
        for key, values in options.policies.items():
            where = own if key.startswith("client:") else others
            where[key] = _Override(f'{TABLE}.policies."{key}"', values, functools.partial(self._origin, key))
        return own, others

    def _origin(self, key: str, path: tuple[str, ...]) -> str:
        return self._settings.origin(("policies", key, *path))


@dataclass(frozen=True)
class _Override:
    """The options of one policy, made from its defaults."""

    setting: str
    values: Mapping[str, Any]
    origin: Callable[[tuple[str, ...]], str]

    def __call__(self, defaults: Any) -> Any:
        return apply(defaults, self.values, setting=self.setting, origin=self.origin)
