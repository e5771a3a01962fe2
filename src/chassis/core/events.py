"""What happened, as data, and who is told.

Components emit frozen events on what is rare and never log, count or trace themselves; ``service``
joins the bus to logs, metrics and traces, so that one event becomes a log line, a counter and a
span event under one name.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeAlias

from chassis.core.clock import monotonic
from chassis.core.forks import tell_after_fork

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. Subclasses are frozen keyword-only dataclasses of plain values.

    They carry type names and messages of errors, never exception objects, which would keep
    frames and request bodies alive.

    :param subject: what it happened to: a policy's registered name, a service, a setting.
    :param at: seconds on the monotonic clock.
    """

    name: ClassVar[str] = "event"
    """The event's name in logs, counters and traces, e.g. ``breaker.opened``."""
    level: ClassVar[Level] = "info"
    transition: ClassVar[bool] = True
    """False for refusals and the like, which are too many to be kept for a later listener."""

    subject: str
    at: float = field(default_factory=monotonic)

    def details(self) -> dict[str, Any]:
        """The fields beyond ``subject`` and ``at``, by name."""
        own = {each.name for each in fields(Event)}
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in own}


Listener: TypeAlias = Callable[[Event], None]
"""Runs in the context and thread of whoever emitted; must not block and must not raise."""


class EventBus:
    """Tells listeners of events, in the order they subscribed.

    Transitions that come before the first listener are kept (``keep`` of them, the newest) and
    replayed to it. A listener that raises is counted in ``listener_errors`` and otherwise ignored:
    a broken observer must never break the call it observes.
    """

    def __init__(self, *, keep: int = 1_000) -> None:
        # Re-entrant: a collection that starts inside may end a forgotten call, which tells of it here.
        self._lock = threading.RLock()
        self._subscriptions: dict[object, Listener] = {}
        self._listeners: tuple[Listener, ...] = ()
        self._kept: deque[Event] = deque(maxlen=keep)
        self.listening = False
        """Whether anybody listens: refusal events need not be built otherwise."""
        self.listener_errors = 0
        tell_after_fork(self)

    def emit(self, event: Event) -> None:
        """Tell all listeners, or keep the event if there are none and it is a transition."""
        listeners = self._listeners
        if not listeners:
            if not event.transition:
                return
            with self._lock:
                listeners = self._listeners
                if not listeners:
                    self._kept.append(event)
                    return
        for listener in listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - any listener error is the listener's own
                self.listener_errors += 1

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Tell ``listener`` of every event from now on, and of the kept ones first.

        :returns: a function that ends the subscription; calling it again does nothing.
        """
        subscription = object()  # its own, as one listener may subscribe more than once
        with self._lock:
            # First, so that what is emitted from here on is told and not kept.
            self._subscriptions[subscription] = listener
            self._follow()
            kept = tuple(self._kept)
            self._kept.clear()
        for event in kept:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - as above
                self.listener_errors += 1

        def unsubscribe() -> None:
            with self._lock:
                self._subscriptions.pop(subscription, None)
                self._follow()

        return unsubscribe

    def _follow(self) -> None:
        self._listeners = tuple(self._subscriptions.values())
        self.listening = bool(self._listeners)

    def after_fork_in_child(self) -> None:
        """Another thread may have held the lock."""
        self._lock = threading.RLock()


events = EventBus()
"""The process-wide bus."""
