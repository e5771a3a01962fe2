from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._errors import ConsulForbidden
from chassis.adapters.consul._instances import parse_instances
from chassis.adapters.consul._protocol import ConsulAnswer
from chassis.adapters.consul._watch import observe
from chassis.core.clock import monotonic
from chassis.core.events import events
from chassis.core.instances import Reason, Snapshot, Source
from chassis.core.options import Seconds, check_seconds
from chassis.discovery import EntriesSkipped, LastKnownGood, Listening, Step, Topic, Wake, Watches


@dataclass(frozen=True, kw_only=True)
class ConsulDiscoveryOptions:
    """How services are watched.

    :param wait: seconds a blocking query waits for a change.
    :param empty_grace: seconds for which an empty answer after a full one must be repeated, unless it
        comes as an ordinary change; the agents of a server that came back blank need up to 90 s.
    :param tags: only instances that bear all of them.
    :param stale: let any Consul server answer, not the leader alone.
    :param max_stale: seconds a server may have been without its leader for its answer to be used.
    :raises ConfigError: a value cannot be used.
    """

    wait: Seconds = 30.0
    empty_grace: Seconds = 120.0
    tags: tuple[str, ...] = ()
    stale: bool = False
    max_stale: Seconds = 30.0

    def __post_init__(self) -> None:
        check_seconds("wait", self.wait)
        check_seconds("empty_grace", self.empty_grace, zero=True)
        check_seconds("max_stale", self.max_stale)


class ConsulDiscovery:
    """Services as Consul knows them: a ``Discovery``.

    One blocking query per service that is listened to, in the background; a change is told within
    milliseconds. While Consul does not answer, or answers what cannot be believed, what was known
    last is kept (see :class:`~chassis.discovery.LastKnownGood`).

    :param api: the agent; the watchers use its connections.
    """

    def __init__(self, api: ConsulAPI, options: ConsulDiscoveryOptions | None = None) -> None:
        self._api = api
        self.options = options or ConsulDiscoveryOptions()
        self._watches = Watches(self._watch, name="consul")

    def __repr__(self) -> str:
        return f"ConsulDiscovery({self._api.options.url!r})"

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Listening:
        """Tell ``listener`` of the service: what is known at once, then each change."""
        return self._watches.subscribe(service, listener)

    def describe(self) -> Mapping[str, Any]:
        """Per watched service: source, age in seconds, instances, the reason when empty."""
        return self._watches.describe()

    async def _watch(self, topic: Topic) -> None:
        options, service = self.options, topic.service
        machine = LastKnownGood(service, known=topic.snapshot, empty_grace=options.empty_grace)
        wanted, skipped = set(options.tags), 0

        def query(index: int | None) -> Awaitable[ConsulAnswer[list[Any]]]:
            wait = options.wait
            if machine.recheck_at is not None:
                wait = min(wait, max(1.0, machine.recheck_at - monotonic()))
            return self._api.health(service, index=index, wait=wait, stale=options.stale)

        async with aclosing(observe(query, max_stale=options.max_stale)) as observations:
            async for each in observations:
                now = monotonic()
                if each.answer is None:
                    topic.take(_failed(machine, each.error, now))
                    continue
                if each.wake is Wake.WENT_BACK:
                    machine.disturbed(now=now)
                if not each.answer.value and each.answer.acl_filtered:
                    error = "the token sees no instance; give it service:read and node:read"
                    topic.take(machine.failed(error, now=now, reason=Reason.ACL_FILTERED))
                    continue
                parsed = parse_instances(each.answer.value)
                if len(parsed.skipped) != skipped:
                    skipped = len(parsed.skipped)
                    if skipped:
                        events.emit(
                            EntriesSkipped(
                                subject=service,
                                source=Source.LIVE.value,
                                skipped=skipped,
                                example=parsed.skipped[0],
                            )
                        )
                if parsed.skipped and not parsed.instances:
                    error = f"none of its {skipped} entries can be used, e.g. {parsed.skipped[0]}"
                    topic.take(machine.failed(error, now=now))
                    continue
                matching = [instance for instance in parsed.instances if wanted <= set(instance.tags)]
                empty = Reason.FILTERED if parsed.instances else Reason.NOT_REGISTERED
                topic.take(machine.answered(matching, now=now, woke=each.wake is Wake.CHANGED, empty=empty))


def _failed(machine: LastKnownGood, error: Exception | None, now: float) -> Step:
    reason = Reason.ACL_FILTERED if isinstance(error, ConsulForbidden) else Reason.REGISTRY_DOWN
    return machine.failed(str(error), now=now, reason=reason)
