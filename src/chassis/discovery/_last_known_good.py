from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from chassis.core.events import Event
from chassis.core.instances import Freshness, Instance, Reason, Snapshot, Source, Status
from chassis.discovery._events import (
    DiscoveryExpired,
    DiscoveryRecovered,
    DiscoveryStale,
    EmptyAnswerAccepted,
    EmptyAnswerHeld,
    InstancesChanged,
    InstancesHeld,
    SnapshotRestored,
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
    for ``empty_grace`` seconds, or once more after the callers doubted what they were told
    (:meth:`doubted`).

    Such a server hears of its instances again one by one. So what it does not name yet is kept beside
    what it names, for as long as an empty answer would not be believed: one early instance does not
    get the calls of all, nor does an early one that is ill leave the callers with none.

    :param known: what an earlier watch of the service left behind.
    :param empty_grace: seconds after which an answer without what was known is believed in any case.
    :param quiet_time: seconds without trouble after which times are quiet.
    :param expire_after: seconds of staleness after which the snapshot is EXPIRED, which keeps its
        instances; None for never.
    :param subject: what its events call it; "" for the service's name.
    """

    def __init__(
        self,
        service: str,
        *,
        source: Source = Source.LIVE,
        known: Snapshot | None = None,
        empty_grace: float = 120.0,
        quiet_time: float = 60.0,
        expire_after: float | None = None,
        subject: str = "",
    ) -> None:
        self._service = service
        self._subject = subject or service
        self._source = source
        self._empty_grace = empty_grace
        self._quiet_time = quiet_time
        self._expire_after = expire_after
        self._snapshot = known
        self._answered = known is not None and bool(known.instances)
        self._stale_since: float | None = None
        if known is not None and known.freshness is not Freshness.FRESH:
            self._stale_since = known.fetched_at
        self._empty_since: float | None = None
        self._blank_since: float | None = None
        self._missing: tuple[Instance, ...] = ()
        self._doubted = False
        self._trouble_at: float | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        """How things stand; None before anything is known."""
        return self._snapshot

    @property
    def holding(self) -> bool:
        """Whether more is believed than was answered: the source is to be asked more often."""
        return self._empty_since is not None or bool(self._missing)

    @property
    def expires_at(self) -> float | None:
        """When :meth:`elapsed` has something to do; None for never."""
        snapshot = self._snapshot
        if self._expire_after is None or self._stale_since is None or snapshot is None:
            return None
        if snapshot.freshness is Freshness.EXPIRED or not snapshot.instances:
            return None
        return self._stale_since + self._expire_after

    def answered(
        self, instances: Iterable[Instance], *, now: float, woke: bool, empty: Reason = Reason.NOT_REGISTERED
    ) -> Step:
        """The source answered.

        :param woke: whether the answer is an ordinary change, told by the source on its own.
        :param empty: why there are no instances, if there are none.
        """
        found = _ordered(instances)
        before = self._snapshot
        if not found and before is not None and before.instances and not self._believes_empty(now, woke):
            return self._hold(before, now)
        if before is not None and (missing := self._not_named_yet(found, before, now)):
            return self._keep(missing, found, before, now)
        fit = count_fit(found)
        reason = None if fit else Reason.NO_PASSING if found else empty
        snapshot = Snapshot(
            service=self._service, instances=found, source=self._source, fetched_at=now, reason=reason
        )
        happened: list[Event] = []
        if self._stale_since is not None:
            happened.append(
                DiscoveryRecovered(
                    subject=self._subject,
                    at=now,
                    source=self._source.value,
                    stale_for=now - self._stale_since,
                )
            )
        if not found and self._empty_since is not None:
            happened.append(
                EmptyAnswerAccepted(
                    subject=self._subject,
                    at=now,
                    source=self._source.value,
                    held_for=now - self._empty_since,
                )
            )
        happened += self._changes(found, before, now)
        self._answered = True
        self._stale_since = self._empty_since = self._blank_since = None
        self._missing = ()
        self._doubted = False
        self._snapshot = snapshot
        changed = before is None or replace(before, fetched_at=now) != snapshot
        return Step(snapshot=snapshot, changed=changed, events=tuple(happened))

    def failed(self, error: str, *, now: float, reason: Reason = Reason.REGISTRY_DOWN) -> Step:
        """The source did not answer, or not in a way that can be used.

        :param error: what happened, for whoever reads the event.
        :param reason: why no instance may be called, if none was ever known.
        """
        self._troubled(now)
        before = self._snapshot
        if before is None:
            before = Snapshot(service=self._service, source=self._source, fetched_at=now, reason=reason)
        elif not self._answered:
            before = replace(before, reason=reason)
        return self._stale(before, error, now)

    def restored(self, instances: Iterable[Instance], *, fetched_at: float, now: float) -> Step:
        """Begin with what an earlier process wrote down, while the source does not answer.

        It is good for nothing once anything better is known.

        :param fetched_at: monotonic seconds of the answer it came from; may be below zero.
        """
        found = _ordered(instances)
        before = self._snapshot
        if not found or self._answered:
            before = before or Snapshot(service=self._service, fetched_at=now, reason=Reason.NOT_ASKED_YET)
            return Step(snapshot=before, changed=False)
        reason = None if count_fit(found) else Reason.NO_PASSING
        snapshot = Snapshot(
            service=self._service,
            instances=found,
            source=Source.DISK,
            freshness=Freshness.STALE,
            fetched_at=fetched_at,
            reason=reason,
        )
        self._answered = True
        self._snapshot = snapshot
        restored = SnapshotRestored(
            subject=self._subject, at=now, instances=len(found), age=max(0.0, now - fetched_at)
        )
        return Step(snapshot=snapshot, changed=True, events=(restored,))

    def doubted(self) -> None:
        """The callers could not connect to a single instance they were told of.

        So an answer that is held back, in whole or in part, is believed when it comes once more.
        """
        self._doubted = self.holding

    def elapsed(self, *, now: float) -> Step | None:
        """Time has passed: what was stale for too long expires. None if nothing did."""
        expires_at, before, since = self.expires_at, self._snapshot, self._stale_since
        if expires_at is None or before is None or since is None or now < expires_at:
            return None
        self._snapshot = snapshot = replace(before, freshness=Freshness.EXPIRED)
        expired = DiscoveryExpired(
            subject=self._subject,
            at=now,
            source=before.source.value,
            instances=len(before.instances),
            stale_for=now - since,
        )
        return Step(snapshot=snapshot, changed=True, events=(expired,))

    def disturbed(self, *, now: float) -> None:
        """The source answers, but has lost its past: for a while its word counts for less."""
        self._troubled(now)
        self._blank(now)

    def _troubled(self, now: float) -> None:
        self._trouble_at = now
        # What it said while empty was said by another, so to speak: the grace begins anew.
        self._empty_since = None
        self._doubted = False

    def _believes_empty(self, now: float, woke: bool) -> bool:
        if self._empty_since is not None:
            return self._doubted or now - self._empty_since >= self._empty_grace
        quiet = self._trouble_at is None or now - self._trouble_at >= self._quiet_time
        return woke and quiet

    def _hold(self, before: Snapshot, now: float) -> Step:
        if self._empty_since is not None:
            return Step(snapshot=before, changed=False)
        self._empty_since = now
        self._blank(now)
        held = EmptyAnswerHeld(
            subject=self._subject,
            at=now,
            source=self._source.value,
            instances=len(before.instances),
            grace=self._empty_grace,
        )
        step = self._stale(before, "the answer is empty", now)
        return replace(step, events=(*step.events, held))

    def _blank(self, now: float) -> None:
        if not self._missing:
            # Else its time runs already, and a source that is never at rest does not prolong it.
            self._blank_since = now

    def _not_named_yet(
        self, found: tuple[Instance, ...], before: Snapshot, now: float
    ) -> tuple[Instance, ...]:
        """What was known before the source lost its past, and is not in its answer."""
        if not found or self._doubted or self._blank_since is None:
            return ()
        if now - self._blank_since >= self._empty_grace:
            return ()
        # By id: what is back at another address is not missing.
        named = {each.id for each in found}
        return tuple(each for each in before.instances if each.id not in named)

    def _keep(
        self, missing: tuple[Instance, ...], found: tuple[Instance, ...], before: Snapshot, now: float
    ) -> Step:
        begun, self._missing = not self._missing, missing
        self._empty_since = None
        together = _ordered((*found, *missing))
        reason = None if count_fit(together) else Reason.NO_PASSING
        snapshot = replace(before, instances=together, source=self._source, reason=reason)
        step = self._stale(snapshot, "the answer lacks instances", now)
        happened = [*step.events, *self._changes(together, before, now)]
        if begun:
            happened.append(
                InstancesHeld(
                    subject=self._subject,
                    at=now,
                    source=self._source.value,
                    instances=len(missing),
                    grace=self._empty_grace,
                )
            )
        return replace(step, events=tuple(happened))

    def _changes(
        self, found: tuple[Instance, ...], before: Snapshot | None, now: float
    ) -> list[InstancesChanged]:
        known = before.instances if before is not None else ()
        if found == known:
            return []
        return [
            InstancesChanged(
                subject=self._subject,
                at=now,
                source=self._source.value,
                instances=len(found),
                fit=count_fit(found),
                before=len(known),
            )
        ]

    def _stale(self, before: Snapshot, error: str, now: float) -> Step:
        expired = before.freshness is Freshness.EXPIRED
        snapshot = before if expired else replace(before, freshness=Freshness.STALE)
        changed = snapshot != self._snapshot
        self._snapshot = snapshot
        if self._stale_since is not None:
            return Step(snapshot=snapshot, changed=changed)
        self._stale_since = now
        stale = DiscoveryStale(
            subject=self._subject,
            at=now,
            source=self._source.value,
            instances=len(snapshot.instances),
            error=error,
        )
        return Step(snapshot=snapshot, changed=changed, events=(stale,))


def count_fit(instances: Iterable[Instance]) -> int:
    """How many of them may be called as far as their registry knows."""
    return sum(each.status in (Status.PASSING, Status.WARNING) for each in instances)


def _ordered(instances: Iterable[Instance]) -> tuple[Instance, ...]:
    return tuple(sorted(instances, key=lambda each: each.key))
