"""An HTTP server that answers as a script says: for what a real agent cannot be made to answer."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is answered; headers by lower-case name."""

    body: bytes | str = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Script: TypeAlias = Callable[[Asked], Answer]


class ScriptedAgent:
    """A server on 127.0.0.1. ``script`` may block, and may be replaced at any time.

    :param port: 0 takes a free one.
    :param tls: makes it an https server.
    :param port: the port; 0 takes a free one.
    :ivar asked: every request so far.
    """

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self._connections: set[socket.socket] = set()
        self._scheme = "http" if tls is None else "https"
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        if tls is not None:
            # The handshake is made by the first read, in the thread of its connection.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for each in list(self._connections):
            # Whoever waits for an answer learns that there will be none, as from a process that ends.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        agent = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                parts = urlsplit(self.path)
                asked = Asked(
                    method=self.command,
                    path=unquote(parts.path),
                    query={key: each[-1] for key, each in parse_qs(parts.query, True).items()},
                    headers={key.lower(): value for key, value in self.headers.items()},
                    body=self.rfile.read(int(self.headers.get("content-length") or 0)),
                )
                agent.asked.append(asked)
                answer = agent.script(asked)
                body = answer.body.encode() if isinstance(answer.body, str) else answer.body
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

            def handle(self) -> None:
                agent._connections.add(self.connection)
                try:
                    super().handle()
                except OSError:
                    pass  # the client has gone, as a watcher that is cancelled does
                finally:
                    agent._connections.discard(self.connection)

        return Handler
