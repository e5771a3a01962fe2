"""Systems without which the service is not to start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chassis.config import Configuration
from chassis.core import ConfigError, monotonic
from chassis.service._options import TABLE

REQUIRED_WITHIN = 30.0

_SETTING = f"{TABLE}.required"
_ADDRESSES = {"consul": ("CONSUL_HTTP_ADDR",), "vault": ("BAO_ADDR", "VAULT_ADDR")}
"""The systems that can be required, and the variables that say where they are."""


def check_required(required: Sequence[str], environment: Mapping[str, str]) -> None:
    """Refuse to require what is unknown, or what nobody says the address of.

    :raises ConfigError: such a system is named.
    """
    for system in required:
        variables = _ADDRESSES.get(system)
        if variables is None:
            raise ConfigError(
                f"{system!r} is no system that can be required",
                setting=_SETTING,
                remedy="name consul, vault or both",
            )
        if not any(environment.get(each) for each in variables):
            raise ConfigError(
                f"{system} is required, and nothing says where it is",
                setting=_SETTING,
                remedy=f"set {' or '.join(variables)}",
            )


async def required_answer(
    required: Sequence[str], configuration: Configuration, origin: Callable[[], str | None]
) -> None:
    """Wait for what is required; everything else is tried again in the background.

    :param origin: says where it was required, for the message.
    :raises ConfigError: it does not answer in time.
    """
    until = monotonic() + REQUIRED_WITHIN
    while silent := _silent(required, configuration.describe()):
        if monotonic() >= until:
            raise ConfigError(
                f"{' and '.join(silent)} did not answer within {REQUIRED_WITHIN:g} s",
                setting=_SETTING,
                origin=origin(),
                remedy="see that it is reachable, or do not require it",
            )
        await asyncio.sleep(0.1)


def _silent(required: Sequence[str], described: Mapping[str, Any]) -> list[str]:
    """The required systems of which something is still missing."""
    silent = []
    if "consul" in required and any(
        name.startswith("consul ") and each["state"] in ("waiting", "unreachable")
        for name, each in described["sources"].items()
    ):
        silent.append("consul")
    if "vault" in required and not all(each["loaded"] for each in described["settings"].values()):
        silent.append("vault")
    return silent
