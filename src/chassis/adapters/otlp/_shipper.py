"""The queue between telemetry and its receiver, and the thread that empties it."""

from __future__ import annotations

import math
import threading
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from chassis.adapters.otlp._events import RecordsDropped, ShippingFailed, ShippingRecovered
from chassis.adapters.otlp._outcome import Delivered, Exporter, Refused
from chassis.adapters.otlp._retry import Backoff
from chassis.core.clock import monotonic
from chassis.core.events import EventBus, events
from chassis.core.forks import tell_after_fork

RecordT = TypeVar("RecordT")

TELL = 30.0
"""Seconds between two events about records dropped for the same reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of everything: ``accepted == delivered + pending + sum(dropped.values())``.

    :param refused: offered after the shipper was closed, or by its own thread; not in ``accepted``.
    :param dropped: by reason: ``queue_full``, ``encode_error``, ``rejected`` (a partial success),
        ``http_400`` and its like, ``error_...`` (a mistake of ours), ``shutdown`` (not taken in time).
    """

    accepted: int
    delivered: int
    pending: int
    refused: int
    dropped: dict[str, int] = field(default_factory=dict)


class Shipper(Generic[RecordT]):
    """A sink with a bounded queue and a thread that delivers it in batches, in order.

    Nothing is given up but for a reason that is counted. A receiver that does not answer, or asks
    to be left alone for a while, is tried again, with backoff, for as long as the process lives;
    meanwhile the queue grows to its bound, and then the oldest record makes way for the newest. No
    caller ever waits: a burst may be as long as the queue. After a fork the child begins with an
    empty queue and a thread of its own; what the parent had accepted, the parent ships.

    :param name: in events and the thread's name: ``traces``, ``logs``.
    :param bound: records that wait at most.
    :param batch: records in one request.
    :param linger: seconds after which an incomplete batch is sent.
    :param bus: told when the receiver fails and recovers, and of records lost.
    """

    def __init__(
        self,
        name: str,
        exporter: Exporter[RecordT],
        *,
        bound: int = 16_384,
        batch: int = 512,
        linger: float = 1.0,
        backoff: Backoff | None = None,
        bus: EventBus = events,
    ) -> None:
        self.name = name
        self._exporter = exporter
        self._bound = bound
        self._batch = batch
        self._linger = linger
        self._backoff = backoff or Backoff()
        self._bus = bus
        self._closed = False
        self._reset()
        tell_after_fork(self)

    def _reset(self) -> None:
        # Re-entrant, and held for a few lines only: a signal handler or finaliser that logs while
        # this thread is in `accept` must not wait for itself.
        self._lock = threading.RLock()
        # A bare lock as a bell: ringing it is one atomic step, which an Event's `set` is not.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._changed = threading.Condition()
        self._queue: deque[RecordT] = deque()
        self._accepted = self._delivered = self._refused = 0
        self._dropped: dict[str, int] = {}
        self._told: dict[str, tuple[float, int]] = {}
        self._failing = False
        self._hurry = 0
        self._deadline: float | None = None
        self._abandoned = False
        self._thread: threading.Thread | None = None
        self._thread_id = 0

    def after_fork_in_child(self) -> None:
        """The queue, the thread and the connections are the parent's."""
        self._reset()
        self._exporter.forget()

    # For callers

    def accept(self, record: RecordT) -> bool:
        """Take ``record``; False after :meth:`close`, and for what the shipping itself says."""
        with self._lock:
            if self._closed or threading.get_ident() == self._thread_id:
                self._refused += 1
                return False
            self._accepted += 1
            self._queue.append(record)
            waiting = len(self._queue)
            if waiting > self._bound:
                self._queue.popleft()
                self._drop("queue_full", 1)
        if self._thread is None:
            self._start()
        if waiting >= self._batch:
            self._ring()
        return True

    @property
    def counts(self) -> Counts:
        """What became of everything so far."""
        with self._lock:
            dropped = dict(self._dropped)
            pending = self._accepted - self._delivered - sum(dropped.values())
            return Counts(
                accepted=self._accepted,
                delivered=self._delivered,
                pending=pending,
                refused=self._refused,
                dropped=dropped,
            )

    def describe(self) -> dict[str, Any]:
        """The receiver and the counts, as plain values."""
        return {"receiver": self._exporter.receiver, **asdict(self.counts)}

    def flush(self, timeout: float) -> bool:
        """Wait, for at most ``timeout`` seconds, until what was accepted so far is settled.

        :returns: whether all of it was delivered. False at once in the shipping thread itself.
        """
        if threading.get_ident() == self._thread_id:
            return False
        before = self.counts
        if not before.pending:
            return True
        self._start()
        deadline = monotonic() + timeout
        with self._changed:
            self._hurry += 1
            self._changed.notify_all()
        self._ring()
        while (left := deadline - monotonic()) > 0:
            now = self.counts
            if now.accepted - now.pending >= before.accepted:
                return now.dropped == before.dropped
            with self._changed:
                # Not for ever: the oldest being dropped rings no bell.
                self._changed.wait(min(left, 0.05))
        return False

    def close(self, timeout: float) -> bool:
        """Take nothing more, deliver what is there within ``timeout`` seconds, count the rest as dropped.

        :returns: whether everything accepted was delivered.
        """
        with self._lock:
            first, self._closed = not self._closed, True
        if first and threading.get_ident() != self._thread_id:
            if self.counts.pending:
                self._start()
            with self._changed:
                self._deadline = monotonic() + timeout
                self._hurry += 1
                self._changed.notify_all()
            self._ring()
            if self._thread is not None:
                # A moment more than it was given, so that it can count what it could not deliver.
                self._thread.join(timeout + 0.2)
            with self._lock:
                # A request under way is beyond recall: whatever comes of it, it is not counted.
                self._abandoned = True
                self._queue.clear()
                if left := self.counts.pending:
                    self._drop("shutdown", left)
            self._tell_dropped(0.0)
        counts = self.counts
        return counts.delivered == counts.accepted

    # For the thread

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            # Known before it runs: a signal handler that logs meanwhile must not start a second one.
            self._thread = threading.Thread(target=self._run, name=f"chassis-ship-{self.name}", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None  # the interpreter is shutting down; `close` counts what waits

    def _ring(self) -> None:
        with suppress(RuntimeError):  # it rings already
            self._bell.release()

    def _run(self) -> None:
        self._thread_id = threading.get_ident()
        try:
            while True:
                self._bell.acquire(timeout=self._linger)
                closing = self._closed
                while batch := self._take():
                    self._deliver(batch)
                    self._tell_dropped(TELL)
                # Read before the queue was emptied: nothing was accepted after that.
                if closing:
                    return
        finally:
            self._exporter.close()

    def _take(self) -> list[RecordT]:
        with self._lock:
            return [self._queue.popleft() for _ in range(min(len(self._queue), self._batch))]

    def _deliver(self, batch: list[RecordT]) -> None:
        """Send one batch until it is settled."""
        left = len(batch)
        try:
            payload = self._exporter.prepare(batch)
            self._settle(dropped=left - payload.count, reason="encode_error")
            left = payload.count
            self._backoff.reset()
            while left:
                hurry = self._hurry
                limit = self._time_left()
                if limit <= 0:
                    self._settle(dropped=left, reason="shutdown")
                    return
                answer = self._exporter.send(payload, limit)
                if isinstance(answer, Delivered):
                    self._recovered()
                    rejected = min(answer.rejected, left)
                    self._settle(delivered=left - rejected, dropped=rejected, reason="rejected")
                    return
                self._failed(answer.reason)
                if isinstance(answer, Refused):
                    self._settle(dropped=left, reason=answer.reason)
                    return
                self._tell_dropped(TELL)
                self._pause(answer.after, hurry)
        except Exception as error:  # noqa: BLE001 - the thread must live on; what it lost is counted
            self._settle(dropped=left, reason=f"error_{type(error).__name__}")

    def _pause(self, after: float | None, hurry: int) -> None:
        """Wait for the backoff, or as long as the receiver asked for.

        A flush or close that came since ``hurry`` was read cuts the backoff short, not what the
        receiver asked for; both end with the time that :meth:`close` was given.
        """
        end = monotonic() + (self._backoff.next() if after is None else after)
        with self._changed:
            while (left := min(end - monotonic(), self._time_left())) > 0:
                if after is None and self._hurry != hurry:
                    self._backoff.reset()
                    return
                self._changed.wait(left)

    def _time_left(self) -> float:
        return math.inf if self._deadline is None else self._deadline - monotonic()

    def _settle(self, *, delivered: int = 0, dropped: int, reason: str) -> None:
        with self._lock:
            if self._abandoned:
                return
            self._delivered += delivered
            if dropped:
                self._drop(reason, dropped)
        with self._changed:
            self._changed.notify_all()

    def _drop(self, reason: str, count: int) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + count

    # What is told of it

    def _failed(self, reason: str) -> None:
        if not self._failing:
            self._failing = True
            self._bus.emit(ShippingFailed(subject=self.name, receiver=self._exporter.receiver, reason=reason))

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            self._bus.emit(ShippingRecovered(subject=self.name, receiver=self._exporter.receiver))

    def _tell_dropped(self, interval: float) -> None:
        now = monotonic()
        for reason, count in self.counts.dropped.items():
            at, told = self._told.get(reason, (-math.inf, 0))
            if count > told and now - at >= interval:
                self._told[reason] = (now, count)
                self._bus.emit(
                    RecordsDropped(
                        subject=self.name, receiver=self._exporter.receiver, reason=reason, count=count
                    )
                )
