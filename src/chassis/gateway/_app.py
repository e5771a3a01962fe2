from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

from chassis.core import ConfigError, Upstreams
from chassis.gateway._aggregate import Aggregate
from chassis.gateway._asgi import Receive, Scope, Send
from chassis.gateway._client_watch import ClientWatch
from chassis.gateway._forward import Forward
from chassis.gateway._guard import Guard, authenticator
from chassis.gateway._load import load_options, parse_options
from chassis.gateway._options import GatewayOptions, KeyAuth, RouteOptions
from chassis.gateway._refusal import ClientGone, Refusal, send_refusal
from chassis.gateway._request import read_request
from chassis.gateway._table import RouteTable, WrongMethod
from chassis.gateway._template import parse_template

Config: TypeAlias = str | Path | Mapping[str, Any] | GatewayOptions


class _Entry(NamedTuple):
    options: RouteOptions
    guard: Guard
    handler: Forward | Aggregate
    max_body: int


class Gateway:
    """An ASGI application that forwards requests to services by name, or puts answers together.

    One request: read once into a canonical view → match → guard (size, authentication) → forward or
    aggregate → filter the answer's headers. Metrics, traces and log lines are the server edge's that
    stands around it (``chassis.asgi(gateway)``); it is told the route in ``scope["chassis.route"]``.

    :param config: the path of a ``gateway.toml``, or the same as parsed tables or options.
    :param chassis: how services are reached: an :class:`~chassis.core.Upstreams`, or whatever has
        one as ``.upstreams``, a ``Chassis`` for one.
    :raises ConfigError: the configuration cannot be used; it names setting, origin and remedy.
    """

    def __init__(self, config: Config, chassis: Any) -> None:
        options, directory, origin = read_config(config)
        self.options = options
        upstreams = upstreams_of(chassis)
        ways = {
            name: authenticator(name, each, upstreams, directory, origin)
            for name, each in options.auth.items()
        }
        # Stripped on every route: a key is no business of a service that did not ask for it.
        key_headers = frozenset(
            each.header.lower().encode() for each in options.auth.values() if isinstance(each, KeyAuth)
        )
        self._table = build_table(
            options,
            origin,
            lambda route: _Entry(
                route,
                Guard(route, tuple(ways[name] for name in route.auth)),
                Aggregate(route, upstreams, key_headers)
                if route.service is None
                else Forward(route, route.service, upstreams, key_headers),
                options.max_body if route.max_body is None else route.max_body,
            ),
        )
        self._methods = frozenset(method for route in options.routes for method in route.methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        kind = scope["type"]
        if kind == "http":
            await self._handle_http(scope, receive, send)
        elif kind == "lifespan":
            await _handle_lifespan(receive, send)
        elif kind == "websocket":
            # Refused before it is accepted, which servers answer with 403.
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise ValueError(f"the gateway does not serve ASGI scopes of type {kind!r}")

    async def _handle_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def tell(message: Any) -> None:
            nonlocal started
            started = True
            try:
                await send(message)
            except OSError:
                # How servers say that the client has left, where they say it at all (ASGI 2.4).
                raise ClientGone from None

        try:
            request = read_request(scope, self.options, self._methods)
            match = self._table.match(request.route_host, request.method, request.path.segments)
            if match is None:
                raise Refusal(404, "there is nothing here")
            if isinstance(match, WrongMethod):
                allow = (b"allow", ", ".join(match.allowed).encode())
                raise Refusal(405, f"{request.method} is not allowed here", headers=(allow,))
            route = match.route
            scope["chassis.route"] = route.options.path
            await route.guard.check(request)
            client = ClientWatch(receive, length=request.length, limit=route.max_body)
            await client.begin()
            await route.handler(request, match.values, client, tell)
        except ClientGone:
            # Nobody is there to be answered; the server edge records it as 499.
            return
        except Refusal as refusal:
            if started:
                # Half an answer is out: the server must see an error, so that it is cut.
                raise
            await send_refusal(send, refusal)


def upstreams_of(chassis: Any) -> Upstreams:
    """The ``Upstreams`` that ``chassis`` is or has."""
    return cast(Upstreams, getattr(chassis, "upstreams", chassis))


def read_config(config: Config) -> tuple[GatewayOptions, Path, str]:
    """The options, the directory that relative file names count from, and what messages call it."""
    if isinstance(config, GatewayOptions):
        return config, Path(), "given options"
    if isinstance(config, Mapping):
        return parse_options(config, origin="given tables"), Path(), "given tables"
    return load_options(config), Path(config).parent, str(config)


def build_table(options: GatewayOptions, origin: str, entry: Any) -> RouteTable[Any]:
    """The route table, each route as ``entry(route)``.

    :raises ConfigError: two routes match the same requests.
    """
    table: RouteTable[Any] = RouteTable()
    for number, route in enumerate(options.routes):
        try:
            table.add(parse_template(route.path), host=route.host, methods=route.accepted, route=entry(route))
        except ConfigError as error:
            raise ConfigError(
                error.message, setting=f"routes.{number}.{error.setting}", origin=origin, remedy=error.remedy
            ) from None
    return table


async def _handle_lifespan(receive: Receive, send: Send) -> None:
    """Nothing starts with the gateway: what it needs is fetched by the first request that does."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
