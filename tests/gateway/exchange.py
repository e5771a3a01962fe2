"""Both sides of a gateway on a table: services behind it, a client in front of it, every byte visible."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from chassis.gateway import Gateway

Answering = Callable[[httpx2.Request], Awaitable[httpx2.Response]]


class Body(httpx2.AsyncByteStream):
    """An answer's body; says when it was closed."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self.chunks = chunks
        self.closed = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks

    async def aclose(self) -> None:
        self.closed.set()


class Services:
    """An ``Upstreams`` over real ASGI applications and scripts.

    :ivar seen: every request, in order, with the bytes that would go over the wire.
    """

    def __init__(self, **services: Any) -> None:
        self.services: dict[str, Any] = services
        self.seen: list[Seen] = []

    async def send(self, service: str, request: httpx2.Request) -> httpx2.Response:
        seen = Seen(service, request.method, request.extensions["target"], list(request.headers.raw))
        self.seen.append(seen)
        answer = self.services[service]
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, bytes):
            return httpx2.Response(200, content=answer)
        if isinstance(answer, httpx2.Response):
            return httpx2.Response(answer.status_code, headers=answer.headers.raw, stream=answer.stream)
        if getattr(answer, "asgi", False):
            return await httpx2.ASGITransport(answer).handle_async_request(request)
        return await answer(request, seen)


@dataclass
class Seen:
    """What one service was sent."""

    service: str
    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes | None = None

    def __getitem__(self, name: str) -> str | None:
        values = [value.decode("latin-1") for key, value in self.headers if key.lower() == name.encode()]
        return ", ".join(values) if values else None


async def echo(request: httpx2.Request, seen: Seen) -> httpx2.Response:
    """Reads the whole request, and answers with what it was."""
    seen.body = await request.aread()
    return httpx2.Response(200, json={"target": seen.target.decode(), "body": seen.body.decode("latin-1")})


@dataclass
class Answer:
    """What the client got.

    :ivar cut: the answer did not come to its end.
    """

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    cut: BaseException | None = None
    scope: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str | None:
        values = [value.decode("latin-1") for key, value in self.headers if key == name.encode()]
        return ", ".join(values) if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def gateway(services: Any, *routes: dict[str, Any], **options: Any) -> Gateway:
    return Gateway({"routes": list(routes), **options}, services)


ANY = {"path": "/{rest:path}", "service": "echo"}


async def call(
    app: Any,
    path: str | bytes = "/",
    *,
    method: str = "GET",
    headers: list[tuple[str, str]] | dict[str, str] | None = None,
    body: bytes | list[bytes] = b"",
    leave: asyncio.Event | None = None,
    **scope: Any,
) -> Answer:
    """Send one request straight into the application, as a server would that lets everything through.

    :param path: the request target.
    :param body: one message, or several.
    :param leave: set, and the client is gone.
    """
    target = path.encode() if isinstance(path, str) else path
    raw, _, query = target.partition(b"?")
    pairs = list(headers.items() if isinstance(headers, dict) else headers or [])
    if not any(name.lower() == "host" for name, _ in pairs):
        pairs.insert(0, ("Host", "shop.test"))
    elif ("host", "") in pairs:
        pairs.remove(("host", ""))
    answer = Answer()
    answer.scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": raw.decode("latin-1"),
        "raw_path": raw,
        "query_string": query,
        "root_path": "",
        "client": ("192.0.2.1", 4711),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        **scope,
    }
    chunks = list(body) if isinstance(body, list) else [body]
    ended = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        if chunks:
            chunk = chunks.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}
        waiting = [asyncio.create_task(each.wait()) for each in (ended, leave) if each is not None]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not answer.status, "a second answer"
            answer.status = message["status"]
            answer.headers = list(message["headers"])
        else:
            assert answer.status, "a body before the head"
            answer.body += message["body"]
            if not message.get("more_body", False):
                ended.set()

    try:
        await app(answer.scope, receive, send)
    except Exception as error:
        answer.cut = error
    else:
        assert ended.is_set() or leave is not None, "the application returned without an end"
    return answer
