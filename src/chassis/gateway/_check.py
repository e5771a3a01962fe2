from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, NoReturn

from chassis.core import ConfigError
from chassis.gateway._app import Config, Gateway
from chassis.gateway._options import RouteOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRow:
    """One route as a line of a table, all plain text.

    :param host: ``*`` for any.
    :param methods: comma-separated; ``*`` for all.
    :param target: ``catalog`` for a forward, ``catalog + recommendations?`` for an aggregate, where
        ``?`` marks an optional part.
    :param auth: the names of the ways in, comma-separated; ``-`` if everybody is let in.
    """

    path: str
    host: str
    methods: str
    target: str
    auth: str


class Routes(tuple[RouteRow, ...]):
    """Routes in the order they were written; as text, a table."""

    __slots__ = ()

    def __str__(self) -> str:
        lines = [("PATH", "HOST", "METHODS", "SERVICES", "AUTH"), *(astuple(row) for row in self)]
        widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
        padded = (
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
        )
        return "\n".join(line.rstrip() for line in padded)


def check(config: Config) -> Routes:
    """Parse and validate a gateway's configuration, key files included, without serving it.

    :returns: its routes.
    :raises ConfigError: it cannot be used; the message names setting, origin and remedy.
    """
    return Routes(_row(route) for route in Gateway(config, _Unreachable()).options.routes)


def _row(route: RouteOptions) -> RouteRow:
    parts = (part.service + ("" if part.required else "?") for part in route.parts.values())
    return RouteRow(
        path=route.path,
        host=route.host or "*",
        methods=", ".join(route.accepted) or "*",
        target=route.service or " + ".join(parts),
        auth=", ".join(route.auth) or "-",
    )


class _Unreachable:
    """Upstreams of a gateway that is only looked at."""

    async def send(self, service: str, request: Any) -> NoReturn:
        raise ConfigError("a configuration that is checked sends nothing")
