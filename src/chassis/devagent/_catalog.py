"""The catalog: one node, its services and checks, and the indexes queries compare with."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from chassis.devagent._definitions import ServiceDefinition

PASSING, WARNING, CRITICAL = "passing", "warning", "critical"


@dataclass(slots=True, kw_only=True)
class Check:
    """A check as the catalog shows it, with what its clockwork needs.

    ``output`` is what the agent heard last; ``shown_output`` what the catalog shows. As in Consul, a
    note that comes without a change of status reaches the catalog minutes later, so that heartbeats
    wake nobody.
    """

    id: str
    name: str
    kind: str
    status: str
    notes: str = ""
    output: str = ""
    shown_output: str = ""
    ttl: float = 0.0
    deregister_after: float = 0.0
    heard: str = ""
    expires_at: float | None = None
    critical_since: float | None = None
    show_output_at: float | None = None
    create_index: int = 0
    modify_index: int = 0


@dataclass(slots=True, kw_only=True)
class Service:
    """A registered instance and its checks by id."""

    definition: ServiceDefinition
    create_index: int
    modify_index: int
    checks: dict[str, Check] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The machine every service of this agent is on.

    :param id: a UUID, new in each process.
    """

    name: str = "chassis-dev"
    address: str = "127.0.0.1"
    datacenter: str = "dc1"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


class Catalog:
    """Services by id and the node's own checks, with the index of the last change to each table."""

    def __init__(self, node: Node, index: int) -> None:
        self.node = node
        self.services: dict[str, Service] = {}
        self.node_checks: dict[str, Check] = {}
        self.nodes_index = index
        self.services_index = index
        self._checks_index = index
        self._by_name: dict[str, int] = {}
        self._last_extinction = 0

    # Reading

    def instances(self, name: str) -> list[Service]:
        """The instances of a service, by id."""
        found = [each for each in self.services.values() if each.definition.name == name]
        return sorted(found, key=lambda each: each.definition.id)

    def checks_of(self, service: Service) -> list[Check]:
        """The node's checks and the service's, by id: what decides whether it is passing."""
        checks = (*self.node_checks.values(), *service.checks.values())
        return sorted(checks, key=lambda check: check.id)

    def tags_by_service(self) -> dict[str, list[str]]:
        """Every service's name with the tags of all its instances."""
        tags: dict[str, dict[str, None]] = {}
        for service in self.services.values():
            tags.setdefault(service.definition.name, {}).update(dict.fromkeys(service.definition.tags))
        return {name: list(tags[name]) for name in sorted(tags)}

    def service_index(self, name: str) -> int:
        """What a query of one service reports as its index.

        Of a service without instances it is that of the last service to lose its last one: thus its
        watchers are told, and whoever waits for it to come is not woken by every registration.
        """
        if self.instances(name):
            return self._by_name[name]
        return self._last_extinction or max(self.nodes_index, self.services_index, self._checks_index)

    def all_checks(self) -> Iterator[tuple[Service | None, Check]]:
        """Every check with the service it belongs to."""
        yield from ((None, check) for check in self.node_checks.values())
        for service in self.services.values():
            yield from ((service, check) for check in service.checks.values())

    # Writing

    def put(self, definition: ServiceDefinition, checks: dict[str, Check], index: int) -> bool:
        """Register an instance, or change it; the same again moves no index and returns False."""
        old = self.services.get(definition.id)
        same_checks = old is not None and _shown(old.checks) == _shown(checks)
        if old is not None and _content(old.definition) == _content(definition) and same_checks:
            old.checks = checks
            return False
        changed = old is None or _content(old.definition) != _content(definition)
        self.services[definition.id] = Service(
            definition=definition,
            checks=checks,
            create_index=old.create_index if old else index,
            modify_index=index if old is None or changed else old.modify_index,
        )
        if old is not None and old.definition.name != definition.name:
            self._left(old.definition.name, index)
        if changed:
            self.services_index = index
        if not same_checks:
            self._checks_index = index
        self._by_name[definition.name] = index
        return True

    def remove(self, service_id: str, index: int) -> None:
        """Take an instance and its checks away."""
        service = self.services.pop(service_id)
        self.services_index = index
        if service.checks:
            self._checks_index = index
        self._left(service.definition.name, index)

    def touch_check(self, service: Service | None, index: int) -> None:
        """Note that a check of ``service``, or of the node, was added, changed or removed."""
        self._checks_index = index
        names = (
            {service.definition.name}
            if service
            else {each.definition.name for each in self.services.values()}
        )
        self._by_name.update(dict.fromkeys(names, index))

    def _left(self, name: str, index: int) -> None:
        if self.instances(name):
            self._by_name[name] = index
        else:
            self._by_name.pop(name, None)
            self._last_extinction = index


def _content(definition: ServiceDefinition) -> tuple[object, ...]:
    return (
        definition.name,
        definition.tags,
        definition.address,
        definition.port,
        dict(definition.meta),
        definition.weights,
        definition.tagged_addresses,
        definition.enable_tag_override,
    )


def _shown(checks: dict[str, Check]) -> dict[str, tuple[object, ...]]:
    return {each.id: (each.name, each.status, each.notes, each.shown_output) for each in checks.values()}
