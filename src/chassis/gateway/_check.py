from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from chassis.core import ConfigError
from chassis.gateway._app import Config, Gateway
from chassis.gateway._options import GatewayOptions, RouteOptions


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


def check(config: Config) -> tuple[RouteRow, ...]:
    """Parse and validate a gateway's configuration, key files included, without serving it.

    :returns: its routes in the order they were written.
    :raises ConfigError: it cannot be used; the message names setting, origin and remedy.
    """
    return describe_routes(Gateway(config, _Unreachable()).options)


def describe_routes(options: GatewayOptions) -> tuple[RouteRow, ...]:
    """The routes as rows."""
    return tuple(_row(route) for route in options.routes)


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
