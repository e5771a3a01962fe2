"""What an agent is told of a registration, and how it and the catalog show it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from chassis.adapters.consul._errors import ConsulError, ConsulNotFound, ConsulUnavailable
from chassis.adapters.consul._protocol import duration
from chassis.adapters.consul._registrar_options import ConsulRegistrarOptions
from chassis.core.contracts import Registration
from chassis.core.errors import ConfigError
from chassis.core.instances import Status
from chassis.discovery import readiness

_CHECK_STATUS = {Status.PASSING: "passing", Status.WARNING: "warning"}
_META_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")


def definition(
    registration: Registration, options: ConsulRegistrarOptions, *, check_id: str
) -> dict[str, Any]:
    """What the agent is told of a registration."""
    status, _ = readiness(registration)
    meta = dict(registration.meta)
    if registration.scheme != "http":
        meta.setdefault("scheme", registration.scheme)
    if registration.zone:
        meta.setdefault("zone", registration.zone)
    # Without it a new instance is critical until its first heartbeat.
    begins = {"Status": check_status(status)}
    checks = [
        {
            "CheckID": check_id,
            "Name": "heartbeat",
            "TTL": duration(options.ttl),
            "DeregisterCriticalServiceAfter": duration(options.deregister_after),
            **begins,
        }
    ]
    if options.http_check:
        host = f"[{registration.host}]" if ":" in registration.host else registration.host
        checks.append(
            {
                "CheckID": f"{check_id}:http",
                "Name": "http",
                "HTTP": f"{registration.scheme}://{host}:{registration.port}{options.http_check}",
                "Interval": duration(options.http_check_interval),
                "Timeout": duration(options.http_check_timeout),
                # Never forgotten for this one: whoever still beats would announce itself anew, as passing.
                **begins,
            }
        )
    return {
        "ID": registration.id,
        "Name": registration.service,
        "Address": registration.host,
        "Port": registration.port,
        "Tags": list(registration.tags),
        "Meta": meta,
        "Weights": {"Passing": registration.weight, "Warning": 1},
        "Checks": checks,
    }


def differences(told: Mapping[str, Any], held: Mapping[str, Any]) -> list[str]:
    """The fields of a service that an agent holds otherwise than it was told, by Consul's names."""
    as_held = {"Name": "Service"}

    def plain(value: Any) -> Any:
        # Consul writes what is empty as null, or leaves it out.
        return value or None

    return [
        name
        for name in ("Name", "Address", "Port", "Tags", "Meta", "Weights")
        if plain(told[name]) != plain(held.get(as_held.get(name, name)))
    ]


def check_meta(registration: Registration) -> None:
    """Refuse meta that Consul would refuse later.

    :raises ConfigError: naming what cannot be used.
    """

    def refuse(problem: str, remedy: str) -> ConfigError:
        return ConfigError(problem, setting="meta", remedy=remedy)

    if len(registration.meta) > 62:
        # Consul takes 64; scheme and zone may be added.
        raise refuse(f"{len(registration.meta)} keys are too many", "give at most 62")
    for key, value in registration.meta.items():
        if not _META_KEY.fullmatch(key):
            raise refuse(f"{key!r} cannot be a key", "use up to 128 letters, digits, _ and -")
        if len(value) > 512:
            raise refuse(f"the value of {key!r} is {len(value)} long", "give at most 512 characters")


def is_lost(error: ConsulError) -> bool:
    """Whether it tells that the agent does not know the check: 404, before Consul 1.9 a 500."""
    if isinstance(error, ConsulNotFound):
        return True
    return isinstance(error, ConsulUnavailable) and "does not have associated TTL" in error.body


def service_id(entry: Any) -> str:
    """The id in an entry of the catalog; "" if it has none."""
    service = entry.get("Service") if isinstance(entry, Mapping) else None
    return str(service.get("ID") or "") if isinstance(service, Mapping) else ""


def maintenance_reasons(entry: Mapping[str, Any]) -> Iterator[str]:
    """Why an entry of the catalog is under maintenance; nothing if it is not."""
    checks = entry.get("Checks")
    for check in checks if isinstance(checks, list) else ():
        if not isinstance(check, Mapping):
            continue
        check_id = str(check.get("CheckID") or "")
        if check_id == "_node_maintenance" or check_id.startswith("_service_maintenance:"):
            yield str(check.get("Notes") or "no reason given")


def check_status(status: Status) -> str:
    """How a check is to stand for an instance of this status."""
    return _CHECK_STATUS.get(status, "critical")
