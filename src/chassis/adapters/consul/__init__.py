"""Consul: the agent's HTTP API, discovery by blocking queries, registration with a TTL heartbeat."""

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._discovery import ConsulDiscovery, ConsulDiscoveryOptions
from chassis.adapters.consul._errors import (
    ConsulAnswerError,
    ConsulConflict,
    ConsulError,
    ConsulForbidden,
    ConsulNotFound,
    ConsulUnavailable,
    ConsulUnreachable,
)
from chassis.adapters.consul._options import ConsulOptions
from chassis.adapters.consul._protocol import ConsulAnswer, ConsulRequest, KVEntry
from chassis.adapters.consul._registrar import (
    ConsulRegistrar,
    ConsulRegistrarOptions,
    ConsulRegistration,
)

__all__ = [
    "ConsulAPI",
    "ConsulAnswer",
    "ConsulAnswerError",
    "ConsulConflict",
    "ConsulDiscovery",
    "ConsulDiscoveryOptions",
    "ConsulError",
    "ConsulForbidden",
    "ConsulNotFound",
    "ConsulOptions",
    "ConsulRegistrar",
    "ConsulRegistrarOptions",
    "ConsulRegistration",
    "ConsulRequest",
    "ConsulUnavailable",
    "ConsulUnreachable",
    "KVEntry",
]
