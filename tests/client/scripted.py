"""A small HTTP server that behaves as it is told, byte by byte where need be."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self, TypeAlias

Behaviour: TypeAlias = Callable[[socket.socket, "Received"], bool]
"""Answers one request; True keeps the connection."""


@dataclass
class Received:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def pause(connection: socket.socket, seconds: float) -> None:
    """Do nothing for so long, or until the connection is closed: a silent server holds up no test's end."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.poll(seconds * 1000)


def answer(
    status: int = 200, body: bytes = b"ok", headers: dict[str, str] | None = None, delay: float = 0.0
) -> Behaviour:
    """A whole answer, its headers ``delay`` seconds late."""

    def behave(connection: socket.socket, request: Received) -> bool:
        pause(connection, delay)
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return True

    return behave


def hang_up(connection: socket.socket, request: Received) -> bool:
    """Close after the request was read, without a byte of an answer."""
    return False


def cut_body(connection: socket.socket, request: Received) -> bool:
    """Good headers, half a body."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    return False


def slow_body(delay: float) -> Behaviour:
    """Good headers at once, the second half of the body ``delay`` seconds later."""

    def behave(connection: socket.socket, request: Received) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        pause(connection, delay)
        connection.sendall(b"half")
        return True

    return behave


@dataclass
class ScriptedServer:
    """Serves on 127.0.0.1; ``behaviour`` holds for every request, ``script`` goes first."""

    behaviour: Behaviour = field(default_factory=answer)
    script: list[Behaviour] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: set[socket.socket] = set()
        self._closed = False
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut all connections, as a killed process does."""
        self._closed = True
        # shutdown wakes the accepting thread, which close alone does not.
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            stream = connection.makefile("rb")
            try:
                while (request := self._read(stream)) is not None:
                    self.received.append(request)
                    behave = self.script.pop(0) if self.script else self.behaviour
                    if not behave(connection, request):
                        break
            except OSError:
                pass
            finally:
                stream.close()
                self._connections.discard(connection)

    @staticmethod
    def _read(stream: object) -> Received | None:
        line = stream.readline()  # type: ignore[attr-defined]  # a binary reader
        words = line.decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            return None  # the end, or no HTTP: the beginning of TLS, say
        method, target, _ = words
        headers: dict[str, str] = {}
        while line := stream.readline().decode("latin-1").strip():  # type: ignore[attr-defined]  # as above
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = b""
        if "content-length" in headers:
            body = stream.read(int(headers["content-length"]))  # type: ignore[attr-defined]  # as above
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(stream.readline() or b"0", 16):  # type: ignore[attr-defined]  # as above
                body += stream.read(size)  # type: ignore[attr-defined]  # as above
                stream.readline()  # type: ignore[attr-defined]  # as above
            stream.readline()  # type: ignore[attr-defined]  # as above
        return Received(method, target, headers, body)
