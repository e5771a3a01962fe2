"""The body of a service registration: read, validated, and turned into what the catalog keeps."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chassis.devagent._durations import parse_duration
from chassis.devagent._errors import bad_request, lacking

STATUSES = ("passing", "warning", "critical")

_SERVICE_FIELDS = {
    "id", "name", "tags", "address", "taggedaddresses", "meta", "port", "check", "checks", "weights",
    "enabletagoverride", "token",
}  # fmt: skip
_SERVICE_LACKING = {"kind", "proxy", "connect", "socketpath", "locality", "ports", "namespace", "partition"}
_CHECK_FIELDS = {
    "checkid", "name", "notes", "status", "ttl", "interval", "timeout", "deregistercriticalserviceafter",
    "successbeforepassing", "failuresbeforewarning", "failuresbeforecritical", "token",
}  # fmt: skip
_CHECK_PROBES = {
    "http", "header", "method", "body", "disableredirects", "tcp", "tcpusetls", "udp", "grpc", "grpcusetls",
    "h2ping", "h2pingusetls", "args", "scriptargs", "dockercontainerid", "shell", "aliasnode", "aliasservice",
    "osservice", "tlsservername", "tlsskipverify", "outputmaxsize", "namespace", "partition",
}  # fmt: skip

_META_KEY = re.compile(r"[A-Za-z0-9_-]+")
_GO_TYPES = {str: "string", int: "int", bool: "bool", list: "slice", dict: "map"}


@dataclass(frozen=True, kw_only=True)
class CheckDefinition:
    """A TTL check as it was asked for; ``id`` and ``name`` are empty where the agent gives them."""

    id: str = ""
    name: str = ""
    notes: str = ""
    status: str = ""
    ttl: float = 0.0
    deregister_after: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ServiceDefinition:
    """A service instance as it was asked for, valid."""

    id: str
    name: str
    tags: tuple[str, ...] = ()
    address: str = ""
    port: int = 0
    meta: Mapping[str, str] = field(default_factory=dict)
    weights: tuple[int, int] = (1, 1)
    tagged_addresses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    enable_tag_override: bool = False
    checks: tuple[CheckDefinition, ...] = ()


def parse_service(body: Any) -> ServiceDefinition:
    """Read a decoded registration body.

    :raises AgentError: 400 where Consul refuses it, 501 where it asks for what this agent lacks.
    """
    raw = _fold(body, _SERVICE_FIELDS, _SERVICE_LACKING, "in a service registration")
    name = _get(raw, "name", str, "")
    if not name:
        bad_request("Missing service name")
    address = _get(raw, "address", str, "")
    if _is_any(address):
        bad_request("Invalid service address")
    port = _get(raw, "port", int, 0)
    return ServiceDefinition(
        id=_get(raw, "id", str, "") or name,
        name=name,
        tags=tuple(_strings(raw, "tags")),
        address=address,
        port=port,
        weights=_weights(_get(raw, "weights", dict, None)),
        meta=_meta(_get(raw, "meta", dict, {})),
        tagged_addresses=_tagged_addresses(_get(raw, "taggedaddresses", dict, {}), address, port),
        enable_tag_override=_get(raw, "enabletagoverride", bool, False),
        checks=_checks(raw),
    )


def fold_keys(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with its keys as Go compares them: case and underscores do not matter."""
    return {key.replace("_", "").lower(): value for key, value in raw.items()}


