from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from chassis.core.errors import ConfigError
from chassis.core.forks import tell_after_fork
from chassis.core.instances import Instance, Reason, Snapshot, Source
from chassis.discovery._addresses import parse_urls
from chassis.discovery._topic import Listening, Topic, describe


class StaticDiscovery:
    """Services at addresses that are known beforehand.

    Names are matched as written first, then without regard to case and with ``_`` for ``-``, so
    that an environment variable can name any service: ``ORDER_HISTORY`` is ``order-history``.

    :param services: per service its addresses, as :func:`parse_urls` takes them.
    :param origin: where they were written, for errors.
    :raises ConfigError: an address cannot be parsed, or two names are one.
    """

    def __init__(self, services: Mapping[str, str | Iterable[str]], *, origin: str | None = None) -> None:
        self._instances = {
            service: parse_urls(service, urls, origin=origin) for service, urls in services.items()
        }
        self._names: dict[str, str] = {}
        for service in services:
            other = self._names.setdefault(_folded(service), service)
            if other != service:
                raise ConfigError(
                    f"{other!r} and {service!r} name one service",
                    setting="services",
                    origin=origin,
                    remedy="write them as one",
                )
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
        instances = self._instances.get(service) or self._instances.get(
            self._names.get(_folded(service), service), ()
        )
        # The instances bear the name that was asked for, whatever its spelling here.
        instances = tuple(_renamed(each, service) for each in instances)
        return Snapshot(
            service=service,
            instances=instances,
            source=Source.STATIC,
            reason=None if instances else Reason.NOT_REGISTERED,
        )

    def _left(self, topic: Topic) -> None:
        with self._lock:
            if not topic.listened_to:
                self._topics.pop(topic.service, None)


def _folded(service: str) -> str:
    return service.lower().replace("_", "-")


def _renamed(instance: Instance, service: str) -> Instance:
    return Instance(
        id=instance.id, service=service, host=instance.host, port=instance.port, scheme=instance.scheme
    )
