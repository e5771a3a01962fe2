"""``/v1/kv/...`` and ``/v1/txn``."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from chassis.devagent import _views
from chassis.devagent._agent import DevAgent
from chassis.devagent._definitions import fold_keys
from chassis.devagent._errors import AgentError, bad_request, lacking
from chassis.devagent._http import Query, Reading, Request, Response, json_response
from chassis.devagent._kv import MAX_VALUE
from chassis.devagent._txn import MAX_OPERATIONS, Operation

_RAW_HEADERS = (
    ("Content-Type", "text/plain"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "sandbox"),
)
_TRAVERSALS = ("../", "..\\", "%2e%2e%2f", "%2e%2e/", "..%2f", "%2e%2e%5c")
_SESSION_VERBS = {"lock", "unlock", "check-session"}


def read_key(agent: DevAgent, request: Request, key: str) -> Query:
    """A key, everything below a prefix (``?recurse``), or the keys there (``?keys``)."""
    _validate(key)
    if request.has("keys"):
        return _read_keys(agent, key, request.get("separator") or request.get("seperator"))
    if request.has("recurse"):
        return _read_tree(agent, key)
    if not key:
        bad_request("Missing key name")
    raw = request.has("raw")

    def read() -> Reading:
        entry = agent.kv.get(key)
        index = agent.kv.key_index(key)
        if entry is None:
            return Reading(index=index, found=False, response=Response(status=404))
        if raw:
            return Reading(index=index, response=Response(body=entry.value, headers=_RAW_HEADERS))
        return Reading(index=index, response=json_response([_views.entry(entry)]))

    return Query(domain="kv", read=read, until_found=True)


def _read_tree(agent: DevAgent, prefix: str) -> Query:
    def read() -> Reading:
        entries = [_views.entry(entry) for entry in agent.kv.under(prefix)]
        response = json_response(entries) if entries else Response(status=404)
        return Reading(index=agent.kv.prefix_index(prefix), response=response)

    return Query(domain="kv", read=read)


def _read_keys(agent: DevAgent, prefix: str, separator: str) -> Query:
    def read() -> Reading:
        keys = agent.kv.keys(prefix, separator)
        response = json_response(keys) if keys or not prefix else Response(status=404)
        return Reading(index=agent.kv.prefix_index(prefix), response=response)

    return Query(domain="kv", read=read)


def put_key(agent: DevAgent, request: Request, key: str) -> Response:
    """Set a key, with ``?cas`` only if its modify index is that."""
    _validate(key)
    _one_of(request, "cas", "acquire", "release")
    if request.has("acquire") or request.has("release"):
        lacking("sessions, and so no locks on keys")
    if not key:
        bad_request("Missing key name")
    flags = request.number("flags") or 0
    return json_response(agent.put_key(key, request.body, flags=flags, cas=request.number("cas")))


def delete_key(agent: DevAgent, request: Request, key: str) -> Response:
    """Remove a key, or everything below a prefix (``?recurse``)."""
    _validate(key)
    _one_of(request, "recurse", "cas")
    if request.has("recurse"):
        agent.delete_keys(key)
        return json_response(value=True)
    if not key:
        bad_request("Missing key name")
    return json_response(agent.delete_key(key, cas=request.number("cas")))


def transact(agent: DevAgent, request: Request, _rest: str) -> Response:
    """Several operations on keys: all or none."""
    body = request.json("Failed to parse body")
    if not isinstance(body, list):
        bad_request("Failed to parse body: not a list of operations")
    if len(body) > MAX_OPERATIONS:
        raise AgentError(413, f"Transaction contains too many operations ({len(body)} > {MAX_OPERATIONS})")
    operations = [operation for item in body if (operation := _operation(item))]
    entries, failures = agent.transact(operations)
    answer: dict[str, Any] = {
        "Results": None if failures else [{"KV": _views.entry(entry)} for entry in entries],
        "Errors": [{"OpIndex": position, "What": what} for position, what in failures] or None,
    }
    return json_response(answer, status=409 if failures else 200)


def _operation(item: Any) -> Operation | None:
    if not isinstance(item, dict):
        bad_request("Failed to parse body: an operation is not an object")
    folded = fold_keys(item)
    for kind in ("node", "service", "check", "session", "intention"):
        if folded.get(kind):
            lacking(f"transactions on a {kind}, only on keys")
    raw = folded.get("kv")
    if raw is None:
        return None  # Consul skips an operation without content
    if not isinstance(raw, dict):
        bad_request("Failed to parse body: KV is not an object")
    fields = fold_keys(raw)
    verb = _typed(fields, "verb", str, "")
    if verb in _SESSION_VERBS or _typed(fields, "session", str, ""):
        lacking(f"sessions, and so no KV verb {verb!r} with one")
    key = _typed(fields, "key", str, "")
    _validate(key)
    return Operation(
        verb=verb,
        key=key,
        value=_value(key, _typed(fields, "value", str, "")),
        flags=_typed(fields, "flags", int, 0),
        index=_typed(fields, "index", int, 0),
    )


def _value(key: str, text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        bad_request(f"Failed to parse body: illegal base64 data: {error}")
    if len(value) > MAX_VALUE:
        raise AgentError(413, f'Value for key "{key}" is too large ({len(value)} > {MAX_VALUE} bytes)')
    return value


def _typed(fields: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        bad_request(f"Failed to parse body: {name} is not a {kind.__name__}")
    return value


def _validate(key: str) -> None:
    # Consul 1.21.6 and 1.22 refuse these (CVE-2025-11392); releases before took them.
    if any(part in key.lower() for part in _TRAVERSALS) or key != key.strip():
        bad_request(f"invalid key name {key!r}: no '..' segment, no space at its beginning or end")


def _one_of(request: Request, *names: str) -> None:
    if sum(request.has(name) for name in names) > 1:
        bad_request(f"Conflicting flags: {request.query_string}")
