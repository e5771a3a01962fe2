from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from chassis.adapters.consul._discovery_options import ConsulDiscoveryOptions
from chassis.adapters.consul._errors import (
    ConsulAnswerError,
    ConsulError,
    ConsulForbidden,
    ConsulUnavailable,
    ConsulUnreachable,
)
from chassis.adapters.consul._hub import Entries, Following, ServiceQuery, Told, hub
from chassis.adapters.consul._instances import parse_instances
from chassis.adapters.consul._options import ConsulOptions
from chassis.adapters.consul._protocol import ConsulAnswer
from chassis.core.events import events
from chassis.core.instances import Freshness, Instance, Reason, Snapshot, Source
from chassis.discovery import (
    EntriesSkipped,
    LastKnownGood,
    SnapshotFile,
    SnapshotKeeper,
    Step,
    Wake,
    count_fit,
)

_ATTENTIVE = 1.0
"""Seconds between two looks at a service whose empty answer is not believed yet."""
_SHOWN = 5
"""How many entries that cannot be used are shown."""
_KINDS: dict[type[ConsulError], str] = {
    ConsulUnreachable: "unreachable",
    ConsulUnavailable: "unavailable",
    ConsulForbidden: "forbidden",
    ConsulAnswerError: "decode_error",
}


class DatacenterWatch:
    """One service in one datacenter: what is asked there, what is believed, what is kept on disk.

    :param datacenter: "" for the agent's own.
    :param priority: what its instances bear.
    :param heard: told of every step.
    """

    def __init__(
        self,
        agent: ConsulOptions,
        options: ConsulDiscoveryOptions,
        *,
        service: str,
        datacenter: str,
        priority: int,
        heard: Callable[[DatacenterWatch, Step], None],
    ) -> None:
        self.datacenter = datacenter
        self.keeper: SnapshotKeeper | None = None
        self._agent = agent
        self._options = options
        self._service = service
        self._priority = priority
        self._heard = heard
        self._subject = f"{service}@{datacenter}" if datacenter else service
        self._query = ServiceQuery(
            service=service,
            datacenter=datacenter,
            filter=options.filter,
            stale=options.stale,
            max_stale=options.max_stale,
        )
        self._following: Following | None = None
        self._kept: tuple[tuple[Instance, ...], float] | None = None
        self._errors: Counter[str] = Counter()
        self._error = ""
        self._skipped: tuple[str, ...] = ()
        self.machine = self._machine(None)
        if options.snapshot_dir:
            question = {
                "agent": agent.url,
                "datacenter": datacenter or agent.datacenter,
                "filter": options.filter,
                "tags": sorted(options.tags),
                "meta": dict(options.meta),
            }
            self.keeper = SnapshotKeeper(SnapshotFile(options.snapshot_dir, service, question))

    @property
    def followed(self) -> bool:
        """Whether it is being watched."""
        return self._following is not None

    def begin(self, known: Snapshot | None) -> None:
        """Begin with its part of what an earlier watch knew of all datacenters."""
        instances = () if known is None else known.instances
        own = tuple(each for each in instances if each.priority == self._priority)
        if known is not None and own:
            reason = None if count_fit(own) else Reason.NO_PASSING
            self.machine = self._machine(replace(known, instances=own, reason=reason))

    async def read(self) -> None:
        """Read what is kept on disk."""
        if self.keeper is not None:
            self._kept = await self.keeper.read()

    def follow(self) -> None:
        """Begin to watch; nothing if that has begun."""
        if self._following is None:
            self._following = hub.follow(
                self._agent,
                self._query,
                self._told,
                wait=self._options.wait,
                limit=self._options.max_watches,
            )
            self._attend()

    def leave(self) -> None:
        """Watch no more. What is known will do to begin with, the next time."""
        if self._following is not None:
            self._following.close()
            self._following = None
            known = self.machine.snapshot
            if known is not None and known.instances:
                self.machine = self._machine(replace(known, freshness=Freshness.STALE))

    def restore(self, now: float) -> None:
        """Use what was kept on disk, if anything was."""
        if self._kept is not None:
            (instances, fetched_at), self._kept = self._kept, None
            ranked = [replace(each, priority=self._priority) for each in instances]
            self._heard(self, self.machine.restored(ranked, fetched_at=fetched_at, now=now))

    def elapse(self, now: float) -> None:
        """Let time pass. What nobody watches is old by intention, and does not expire."""
        step = self.machine.elapsed(now=now) if self.followed else None
        if step is not None:
            self._heard(self, step)

    def describe(self) -> dict[str, Any]:
        """How it is asked, and what went wrong."""
        following = self._following
        return {
            "mode": None if following is None else following.mode,
            "index": None if following is None else following.index,
            "empty_answer_held": self.machine.holding,
            "skipped": list(self._skipped[:_SHOWN]),
            "error": self._error or None,
            "errors": dict(self._errors),
        }

    def _machine(self, known: Snapshot | None) -> LastKnownGood:
        return LastKnownGood(
            self._service,
            known=known,
            empty_grace=self._options.empty_grace,
            expire_after=self._options.expire_after,
            subject=self._subject,
        )

    def _attend(self) -> None:
        if self._following is not None:
            wait = self._options.wait
            self._following.wait = min(wait, _ATTENTIVE) if self.machine.holding else wait

    def _told(self, told: Told) -> None:
        each = told.observation
        if each.answer is None:
            error = each.error or ConsulError("there was no answer")
            self._failed(_kind(error), error, each.at)
            return
        if each.wake is Wake.WENT_BACK:
            self.machine.disturbed(now=each.at)
        if told.empty is Reason.ACL_FILTERED:
            hidden = "the token sees no instance; give it service:read and node:read"
            self._failed("acl_filtered", ConsulForbidden(hidden), each.at)
            return
        self._answered(told, each.answer)

    def _answered(self, told: Told, answer: ConsulAnswer[Entries]) -> None:
        options, now = self._options, told.observation.at
        parsed = parse_instances(answer.value, priority=self._priority)
        before, self._skipped = len(self._skipped), parsed.skipped
        if len(parsed.skipped) != before and parsed.skipped:
            self._errors["decode_error"] += 1
            events.emit(
                EntriesSkipped(
                    subject=self._subject,
                    source=Source.LIVE.value,
                    skipped=len(parsed.skipped),
                    example=parsed.skipped[0],
                )
            )
        if parsed.skipped and not parsed.instances:
            unusable = f"none of its {len(parsed.skipped)} entries can be used, e.g. {parsed.skipped[0]}"
            self._failed("decode_error", ConsulAnswerError(unusable), now)
            return
        tags, meta = set(options.tags), options.meta.items()
        matching = [each for each in parsed.instances if tags <= set(each.tags) and meta <= each.meta.items()]
        empty = Reason.FILTERED if parsed.instances else told.empty or Reason.NOT_REGISTERED
        woke = told.observation.wake is Wake.CHANGED
        step = self.machine.answered(matching, now=now, woke=woke, empty=empty)
        self._error = ""
        self._kept = None
        self._attend()
        if self.keeper is not None and step.snapshot.freshness is Freshness.FRESH:
            self.keeper.keep(step.snapshot.instances)
        self._heard(self, step)

    def _failed(self, kind: str, error: ConsulError, now: float) -> None:
        self._errors[kind] += 1
        self._error = str(error)
        if self.machine.snapshot is None:
            self.restore(now)
        reason = Reason.ACL_FILTERED if isinstance(error, ConsulForbidden) else Reason.REGISTRY_DOWN
        step = self.machine.failed(str(error), now=now, reason=reason)
        self._attend()
        self._heard(self, step)


def _kind(error: ConsulError) -> str:
    return next((kind for each, kind in _KINDS.items() if isinstance(error, each)), "refused")
