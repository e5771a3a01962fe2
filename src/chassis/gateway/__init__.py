"""The API gateway: one ASGI application in front of services known by name.

It reads every request once into one canonical view, matches, authenticates and forwards by that view
alone, streams both ways, and answers from several services at once where a route has parts. Services
are reached through :class:`~chassis.core.Upstreams`, so discovery, balancing, retries and breakers
are the client's own.
"""

from chassis.gateway._app import Gateway
from chassis.gateway._check import RouteRow, Routes, check
from chassis.gateway._options import GatewayOptions, KeyAuth, PartOptions, RouteOptions, TokenAuth
from chassis.gateway._refusal import UpstreamAborted

__all__ = [
    "Gateway",
    "GatewayOptions",
    "KeyAuth",
    "PartOptions",
    "RouteOptions",
    "RouteRow",
    "Routes",
    "TokenAuth",
    "UpstreamAborted",
    "check",
]
