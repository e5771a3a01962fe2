"""The ``[chassis]`` table: everything the composition root reads, assembled from the components' options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from chassis.adapters.consul import ConsulDiscoveryOptions, ConsulRegistrarOptions
from chassis.adapters.dns import DNSOptions
from chassis.adapters.otlp import OtlpOptions
from chassis.core import ConfigError
from chassis.core.options import Seconds, check_count, check_seconds
from chassis.core.secrets import Secret
from chassis.logs import LogOptions
from chassis.server import ServerOptions
from chassis.tracing import TracingOptions


def _check_port(value: Any, *, least: int) -> None:
    check_count("port", value, least=least)
    if value > 65535:
        raise ConfigError(f"{value} is no port", setting="port", remedy=f"give one from {least} to 65535")


@dataclass(frozen=True, kw_only=True)
class ServiceLocation:
    """Where one service is, and how it is looked for.

    :param urls: ``http://host:port`` each, when no registry need be asked; a plain string stands for a
        comma-separated list.
    :param discovery: what holds for this service in place of ``chassis.discovery``, e.g. ``tags`` or
        ``datacenters``.
    """

    settings_shorthand: ClassVar[str] = "urls"

    urls: tuple[str, ...] = ()
    discovery: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RegistrationOptions:
    """How this process announces itself to the registry.

    :param host: the address others reach it under; "" for the one it listens on, or, if it listens
        on all, the first of ``networks``, or the one that leads to the registry.
    :param networks: where this machine's address for others is, the preferred first: networks
        (``10.0.0.0/8``) or names of interfaces (``eth1``). Has no effect on who listens on one address.
    :param port: the port others reach it under; None for the one it listens on.
    :param tags: labels others may select by.
    :param zone: availability zone, "" for none.
    :param meta: further facts, at most 62.
    :param weight: relative share of traffic.
    :param enabled: whether it announces itself at all.
    """

    host: str = ""
    networks: tuple[str, ...] = ()
    port: int | None = None
    tags: tuple[str, ...] = ()
    zone: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1
    enabled: bool = True

    def __post_init__(self) -> None:
        if self.networks:
            # It brings ctypes, which is needed nowhere else.
            from chassis.service._addresses import parse_network

            for text in self.networks:
                try:
                    parse_network(text)
                except ValueError:
                    raise ConfigError(
                        f"{text!r} is neither a network nor an interface's name",
                        setting="networks",
                        remedy="write each like 10.0.0.0/8, fd00::/8 or eth1",
                    ) from None
        if self.port is not None:
            _check_port(self.port, least=1)
        check_count("weight", self.weight)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The health port of a process without HTTP of its own (``chassis.run()``).

    :param host: the address it listens on.
    :param port: the port; 0 takes a free one.
    """

    host: str = "127.0.0.1"
    port: int = 0

    def __post_init__(self) -> None:
        _check_port(self.port, least=0)


@dataclass(frozen=True, kw_only=True)
class ChassisOptions:
    """The ``[chassis]`` table, and the variables that begin with ``CHASSIS_``.

    :param services: by name where services are, which wins over the registry, and how they are looked for.
    :param services_file: TOML or JSON file of further services, followed while it changes; asked after
        ``services`` and before the registry. See :class:`chassis.discovery.FileDiscovery`.
    :param dns: how names are looked up that nobody else knows.
    :param policies: options of named policies, e.g. ``"breaker:payments"``; they take effect while
        the process runs.
    :param required: systems that must answer within 30 s at start: ``consul``, ``vault``. Without
        it the service starts and serves, and tries them again in the background.
    :param health_token: shows ``/health`` in full to who presents it as a bearer token.
    :param secrets_dir: folder whose files are secrets, each called as its variable would be.
    :param secrets_poll: seconds between two reads of a secret that stands in OpenBao or Vault.
    :param flush: seconds telemetry gets at stop to be delivered.
    """

    services: Mapping[str, ServiceLocation] = field(default_factory=dict)
    services_file: str = ""
    dns: DNSOptions = field(default_factory=DNSOptions)
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    registration: RegistrationOptions = field(default_factory=RegistrationOptions)
    heartbeat: ConsulRegistrarOptions = field(default_factory=ConsulRegistrarOptions)
    discovery: ConsulDiscoveryOptions = field(default_factory=ConsulDiscoveryOptions)
    server: ServerOptions = field(default_factory=ServerOptions)
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    logs: LogOptions = field(default_factory=LogOptions)
    tracing: TracingOptions = field(default_factory=TracingOptions)
    otlp: OtlpOptions = field(default_factory=OtlpOptions)
    required: tuple[str, ...] = ()
    health_token: Secret | None = None
    secrets_dir: str = ""
    secrets_poll: Seconds = 30.0
    flush: Seconds = 5.0

    def __post_init__(self) -> None:
        check_seconds("secrets_poll", self.secrets_poll)
        check_seconds("flush", self.flush)


TABLE = "chassis"
PREFIX = "CHASSIS_"
KNOWN = frozenset({"CHASSIS_DEBUG"})
"""Variables that the command line sets for its own workers."""


def local_options(assignments: Iterable[str] = ()) -> ChassisOptions:
    """The options that arguments, environment and ``chassis.toml`` give, for the process that only starts others.

    :raises ConfigError: one of them cannot be used.
    """
    from chassis.config import Configuration

    configuration = Configuration("chassis", arguments=tuple(assignments))
    return configuration.bootstrap(ChassisOptions, table=TABLE, prefix=PREFIX)
