"""Layers of settings and their merger: pure, and each leaf keeps its origin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from chassis.config._errors import raise_all
from chassis.core.errors import ConfigError

V = TypeVar("V")

Path: TypeAlias = tuple[str, ...]
"""Where a setting stands: ``("policies", "breaker:payments", "failure_rate")``."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dotted(path: Path) -> str:
    """``path`` as TOML writes it: ``policies."breaker:payments".failure_rate``."""
    return ".".join(key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False) for key in path)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value with its origin.

    :param origin: as a person would find it: ``environment CHASSIS_TIMEOUT``.
    :param remote: whether it came from another machine, which may not name files of this one.
    """

    value: Any = field(repr=False)
    origin: str
    remote: bool = False


Layer: TypeAlias = Mapping[Path, Leaf]
"""One source's leaves. A table is no leaf, unless it is empty; a list is one."""


def leaves(
    values: Mapping[str, Any], origin: str, *, remote: bool = False, path: Path = ()
) -> dict[Path, Leaf]:
    """The leaves of nested tables, each with the origin ``<origin> [<table>]``."""
    found: dict[Path, Leaf] = {}
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, Mapping) and value:
            found |= leaves(value, origin, remote=remote, path=here)
        else:
            table = f" [{dotted(path)}]" if path else ""
            found[here] = Leaf(value, origin + table, remote)
    return found


@dataclass(frozen=True, slots=True)
class Merged:
    """The leaves that win, and beneath each those it hides.

    :param leaves: by path.
    :param hidden: by path, the strongest of the hidden ones first.
    """

    leaves: Mapping[Path, Leaf]
    hidden: Mapping[Path, tuple[Leaf, ...]] = field(default_factory=dict)

    def tree(self) -> dict[str, Any]:
        """The values as nested tables."""
        tree: dict[str, Any] = {}
        for path, leaf in self.leaves.items():
            table = tree
            for key in path[:-1]:
                table = table.setdefault(key, {})
            if path:
                table[path[-1]] = leaf.value
        return tree

    def leaf(self, path: Path) -> Leaf | None:
        """The leaf at ``path``, or the one it lies within (an item of a list)."""
        for length in range(len(path), 0, -1):
            leaf = self.leaves.get(path[:length])
            if leaf is not None:
                return leaf
        return None

    def origin(self, path: Path) -> str | None:
        """Where the value at ``path`` came from; for a table, where its parts came from."""
        leaf = self.leaf(path)
        if leaf is not None:
            return leaf.origin
        return ", ".join(dict.fromkeys(self._origins_below(path))) or None

    def replace(self, values: Mapping[Path, Any]) -> Merged:
        """The same with other values at these paths."""
        changed = {
            path: Leaf(value, self.leaves[path].origin, self.leaves[path].remote)
            for path, value in values.items()
        }
        return Merged({**self.leaves, **changed}, self.hidden)

    def _origins_below(self, path: Path) -> Iterator[str]:
        for each, leaf in self.leaves.items():
            if each[: len(path)] == path:
                yield leaf.origin


def merge(layers: Sequence[Layer]) -> Merged:
    """Put ``layers`` over one another, the weakest first.

    Tables merge key by key; anything else, lists too, is replaced whole. An empty table adds
    nothing to one that is not.

    :raises ConfigError: one layer has a table where another has a value; names both origins.
    """
    stacks: dict[Path, list[Leaf]] = {}
    for layer in layers:
        for path, leaf in layer.items():
            stacks.setdefault(path, []).append(leaf)
    tables = {path[:length] for path in stacks for length in range(1, len(path))}
    clashes: list[ConfigError] = []
    for path in sorted(tables & stacks.keys()):
        stack = stacks.pop(path)
        values = [leaf for leaf in stack if not _is_empty_table(leaf.value)]
        if values:
            inner = next(each[-1] for below, each in stacks.items() if below[: len(path)] == path)
            clashes.append(
                ConfigError(
                    f"is a value here and a table in {inner.origin}",
                    setting=dotted(path),
                    origin=values[-1].origin,
                    remedy="write it the same way in both",
                )
            )
    raise_all(clashes)
    return Merged(
        {path: stack[-1] for path, stack in stacks.items()},
        {path: tuple(reversed(stack[:-1])) for path, stack in stacks.items() if len(stack) > 1},
    )


def below(layer: Layer, table: Path) -> dict[Path, Leaf]:
    """The part of ``layer`` inside ``table``, its paths counted from there.

    :raises ConfigError: there is a value in place of the table.
    """
    size = len(table)
    for path, leaf in layer.items():
        if path == table[: len(path)] and not _is_empty_table(leaf.value):
            raise ConfigError(
                "is a value, but must be a table",
                setting=dotted(path),
                origin=leaf.origin,
                remedy=f"write a table [{dotted(path)}]",
            )
    return {path[size:]: leaf for path, leaf in layer.items() if path[:size] == table and len(path) > size}


def without(layer: Layer, tables: Iterable[str]) -> dict[Path, Leaf]:
    """``layer`` without these top-level keys."""
    left_out = frozenset(tables)
    return {path: leaf for path, leaf in layer.items() if path[0] not in left_out}


def fold(name: str) -> str:
    """What of a name counts when it is compared: letter case does not, and ``_`` is ``-``."""
    return name.lower().replace("-", "_")


def match(names: Iterable[str], name: str) -> str | None:
    """The one of ``names`` that means ``name``: itself, or the one that folds alike."""
    folded = None
    for each in names:
        if each == name:
            return each
        if folded is None and fold(each) == fold(name):
            folded = each
    return folded


def lookup(table: Mapping[str, V], name: str) -> V | None:
    """The entry of ``table`` that is meant by ``name``, where case and ``_`` for ``-`` do not count."""
    key = match(table, name)
    return None if key is None else table[key]


def _is_empty_table(value: Any) -> bool:
    return isinstance(value, Mapping) and not value
