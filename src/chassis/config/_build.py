"""From merged layers to a validated settings object, with every error at once."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from chassis.config._errors import every, raise_all
from chassis.config._layers import Merged, Path, dotted, leaves
from chassis.config._names import listed, nearest, normalised
from chassis.config._schema import Field, Node, describe
from chassis.core.errors import ConfigError
from chassis.core.secrets import MASK, Secret

T = TypeVar("T")
Hint: TypeAlias = Callable[[Path], str]
"""Says where a missing setting can be given."""

_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(us|µs|ms|s|m|h|d)?")
_SENSITIVE = re.compile(r"pass|secret|token|key|cred|dsn|auth|://[^/]*@", re.IGNORECASE)
_LOCATION = re.compile(r"_(dir|file|path)$")
_USERINFO = re.compile(r"://[^/]*@")
_LONGEST = 80

_FAILED: Any = object()
"""In place of a value whose problem has been noted."""


def parse_seconds(text: str) -> float | None:
    """Seconds for ``"200ms"``, ``"1.5s"``, ``"2m"``, ``"1h"`` or a plain number; None for anything else."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        return None
    return float(found[1]) * _UNITS[found[2] or "s"]


def build(
    type_: type[T],
    values: Merged | Mapping[str, Any],
    *,
    table: Path = (),
    origin: str = "given values",
    hint: Hint | None = None,
) -> T:
    """A validated ``type_`` (a dataclass or pydantic model) from merged layers or plain nested tables.

    Durations may be texts (``"200ms"``), lists comma-separated texts. Unknown names are refused
    unless a pydantic model itself asks for ``extra="ignore"`` or ``"allow"``.

    :param table: the table the values stand in, for messages.
    :param origin: where plain tables come from.
    :param hint: says where a missing setting can be given.
    :raises ConfigError: what cannot be used; several at once as :class:`ConfigErrors`.
    """
    node = describe(type_)
    errors: list[ConfigError] = []
    if not isinstance(values, Merged):
        values = Merged(normalised(leaves(values, origin), node, errors))
    builder = _Builder(values.origin, table, hint)
    builder.note_all(errors)
    built = builder.value(node, values.tree(), ())
    raise_all(builder.problems)
    return built  # type: ignore[no-any-return]  # the node was made of T


def apply(
    options: T,
    overrides: Mapping[str, Any],
    *,
    setting: str = "",
    origin: Callable[[Path], str | None] | str = "given values",
) -> T:
    """A copy of ``options``, a dataclass instance, with ``overrides`` laid over it.

    Where its class names ``settings_alternatives``, fields that exclude each other, the one that is
    given takes the others back to None.

    :param setting: the name of the table, for messages.
    :param origin: where they come from: one text, or by path within ``overrides``.
    :raises ConfigError: what cannot be used; several at once as :class:`ConfigErrors`.
    """
    node = describe(type(options))
    errors: list[ConfigError] = []
    found = normalised(leaves(overrides, origin if isinstance(origin, str) else ""), node, errors)
    where = Merged(found).origin if isinstance(origin, str) else origin
    builder = _Builder(where, (), None, setting)
    builder.note_all(errors)
    built = builder.value(node, Merged(found).tree(), (), options)
    raise_all(builder.problems)
    return built  # type: ignore[no-any-return]  # the node was made of T


