from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from chassis.core import Event, EventBus, events

EventT = TypeVar("EventT", bound=Event)


class RecordedEvents(Sequence[Event]):
    """The events that a bus told while they were recorded, in their order.

    A field of an event is asked for by keyword: ``recorded.one(BreakerOpened, subject="breaker:payments")``.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []

    def __repr__(self) -> str:
        return f"RecordedEvents({self._events!r})"

    def __len__(self) -> int:
        return len(self._events)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        return self._events[index]

    @property
    def names(self) -> list[str]:
        """The names of all events, e.g. ``["retry.scheduled", "breaker.opened"]``."""
        return [each.name for each in self._events]

    def record(self, event: Event) -> None:
        """Remember ``event``: this is the listener."""
        self._events.append(event)

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._events.clear()

    def of(self, kind: type[EventT], **fields: Any) -> list[EventT]:
        """The events of this class whose fields have these values."""
        return [each for each in self._events if isinstance(each, kind) and _has(each, fields)]

    def one(self, kind: type[EventT], **fields: Any) -> EventT:
        """The only such event.

        :raises AssertionError: there is none, or more than one.
        """
        found = self.of(kind, **fields)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} events are {_asked(kind, fields)}, not 1; {self._told()}")
        return found[0]

    def assert_none(self, kind: type[Event], **fields: Any) -> None:
        """See that there is no such event.

        :raises AssertionError: there is one.
        """
        if found := self.of(kind, **fields):
            raise AssertionError(f"{len(found)} events are {_asked(kind, fields)}, not 0: {found!r}")

    def assert_order(self, *names: str) -> None:
        """See that events of these names came in this order, whatever came between.

        :raises AssertionError: one of them did not come after the one before it.
        """
        rest = iter(self.names)
        for number, name in enumerate(names):
            if name not in rest:
                after = f" after {names[number - 1]!r}" if number else ""
                raise AssertionError(f"no {name!r} came{after}; {self._told()}")

    def _told(self) -> str:
        return f"recorded: {', '.join(self.names) or 'nothing'}"


@contextmanager
def capture_events(bus: EventBus = events) -> Iterator[RecordedEvents]:
    """Record what ``bus`` tells while the block runs.

    A bus keeps transitions for its first listener; those from before the block are not recorded.

    :param bus: default: the bus of the process.
    """
    recorded = RecordedEvents()
    unsubscribe = bus.subscribe(recorded.record)
    recorded.clear()
    try:
        yield recorded
    finally:
        unsubscribe()


def _has(event: Event, fields: dict[str, Any]) -> bool:
    return all(getattr(event, name) == value for name, value in fields.items())


def _asked(kind: type[Event], fields: dict[str, Any]) -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    return f"{kind.__name__}({given})"
