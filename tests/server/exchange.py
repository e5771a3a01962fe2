"""An ASGI server of one request: calls an application and keeps what it sends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What an application sent."""

    messages: list[Any] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def ended(self) -> bool:
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)


def scope(
    path: str = "/",
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    client: str = "127.0.0.1",
) -> dict[str, Any]:
    """The scope of one HTTP request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": (client, 1234),
        "server": ("127.0.0.1", 80),
    }


async def ask(app: Any, path: str = "/", answer: Answer | None = None, **options: Any) -> Answer:
    """Send one request to ``app``; errors it raises come out."""
    answer = Answer() if answer is None else answer
    received = False

    async def receive() -> Any:
        nonlocal received
        if received:
            await asyncio.Event().wait()
        received = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        answer.messages.append(message)

    await app(scope(path, **options), receive, send)
    return answer
