"""Where a service is: one network location, and an immutable view of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from chassis.core.clock import monotonic


class Status(Enum):
    """Health of one instance as its registry tells it."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"
    MAINTENANCE = "maintenance"


class Source(Enum):
    """Where a snapshot's instances were taken from."""

    LIVE = "live"
    MEMORY = "memory"
    DISK = "disk"
    """What a registry said before this process started, from the snapshot kept on disk."""
    STATIC = "static"
    FILE = "file"
    DNS = "dns"


class Freshness(Enum):
    """Whether a snapshot's source still answers."""

    FRESH = "fresh"
    STALE = "stale"
    EXPIRED = "expired"
    """Stale for longer than the limit set for it. It is still used: an old address may answer, none cannot."""


class Reason(Enum):
    """Why a snapshot holds no instance that may be called."""

    NOT_REGISTERED = "nothing is registered under this name"
    NO_PASSING = "instances are registered, but none is passing"
    FILTERED = "instances are registered, but none has the tags asked for"
    ACL_FILTERED = "the registry hid instances from this token: give it service:read"
    REGISTRY_DOWN = "the registry does not answer and nothing is known from before"
    NOT_ASKED_YET = "the registry has not answered yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One network location of a service.

    Its identity is ``(id, host, port)``: a restart under the same id on another port is another
    instance to balancers, breakers and pools.

    :param id: unique within the registry, e.g. ``catalog:10.0.0.7:8080``.
    :param service: the service's name.
    :param host: name or IP address, without brackets for IPv6.
    :param port: 1 to 65535.
    :param scheme: ``http`` or ``https``.
    :param zone: availability zone, or "".
    :param datacenter: Consul datacenter, or "".
    :param priority: 0 is called first; higher ones take over what lower ones cannot carry. A source
        gives its own datacenter 0, and the others 1, 2, ... in the order they were listed.
    :param weight: relative share of traffic, at least 1.
    :param status: health as the registry tells it.
    """

    id: str
    service: str
    host: str
    port: int
    scheme: str = "http"
    zone: str = ""
    datacenter: str = ""
    priority: int = 0
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict, hash=False)
    weight: int = 1
    status: Status = Status.PASSING

    @property
    def key(self) -> tuple[str, str, int]:
        """The identity under which per-instance state is kept."""
        return (self.id, self.host, self.port)

    @property
    def address(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """``scheme://host:port``."""
        return f"{self.scheme}://{self.address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All instances of one service as known at one moment.

    :param instances: sorted by id, of every status; balancers skip what is not passing.
    :param source: where they were taken from.
    :param freshness: STALE while the source does not answer and the last good view is kept.
    :param fetched_at: monotonic seconds of the source's last good answer.
    :param reason: why no instance may be called; None if one may.
    """

    service: str
    instances: tuple[Instance, ...] = ()
    source: Source = Source.STATIC
    freshness: Freshness = Freshness.FRESH
    fetched_at: float = field(default_factory=monotonic)
    reason: Reason | None = None
