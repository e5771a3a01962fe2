"""Consul's HTTP API without any I/O: requests as data, answers parsed.

Source: the Consul HTTP API reference (blocking queries, health, catalog, agent, kv, txn).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from chassis.adapters.consul._errors import ConsulAnswerError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulRequest:
    """One request, without host and token.

    :param path: quoted, beginning with ``/v1/``.
    :param params: pairs where a name may come more than once.
    :param wait: seconds the agent may hold the answer back; 0 for a plain query.
    """

    method: str
    path: str
    params: Mapping[str, str] | Sequence[tuple[str, str]] = field(default_factory=dict)
    content: bytes | None = None
    wait: float = 0.0

    @property
    def what(self) -> str:
        """Method and path, for messages."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulResponse:
    """A response as it arrived, whatever its status.

    :param headers: their names are found in any case.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The content as text, whatever encoding the other side claims for it."""
        return self.content.decode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulAnswer(Generic[T]):
    """A value with what the agent says about its making.

    :param index: for the next blocking query; 0 if the answer bore none.
    :param known_leader: whether the servers have a leader; without one the value may be old.
    :param last_contact: seconds since the answering server last heard from the leader.
    :param acl_filtered: whether the token kept something from sight (Consul 1.11 and later).
    :param age: seconds since the agent's cache lost its servers; 0 if it did not, or was not asked.
    """

    value: T
    index: int = 0
    known_leader: bool = True
    last_contact: float = 0.0
    acl_filtered: bool = False
    age: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KVEntry:
    """One key of the KV store."""

    key: str
    value: bytes
    flags: int = 0
    create_index: int = 0
    modify_index: int = 0
    lock_index: int = 0
    session: str = ""


def path(*segments: str) -> str:
    """``/v1/`` and the segments, each quoted whole."""
    return "/v1/" + "/".join(quote(each, safe="") for each in segments)


def kv_path(key: str) -> str:
    """The path of a key, whose slashes are its own."""
    return "/v1/kv/" + quote(key, safe="/")


def duration(seconds: float) -> str:
    """In the form Go parses: ``30000ms``."""
    return f"{max(1, round(seconds * 1000))}ms"


def query(
    *,
    datacenter: str = "",
    index: int | None = None,
    wait: float = 0.0,
    stale: bool = False,
    cached: bool = False,
    **others: str | None,
) -> dict[str, str]:
    """The query parameters, without those that say nothing."""
    params = {name: value for name, value in others.items() if value}
    if datacenter:
        params["dc"] = datacenter
    if index is not None:
        params["index"] = str(index)
        params["wait"] = duration(wait)
    if stale:
        params["stale"] = ""
    if cached:
        params["cached"] = ""
    return params


def answer(value: T, headers: Mapping[str, str]) -> ConsulAnswer[T]:
    """``value`` with what the headers tell; a header that is absent or garbled counts as absent."""
    return ConsulAnswer(
        value=value,
        index=_whole(headers.get("x-consul-index")),
        known_leader=headers.get("x-consul-knownleader", "true").lower() != "false",
        last_contact=_whole(headers.get("x-consul-lastcontact")) / 1000,
        acl_filtered=headers.get("x-consul-results-filtered-by-acls", "").lower() == "true",
        age=_whole(headers.get("age")),
    )


def parse(what: str, body: bytes, kind: type[T], *, null: bool = True) -> T:
    """The JSON value in ``body``, which must be a ``kind`` (``null`` stands for an empty one).

    :param null: False where Consul never writes it, so that whoever did knows of nothing.
    :raises ConsulAnswerError: it is something else.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConsulAnswerError(f"Consul's answer to {what} is not JSON: {error}") from error
    if value is None and null:
        return kind()
    if not isinstance(value, kind):
        raise ConsulAnswerError(
            f"Consul's answer to {what} is a {type(value).__name__}, not a {kind.__name__}"
        )
    return value


def parse_kv(what: str, body: bytes) -> tuple[KVEntry, ...]:
    """The entries in ``body``, by key.

    :raises ConsulAnswerError: it holds something else.
    """
    return tuple(
        sorted((kv_entry(what, each) for each in parse(what, body, list)), key=lambda each: each.key)
    )


def kv_entry(what: str, raw: Any) -> KVEntry:
    """One entry as the KV store and transactions write it.

    :raises ConsulAnswerError: it is something else.
    """
    try:
        return KVEntry(
            key=str(raw["Key"]),
            value=base64.b64decode(raw.get("Value") or "", validate=True),
            flags=int(raw.get("Flags") or 0),
            create_index=int(raw.get("CreateIndex") or 0),
            modify_index=int(raw.get("ModifyIndex") or 0),
            lock_index=int(raw.get("LockIndex") or 0),
            session=str(raw.get("Session") or ""),
        )
    except (AttributeError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ConsulAnswerError(f"Consul's answer to {what} holds an unreadable key: {error!r}") from error


def dump(value: Any) -> bytes:
    """``value`` as compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def _whole(text: str | None) -> int:
    # 20 digits are the longest unsigned 64-bit number.
    return int(text) if text and len(text) <= 20 and text.isascii() and text.isdigit() else 0
