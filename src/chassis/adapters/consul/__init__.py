"""Consul: the agent's HTTP API, discovery by blocking queries, registration with a TTL heartbeat.

``AsyncConsul`` needs the extra ``consul``, which is imported when it is first named.
"""

from typing import TYPE_CHECKING, Any

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._discovery import ConsulDiscovery
from chassis.adapters.consul._discovery_options import ConsulDiscoveryOptions
from chassis.adapters.consul._errors import (
    ConsulAnswerError,
    ConsulConflict,
    ConsulError,
    ConsulForbidden,
    ConsulNotFound,
    ConsulUnavailable,
    ConsulUnreachable,
)
from chassis.adapters.consul._kv import ConsulKV
from chassis.adapters.consul._options import ConsulOptions
from chassis.adapters.consul._protocol import ConsulAnswer, ConsulRequest, ConsulResponse, KVEntry
from chassis.adapters.consul._python_consul import from_python_consul
from chassis.adapters.consul._registrar import ConsulRegistrar, ConsulRegistration
from chassis.adapters.consul._registrar_options import ConsulRegistrarOptions

if TYPE_CHECKING:
    from chassis.adapters.consul._async_consul import AsyncConsul

__all__ = [
    "AsyncConsul",
    "ConsulAPI",
    "ConsulAnswer",
    "ConsulAnswerError",
    "ConsulConflict",
    "ConsulDiscovery",
    "ConsulDiscoveryOptions",
    "ConsulError",
    "ConsulForbidden",
    "ConsulKV",
    "ConsulNotFound",
    "ConsulOptions",
    "ConsulRegistrar",
    "ConsulRegistrarOptions",
    "ConsulRegistration",
    "ConsulRequest",
    "ConsulResponse",
    "ConsulUnavailable",
    "ConsulUnreachable",
    "KVEntry",
    "from_python_consul",
]


def __getattr__(name: str) -> Any:
    if name == "AsyncConsul":
        from chassis.adapters.consul._async_consul import AsyncConsul

        return AsyncConsul
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
