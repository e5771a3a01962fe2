from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._discovery_options import ConsulDiscoveryOptions
from chassis.adapters.consul._service_watch import ServiceWatch
from chassis.core.instances import Snapshot
from chassis.discovery import Listening, Topic, Watches


class ConsulDiscovery:
    """Services as Consul knows them: a ``Discovery``.

    A service is watched while somebody listens to it, and a while longer, in the background; a change
    is told within milliseconds. However many of these there are in a process, an agent is asked each
    question once. While Consul does not answer, or answers what cannot be believed, what was known
    last is kept (see :class:`~chassis.discovery.LastKnownGood`).

    :param api: says which agent, and with which token. The watches have connections of their own.
    :param services: options of single services, in place of ``options``. Names are matched as written
        first, then without regard to case and with ``_`` for ``-``.
    """

    def __init__(
        self,
        api: ConsulAPI,
        options: ConsulDiscoveryOptions | None = None,
        *,
        services: Mapping[str, ConsulDiscoveryOptions] | None = None,
    ) -> None:
        self._agent = api.options
        self.options = options or ConsulDiscoveryOptions()
        self._services = {_folded(name): each for name, each in (services or {}).items()} | dict(
            services or {}
        )
        self._watched: dict[str, ServiceWatch] = {}
        self._watches = Watches(
            self._watch, name="consul", idle=lambda service: self.options_for(service).idle
        )

    def __repr__(self) -> str:
        return f"ConsulDiscovery({self._agent.url!r})"

    def options_for(self, service: str) -> ConsulDiscoveryOptions:
        """How ``service`` is watched."""
        return self._services.get(service) or self._services.get(_folded(service), self.options)

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Listening:
        """Tell ``listener`` of the service: what is known at once, then each change."""
        return self._watches.subscribe(service, listener)

    def describe(self) -> Mapping[str, Any]:
        """Per watched service: source, age in seconds, instances, the reason when empty.

        And of the watch: its mode (``blocking``, ``cached`` or ``polled``), its index, what is wrong with
        entries that cannot be used, the last error, the number of errors by kind, whether an empty answer is
        held back, and the same of each further datacenter.
        """
        described = dict(self._watches.describe())
        for service, watch in list(self._watched.items()):
            if service in described:
                described[service] = {**described[service], **watch.describe()}
        return described

    async def aclose(self) -> None:
        """End what is watched though nobody listens any more, and write what is kept on disk.

        On the background loop. It may be used afterwards as before.
        """
        await asyncio.gather(*(each.flush() for each in list(self._watched.values())))
        watched = dict(self._watched)
        ending = [watched[service] for service in self._watches.rest() if service in watched]
        # Else they could still tell of an agent that ends together with this process.
        while any(each in self._watched.values() for each in ending):  # noqa: ASYNC110 - a turn or two
            await asyncio.sleep(0)

    async def _watch(self, topic: Topic) -> None:
        watch = ServiceWatch(self._agent, self.options_for(topic.service), topic)
        self._watched[topic.service] = watch
        try:
            await watch.run()
        finally:
            watch.close()
            if self._watched.get(topic.service) is watch:
                del self._watched[topic.service]


def _folded(service: str) -> str:
    return service.lower().replace("_", "-")
