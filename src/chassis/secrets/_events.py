from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core.events import Event, Level


@dataclass(frozen=True, kw_only=True)
class SecretRotated(Event):
    """A secret in use has a new value, and whoever reads it has that from now on.

    :param subject: the reference without its field, ``vault:secret/payments``.
    :param version: the store's word for the new state.
    :param fields: the names of the fields that changed; never their values.
    """

    name: ClassVar[str] = "secret.rotated"

    version: str
    fields: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SecretLost(Event):
    """A secret in use cannot be read any more; its last value goes on. Told once, until it heals."""

    name: ClassVar[str] = "secret.lost"
    level: ClassVar[Level] = "warning"

    reason: str


@dataclass(frozen=True, kw_only=True)
class SecretRestored(Event):
    """A secret that could not be read can be read again."""

    name: ClassVar[str] = "secret.restored"
