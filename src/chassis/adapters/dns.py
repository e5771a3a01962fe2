"""DNS: services by the addresses of their names, or by SRV records.

With the extra ``dns`` names are asked again when their records' time to live is over. Without it the
system's resolver is asked, which tells no time to live, so it is asked at fixed intervals; SRV records
and name servers of one's own need the extra.
"""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from chassis.core.clock import monotonic
from chassis.core.errors import ConfigError, DiscoveryError
from chassis.core.instances import Instance, Snapshot, Source
from chassis.core.options import Seconds, check_seconds
from chassis.discovery import Backoff, LastKnownGood, Listening, Topic, Watches

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

_LEAST_TTL, _MOST_TTL = 1.0, 60.0
# A name server that was restarted may deny for a while what it knew before.
_EMPTY_GRACE = 30.0
_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


@dataclass(frozen=True, kw_only=True)
class DNSOptions:
    """How names become instances.

    :param records: ``address`` for A, or AAAA where there is no A; ``srv`` for SRV records of
        ``_<port_name>._tcp.<name>``, whose priorities become those of the instances: the lowest is
        called first, the others take over.
    :param scheme: ``http`` or ``https``.
    :param port: of every instance found by address; None for the scheme's own. SRV records bear theirs.
    :param port_name: what the port is called in SRV records, e.g. a named port of Kubernetes; "" for
        the scheme.
    :param domain: appended to the service's name, e.g. ``service.consul``.
    :param refresh: seconds between two looks where no time to live is told: at the system's
        resolver, and after a name was found not to exist.
    :param timeout: seconds for one look through dnspython; the system's resolver has its own.
    :param nameservers: addresses, with or without a port; empty for the system's own.
    :raises ConfigError: a value cannot be used.
    """

    records: Literal["address", "srv"] = "address"
    scheme: str = "http"
    port: int | None = None
    port_name: str = ""
    domain: str = ""
    refresh: Seconds = 5.0
    timeout: Seconds = 2.0
    nameservers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.records not in ("address", "srv"):
            raise ConfigError(
                f"{self.records!r} is not known", setting="records", remedy="give address or srv"
            )
        if self.scheme not in ("http", "https"):
            raise ConfigError(f"{self.scheme!r} is not known", setting="scheme", remedy="give http or https")
        if self.port is not None and (type(self.port) is not int or not 0 < self.port < 65536):
            raise ConfigError(
                f"{self.port!r} is not a port", setting="port", remedy="give one from 1 to 65535"
            )
        check_seconds("refresh", self.refresh)
        check_seconds("timeout", self.timeout)
        for each in self.nameservers:
            _nameserver(each)


