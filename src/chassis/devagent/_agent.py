"""The agent itself: pure, synchronous state that is asked the time and does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from chassis.core.clock import Clock, monotonic
from chassis.devagent._catalog import CRITICAL, PASSING, Catalog, Check, Node, Service
from chassis.devagent._definitions import CheckDefinition, ServiceDefinition
from chassis.devagent._errors import AgentError
from chassis.devagent._kv import Entry, KeyValueStore
from chassis.devagent._txn import WRITES, Operation, apply

Domain: TypeAlias = Literal["services", "health", "kv"]
"""What changed: which services there are; those or their checks; keys."""

NODE_MAINTENANCE = "_node_maintenance"
SERVICE_MAINTENANCE = "_service_maintenance:"

_SERVER = "consul"
_FIRST_INDEX = 10
_LEAST_DEREGISTER_AFTER = 60.0
_OUTPUT_DELAY = 300.0
_OUTPUT_BYTES = 4096
_NO_REASON = "Maintenance mode is enabled for this {}, but no reason was provided. This is a default message."


class DevAgent:
    """A Consul agent in memory: catalog, checks, key-value store and their indexes.

    It behaves as a current Consul agent alone in its datacenter, without ACLs. It belongs to one
    thread and never waits: :meth:`advance` does what has come due, and :meth:`next_due` says when
    to call it next. Every method that reads or writes advances first, so a lapsed check is never
    seen as passing.

    :param clock: seconds from any origin that never step back; the system's monotonic clock by default.
    :param node: the name, address and datacenter it reports.
    """

    def __init__(self, *, clock: Clock = monotonic, node: Node | None = None) -> None:
        self.clock = clock
        self._index = _FIRST_INDEX
        self._watchers: dict[Domain, list[Callable[[], None]]] = {"services": [], "health": [], "kv": []}
        self.catalog = Catalog(node or Node(), self._index)
        self.kv = KeyValueStore()
        self._begin()

    def _begin(self) -> None:
        alive = Check(
            id="serfHealth",
            name="Serf Health Status",
            kind="",
            status=PASSING,
            shown_output="Agent alive and reachable",
            create_index=self._index,
            modify_index=self._index,
        )
        self.catalog.node_checks[alive.id] = alive
        # A cluster lists its servers as a service; clients ask for it to learn whether one is there.
        self.catalog.put(ServiceDefinition(id=_SERVER, name=_SERVER, port=8300), {}, self._index)

    # What was registered with this agent, beside what only the catalog has

    def services(self) -> dict[str, Service]:
        """The instances registered here, by id."""
        return {key: service for key, service in self.catalog.services.items() if key != _SERVER}

    def checks(self) -> list[tuple[Service | None, Check]]:
        """The checks registered here, by id, with the service each belongs to."""
        own = (pair for pair in self.catalog.all_checks() if pair[1].kind)
        return sorted(own, key=lambda pair: pair[1].id)

    def _service(self, service_id: str) -> Service:
        service = self.services().get(service_id)
        if service is None:
            advice = "Ensure that the service ID is passed, not the service name."
            raise AgentError(404, f'Unknown service ID "{service_id}". {advice}')
        return service

    # Watching

    def watch(self, domain: Domain, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after every change of ``domain``, once a whole transaction is done.

        :returns: a function that ends it.
        """
        self._watchers[domain].append(changed)
        return lambda: self._watchers[domain].remove(changed)

    def _wake(self, *domains: Domain) -> None:
        for domain in domains:
            for changed in tuple(self._watchers[domain]):
                changed()

    # Time

    def next_due(self) -> float | None:
        """The instant of the next lapse, reaping or late output on this agent's clock, or None."""
        instants = (due for service, check in self.catalog.all_checks() for due in _due(service, check))
        return min(instants, default=None)

    def advance(self) -> None:
        """Do what is due: TTLs lapse, services critical for too long go, late outputs are shown."""
        now = self.clock()
        for service, check in tuple(self.catalog.all_checks()):
            if service is not None and service.definition.id not in self.catalog.services:
                continue  # reaped a moment ago, for another of its checks
            if check.expires_at is not None and check.expires_at <= now:
                lapsed_at, check.expires_at = check.expires_at, None
                heard = f" (last output before timeout follows): {check.heard}" if check.heard else ""
                self._set_status(service, check, CRITICAL, f"TTL expired{heard}", lapsed_at)
            if check.show_output_at is not None and check.show_output_at <= now:
                self._show(service, check)
            if service is not None and (reap_at := _reap_at(check)) is not None and reap_at <= now:
                self._remove(service)

    # Services

    def register(self, definition: ServiceDefinition, *, replace_checks: bool = False) -> None:
        """Register an instance, or change it.

        A check that was known keeps its status; checks not named again stay unless
        ``replace_checks``. Every TTL begins anew.
        """
        self.advance()
        now, index = self.clock(), self._next_index()
        old = self.catalog.services.get(definition.id)
        known = old.checks if old else {}
        checks = {}
        for position, asked in enumerate(definition.checks, start=1):
            check = _new_check(definition, asked, position, now, index)
            if before := known.get(check.id):
                _carry_over(before, check)
            checks[check.id] = check
        if not replace_checks:
            checks = {**known, **checks}
        elif maintenance := known.get(SERVICE_MAINTENANCE + definition.id):
            checks[maintenance.id] = maintenance
        if self.catalog.put(definition, checks, index):
            self._wake("services", "health")

    def deregister(self, service_id: str) -> None:
        """Take an instance away.

        :raises AgentError: 404, there is none.
        """
        self.advance()
        self._remove(self._service(service_id))

    def _remove(self, service: Service) -> None:
        self.catalog.remove(service.definition.id, self._next_index())
        self._wake("services", "health")

    # Checks

    def update_ttl(self, check_id: str, status: str, output: str) -> None:
        """A heartbeat: set the status of a TTL check and begin its time anew.

        :raises AgentError: 404, there is no such check; 500, it is no TTL check.
        """
        self.advance()
        found = next((pair for pair in self.checks() if pair[1].id == check_id), None)
        if found is None:
            advice = "Ensure that the check ID is passed, not the check name."
            raise AgentError(404, f'Unknown check ID "{check_id}". {advice}')
        service, check = found
        if check.kind != "ttl":
            raise AgentError(500, f'CheckID "{check_id}" does not have associated TTL')
        now = self.clock()
        check.heard = _cut(output)
        check.expires_at = now + check.ttl
        self._set_status(service, check, status, check.heard, now)

    def _set_status(
        self, service: Service | None, check: Check, status: str, output: str, now: float
    ) -> None:
        if status != CRITICAL:
            check.critical_since = None
        elif check.critical_since is None:
            check.critical_since = now
        check.output = output
        if check.status != status:
            check.status = status
            self._show(service, check)
        elif check.shown_output == output:
            check.show_output_at = None
        elif check.show_output_at is None:
            check.show_output_at = now + _OUTPUT_DELAY

    def _show(self, service: Service | None, check: Check) -> None:
        check.shown_output, check.show_output_at = check.output, None
        check.modify_index = self._next_index()
        self.catalog.touch_check(service, check.modify_index)
        self._wake("health")

    # Maintenance

    def service_maintenance(self, service_id: str, *, enable: bool, reason: str = "") -> None:
        """Take an instance out of service, or put it back; doing either twice does nothing.

        :raises AgentError: 404, there is none.
        """
        self.advance()
        service = self._service(service_id)
        self._maintenance(
            service, service.checks, SERVICE_MAINTENANCE + service_id, "service", enable, reason
        )

    def node_maintenance(self, *, enable: bool, reason: str = "") -> None:
        """Take every instance of this node out of service, or put them back."""
        self.advance()
        self._maintenance(None, self.catalog.node_checks, NODE_MAINTENANCE, "node", enable, reason)

    def _maintenance(
        self,
        service: Service | None,
        checks: dict[str, Check],
        check_id: str,
        what: str,
        enable: bool,
        reason: str,
    ) -> None:
        if enable == (check_id in checks):
            return
        index = self._next_index()
        if enable:
            checks[check_id] = Check(
                id=check_id,
                name=f"{what.capitalize()} Maintenance Mode",
                kind="maintenance",
                status=CRITICAL,
                notes=reason or _NO_REASON.format(what),
                create_index=index,
                modify_index=index,
            )
        else:
            del checks[check_id]
        self.catalog.touch_check(service, index)
        self._wake("health")

    # Keys and values

    def put_key(self, key: str, value: bytes, *, flags: int = 0, cas: int | None = None) -> bool:
        """Set a key; False if ``cas`` did not match (see :meth:`KeyValueStore.put`)."""
        done = self.kv.put(key, value, self._next_index(), flags=flags, cas=cas)
        self._wake("kv")
        return done

    def delete_key(self, key: str, *, cas: int | None = None) -> bool:
        """Remove a key; False if ``cas`` did not match."""
        done = self.kv.delete(key, self._next_index(), self.clock(), cas=cas)
        self._wake("kv")
        return done

    def delete_keys(self, prefix: str) -> None:
        """Remove every key that begins with ``prefix``."""
        self.kv.delete_under(prefix, self._next_index(), self.clock())
        self._wake("kv")

    def transact(self, operations: list[Operation]) -> tuple[list[Entry], list[tuple[int, str]]]:
        """Carry out all operations or none; see :func:`chassis.devagent._txn.apply`."""
        writes = any(operation.verb in WRITES for operation in operations)
        index = self._next_index() if writes else self._index
        outcome = apply(self.kv, operations, index, self.clock())
        if writes:
            self._wake("kv")
        return outcome

    def _next_index(self) -> int:
        self._index += 1
        return self._index


