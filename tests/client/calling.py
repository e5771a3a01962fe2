"""One way to call for both colours and both HTTP modules, so that each requirement is written once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Self

from chassis.breaker import BreakerOptions, CircuitBreaker
from chassis.client import ClientOptions, ServiceUpstreams, async_client, sync_client
from chassis.client._module import HTTPModuleName, http_module
from chassis.core import Discovery, EventBus, Instance, PolicyRegistry
from chassis.discovery import MemoryDiscovery
from chassis.loadbalancing import BalancingOptions
from tests.client.scripted import ScriptedServer


class Caller:
    """Calls the service ``catalog`` as a user would, from an event loop or from threads.

    :param colour: ``async`` or ``sync``.
    :param module: ``httpx2`` or ``httpx``.
    :param upstreams: another caller's, to share.
    """

    def __init__(
        self,
        colour: str,
        module: HTTPModuleName,
        discovery: Discovery,
        options: ClientOptions | None = None,
        breaker: BreakerOptions | None = None,
        *,
        balancing: BalancingOptions | None = None,
        zone: str = "",
        upstreams: ServiceUpstreams | None = None,
    ) -> None:
        self.http = http_module(module)
        self.discovery: Any = discovery
        self.registry = PolicyRegistry()
        self.bus = EventBus()
        self.upstreams = upstreams or ServiceUpstreams(
            lambda: discovery, zone=lambda: zone, registry=self.registry, bus=self.bus
        )
        self.upstream = self.upstreams.upstream("catalog", options, breaker, balancing)
        self.asynchronous = colour == "async"
        if self.asynchronous:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
            self.client: Any = async_client(self.upstreams, "catalog", http=module)
        else:
            self.client = sync_client(self.upstreams, "catalog", http=module)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.asynchronous:
            self.wait(self.client.aclose())
        else:
            self.client.close()
        self.upstreams.close()
        if self.asynchronous:
            self.wait(self.settle())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            self._loop.close()

    @staticmethod
    async def settle() -> None:
        """Let what runs in the loop end: answers nobody waits for any more, pools that close."""
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[arg-type]  # set of tasks
            await asyncio.wait(others, timeout=20)

    def start(self, coroutine: Any) -> Any:
        """A concurrent future of a coroutine in the caller's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def wait(self, coroutine: Any) -> Any:
        return self.start(coroutine).result(30)

    def request(self, method: str, path: str, **options: Any) -> Any:
        result = self.client.request(method, path, **options)
        return self.wait(result) if self.asynchronous else result

    def get(self, path: str = "/", **options: Any) -> Any:
        return self.request("GET", path, **options)

    def post(self, path: str = "/", **options: Any) -> Any:
        return self.request("POST", path, **options)

    def breaker(self, number: int = 0) -> CircuitBreaker:
        """The breaker of one instance."""
        return self.upstream.endpoints.endpoints()[number].state.breaker

    def policy(self, part: str = "") -> Any:
        """The registered policy ``client:catalog``, or a part of it such as ``/budget``."""
        found = self.registry.get(f"client:catalog{part}")
        assert found is not None
        return found

    def in_flight(self) -> int:
        return sum(endpoint.in_flight for endpoint in self.upstream.endpoints.endpoints())


def catalog(*servers: ScriptedServer | int) -> MemoryDiscovery:
    """A registry that holds these servers (or ports) as instances of ``catalog``."""
    discovery = MemoryDiscovery()
    for number, server in enumerate(servers):
        port = server if isinstance(server, int) else server.port
        discovery.put(Instance(id=f"catalog-{number}", service="catalog", host="127.0.0.1", port=port))
    return discovery
