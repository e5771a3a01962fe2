"""From documents, environment and arguments to one validated settings object."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from chassis.config._build import Hint, build
from chassis.config._errors import ConfigUnavailable, every, raise_all
from chassis.config._layers import Layer, Leaf, Merged, Path, below, dotted, merge, without
from chassis.config._machine import Documents
from chassis.config._names import Unknown, from_secret_files, from_variables, node_at, normalised
from chassis.config._schema import Node, describe
from chassis.config._sources import Source
from chassis.core.contracts import Secrets
from chassis.core.errors import ConfigError
from chassis.core.secrets import Secret, SecretError

T = TypeVar("T")

_SERVICE_LINK = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
"""Variables Kubernetes makes for every service of the namespace; ``<SERVICE>_`` begins them as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the settings of every table are made of, beside the documents.

    :param sources: those of the documents, weakest first.
    :param owned: top-level tables that belong to somebody; the rest is of who reads the whole.
    :param known: environment variables that somebody else reads.
    :param prefixes: those of all settings; a longer one that fits has the better claim.
    """

    sources: Sequence[Source]
    environment: Mapping[str, str]
    secret_files: Mapping[str, str]
    arguments: Layer
    owned: frozenset[str]
    known: frozenset[str]
    prefixes: frozenset[str]
    secrets: Secrets | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whose settings are prepared.

    :param partial: whether names it does not know are another's.
    """

    type_: Any
    table: Path
    prefix: str
    hint: Hint | None = None
    strict: bool = True
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A validated settings object and what it was made of."""

    value: Any
    merged: Merged
    references: frozenset[str]
    unknown: Sequence[Unknown] = field(default=())


async def prepare(wanted: Wanted, inputs: Inputs, documents: Documents) -> Prepared:
    """Layer, resolve and validate.

    :raises ConfigError: everything that cannot be used.
    :raises ConfigUnavailable: nothing is wrong, but a secret cannot be had now.
    """
    errors: list[ConfigError] = []
    merged, unknown = _layered(wanted, inputs, documents, errors)
    node = describe(wanted.type_)
    references = {
        path: _references(node_at(node, path), leaf.value, inputs.secrets)
        for path, leaf in merged.leaves.items()
    }
    unavailable: list[ConfigError] = []
    resolved = await _resolve(wanted, inputs.secrets, merged, references, errors, unavailable)
    plain = merged.replace(
        {
            path: _with_secrets(
                node_at(node, path), merged.leaves[path].value, lambda text: resolved.get(text, text)
            )
            for path, found in references.items()
            if found
        }
    )
    value: Any = None
    try:
        value = build(wanted.type_, plain, table=wanted.table, hint=wanted.hint)
    except ConfigError as error:
        # What a reference that is not resolved makes of the build is no error of its own.
        named = {each.setting for each in (*errors, *unavailable)}
        errors.extend(each for each in every(error) if each.setting not in named)
    raise_all(errors or unavailable)
    used = frozenset(each for found in references.values() for each in found)
    return Prepared(value=value, merged=merged, references=used, unknown=unknown)


def guard_remote(document: Layer, local_only: Sequence[Path]) -> None:
    """Refuse a remote document that says how remote sources are reached.

    :raises ConfigError: names every such setting.
    """
    raise_all(
        [
            ConfigError(
                "cannot come from a remote source, which it tells how to reach",
                setting=dotted(path),
                origin=leaf.origin,
                remedy="move it to the file or the environment",
            )
            for path, leaf in document.items()
            if any(path[: len(each)] == each for each in local_only)
        ]
    )


def _layered(
    wanted: Wanted, inputs: Inputs, documents: Documents, errors: list[ConfigError]
) -> tuple[Merged, Sequence[Unknown]]:
    node = describe(wanted.type_)
    layers: list[Layer] = []

    def add(document: Layer, *, partial: bool) -> None:
        try:
            layer = below(document, wanted.table)
        except ConfigError as error:
            errors.append(error)
            return
        if not wanted.table:
            layer = without(layer, inputs.owned)
        if partial and node.table:
            layer = {path: leaf for path, leaf in layer.items() if path[0] in node.fields}
        layers.append(normalised(layer, node, errors))

    for source in inputs.sources:
        if source.name in documents:
            add(documents[source.name], partial=wanted.partial or (source.shared and not wanted.table))
    layers.append(from_secret_files(inputs.secret_files, node, wanted.prefix, weaker=layers))
    layer, unknown = from_variables(
        inputs.environment, node, wanted.prefix, errors, weaker=layers, known=inputs.known
    )
    layers.append(layer)
    unknown = [each for each in unknown if not _claimed(each.name, wanted.prefix, inputs.prefixes)]
    add(inputs.arguments, partial=wanted.partial)
    if wanted.partial:
        unknown = []
    elif wanted.strict:
        errors.extend(each.error() for each in unknown)
    else:
        unknown = [each for each in unknown if not _SERVICE_LINK.fullmatch(each.name)]
    try:
        return merge(layers), unknown
    except ConfigError as error:
        errors.extend(every(error))
        return Merged({}), unknown


def _claimed(name: str, prefix: str, prefixes: frozenset[str]) -> bool:
    return any(len(each) > len(prefix) and name.upper().startswith(each.upper()) for each in prefixes)


async def _resolve(
    wanted: Wanted,
    secrets: Secrets | None,
    merged: Merged,
    references: Mapping[Path, Sequence[str]],
    errors: list[ConfigError],
    unavailable: list[ConfigError],
) -> dict[str, Secret]:
    resolved: dict[str, Secret] = {}
    for path, found in references.items():
        leaf = merged.leaves[path]
        name = dotted((*wanted.table, *path))
        for reference in found:
            if reference in resolved:
                continue
            if secrets is None:
                remedy = "give the Configuration a store of secrets"
                errors.append(_refused("no store of secrets is there", name, leaf, remedy))
            elif leaf.remote and not secrets.remote(reference):
                # Whoever can write the remote document must not be able to read this machine's files.
                remedy = "name the file in chassis.toml or the environment"
                errors.append(_refused("a remote source may not name a local file", name, leaf, remedy))
            else:
                try:
                    resolved[reference] = await secrets.get(reference)
                except ConfigError as error:
                    errors.append(_refused(error.message, name, leaf, error.remedy))
                except SecretError as error:
                    if error.permanent:
                        errors.append(_refused(str(error), name, leaf, None))
                    else:
                        unavailable.append(ConfigUnavailable(str(error), setting=name, origin=leaf.origin))
    return resolved


def _refused(message: str, setting: str, leaf: Leaf, remedy: str | None) -> ConfigError:
    return ConfigError(message, setting=setting, origin=leaf.origin, remedy=remedy)


def _references(node: Node, value: Any, secrets: Secrets | None) -> Sequence[str]:
    """The references to secrets within a value."""
    found: list[str] = []
    _with_secrets(node, value, lambda text: found.append(text) if _refers(text, secrets) else None)
    return found


def _refers(text: str, secrets: Secrets | None) -> bool:
    return text.startswith("file:") if secrets is None else secrets.refers(text)


def _with_secrets(node: Node | None, value: Any, secret: Callable[[str], Any]) -> Any:
    """``value`` with ``secret(text)`` in place of each text where the type has a secret."""
    if node is None:
        return value
    if isinstance(value, str):
        return secret(value) if node.secret else value
    if isinstance(value, list):
        item = node.item if node.kind == "list" else None
        return [_with_secrets(item, each, secret) for each in value]
    if isinstance(value, Mapping):
        return {key: _with_secrets(node.child(key), each, secret) for key, each in value.items()}
    return value