class _Builder:
    """One build: walks values and type together and notes every problem."""

    def __init__(
        self,
        origin: Callable[[Path], str | None],
        table: Path,
        hint: Hint | None,
        setting: str = "",
    ) -> None:
        self.problems: list[ConfigError] = []
        self._origin = origin
        self._table = table
        self._hint = hint
        self._setting = setting
        self._failed: set[Path] = set()
        self._revealed: set[str] = set()

    def value(self, node: Node, raw: Any, path: Path, start: Any = None) -> Any:
        """The validated value of ``raw``, or _FAILED; ``start`` is what absent fields are taken from."""
        if node.table and isinstance(raw, node.type):
            return raw
        if node.kind == "dataclass":
            return self._dataclass(node, raw, path, start)
        raw = self._prepared(node, raw, path, start)
        if raw is _FAILED:
            return _FAILED
        try:
            value = _adapter(_settable(node)).validate_python(raw)
            if not isinstance(raw, bool) or isinstance(value, bool) or not isinstance(value, int | float):
                return value
            # pydantic takes it for 1 or 0: a limit of one call where somebody meant to switch it on.
            self._note(path, f"{self._shown(node, raw, path)} is not a number", remedy="write a number")
        except ValidationError as error:
            self._translate(error, node, path)
        except ConfigError as error:
            self.note_all([error], path)
        except PydanticSchemaGenerationError:
            self._note(path, "can only be given in code", remedy="remove it")
        return _FAILED

    def _dataclass(self, node: Node, raw: Any, path: Path, start: Any) -> Any:
        if not isinstance(raw, Mapping):
            self._note(path, f"{self._shown(node, raw, path)} is not a table", remedy="write a table")
            return _FAILED
        values: dict[str, Any] = {}
        for key, each in raw.items():
            field = self._field(node, key, (*path, key))
            if field is not None:
                values[field.attribute] = self.value(
                    field.node, each, (*path, key), self._start(field, start)
                )
        based = isinstance(start, node.type)
        for field in dict.fromkeys(node.fields.values()):
            if field.required and field.attribute not in values and not based:
                values[field.attribute] = _FAILED
                self._missing((*path, field.names[0]))
        if any(each is _FAILED for each in values.values()):
            return _FAILED
        try:
            if based:
                return dataclasses.replace(start, **dict.fromkeys(node.taken_back(values)), **values)
            return node.type(**values)
        except ValidationError as error:  # a pydantic dataclass validates for itself
            self._translate(error, node, path)
        except ConfigError as error:
            self.note_all([error], path)
        except (TypeError, ValueError) as error:
            self._note(path, self._scrubbed(str(error)))
        return _FAILED

    def _prepared(self, node: Node, raw: Any, path: Path, start: Any = None) -> Any:
        """``raw`` as pydantic takes it: durations as numbers, texts split into lists, secrets as they are."""
        if node.kind == "dataclass":
            return self.value(node, raw, path, start)
        if node.kind == "model":
            return self._prepared_model(node, raw, path, start)
        if node.kind == "map" and isinstance(raw, Mapping):
            return self._all(
                {key: self._prepared(node.item, each, (*path, key)) for key, each in raw.items()}
            )
        if node.kind == "list":
            return self._prepared_list(node, raw, path)
        if node.secret:
            return self._prepared_secret(node, raw)
        if node.seconds and isinstance(raw, str):
            seconds = parse_seconds(raw)
            if seconds is None:
                shown = self._shown(node, raw, path)
                self._note(path, f"{shown} is not a duration", remedy='write seconds or e.g. "200ms", "2m"')
                return _FAILED
            return seconds
        if node.seconds and isinstance(raw, float) and math.isnan(raw):
            self._note(path, "nan is not a duration", remedy='write seconds or e.g. "200ms", "2m"')
            return _FAILED
        return raw

    def _prepared_model(self, node: Node, raw: Any, path: Path, start: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        values: dict[str, Any] = {}
        if isinstance(start, node.type):
            # Only what differs from the class's own defaults: the rest pydantic fills in itself.
            own = {each.attribute: each.names[0] for each in node.fields.values()}
            values = {own[name]: getattr(start, name) for name in start.model_fields_set if name in own}
        for key, each in raw.items():
            field = self._field(node, key, (*path, key))
            if field is not None:
                here = (*path, key)
                values[field.names[0]] = self._prepared(field.node, each, here, self._start(field, start))
            elif node.open:
                values[key] = each
        return self._all(values, drop=True)

    def _prepared_list(self, node: Node, raw: Any, path: Path) -> Any:
        if isinstance(raw, str):
            raw = listed(raw)
        if isinstance(raw, str):
            self._note(path, "is not JSON", remedy="write a JSON array, or items with commas between")
            return _FAILED
        if not isinstance(raw, list | tuple):
            return raw
        items = {str(i): self._prepared(node.item, each, (*path, str(i))) for i, each in enumerate(raw)}
        sound = self._all(items)
        return _FAILED if sound is _FAILED else list(sound.values())

    def _prepared_secret(self, node: Node, raw: Any) -> Any:
        text = raw.reveal() if isinstance(raw, Secret) else raw
        if isinstance(text, str):
            self._revealed.add(text)
        if node.type is Secret:
            return Secret(text) if isinstance(text, str) else text
        return text.encode() if node.type is SecretBytes and isinstance(text, str) else text

    def _all(self, values: dict[str, Any], *, drop: bool = False) -> Any:
        """``values`` if none failed; else _FAILED, or with ``drop`` the others, for their own errors."""
        sound = {key: each for key, each in values.items() if each is not _FAILED}
        return sound if drop or len(sound) == len(values) else _FAILED

    def _field(self, node: Node, key: str, path: Path) -> Field | None:
        field = node.fields.get(key)
        if field is None and not node.open:
            close = nearest(key, list(node.fields))
            known = ", ".join(sorted(node.fields)) or "none"
            self._note(
                path, "no such setting", remedy=f"did you mean {close}?" if close else f"known are: {known}"
            )
        return field

    def _start(self, field: Field, start: Any) -> Any:
        return field.start if start is None else getattr(start, field.attribute, field.start)

    def _missing(self, path: Path) -> None:
        self._note(path, "is required and not set", remedy=self._hint(path) if self._hint else "set it")

    def _translate(self, error: ValidationError, node: Node, path: Path) -> None:
        """Note pydantic's errors, without its inputs: they may hold secrets."""
        for each in error.errors(include_url=False, include_input=False):
            here = (*path, *_settled(node, each["loc"]))
            if any(here[: len(failed)] == failed for failed in self._failed):
                continue
            cause = each.get("ctx", {}).get("error")
            if isinstance(cause, ConfigError):
                self.note_all([cause], here)
            elif each["type"] == "missing":
                self._missing(here)
            else:
                message = self._scrubbed(each["msg"]).removeprefix("Value error, ")
                self._note(here, message[:1].lower() + message[1:])

    def note_all(self, errors: Iterable[ConfigError], path: Path = ()) -> None:
        """Note what a type itself said, under the whole name of the setting."""
        for each in itertools.chain.from_iterable(map(every, errors)):
            message = self._scrubbed(each.message)
            if each.origin is not None:
                self._record(each.setting or "", message, each.origin, each.remedy)
            else:
                inner = tuple(each.setting.split(".")) if each.setting else ()
                self._note((*path, *inner), message, remedy=each.remedy)

    def _note(self, path: Path, message: str, *, remedy: str | None = None) -> None:
        self._failed.add(path)
        self._record(dotted(path), message, self._origin(path), remedy)

    def _record(self, name: str, message: str, origin: str | None, remedy: str | None) -> None:
        parts = (self._setting or dotted(self._table), name)
        setting = ".".join(each for each in parts if each)
        self.problems.append(ConfigError(message, setting=setting or None, origin=origin, remedy=remedy))

    def _shown(self, node: Node, raw: Any, path: Path) -> str:
        text = repr(raw)
        if node.secret or isinstance(raw, Mapping | list) or _sensitive(path, text):
            return "the value"
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

    def _scrubbed(self, message: str) -> str:
        for each in sorted(self._revealed, key=len, reverse=True):
            if each:
                message = message.replace(each, MASK)
        return message


def _settled(node: Node, location: tuple[int | str, ...]) -> Path:
    """The part of pydantic's location that a person wrote, without its own words for unions."""
    path: Path = ()
    for each in location:
        if node.kind in ("map", "list"):
            node = node.item
        elif node.table and str(each) in node.fields:
            node = node.fields[str(each)].node
        elif not node.table or not node.open:
            break
        path = (*path, str(each))
    return path


def _settable(node: Node) -> Any:
    return _sealed(node.type) if node.kind == "model" else node.annotation


@functools.lru_cache(maxsize=256)
def _sealed(type_: type[BaseModel]) -> type[BaseModel]:
    """``type_``, frozen, and reading no environment of its own."""
    bridged: dict[str, Any] = {}
    if any(each.__module__.startswith("pydantic_settings.") for each in type_.__mro__):
        # A BaseSettings reads all its sources in __init__, even when it is validated: ours have
        # been merged already, so the values given are the only source left.
        def only_given(settings_cls: Any, init_settings: Any, **others: Any) -> tuple[Any, ...]:
            return (init_settings,)

        bridged["settings_customise_sources"] = staticmethod(only_given)
    if not bridged and type_.model_config.get("frozen"):
        return type_
    own = {
        "__module__": type_.__module__,
        "__qualname__": type_.__qualname__,
        "__doc__": type_.__doc__,
        "model_config": ConfigDict(frozen=True),
    }
    return type(type_.__name__, (type_,), {**own, **bridged})


@functools.lru_cache(maxsize=1024)
def _cached_adapter(annotation: Any) -> TypeAdapter[Any]:
    return _new_adapter(annotation)


def _new_adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        hash(annotation)
    except TypeError:
        return _new_adapter(annotation)
    return _cached_adapter(annotation)


def changed_paths(type_: Any, old: Any, new: Any) -> tuple[str, ...]:
    """The names of the settings in which two instances of a type differ, sorted."""
    return tuple(sorted(dotted(path) for path in _differences(describe(type_), old, new, ())))


def _differences(node: Node, old: Any, new: Any, path: Path) -> Iterator[Path]:
    if node.table and isinstance(old, node.type) and isinstance(new, node.type):
        for field in dict.fromkeys(node.fields.values()):
            before, after = getattr(old, field.attribute), getattr(new, field.attribute)
            yield from _differences(field.node, before, after, (*path, field.names[0]))
    elif node.kind == "map" and isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in old.keys() | new.keys():
            if key in old and key in new:
                yield from _differences(node.item, old[key], new[key], (*path, str(key)))
            else:
                yield (*path, str(key))
    elif old != new:
        yield path


def masked(node: Node, path: Path, value: Any) -> str:
    """How a value may be shown: not at all if its type, its name or its look says that it is secret."""
    if node.secret or isinstance(value, Secret | SecretStr | SecretBytes):
        return MASK
    text = repr(value)
    if isinstance(value, str) and _sensitive(path, text):
        return MASK
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _sensitive(path: Path, text: str) -> bool:
    """Whether a name or a look says that a value is secret. Where a secret lies (``secrets_dir``) is none."""
    if path and _LOCATION.search(path[-1]):
        return _USERINFO.search(text) is not None
    return _SENSITIVE.search(f"{'.'.join(path)} {text}") is not None
