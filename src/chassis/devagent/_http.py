"""Requests read, answers written: the few forms Consul's API has."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from chassis.devagent._agent import Domain
from chassis.devagent._durations import parse_duration
from chassis.devagent._errors import AgentError, bad_request, lacking

_LONGEST_WAIT = 600.0
_USUAL_WAIT = 300.0
_LACKING_PARAMETERS = {
    "filter": "?filter expressions",
    "node-meta": "?node-meta",
    "cached": "the ?cached agent cache",
    "near": "?near with a node other than this one",
    "ns": "namespaces",
    "partition": "partitions",
    "peer": "peering",
    "sg": "sameness groups",
    "merge-central-config": "central configuration",
    "hash": "hash-based blocking",
}


def parse_bool(text: str) -> bool | None:
    """A bool as Go reads it, None if it is none."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    return False if text in ("0", "f", "F", "false", "FALSE", "False") else None


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request with its body read; ``path`` is decoded, ``query`` keeps blank values."""

    method: str
    path: str
    query_string: str = ""
    body: bytes = b""
    query: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "query", parse_qs(self.query_string, keep_blank_values=True))

    def has(self, name: str) -> bool:
        """Whether the parameter is there, with a value or without."""
        return name in self.query

    def get(self, name: str, default: str = "") -> str:
        """The parameter's first value."""
        return self.query.get(name, [default])[0]

    def number(self, name: str) -> int | None:
        """The parameter as an unsigned 64-bit number, None if it is absent; else 500, as Consul says."""
        if not self.has(name):
            return None
        text = self.get(name)
        if not text.isascii() or not text.isdigit():
            raise AgentError(500, f'strconv.ParseUint: parsing "{text}": invalid syntax')
        if int(text) >= 2**64:
            raise AgentError(500, f'strconv.ParseUint: parsing "{text}": value out of range')
        return int(text)

    def flag(self, name: str) -> bool:
        """The parameter as Go reads a bool; it must be there."""
        if not self.has(name):
            bad_request(f"Missing value for {name}")
        value = parse_bool(self.get(name))
        if value is None:
            bad_request(f'Invalid value for {name}: "{self.get(name)}"')
        return value

    def json(self, failure: str = "Request decode failed") -> Any:
        """The body decoded."""
        if not self.body.strip():
            bad_request(f"{failure}: EOF")
        try:
            return json.loads(self.body)
        except ValueError as error:
            bad_request(f"{failure}: {error}")

    def wait(self) -> tuple[int, float]:
        """The index to wait beyond (0: do not wait), and for how many seconds at most."""
        wait = _USUAL_WAIT
        if text := self.get("wait"):
            try:
                wait = parse_duration(text) or _USUAL_WAIT
            except ValueError:
                bad_request("Invalid wait time")
        index = self.get("index") or "0"
        if not index.isascii() or not index.isdigit():
            bad_request("Invalid index")
        return int(index), min(max(wait, 0.0), _LONGEST_WAIT)

    def refuse_what_is_lacking(self, datacenter: str, node: str) -> None:
        """Answer parameters that would change the answer, and that this agent does not know.

        :raises AgentError: 501, or Consul's own refusal of another datacenter.
        """
        for name, what in _LACKING_PARAMETERS.items():
            asked = self.has(name) and (self.get(name) or name == "cached")
            # Sorting by nearness changes nothing where all are equally near.
            if asked and not (name == "near" and self.get(name) in ("_agent", node)):
                lacking(what)
        if self.get("dc") not in ("", datacenter):
            raise AgentError(500, "No path to datacenter")
        if self.has("stale") and self.has("consistent"):
            bad_request("Cannot specify ?stale with ?consistent, conflicting semantics.")


@dataclass(frozen=True, kw_only=True)
class Response:
    """An answer; ``body`` is what is sent."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a query saw: the index it reports, whether anything was there, and the answer."""

    index: int
    response: Response
    found: bool = True


@dataclass(frozen=True, kw_only=True)
class Query:
    """A read that can wait for a change: ``read`` is asked anew after each change of ``domain``.

    :param until_found: while nothing is there, unrelated changes end no wait.
    """

    domain: Domain
    read: Callable[[], Reading]
    until_found: bool = False


def json_response(value: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """``value`` as compact JSON."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Response(status=status, body=body, headers=(("Content-Type", "application/json"), *headers))


def text_response(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """One sentence, as Consul's errors are."""
    plain = ("Content-Type", "text/plain; charset=utf-8")
    return Response(status=status, body=text.encode(), headers=(plain, *headers))
