"""A real Consul agent to measure with, and a bare client of it: what Consul itself takes."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks.harness import BenchmarkError
from tests.support.servers import ConsulServer, Unavailable, find_consul


def start_consul() -> ConsulServer:
    """A blank agent in development mode; it runs on the same machine and shares its processors."""
    try:
        # Ours is not the only process that asks it, and 500 polled services come from one address.
        return ConsulServer(find_consul(), config={"limits": {"http_max_conns_per_client": 1_000}}).start()
    except Unavailable as error:
        raise BenchmarkError(f"it needs a Consul agent: {error}") from error


class Bare:
    """The standard library's client on one connection, for one thread."""

    def __init__(self, server: ConsulServer) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[Any, int]:
        """The answer's value and index."""
        self._connection.request(method, path, None if body is None else json.dumps(body))
        response = self._connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise BenchmarkError(f"Consul answered {response.status} to {method} {path}: {text!r}")
        return json.loads(text) if text else None, int(response.headers.get("X-Consul-Index") or 0)

    def close(self) -> None:
        self._connection.close()


def register(bare: Bare, service: str, number: int = 0, *, weight: int = 1) -> None:
    """Register one instance of ``service``, or change its weight."""
    bare.ask(
        "PUT",
        "/v1/agent/service/register",
        {
            "Name": service,
            "ID": f"{service}:{number}",
            "Address": "10.0.0.1",
            "Port": 1024 + number,
            "Weights": {"Passing": weight, "Warning": 1},
        },
    )


class Heard:
    """When a value was last heard of, from whatever thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at: dict[Any, float] = {}

    def hear(self, value: Any) -> None:
        with self._changed:
            self._at.setdefault(value, perf_counter())
            self._changed.notify_all()

    def wait(self, value: Any, timeout: float = 30.0) -> float:
        """The moment ``value`` was heard of first."""
        with self._changed:
            if not self._changed.wait_for(lambda: value in self._at, timeout):
                raise BenchmarkError(f"{value!r} was not heard of within {timeout:g} s")
            return self._at[value]


class BareWatch:
    """A blocking query in a loop and nothing else: the time Consul itself takes to tell of a change."""

    def __init__(self, server: ConsulServer, service: str, heard: Callable[[int], None]) -> None:
        self._bare = Bare(server)
        self._path = f"/v1/health/service/{service}"
        self._heard = heard
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask for nothing more; the query under way is left to itself."""
        self._stopping = True

    def _run(self) -> None:
        index = 0
        while not self._stopping:
            entries, index = self._bare.ask("GET", f"{self._path}?index={index}&wait=30s")
            for each in entries:
                self._heard(each["Service"]["Weights"]["Passing"])
