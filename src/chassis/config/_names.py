"""Names in sources, matched to the names of a settings type: pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chassis.config._layers import Layer, Leaf, Path, dotted, fold, leaves, match
from chassis.config._schema import Node
from chassis.core.errors import ConfigError

_DEPTH = 5
"""How deep the names offered as suggestions go; a type may contain itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A name under our prefix that no setting bears."""

    name: str
    suggestion: str | None

    def error(self) -> ConfigError:
        """It as an error."""
        remedy = f"did you mean {self.suggestion}?" if self.suggestion else "remove it"
        return ConfigError("no such setting", setting=self.name, origin="environment", remedy=remedy)


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The one of ``names`` most likely meant by ``name``, or None."""
    squeezed = fold(name).replace("_", "")
    for each in names:
        if fold(each).replace("_", "") == squeezed:
            return each
    close = difflib.get_close_matches(name.lower(), [each.lower() for each in names], n=1)
    return next((each for each in names if [each.lower()] == close), None)


def variable(prefix: str, path: Path) -> str:
    """The environment variable that sets ``path``."""
    return prefix.upper() + "__".join(key.upper().replace("-", "_") for key in path)


def variables(node: Node, path: Path = ()) -> Iterator[str]:
    """The environment variables, without prefix, of all named settings of a type."""
    for key, field in node.fields.items():
        yield variable("", (*path, key))
        if len(path) + 1 < _DEPTH:
            yield from variables(field.node, (*path, key))


def listed(text: str) -> Any:
    """The list that a text stands for: a JSON array, or items with commas between.

    A text that begins as an array and is none stays a text, for whoever validates it to refuse.
    """
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return [each.strip() for each in text.split(",") if each.strip()]


def normalised(layer: Layer, node: Node, errors: list[ConfigError]) -> dict[Path, Leaf]:
    """``layer`` with each setting under its first name, and tables and lists written as text spelt out.

    A text in place of a table is JSON if it begins with ``{``, else the table's shorthand.

    :param errors: takes what cannot be read: a setting given under two names, a text that is no table.
    """
    found: dict[Path, Leaf] = {}
    for path, leaf in layer.items():
        first, inner = _first_names(path, node)
        try:
            spelt = _spelt_out(first, leaf, inner, errors)
        except ConfigError as error:
            errors.append(error)
            continue
        for each, value in spelt.items():
            other = found.get(each)
            if other is not None:
                errors.append(
                    ConfigError(
                        f"is given twice: here and in {other.origin}",
                        setting=dotted(each),
                        origin=value.origin,
                        remedy="remove one of them",
                    )
                )
            found[each] = value
    return found


def from_variables(
    named: Mapping[str, str],
    node: Node,
    prefix: str,
    errors: list[ConfigError],
    *,
    weaker: Sequence[Layer] = (),
    known: frozenset[str] = frozenset(),
) -> tuple[dict[Path, Leaf], list[Unknown]]:
    """The layer that environment variables make, and those under ``prefix`` that set nothing.

    ``__`` goes one table deeper. Letter case does not count; in a map, a part means the key already
    there that equals it but for case and ``_`` for ``-``. A variable that ends in ``_FILE`` names
    the file that holds a secret. An empty variable counts as unset.

    :param errors: takes what cannot be read: two variables that set one setting, a text that is no table.
    :param weaker: the layers beneath, for the keys of maps.
    :param known: names that somebody else reads.
    """
    found: dict[Path, Leaf] = {}
    unknown: list[Unknown] = []
    for name in sorted(named):
        text = named[name]
        if not name.upper().startswith(prefix.upper()) or not text or name in known:
            continue
        rest = name[len(prefix) :]
        placed = _place(rest, node, weaker)
        if placed is None:
            # Likeness is that of the names proper: the prefix they share would make all alike.
            close = nearest(rest, list(variables(node)))
            unknown.append(Unknown(name=name, suggestion=close and prefix.upper() + close))
            continue
        path, is_file = placed
        if path in found:
            errors.append(
                ConfigError(
                    f"is given twice: by {name} and in {found[path].origin}",
                    setting=dotted(path),
                    origin=f"environment {name}",
                    remedy="unset one of them",
                )
            )
        found[path] = Leaf(f"file:{text}" if is_file else text, f"environment {name}")
    return normalised(found, node, errors), unknown