def _due(service: Service | None, check: Check) -> list[float]:
    due = [check.expires_at, check.show_output_at, _reap_at(check) if service else None]
    return [instant for instant in due if instant is not None]


def _reap_at(check: Check) -> float | None:
    if not check.deregister_after or check.critical_since is None:
        return None
    return check.critical_since + max(check.deregister_after, _LEAST_DEREGISTER_AFTER)


def _new_check(
    service: ServiceDefinition, asked: CheckDefinition, position: int, now: float, index: int
) -> Check:
    default_id = f"service:{service.id}" + (f":{position}" if len(service.checks) > 1 else "")
    return Check(
        id=asked.id or default_id,
        name=asked.name or f"Service '{service.name}' check",
        kind="ttl",
        status=asked.status or CRITICAL,
        notes=asked.notes,
        ttl=asked.ttl,
        deregister_after=asked.deregister_after,
        expires_at=now + asked.ttl,
        create_index=index,
        modify_index=index,
    )


def _carry_over(before: Check, check: Check) -> None:
    check.status, check.output, check.shown_output = before.status, before.output, before.shown_output
    check.create_index = before.create_index
    if (before.name, before.notes) == (check.name, check.notes):
        check.modify_index = before.modify_index


def _cut(output: str) -> str:
    size = len(output.encode())
    if size <= _OUTPUT_BYTES:
        return output
    kept = output.encode()[:_OUTPUT_BYTES].decode(errors="ignore")
    return f"{kept} ... (captured {_OUTPUT_BYTES} of {size} bytes)"
