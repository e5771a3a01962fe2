"""Real Consul and OpenBao servers on free loopback ports.

``python -m tests.support.servers`` prints which programs the integration tests would run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.binaries import Unavailable, find_bao, find_consul
from tests.support.ports import free_port
from tests.support.processes import ManagedProcess, ProcessFailed
from tests.support.waiting import wait_until

_START_ATTEMPTS = 3


def _get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=2) as response:
        return json.loads(response.read())


def _version(binary: Path) -> str:
    text = subprocess.run([binary, "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v(\d+\.\d+\.\d+)", text)
    if found is None:
        raise Unavailable(f"{binary} version printed no version: {text!r}")
    return found.group(1)


class _Server:
    """What both servers share: one process, started until its ports were free."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary
        self._process: ManagedProcess | None = None

    @cached_property
    def version(self) -> str:
        """What the program says of itself, e.g. ``1.8.7``."""
        return _version(self.binary)

    @property
    def process(self) -> ManagedProcess:
        """The process, for its output and its state."""
        if self._process is None:
            raise RuntimeError("the server has not been started")
        return self._process

    def stop(self) -> None:
        """SIGTERM, and wait for its end. All its state is gone: it lives in memory."""
        self.process.terminate()

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        self.process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.process.resume()

    def close(self) -> None:
        """End it in whatever state it is and remove its log."""
        if self._process is not None:
            self._process.__exit__()

    def _launch(self, command: Callable[[], list[str]], ready: Callable[[], Any]) -> None:
        for attempt in range(1, _START_ATTEMPTS + 1):
            self.close()
            self._process = ManagedProcess(command(), name=self.binary.name).start()
            try:
                wait_until(lambda: not self.process.running or ready(), 60, f"{self.binary.name} to be ready")
            except AssertionError as error:
                failure = self.process.failure(f"was not ready: {error}")
                self.close()
                raise failure from None
            if self.process.running:
                return
            if attempt == _START_ATTEMPTS or "address already in use" not in self.process.output:
                raise self.process.failure(f"ended with status {self.process.returncode} at its start")


class ConsulServer(_Server):
    """A Consul agent in development mode: server and client in one, blank at each start.

    :param config: further settings, as in a Consul configuration file.
    """

    def __init__(self, binary: Path, *, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(binary)
        self._config = dict(config or {})
        self.port = 0

    @property
    def url(self) -> str:
        """Where its HTTP API listens; the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> ConsulServer:
        """Start it, or start it again (blank) on the same HTTP port; returns when it is ready."""
        restart = self.port != 0
        self._launch(lambda: self._command(keep_port=restart), self._ready)
        return self

    def _command(self, *, keep_port: bool) -> list[str]:
        if not keep_port:
            self.port = free_port()
        config = {
            "ports": {
                "http": self.port,
                "dns": -1,
                "grpc": -1,
                "server": free_port(),
                "serf_lan": free_port(),
                "serf_wan": free_port(),
            },
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "disable_update_check": True,
            **self._config,
        }
        if tuple(map(int, self.version.split("."))) >= (1, 14, 0):
            config["ports"]["grpc_tls"] = -1  # a port of its own since 1.14, unknown before
        return [str(self.binary), "agent", "-dev", "-hcl", json.dumps(config)]

    def _ready(self) -> bool:
        # Elected, and the node itself registered: later indexes move by the tests' own doing alone.
        leader = _get_json(f"{self.url}/v1/status/leader")
        return bool(leader and _get_json(f"{self.url}/v1/health/service/consul?passing"))


class BaoServer(_Server):
    """An OpenBao server in development mode: unsealed, in memory, KV version 2 at ``secret/``."""

    def __init__(self, binary: Path, *, token: str = "test-root-token") -> None:
        super().__init__(binary)
        self.token = token
        self.port = 0

    @property
    def url(self) -> str:
        """Where its HTTP API listens; the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> BaoServer:
        """Start it, or start it again (blank) on the same port; returns when it is ready."""
        restart = self.port != 0
        self._launch(lambda: self._command(keep_port=restart), self._ready)
        return self

    def _command(self, *, keep_port: bool) -> list[str]:
        if not keep_port:
            self.port = free_port()
        options = [f"-dev-listen-address=127.0.0.1:{self.port}", f"-dev-root-token-id={self.token}"]
        return [str(self.binary), "server", "-dev", "-dev-no-store-token", *options]

    def _ready(self) -> bool:
        health = _get_json(f"{self.url}/v1/sys/health")
        return bool(health["initialized"] and not health["sealed"])


def main() -> int:
    """Print each program's path and version, or why there is none; 1 if one is missing."""
    missing = 0
    for name, find in (("consul", find_consul), ("bao", find_bao)):
        try:
            binary = find()
            print(f"{name}: {_version(binary)} at {binary}")
        except Unavailable as error:
            missing = 1
            print(f"{name}: {error}")
    return missing


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["BaoServer", "ConsulServer", "ProcessFailed", "Unavailable", "find_bao", "find_consul"]
