"""A server that answers bytes as they are written, at its own pace: for what is no proper HTTP."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Self


class RawAgent:
    """A server on 127.0.0.1 that reads a request's head and answers ``pieces``, one after the other.

    :param pieces: the bytes of an answer.
    :param pause: seconds between two pieces; the last one is repeated for ever if it is not zero.
    :ivar open: how many connections are open.
    :ivar sent: how many bytes it could send.
    """

    def __init__(self, *pieces: bytes, pause: float = 0.0) -> None:
        self._pieces = pieces
        self._pause = pause
        self._ended = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.open = self.sent = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self.open += 1
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for piece in self._answer():
                connection.sendall(piece)
                self.sent += len(piece)
        self.open -= 1

    def _answer(self) -> Iterator[bytes]:
        yield from self._pieces
        while self._pause and not self._ended.wait(self._pause):
            yield self._pieces[-1]
