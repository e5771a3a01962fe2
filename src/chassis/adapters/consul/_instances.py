from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chassis.core.instances import Instance, Status
from chassis.discovery import is_host

_SEVERITY = {Status.PASSING: 0, Status.WARNING: 1, Status.CRITICAL: 2, Status.MAINTENANCE: 3}
_CHECK = {"passing": Status.PASSING, "warning": Status.WARNING, "critical": Status.CRITICAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """The instances of an answer, and what was wrong with each entry that is none."""

    instances: tuple[Instance, ...]
    skipped: tuple[str, ...] = ()


def parse_instances(entries: Iterable[Any], *, priority: int = 0) -> Parsed:
    """The instances in the entries of ``/v1/health/service``; one bad entry drops only itself.

    Two entries of one address (a ghost on another agent) are one instance, the healthier of them.

    :param priority: what the instances bear; see :class:`~chassis.core.Instance`.
    """
    found: dict[tuple[str, str, int], Instance] = {}
    skipped: list[str] = []
    for entry in entries:
        try:
            instance = parse_instance(entry, priority=priority)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            skipped.append(f"{type(error).__name__}: {error}")
            continue
        known = found.get(instance.key)
        if known is None or _SEVERITY[instance.status] < _SEVERITY[known.status]:
            found[instance.key] = instance
    return Parsed(instances=tuple(found.values()), skipped=tuple(skipped))


def parse_instance(entry: Mapping[str, Any], *, priority: int = 0) -> Instance:
    """One entry of ``/v1/health/service``.

    The status is judged here and not by asking for passing instances only, because that would hide
    warnings, and the difference between an instance that is ill and one that is gone.

    :raises ValueError: it has no usable id, address or port. Also AttributeError, KeyError, TypeError,
        where it is not of the promised form.
    """
    service, node = entry["Service"], entry.get("Node") or {}
    name, service_id = service["Service"], service.get("ID") or ""
    if not isinstance(name, str) or not isinstance(service_id, str) or not service_id:
        raise ValueError(f"an entry of {name!r} has no id")
    # An instance that gave no address is reached at its node's.
    host = service.get("Address") or node.get("Address") or ""
    if not isinstance(host, str) or not is_host(host.strip("[]")):
        raise ValueError(f"{service_id!r} has no usable address: {host!r}")
    port = service.get("Port")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        # Consul takes port 0 and 70000 without a word.
        raise ValueError(f"{service_id!r} has no usable port: {port!r}")
    status = _status(entry.get("Checks") or ())
    meta = {str(key): str(value) for key, value in (service.get("Meta") or {}).items()}
    scheme = meta.get("scheme", "http")
    if scheme not in ("http", "https"):
        raise ValueError(f"{service_id!r} has the scheme {scheme!r} in its meta; http and https are known")
    return Instance(
        id=service_id,
        service=name,
        host=host.strip("[]"),
        port=port,
        scheme=scheme,
        zone=meta.get("zone") or str((node.get("Meta") or {}).get("zone") or ""),
        datacenter=str(node.get("Datacenter") or ""),
        priority=priority,
        tags=tuple(str(tag) for tag in service.get("Tags") or ()),
        meta=meta,
        weight=_weight(service.get("Weights") or {}, status),
        status=status,
    )


def _status(checks: Iterable[Mapping[str, Any]]) -> Status:
    worst = Status.PASSING
    for check in checks:
        check_id = str(check.get("CheckID") or "")
        if check_id == "_node_maintenance" or check_id.startswith("_service_maintenance:"):
            return Status.MAINTENANCE
        # A status Consul does not have today counts as the worst.
        status = _CHECK.get(str(check.get("Status")), Status.CRITICAL)
        if _SEVERITY[status] > _SEVERITY[worst]:
            worst = status
    return worst


def _weight(weights: Mapping[str, Any], status: Status) -> int:
    weight = weights.get("Warning" if status is Status.WARNING else "Passing", 1)
    # Consul takes no more than 65535.
    return min(weight, 65535) if type(weight) is int and weight >= 1 else 1
