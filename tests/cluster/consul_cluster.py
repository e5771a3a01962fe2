"""Three Consul servers and a client agent on loopback addresses, each to be killed, wiped and started again."""

from __future__ import annotations

import contextlib
import json
import shutil
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.support.ports import free_port
from tests.support.processes import ManagedProcess
from tests.support.waiting import wait_until

SERVERS = 3


class Member:
    """One agent of the cluster.

    :param address: an address of its own on the loopback network, so that gossip tells them apart.
    """

    def __init__(self, binary: Path, name: str, address: str, folder: Path, *, server: bool) -> None:
        self.name = name
        self.address = address
        self.http, self.serf, self.rpc = free_port(), free_port(), free_port()
        self.join: list[str] = []
        self._binary = binary
        self._data = folder / name
        self._server = server
        self._log = folder / f"{name}.log"
        self.process = ManagedProcess([], name=name, log=self._log)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.http}"

    @property
    def gossip(self) -> str:
        return f"{self.address}:{self.serf}"

    def start(self) -> None:
        self._data.mkdir(exist_ok=True)
        self.process.command = [str(self._binary), "agent", "-hcl", json.dumps(self._config())]
        self.process.start()

    def wipe(self) -> None:
        """Forget everything; the process must have ended."""
        shutil.rmtree(self._data)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=2) as response:
            return json.loads(response.read())

    def put(self, path: str, body: Any = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", content, method="PUT")
        with urllib.request.urlopen(request, timeout=5):
            pass

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "node_name": self.name,
            "data_dir": str(self._data),
            "bind_addr": self.address,
            "client_addr": self.address,
            "retry_join": self.join,
            "retry_interval": "1s",
            "ports": {
                "http": self.http,
                "serf_lan": self.serf,
                "server": self.rpc,
                "serf_wan": -1,
                "dns": -1,
                "grpc": -1,
            },
            "disable_update_check": True,
            "log_level": "WARN",
            # Leaders are elected as quickly as can be; gossip gives up nobody who is busy for some seconds.
            "performance": {"raft_multiplier": 1},
            "gossip_lan": {"probe_interval": "500ms", "probe_timeout": "300ms", "suspicion_mult": 6},
        }
        if self._server:
            config |= {"server": True, "bootstrap_expect": SERVERS}
        return config


class ConsulCluster:
    """Use as a context manager; what it started is ended by its own pids."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.servers = [
            Member(binary, f"server{number}", f"127.0.0.{10 + number}", folder, server=True)
            for number in range(1, SERVERS + 1)
        ]
        self.client = Member(binary, "client", "127.0.0.20", folder, server=False)
        self._members = [*self.servers, self.client]
        for each in self._members:
            # The client is one to join as well, so that servers that come back blank find it.
            each.join = [other.gossip for other in self._members if other is not each]

    def __enter__(self) -> Self:
        try:
            for each in self._members:
                each.start()
            self.wait_for_leader()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for each in self._members:
            with contextlib.suppress(Exception):
                each.process.stop(grace=0.5)

    def leader(self) -> Member | None:
        """The servers' leader, as the client agent is told; None without one."""
        address = self.client.get("/v1/status/leader")
        return next((each for each in self.servers if address == f"{each.address}:{each.rpc}"), None)

    def wait_for_leader(self, *, but: Member | None = None) -> Member:
        """Wait until the client agent knows a leader, other than ``but``, and answers from it."""

        def found() -> Member | None:
            leader = self.leader()
            return leader if leader is not but and self.client.get("/v1/health/service/consul") else None

        leader: Member = wait_until(found, 30, "the servers to elect a leader")
        return leader

    def restart_servers_blank(self) -> None:
        """Kill all servers, and start them again with nothing in their memory; returns at once."""
        for each in self.servers:
            each.process.kill()
        for each in self.servers:
            each.wipe()
            each.start()


def definition(name: str, service: str, *, ttl: str = "") -> Mapping[str, Any]:
    """A service as an agent is told of it."""
    check = {"CheckID": f"service:{name}", "TTL": ttl, "Status": "passing"} if ttl else None
    return {"Name": service, "ID": name, "Address": "10.0.0.1", "Port": 80, "Check": check}
