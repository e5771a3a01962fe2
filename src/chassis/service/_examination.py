"""What a service's settings lead to, seen without starting the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chassis.adapters.consul import ConsulAPI
from chassis.core import Discovery
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