class DNSDiscovery:
    """Services as DNS knows them: a ``Discovery``.

    While the name servers do not answer, what was known last is kept; a name that does not exist is a
    service without instances.

    :raises ImportError: the options need the extra ``dns``, which is not installed.
    """

    def __init__(self, options: DNSOptions | None = None) -> None:
        self.options = options or DNSOptions()
        self._dnspython = importlib.util.find_spec("dns") is not None
        if not self._dnspython and (self.options.records == "srv" or self.options.nameservers):
            raise ImportError("SRV records and nameservers need dnspython: pip install 'chassis-kit[dns]'")
        self._watches = Watches(self._watch, name="dns")

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Listening:
        """Tell ``listener`` of the service: what is known at once, then each change."""
        return self._watches.subscribe(service, listener)

    def describe(self) -> Mapping[str, Any]:
        """Per watched service: source, age in seconds, instances, the reason when empty."""
        return self._watches.describe()

    async def _watch(self, topic: Topic) -> None:
        machine = LastKnownGood(
            topic.service, source=Source.DNS, known=topic.snapshot, empty_grace=_EMPTY_GRACE
        )
        loop, backoff = asyncio.get_running_loop(), Backoff()

        def doubted() -> None:
            if machine.holding:
                loop.call_soon_threadsafe(machine.doubted)

        topic.doubted = doubted
        while True:
            try:
                found = await self._look(topic.service)
            except DiscoveryError as error:
                topic.take(machine.failed(str(error), now=monotonic()))
                await asyncio.sleep(backoff.delay())
                continue
            backoff.reset()
            topic.take(machine.answered(found.instances, now=monotonic(), woke=True))
            await asyncio.sleep(found.keep)

    async def _look(self, service: str) -> _Found:
        options = self.options
        name = f"{service}.{options.domain}" if options.domain else service
        if options.records == "srv":
            return await self._srv(service, f"_{options.port_name or options.scheme}._tcp.{name}")
        failure: DiscoveryError | None = None
        if self._dnspython:
            try:
                found = await self._addresses(service, name)
            except DiscoveryError as error:
                if options.nameservers:
                    raise
                failure = error
            else:
                if found.instances or options.nameservers:
                    return found
        # The hosts file and its like are known to the system's resolver only.
        addresses = await _system_addresses(name)
        if failure is not None and not addresses:
            raise failure
        return self._found(service, addresses, options.refresh)

    async def _srv(self, service: str, name: str) -> _Found:
        answer = await _ask(self._resolver(), name, "SRV")
        if answer is None:
            return _Found((), self.options.refresh)
        records, keep = answer
        # RFC 2782: a target of "." says that there is no such service; the lowest priority is to be
        # used first.
        usable = [each for each in records if each.target.to_text() != "." and each.port]
        ranks = {each: rank for rank, each in enumerate(sorted({each.priority for each in usable}))}
        found: dict[tuple[str, str, int], Instance] = {}
        for each in sorted(usable, key=lambda each: each.priority):
            target = each.target.to_text(omit_final_dot=True)
            hosts = [target]
            if self.options.nameservers:
                # Names of a name server of one's own, such as Consul's, mean nothing to the system.
                hosts, ttl = await self._hosts(target)
                keep = min(keep, ttl)
            for host in hosts:
                instance = self._instance(service, host, each.port, max(1, each.weight), ranks[each.priority])
                # Two names may lead to one address.
                found.setdefault(instance.key, instance)
        return _Found(tuple(found.values()), keep)

    async def _addresses(self, service: str, name: str) -> _Found:
        addresses, keep = await self._hosts(name)
        return self._found(service, addresses, keep)

    async def _hosts(self, name: str) -> tuple[list[str], float]:
        """The addresses of a name, and for how many seconds they hold."""
        resolver = self._resolver()
        for kind in ("A", "AAAA"):
            answer = await _ask(resolver, name, kind)
            if answer is not None:
                records, ttl = answer
                return [each.address for each in records], ttl
        return [], self.options.refresh

    def _found(self, service: str, addresses: list[str], keep: float) -> _Found:
        port = self.options.port or (443 if self.options.scheme == "https" else 80)
        return _Found(tuple(self._instance(service, each, port) for each in sorted(set(addresses))), keep)

    def _instance(self, service: str, host: str, port: int, weight: int = 1, priority: int = 0) -> Instance:
        address = Instance(id="", service=service, host=host, port=port).address
        return Instance(
            id=address,
            service=service,
            host=host,
            port=port,
            scheme=self.options.scheme,
            weight=weight,
            priority=priority,
        )

    def _resolver(self) -> Resolver:
        """A resolver for one look: what the system's configuration says may change in between."""
        import dns.exception
        import dns.nameserver
        from dns.asyncresolver import Resolver

        try:
            resolver = Resolver(configure=not self.options.nameservers)
        except dns.exception.DNSException as error:
            raise DiscoveryError(f"the system's resolver configuration cannot be used: {error}") from error
        if self.options.nameservers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(*_nameserver(each)) for each in self.options.nameservers
            ]
        resolver.lifetime = self.options.timeout
        return resolver


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look found, and for how many seconds it holds."""

    instances: tuple[Instance, ...]
    keep: float


async def _ask(resolver: Resolver, name: str, kind: str) -> tuple[list[Any], float] | None:
    """The records of a name and how long they hold; None if there are none.

    :raises DiscoveryError: no name server could say.
    """
    import dns.exception
    import dns.name
    from dns.resolver import NXDOMAIN, NoAnswer

    try:
        answer = await resolver.resolve(name, kind, search=True)
    except (NXDOMAIN, NoAnswer, dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel):
        return None
    except (dns.exception.DNSException, OSError) as error:
        raise DiscoveryError(f"{kind} of {name!r} cannot be resolved: {error}") from error
    ttl = float(answer.chaining_result.minimum_ttl)
    return list(answer), min(max(ttl, _LEAST_TTL), _MOST_TTL)


async def _system_addresses(name: str) -> list[str]:
    """The addresses the system knows for a name: of IPv4 if there are any, else of IPv6."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except UnicodeError:
        return []  # a name that cannot be one in DNS
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            return []
        raise DiscoveryError(f"the address of {name!r} cannot be resolved: {error}") from error
    except OSError as error:
        raise DiscoveryError(f"the address of {name!r} cannot be resolved: {error}") from error
    # One instance that has both must not count as two.
    four = [str(each[4][0]) for each in infos if each[0] == socket.AF_INET]
    return four or [str(each[4][0]) for each in infos if each[0] == socket.AF_INET6]


def _nameserver(text: str) -> tuple[str, int]:
    """Address and port of a name server.

    :raises ConfigError: it is something else.
    """
    try:
        if text.count(":") > 1 and not text.startswith("["):
            return str(ip_address(text)), 53
        parts = urlsplit(f"//{text}")
        return str(ip_address(parts.hostname or "")), parts.port or 53
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is no name server",
            setting="nameservers",
            remedy="give IP addresses, e.g. 10.0.0.2 or 127.0.0.1:8600",
        ) from error


__all__ = ["DNSDiscovery", "DNSOptions"]
