from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from chassis.core.events import Event
from chassis.core.instances import Freshness, Instance, Reason, Snapshot, Source, Status
from chassis.discovery._events import (
    DiscoveryRecovered,
    DiscoveryStale,
    EmptyAnswerAccepted,
    EmptyAnswerHeld,
    InstancesChanged,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What follows from an answer or a failure.

    :param snapshot: how things stand now.
    :param changed: whether listeners are to be told of it.
    """

    snapshot: Snapshot
    changed: bool
    events: tuple[Event, ...] = ()


class LastKnownGood:
    """What to believe of one service, from what its source answers and fails to answer.

    Nothing known is ever given up because the source is silent: the snapshot turns STALE and
    keeps its instances. An *empty* answer after a full one is the same kind of silence where
    the source is in trouble: a Consul server that came back blank answers 200 with no instances
    until the agents have registered them again, which takes up to 90 s. So it is believed at once
    only if it came as an ordinary change in quiet times, and otherwise when it has been repeated
    for ``empty_grace`` seconds.

    :param known: what an earlier watch of the service left behind.
    :param empty_grace: seconds after which an empty answer is believed in any case.
    :param quiet_time: seconds without trouble after which times are quiet.
    """

    def __init__(
        self,
        service: str,
        *,
        source: Source = Source.LIVE,
        known: Snapshot | None = None,
        empty_grace: float = 120.0,
        quiet_time: float = 60.0,
    ) -> None:
        self._service = service
        self._source = source
        self._empty_grace = empty_grace
        self._quiet_time = quiet_time
        self._snapshot = known
        self._answered = known is not None and bool(known.instances)
        self._stale_since: float | None = None
        if known is not None and known.freshness is Freshness.STALE:
            self._stale_since = known.fetched_at
        self._empty_since: float | None = None
        self._trouble_at: float | None = None

    @property
    def recheck_at(self) -> float | None:
        """When an empty answer that is held back is to be asked for again; None without one."""
        return None if self._empty_since is None else self._empty_since + self._empty_grace

    def answered(
        self, instances: Iterable[Instance], *, now: float, woke: bool, empty: Reason = Reason.NOT_REGISTERED
    ) -> Step:
        """The source answered.

        :param woke: whether the answer is an ordinary change, told by the source on its own.
        :param empty: why there are no instances, if there are none.
        """
        found = tuple(sorted(instances, key=lambda each: each.key))
        before = self._snapshot
        if not found and before is not None and before.instances and not self._believes_empty(now, woke):
            return self._hold(before, now)
        fit = sum(each.status in (Status.PASSING, Status.WARNING) for each in found)
        reason = None if fit else Reason.NO_PASSING if found else empty
        snapshot = Snapshot(
            service=self._service, instances=found, source=self._source, fetched_at=now, reason=reason
        )
        happened: list[Event] = []
        if self._stale_since is not None:
            happened.append(
                DiscoveryRecovered(
                    subject=self._service,
                    at=now,
                    source=self._source.value,
                    stale_for=now - self._stale_since,
                )
            )
        if not found and self._empty_since is not None:
            happened.append(
                EmptyAnswerAccepted(
                    subject=self._service,
                    at=now,
                    source=self._source.value,
                    held_for=now - self._empty_since,
                )
            )
        known = before.instances if before is not None else ()
        if found != known:
            happened.append(
                InstancesChanged(
                    subject=self._service,
                    at=now,
                    source=self._source.value,
                    instances=len(found),
                    fit=fit,
                    before=len(known),
                )
            )
        self._answered = True
        self._stale_since = self._empty_since = None
        self._snapshot = snapshot
        changed = before is None or replace(before, fetched_at=now) != snapshot
        return Step(snapshot=snapshot, changed=changed, events=tuple(happened))

    def failed(self, error: str, *, now: float, reason: Reason = Reason.REGISTRY_DOWN) -> Step:
        """The source did not answer, or not in a way that can be used.

        :param error: what happened, for whoever reads the event.
        :param reason: why no instance may be called, if none was ever known.
        """
        self.disturbed(now=now)
        before = self._snapshot
        if before is None:
            before = Snapshot(service=self._service, source=self._source, fetched_at=now, reason=reason)
        elif not self._answered:
            before = replace(before, reason=reason)
        return self._stale(before, error, now)

    def disturbed(self, *, now: float) -> None:
        """The source answers, but has lost its past: for a while its word counts for less."""
        self._trouble_at = now
        # What it said while empty was said by another, so to speak: the grace begins anew.
        self._empty_since = None

    def _believes_empty(self, now: float, woke: bool) -> bool:
        if self._empty_since is not None:
            return now - self._empty_since >= self._empty_grace
        quiet = self._trouble_at is None or now - self._trouble_at >= self._quiet_time
        return woke and quiet

    def _hold(self, before: Snapshot, now: float) -> Step:
        if self._empty_since is not None:
            return Step(snapshot=before, changed=False)
        self._empty_since = now
        held = EmptyAnswerHeld(
            subject=self._service,
            at=now,
            source=self._source.value,
            instances=len(before.instances),
            grace=self._empty_grace,
        )
        step = self._stale(before, "the answer is empty", now)
        return replace(step, events=(*step.events, held))

    def _stale(self, before: Snapshot, error: str, now: float) -> Step:
        snapshot = replace(before, freshness=Freshness.STALE)
        changed = snapshot != self._snapshot
        self._snapshot = snapshot
        if self._stale_since is not None:
            return Step(snapshot=snapshot, changed=changed)
        self._stale_since = now
        stale = DiscoveryStale(
            subject=self._service,
            at=now,
            source=self._source.value,
            instances=len(snapshot.instances),
            error=error,
        )
        return Step(snapshot=snapshot, changed=changed, events=(stale,))
