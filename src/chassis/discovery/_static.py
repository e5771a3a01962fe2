from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from chassis.core.forks import tell_after_fork
from chassis.core.instances import Reason, Snapshot, Source
from chassis.discovery._last_known_good import count_fit
from chassis.discovery._located import Located
from chassis.discovery._topic import Listening, Topic, describe


class StaticDiscovery:
    """Services at addresses that are known beforehand.

    Names are matched as written first, then without regard to case and with ``_`` for ``-``, so
    that an environment variable can name any service: ``ORDER_HISTORY`` is ``order-history``.

    :param services: per service its instances: addresses separated by commas, or a list of addresses
        and of tables with ``url`` and any of ``id``, ``zone``, ``datacenter``, ``priority``, ``tags``,
        ``meta``, ``weight``, ``status``.
    :param origin: where they were written, for errors.
    :raises ConfigError: an instance cannot be used, or two names are one.
    """

    def __init__(
        self,
        services: Mapping[str, str | Iterable[str | Mapping[str, Any]]],
        *,
        origin: str | None = None,
    ) -> None:
        self._located = Located(services, origin=origin)
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        tell_after_fork(self)

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Listening:
        """Tell ``listener`` of the service's addresses, at once and never again."""
        with self._lock:
            topic = self._topics.get(service)
            if topic is None:
                topic = self._topics[service] = Topic(service, left=self._left)
                topic.publish(self._snapshot(service))
            listening = topic.join(listener)
        listening.deliver()
        return listening

    def describe(self) -> Mapping[str, Any]:
        """Per service that is listened to: its addresses."""
        with self._lock:
            return {service: describe(topic.snapshot) for service, topic in self._topics.items()}

    def after_fork_in_child(self) -> None:
        """Make the lock anew: see :mod:`chassis.core.forks`."""
        self._lock = threading.Lock()

    def _snapshot(self, service: str) -> Snapshot:
        instances = self._located.of(service)
        reason = Reason.NO_PASSING if instances else Reason.NOT_REGISTERED
        return Snapshot(
            service=service,
            instances=instances,
            source=Source.STATIC,
            reason=None if count_fit(instances) else reason,
        )

    def _left(self, topic: Topic) -> None:
        with self._lock:
            # Another topic may have taken the place of one that two listeners leave at once.
            if self._topics.get(topic.service) is topic and not topic.listened_to:
                del self._topics[topic.service]
