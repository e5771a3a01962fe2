"""The instances that services.toml lists, as threads of this process: each answers with its own id."""

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Instance(ThreadingHTTPServer):
    """One of them, which can be made slow, and stopped as if its machine were gone."""

    request_queue_size = 64

    def __init__(self, name: str, url: str) -> None:
        parts = urlsplit(url)
        super().__init__((parts.hostname or "", parts.port or 0), _Answers)
        self.name = name
        self.delay = 0.0
        self.connections: list[socket.socket] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Take no more connections, and break those there are."""
        self.shutdown()
        self.server_close()
        for each in self.connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """A caller that left, as the loser of a hedge does, is nothing to tell of."""


class _Answers(BaseHTTPRequestHandler):
    server: Instance
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.connection)

    def do_GET(self) -> None:
        time.sleep(self.server.delay)
        body = self.server.name.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not a word for each request."""
