"""The shop as processes: what is started, in which order, and what the servers tell of themselves."""

import json
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import consul
import httpx2

from examples.shop.processes import Process, Processes

INSTANCES = {
    "payments": 1,
    "recommendations": 1,
    "identity": 1,
    "catalog": 3,
    "orders": 1,
    "gateway": 2,
}
"""How many of each; in the order in which they are restarted: those that are asked before those that ask."""

CATALOG_SETTINGS = "config/catalog/data"
GATEWAY = Path(__file__).with_name("gateway.toml")


class Registry:
    """The registry and its key-value store, asked through py-consul: what chassis did is checked by another."""

    def __init__(self, address: str) -> None:
        self.address = address.removeprefix("http://")
        host, _, port = self.address.rpartition(":")
        self._consul = consul.Consul(host, int(port))

    def has_leader(self) -> bool:
        """Whether it can be written to."""
        return bool(self._consul.status.leader())

    def addresses(self, service: str) -> set[str]:
        """Where the instances of a service are that the registry has as passing."""
        _, found = self._consul.health.service(service, passing=True)
        return {f"http://{each['Service']['Address']}:{each['Service']['Port']}" for each in found}

    def write(self, key: str, text: str) -> None:
        """Write a document."""
        self._consul.kv.put(key, text)

    def read(self, key: str) -> str | None:
        """A document, or None."""
        _, found = self._consul.kv.get(key)
        return found["Value"].decode() if found else None

    def delete(self, key: str) -> None:
        """Remove a document."""
        self._consul.kv.delete(key)

    def forget(self, services: Iterable[str]) -> None:
        """Remove what is left of killed instances."""
        for each in self._consul.agent.services().values():
            if each["Service"] in services:
                self._consul.agent.service.deregister(each["ID"])


class Shop:
    """The services' processes.

    :param collector: the receiver's address.
    :param folder: where the services keep what they must not lose.
    :param settings: further environment by service.
    """

    def __init__(
        self,
        processes: Processes,
        registry: Registry,
        collector: str,
        folder: Path,
        settings: dict[str, dict[str, str]],
    ) -> None:
        self._processes = processes
        self.registry = registry
        self._settings = settings
        self.running: dict[str, list[Process]] = {service: [] for service in INSTANCES}
        self.stopped: list[Process] = []
        keys = folder / "keys"
        keys.mkdir(exist_ok=True)
        self._environment = {
            "CONSUL_HTTP_ADDR": registry.address,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
            "ORDERS_JOURNAL": str(folder / "orders.db"),
            "IDENTITY_KEYS": str(keys),
        }
        self._http = httpx2.Client(timeout=2.0)

    def start(self, service: str) -> Process:
        """Start an instance; returns at once."""
        settings = self._settings.get(service, {})
        target = ["run", f"examples.shop.switches:{service}"]
        if service == "gateway" and "SHOP_WITHOUT_DRAIN" not in settings:
            target = ["gateway", str(GATEWAY)]
        name = self._processes.name_for(service)
        return self._processes.start(
            name,
            "chassis.cli",
            *target,
            "--port",
            "0",
            env={
                **self._environment,
                "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={name}",
                **settings,
            },
        )

    def registered(self, process: Process) -> bool:
        """Whether an instance is ready and the registry has it as passing; if so, it belongs to the shop."""
        service = process.name.rpartition("-")[0]
        if not process.is_ready() or process.address not in self.registry.addresses(service):
            return False
        if process not in self.running[service]:
            self.running[service].append(process)
        return True

    def stop(self, process: Process) -> None:
        """Tell an instance to stop; returns at once."""
        self.running[process.name.rpartition("-")[0]].remove(process)
        self.stopped.append(process)
        process.signal(signal.SIGTERM)

    def kill(self, process: Process) -> None:
        """End an instance as a crash would."""
        self.running[process.name.rpartition("-")[0]].remove(process)
        process.kill()

    # What the servers tell

    def switch(self, service: str, mode: str) -> None:
        """Turn the switch of every instance of a service."""
        for process in self.running[service]:
            self._http.post(f"{process.address}/switch", params={"mode": mode}).raise_for_status()

    def arrived(self, service: str) -> int:
        """How many requests have reached a service while its switch was turned."""
        found = [self._http.get(f"{each.address}/switch").json() for each in self.running[service]]
        return sum(each["arrived"] for each in found)

    def post(self, service: str, path: str) -> None:
        """Post to one instance of a service, past the gateway."""
        self._http.post(f"{self.running[service][0].address}{path}").raise_for_status()

    def health(self, process: Process) -> dict[str, Any]:
        """What an instance tells of itself."""
        return json.loads(self._http.get(f"{process.address}/health").content)

    def callees(self, process: Process) -> dict[str, dict[str, str]]:
        """The instances an instance knows of, by service, each with the state of its breaker.

        Instances that are out of rotation are left out: nobody asks them, whatever their breaker says.
        """
        policies = self.health(process)["policies"]
        found: dict[str, dict[str, str]] = {}
        for key, policy in policies.items():
            service = key.removeprefix("client:")
            if service in INSTANCES:
                breakers = policies[f"{key}/breaker"]["instances"]
                found[service] = {
                    name: breakers[name]["state"]
                    for name, instance in policy["instances"].items()
                    if instance["status"] == "passing" and name in breakers
                }
        return found

    def breakers(self, service: str, guarded: str) -> set[str]:
        """The states of the breakers by which the instances of ``service`` guard another."""
        return {state for each in self.running[service] for state in self.callees(each)[guarded].values()}
