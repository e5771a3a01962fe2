"""One request, several services: their answers side by side in one JSON object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from chassis.core import Deadline, Upstreams, deadline_scope
from chassis.core.headers import COMPLETED
from chassis.gateway._asgi import Send
from chassis.gateway._client_watch import ClientWatch
from chassis.gateway._headers import part_headers
from chassis.gateway._options import PartOptions, RouteOptions
from chassis.gateway._refusal import Refusal
from chassis.gateway._request import Inbound
from chassis.gateway._template import Target, parse_template
from chassis.gateway._upstream import FAILURES, outgoing_request, raw_body, refusal_for
from chassis.gateway._upstream import send as ask

_LARGEST_PART = 1024 * 1024
# The deadline ends a part where the client of the service sees it, so that its breaker does too;
# this much later the part is cancelled whatever that client does.
_LATER = 0.01
_COMPLETED = COMPLETED.lower().encode()


class _Answer(NamedTuple):
    """A part's body as JSON text, and why it is only the default."""

    body: bytes
    failure: Refusal | None


class Aggregate:
    """Answers requests of one route from its parts, all asked at once.

    Each part's JSON stands under its name, byte for byte as its service wrote it. If an optional
    part failed, its default stands there, ``X-Chassis-Completed`` is ``false`` and ``errors`` lists
    the part, the status it amounts to and the reason. If a required one failed, the others are
    cancelled and the answer is its 502, 503 or 504. Either way the answer is out when the longest
    part timeout is over.
    """

    def __init__(self, route: RouteOptions, upstreams: Upstreams, key_headers: frozenset[bytes]) -> None:
        template = parse_template(route.path)
        self._credentials = route.forward_credentials
        self._upstreams = upstreams
        self._key_headers = key_headers
        self._parts = {name: _Part(part, Target(part.path, template)) for name, part in route.parts.items()}

    async def __call__(
        self, request: Inbound, values: Mapping[str, str], client: ClientWatch, send: Send
    ) -> None:
        async with client:
            client.watch()
            answers = await self._gather(request, values)
        pieces = [json.dumps(name).encode() + b":" + answer.body for name, answer in answers.items()]
        failures = [
            {"part": name, "status": answer.failure.status, "reason": answer.failure.detail}
            for name, answer in answers.items()
            if answer.failure is not None
        ]
        if failures:
            pieces.append(b'"errors":' + json.dumps(failures).encode())
        body = b"{" + b",".join(pieces) + b"}"
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (_COMPLETED, b"false" if failures else b"true"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})

    async def _gather(self, request: Inbound, values: Mapping[str, str]) -> dict[str, _Answer]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    name: group.create_task(self._answer(part, request, values))
                    for name, part in self._parts.items()
                }
        except BaseExceptionGroup as group:
            refusals, others = group.split(Refusal)
            if refusals is None or others is not None:
                raise
            # The first required part that failed speaks; it cancelled the others.
            raise _first(refusals) from None
        return {name: task.result() for name, task in tasks.items()}

    async def _answer(self, part: _Part, request: Inbound, values: Mapping[str, str]) -> _Answer:
        options = part.options
        headers = part_headers(
            request, service=options.service, credentials=self._credentials, key_headers=self._key_headers
        )
        try:
            with deadline_scope(Deadline.after(options.timeout)):
                async with asyncio.timeout(options.timeout + _LATER):
                    return _Answer(
                        await self._fetch(options.service, part.target.fill(values), headers), None
                    )
        except Refusal as refusal:
            failure = refusal
        except FAILURES as error:
            failure = refusal_for(options.service, error)
        if options.required:
            raise failure
        return _Answer(part.default, failure)

    async def _fetch(self, service: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
        response = await ask(self._upstreams, service, outgoing_request("GET", service, target, headers))
        try:
            if not 200 <= response.status_code < 300:
                raise Refusal(502, f"{service} answered {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise Refusal(502, f"{service} sent a compressed body, which was not asked for")
            chunks, size = [], 0
            async for chunk in raw_body(response):
                size += len(chunk)
                if size > _LARGEST_PART:
                    raise Refusal(502, f"{service} sent more than {_LARGEST_PART} bytes")
                chunks.append(chunk)
        finally:
            await response.aclose()
        body = b"".join(chunks)
        try:
            json.loads(body.decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise Refusal(502, f"{service} sent a body that is not JSON") from None
        return body


class _Part:
    def __init__(self, options: PartOptions, target: Target) -> None:
        self.options = options
        self.target = target
        self.default = json.dumps(options.default).encode()


def _refuse_constant(name: str) -> NoReturn:
    # Python reads NaN and Infinity, but no other JSON reader does.
    raise ValueError(name)


def _first(group: BaseExceptionGroup[Any]) -> Refusal:
    error: Any = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error  # type: ignore[no-any-return]  # the group holds refusals only
