from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_count, check_seconds


@dataclass(frozen=True, kw_only=True)
class ConsulDiscoveryOptions:
    """How services are watched.

    :param tags: only instances that bear all of them.
    :param meta: only instances whose meta has these values.
    :param filter: only instances for which this expression in Consul's own filter language holds,
        e.g. ``Service.Meta.version == "2"``; Consul applies it.
    :param datacenters: further datacenters, in the order in which they are to take over; the agent's own
        comes first. They are asked only while not every instance in the own one is passing.
    :param preconnect: ask them always.
    :param wait: seconds a blocking query waits for a change.
    :param stale: let any Consul server answer, not the leader alone.
    :param max_stale: seconds a server may have been without its leader, or the agent's cache without its
        servers, for an answer to be used.
    :param empty_grace: seconds for which an empty answer after a full one must be repeated, unless it
        comes as an ordinary change, and for which a server that came back blank may leave out instances;
        its agents need up to 90 s.
    :param expire_after: seconds after which what is stale counts as expired. It is used even so, and
        told of; None for never.
    :param max_watches: how many blocking queries this process may hold open; two of them tell
        when to ask the agent's cache for the services beyond. An agent grants one client 200 connections.
    :param idle: seconds a service is watched on when nobody listens to it any more.
    :param snapshot_dir: folder in which the instances are kept, for a start while Consul does not
        answer; "" for none.
    :raises ConfigError: a value cannot be used.
    """

    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict, hash=False)
    filter: str = ""
    datacenters: tuple[str, ...] = ()
    preconnect: bool = False
    wait: Seconds = 30.0
    stale: bool = False
    max_stale: Seconds = 30.0
    empty_grace: Seconds = 120.0
    expire_after: Seconds | None = None
    max_watches: int = 50
    idle: Seconds = 600.0
    snapshot_dir: str = ""

    def __post_init__(self) -> None:
        check_seconds("wait", self.wait)
        check_seconds("max_stale", self.max_stale)
        check_seconds("empty_grace", self.empty_grace, zero=True)
        check_seconds("idle", self.idle, zero=True)
        check_count("max_watches", self.max_watches, least=0)
        if self.expire_after is not None:
            check_seconds("expire_after", self.expire_after)
        for name in ("tags", "datacenters"):
            # Each letter would count as one.
            if isinstance(getattr(self, name), str):
                raise ConfigError(
                    f"{getattr(self, name)!r} is one text", setting=name, remedy="give a tuple of texts"
                )
        if not all(self.tags):
            raise ConfigError(
                f"{self.tags!r} names none",
                setting="tags",
                remedy="name each wanted tag, or give none at all",
            )
        if not all(self.datacenters) or len(set(self.datacenters)) < len(self.datacenters):
            raise ConfigError(
                f"{self.datacenters!r} names one twice, or none",
                setting="datacenters",
                remedy="name each further datacenter once",
            )
