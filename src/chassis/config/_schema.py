"""What a settings type accepts, seen alike whether it is a pydantic model or a dataclass."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import pydantic
from pydantic import AliasChoices, BaseModel, RootModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from chassis.config._layers import fold
from chassis.core.options import Unit
from chassis.core.secrets import Secret

Kind: TypeAlias = Literal["dataclass", "model", "map", "list", "leaf"]

_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Set)
_MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_SECRETS = (Secret, SecretStr, SecretBytes)


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One named setting of a table.

    :param names: what it may be called in a source; the type takes it under the first.
    :param attribute: its name on an instance.
    :param start: for a table, the instance that its absent fields are taken from.
    """

    names: tuple[str, ...]
    attribute: str
    node: Node
    required: bool
    start: Any = None


class Node:
    """A place in a settings type: a table of named fields, a map, a list or a leaf."""

    def __init__(self, annotation: Any, metadata: tuple[Any, ...] = ()) -> None:
        self.annotation = Annotated[(annotation, *metadata)] if metadata else annotation
        self.type, metadata = _unwrap(annotation, metadata)
        self.seconds = any(isinstance(each, Unit) and each.name == "seconds" for each in metadata)
        self.kind: Kind = _kind(self.type)

    @property
    def secret(self) -> bool:
        """Whether what stands here must not be shown."""
        members = get_args(self.type) if get_origin(self.type) in (Union, types.UnionType) else (self.type,)
        return any(_is_secret(each) for each in members)

    @property
    def table(self) -> bool:
        """Whether it has named fields."""
        return self.kind in ("dataclass", "model")

    @property
    def shorthand(self) -> str | None:
        """The field that a plain string in place of this table stands for."""
        name: str | None = getattr(self.type, "settings_shorthand", None)
        return name

    def taken_back(self, given: Collection[str]) -> list[str]:
        """The fields that go back to None because of those that are ``given``.

        Some tables have fields that exclude each other, and name them in ``settings_alternatives``.
        Settings cannot say None, so the one that they give must be enough.
        """
        alternatives: tuple[tuple[str, ...], ...] = getattr(self.type, "settings_alternatives", ())
        return [
            name
            for names in alternatives
            if any(each in given for each in names)
            for name in names
            if name not in given
        ]

    @property
    def open(self) -> bool:
        """Whether the type itself says that unknown names are welcome."""
        return self.kind == "model" and self.type.model_config.get("extra") in ("allow", "ignore")

    @functools.cached_property
    def fields(self) -> Mapping[str, Field]:
        """The fields of a table by every name they may be called."""
        if self.kind == "dataclass":
            found = _dataclass_fields(self.type)
        elif self.kind == "model":
            found = _model_fields(self.type)
        else:
            found = []
        return {name: each for each in found for name in each.names}

    @functools.cached_property
    def item(self) -> Node:
        """What a map or list holds."""
        arguments = get_args(self.type)
        if self.kind == "map":
            return describe(arguments[1] if len(arguments) == 2 else Any)
        return describe(arguments[0] if arguments else Any)

    def child(self, name: str) -> Node | None:
        """What stands under ``name``; None if nothing may."""
        if self.kind == "map":
            return self.item
        field = self.fields.get(name)
        return None if field is None else field.node

    def matching(self, name: str) -> Field | None:
        """The field that is meant by ``name`` where letter case and ``-`` do not count."""
        return self.fields.get(name) or self._folded.get(fold(name))

    @functools.cached_property
    def _folded(self) -> Mapping[str, Field]:
        found: dict[str, Field] = {}
        for name, field in self.fields.items():
            found.setdefault(fold(name), field)
        return found


@functools.lru_cache(maxsize=1024)
def _describe(annotation: Any) -> Node:
    return Node(annotation)


def describe(annotation: Any) -> Node:
    """The node of a type."""
    try:
        return _describe(annotation)
    except TypeError:  # not hashable: Annotated with a dictionary, say
        return Node(annotation)


def _unwrap(annotation: Any, metadata: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The type within Annotated, Optional, NewType and type aliases, and the metadata met."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            metadata = (*metadata, *more)
        elif origin in (Union, types.UnionType):
            members = [each for each in get_args(annotation) if each is not types.NoneType]
            if len(members) != 1:
                return annotation, metadata
            annotation = members[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation, metadata


def _kind(type_: Any) -> Kind:
    origin = get_origin(type_) or type_
    if not isinstance(origin, type):
        return "leaf"
    if dataclasses.is_dataclass(origin):
        return "dataclass"
    if issubclass(origin, BaseModel):
        return "leaf" if issubclass(origin, RootModel) else "model"
    if origin in _MAPS:
        return "map"
    if origin in _LISTS and not _fixed_tuple(type_):
        return "list"
    return "leaf"


def _fixed_tuple(type_: Any) -> bool:
    return get_origin(type_) is tuple and get_args(type_)[-1:] != (Ellipsis,)


def _is_secret(type_: Any) -> bool:
    origin = get_origin(type_) or type_
    return isinstance(origin, type) and issubclass(origin, (*_SECRETS, pydantic.Secret))


def _dataclass_fields(type_: Any) -> list[Field]:
    hints = typing.get_type_hints(type_, include_extras=True)
    found = []
    for each in dataclasses.fields(type_):
        if not each.init:
            continue
        node = describe(hints[each.name])
        start = None
        if node.table:
            start = each.default_factory() if callable(each.default_factory) else each.default
        required = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        found.append(Field((each.name,), each.name, node, required, start))
    return found


def _model_fields(type_: type[BaseModel]) -> list[Field]:
    found = []
    for name, info in type_.model_fields.items():
        node = Node(info.annotation, tuple(info.metadata))
        start = None
        if node.table and not info.default_factory_takes_validated_data:
            start = info.get_default(call_default_factory=True)
        found.append(Field(_names(type_, name, info), name, node, info.is_required(), start))
    return found


def _names(type_: type[BaseModel], name: str, info: FieldInfo) -> tuple[str, ...]:
    alias = info.validation_alias if info.validation_alias is not None else info.alias
    if isinstance(alias, AliasChoices):
        names = [each for each in alias.choices if isinstance(each, str)]
    else:
        names = [alias] if isinstance(alias, str) else []
    by_name = type_.model_config.get("populate_by_name") or type_.model_config.get("validate_by_name")
    if not names or by_name:
        names.append(name)
    return tuple(names)