def from_secret_files(
    files: Mapping[str, str], node: Node, prefix: str, *, weaker: Sequence[Layer] = ()
) -> dict[Path, Leaf]:
    """The layer that the files of a secrets directory make: references to them.

    A file is called as the environment variable would be, letter case aside, with or without the
    prefix. What is no secret of this type is somebody else's.

    :param files: path by name.
    """
    found: dict[Path, Leaf] = {}
    for name in sorted(files):
        rest = name[len(prefix) :] if name.upper().startswith(prefix.upper()) else name
        placed = _place(rest, node, weaker)
        if placed is not None and not placed[1] and node_at(node, placed[0]).secret:
            found[placed[0]] = Leaf(f"file:{files[name]}", f"secrets directory {files[name]}")
    return found


def _place(rest: str, node: Node, weaker: Sequence[Layer]) -> tuple[Path, bool] | None:
    """The path a variable's name means, and whether the variable names a file that holds the value."""
    path = _walk(rest.split("__"), node, weaker)
    if path is not None:
        return path, False
    if fold(rest).endswith("_file"):
        path = _walk(rest[: -len("_file")].split("__"), node, weaker)
        if path is not None and node_at(node, path).secret:
            return path, True
    return None


def _walk(parts: list[str], node: Node, weaker: Sequence[Layer]) -> Path | None:
    path: Path = ()
    for part in parts:
        if not part:
            return None
        if node.table:
            field = node.matching(part)
            if field is None:
                return None
            path, node = (*path, field.names[0]), field.node
        elif node.kind == "map" or node.type is Any:
            path = (*path, match(_keys(path, weaker), part) or part.lower())
            node = node.item if node.kind == "map" else node
        else:
            return None
    return path


def _keys(path: Path, layers: Sequence[Layer]) -> Iterator[str]:
    size = len(path)
    for layer in layers:
        for each in layer:
            if len(each) > size and each[:size] == path:
                yield each[size]


def node_at(node: Node, path: Path) -> Node:
    """What stands at ``path``, or above it where the type knows no more."""
    for key in path:
        child = node.child(key)
        if child is None:
            break
        node = child
    return node


def _first_names(path: Path, node: Node) -> tuple[Path, Node | None]:
    """``path`` with every field under its first name, and what stands there; None if unknown."""
    found: Path = ()
    here: Node | None = node
    for key in path:
        if here is not None and here.table:
            field = here.fields.get(key)
            found, here = ((*found, field.names[0]), field.node) if field else ((*found, key), None)
        else:
            found = (*found, key)
            here = here.item if here is not None and here.kind == "map" else None
    return found, here


def _spelt_out(path: Path, leaf: Leaf, node: Node | None, errors: list[ConfigError]) -> dict[Path, Leaf]:
    if node is None or not isinstance(leaf.value, str):
        return {path: leaf}
    if node.kind == "list":
        return {path: Leaf(listed(leaf.value), leaf.origin, leaf.remote)}
    if not node.table and node.kind != "map":
        return {path: leaf}
    text = leaf.value.strip()
    if text.startswith("{"):
        try:
            table: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise ConfigError(
                "is not JSON",
                setting=dotted(path),
                origin=leaf.origin,
                remedy=f"mend the text after {getattr(error, 'pos', 0)} characters",
            ) from None
        inner = leaves(table, leaf.origin, remote=leaf.remote)
        return {
            (*path, *each): Leaf(value.value, leaf.origin, leaf.remote)
            for each, value in normalised(inner, node, errors).items()
        } or {path: Leaf({}, leaf.origin, leaf.remote)}
    if node.shorthand is None:
        raise ConfigError(
            "is a table, and this is a text",
            setting=dotted(path),
            origin=leaf.origin,
            remedy="set what is in the table, or write it whole as a JSON object",
        )
    return {(*path, node.shorthand): leaf}
