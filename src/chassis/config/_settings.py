"""A live, typed view of one table of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from chassis.config._build import changed_paths, masked
from chassis.config._errors import ConfigUnavailable
from chassis.config._layers import Merged, Path, dotted
from chassis.config._names import variable
from chassis.config._schema import Node, describe
from chassis.config._sources import parse_path
from chassis.config._subscribers import Subscriber
from chassis.core.contracts import Subscription

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """One generation of a settings object with the origins of its values."""

    value: T
    merged: Merged
    generation: int = 0
    references: frozenset[str] = frozenset()


class Settings(Generic[T]):
    """A settings object that is kept current: read it anew each time it is needed.

    ``settings.current`` is the frozen, validated object; its fields can be read on the handle
    itself too. It is loaded on first use and changes as a whole, so that two values read from one
    ``current`` always belong together. A change that does not validate never gets in.

    Made by :meth:`Configuration.settings`.

    :param load: fills the handle it is given, or raises.
    :param file: the file named where a setting is missing.
    """

    def __init__(
        self,
        load: Callable[[Settings[T]], None],
        type_: type[T],
        *,
        file: str,
        name: str,
        table: Path,
        prefix: str,
        strict: bool,
    ) -> None:
        self._fill = load
        self._file = file
        self._type = type_
        self._name = name
        self._table = table
        self._prefix = prefix
        self._strict = strict
        self._view: View[T] | None = None
        self._judged: Merged | None = None  # of settings that checks look at, before they are in use
        self._pending: ConfigUnavailable | None = None
        self._checks: list[Callable[[T], Any]] = []
        self._subscribers: list[Subscriber] = []

    def __repr__(self) -> str:
        state = "not loaded" if self._view is None else f"generation {self._view.generation}"
        return f"<Settings {self._name} of {self._type.__name__}: {state}>"

    @property
    def current(self) -> T:
        """The settings in use now.

        :raises ConfigError: they cannot be loaded: says every setting at fault.
        :raises ConfigUnavailable: a secret they need cannot be had yet; it is tried again.
        """
        view = self._view
        return (self._load() if view is None else view).value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.current, name)

    @property
    def loaded(self) -> bool:
        """Whether there are settings to be had without waiting."""
        return self._view is not None

    @property
    def generation(self) -> int:
        """How many changes there have been since the first load."""
        return (self._view or self._load()).generation

    def origin(self, path: str | Path) -> str:
        """Where a value came from, e.g. ``environment INVOICES_DB__HOST``, or ``default``.

        :param path: ``"db.host"``, or the parts: ``("labels", "a.b")``.
        """
        where = parse_path(path) if isinstance(path, str) else path
        merged = self._judged
        if merged is None:
            merged = (self._view or self._load()).merged
        return merged.origin(where) or "default"

    def made_of(self, type_: Any, name: str, table: Path, prefix: str, strict: bool) -> bool:
        """Whether it was made with these arguments."""
        mine = (self._type, self._name, self._table, self._prefix, self._strict)
        return mine == (type_, name, table, prefix, strict)

    def check(self, function: Callable[[T], Any]) -> Callable[[T], Any]:
        """Have ``function`` look at all new settings before they get in; usable as a decorator.

        It vetoes them by raising :class:`ConfigError`. It runs on the background thread and must
        not block.
        """
        self._checks.append(function)
        return function

    def subscribe(self, callback: Callable[[T, T, tuple[str, ...]], Any]) -> Subscription:
        """Call ``callback(old, new, changed)`` after each change; ``changed`` are names, sorted.

        It is called in the event loop that is running where it is registered (and may be a
        coroutine function), else in a thread of its own. Changes that come while it runs are told
        as one. What it raises is reported as an event and otherwise ignored.
        """

        def arguments(old: T, new: T) -> tuple[T, T, tuple[str, ...]] | None:
            changed = self._changed(old, new)
            return (old, new, changed) if changed else None

        subscriber = Subscriber(callback, arguments, self._name)
        # Those that were closed are dropped here: a list that only grows would be a leak.
        self._subscribers = [each for each in self._subscribers if not each.closed] + [subscriber]
        return subscriber

    def explain(self) -> str:
        """A table of all settings: name, value, origin and what that origin hides; secrets masked."""
        view = self._view or self._load()
        rows = [("setting", "value", "origin", "hides")]
        for path, node, value in _walk(describe(self._type), view.value, ()):
            hidden = ", ".join(leaf.origin for leaf in view.merged.hidden.get(path, ()))
            origin = view.merged.origin(path) or "default"
            rows.append((dotted((*self._table, *path)), masked(node, path, value), origin, hidden))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def _load(self) -> View[T]:
        pending = self._pending
        if pending is None:
            self._fill(self)
        elif self._view is None:
            # It is being tried in the background; trying here would make every caller wait.
            raise ConfigUnavailable(pending.message, setting=pending.setting, origin=pending.origin)
        return cast(View[T], self._view)

    def _changed(self, old: T, new: T) -> tuple[str, ...]:
        return changed_paths(self._type, old, new)

    def _after_fork(self) -> None:
        self._view = self._pending = None
        # An event loop does not survive a fork, and its wake-up pipe is still the parent's.
        self._subscribers = [each for each in self._subscribers if not each.in_loop]

    def _hint(self, path: Path) -> str:
        where = dotted((*self._table, *path[:-1]))
        table = f" in table [{where}]" if where else ""
        return f"set {path[-1]}{table} of {self._file}, or {variable(self._prefix, path)}"


def _walk(node: Node, value: Any, path: Path) -> Iterator[tuple[Path, Node, Any]]:
    """Every leaf of a settings object."""
    if node.table and isinstance(value, node.type):
        for each in dict.fromkeys(node.fields.values()):
            yield from _walk(each.node, getattr(value, each.attribute), (*path, each.names[0]))
    elif node.kind == "map" and isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _walk(node.item, inner, (*path, str(key)))
    else:
        yield path, node, value
