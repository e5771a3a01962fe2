"""What a service's settings lead to, seen without starting the service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chassis.adapters.consul import ConsulAPI
from chassis.core import Discovery

if TYPE_CHECKING:
    from chassis.service._chassis import Chassis
    from chassis.service._options import ChassisOptions


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A service's settings as read, and the sources they lead to.

    :param called: the services it has clients of, or settings for.
    :param written: where the addresses of a service stand, for those that no registry need tell of.
    :param configuration: how the sources of its settings stand.
    :param consul: None where none is configured.
    """

    options: ChassisOptions
    called: tuple[str, ...]
    written: Mapping[str, str]
    configuration: Mapping[str, Any]
    discovery: Discovery
    consul: ConsulAPI | None


@asynccontextmanager
async def examining(chassis: Chassis) -> AsyncIterator[Examination]:
    """Read the settings as the service would, and give what they lead to; nothing is registered or served.

    :raises ConfigError: a setting cannot be used.
    """
    runtime = chassis._runtime
    try:
        yield await runtime.examine()
    finally:
        await runtime.stop()