def _fold(body: Any, known: set[str], absent: set[str], where: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        bad_request(f"Request decode failed: json: cannot unmarshal {type(body).__name__} into an object")
    for key in body:
        folded = key.replace("_", "").lower()
        if folded in absent and body[key]:
            lacking(f"{key!r} {where}")
        if folded not in known | absent:
            bad_request(f'Request decode failed: json: unknown field "{key}"')
    return fold_keys(body)


def _get(raw: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        bad_request(
            f"Request decode failed: json: cannot unmarshal {value!r} into field {key} of type {_GO_TYPES[kind]}"
        )
    return value


def _strings(raw: Mapping[str, Any], key: str) -> list[str]:
    values = _get(raw, key, list, [])
    return [_get({key: value}, key, str, "") for value in values]


def _is_any(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_unspecified
    except ValueError:
        return False


def _weights(raw: Mapping[str, Any] | None) -> tuple[int, int]:
    if raw is None:
        return (1, 1)
    folded = fold_keys(raw)
    passing, warning = _get(folded, "passing", int, 0), _get(folded, "warning", int, 0)
    if passing < 1:
        bad_request("Invalid Weights: Passing must be greater than 0")
    if warning < 0:
        bad_request("Invalid Weights: Warning must be greater or equal than 0")
    if max(passing, warning) > 65_535:
        bad_request("Invalid Weights: DNS Weight must be between 0 and 65535")
    return passing, warning


def _meta(raw: Mapping[str, Any]) -> dict[str, str]:
    if len(raw) > 64:
        bad_request("Invalid Service Meta: Node metadata cannot contain more than 64 key/value pairs")
    rules: tuple[tuple[Callable[[str, str], bool], str], ...] = (
        (lambda key, _: not key, "Key cannot be blank"),
        (lambda key, _: not _META_KEY.fullmatch(key), "Key contains invalid characters"),
        (lambda key, _: len(key) > 128, "Key is too long (limit: 128 characters)"),
        (lambda key, _: key.startswith("consul-"), "Key prefix 'consul-' is reserved for internal use"),
        (lambda _, value: len(value) > 512, "Value is too long (limit: 512 characters)"),
    )
    meta = {key: _get({"meta": value}, "meta", str, "") for key, value in raw.items()}
    for key, value in meta.items():
        for broken, why in rules:
            if broken(key, value):
                bad_request(f"Invalid Service Meta: Couldn't load metadata pair ('{key}', '{value}'): {why}")
    return meta


def _tagged_addresses(raw: Mapping[str, Any], address: str, port: int) -> dict[str, dict[str, Any]]:
    tagged = {}
    for tag, value in raw.items():
        folded = fold_keys(_get({tag: value}, tag, dict, {}))
        tagged[tag] = {"Address": _get(folded, "address", str, ""), "Port": _get(folded, "port", int, 0)}
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return tagged  # a host name, or none: Consul adds nothing
    for network in ("lan", "wan"):
        tagged.setdefault(f"{network}_ipv{version}", {"Address": address, "Port": port})
    return tagged


def _checks(raw: Mapping[str, Any]) -> tuple[CheckDefinition, ...]:
    checks = [_check(each) for each in _get(raw, "checks", list, [])]
    single = _get(raw, "check", dict, None)
    # Consul takes a check without content for no check, but only in "Check".
    if single and any(value not in ("", "0s", 0, None) for value in single.values()):
        checks.insert(0, _check(single))
    return tuple(checks)


def _check(body: Any) -> CheckDefinition:
    raw = _fold(body, _CHECK_FIELDS | _CHECK_PROBES, set(), "in a check")
    try:
        ttl, interval = parse_duration(raw.get("ttl") or 0), parse_duration(raw.get("interval") or 0)
        deregister_after = parse_duration(raw.get("deregistercriticalserviceafter") or 0)
    except ValueError as error:
        bad_request(f"Request decode failed: {error}")
    probes = any(raw.get(key) for key in _CHECK_PROBES)
    if interval > 0 and ttl > 0:
        bad_request("Invalid check: Interval and TTL cannot both be specified")
    if probes and interval <= 0:
        bad_request("Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks")
    if not probes and ttl <= 0:
        bad_request("Invalid check: TTL must be > 0 for TTL checks")
    status = _get(raw, "status", str, "")
    if status not in ("", *STATUSES):
        bad_request("Status for checks must 'passing', 'warning', 'critical'")
    if probes:
        lacking("checks that the agent itself carries out (HTTP, TCP, gRPC, scripts, aliases), only TTL")
    return CheckDefinition(
        id=_get(raw, "checkid", str, ""),
        name=_get(raw, "name", str, ""),
        notes=_get(raw, "notes", str, ""),
        status=status,
        ttl=ttl,
        deregister_after=deregister_after,
    )
