"""Writes docs/api.txt: the public API, one name and signature a line, sorted.

A change of the API is then a change of a text file, seen by whoever reads the diff. Public is what a
module without an underscore in its path lists in ``__all__``.

    python docs/tools/api.py            writes the file
    python docs/tools/api.py --check    compares, and exits 1 with the difference
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, ForwardRef, get_origin

import chassis

FILE = Path(__file__).resolve().parents[1] / "api.txt"


def public_modules() -> Iterator[ModuleType]:
    """The package and everything below it that is a front door."""
    below = (found.name for found in pkgutil.walk_packages(chassis.__path__, "chassis."))
    for name in ("chassis", *below):
        if not any(part.startswith("_") for part in name.split(".")):
            module = importlib.import_module(name)
            if hasattr(module, "__all__"):
                yield module


class Verbatim:
    """Stands in a signature for a text that must not be quoted."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def text_of_type(annotation: Any) -> Any:
    if isinstance(annotation, ForwardRef):  # what a TypedDict makes of it
        annotation = annotation.__forward_arg__
    return Verbatim(annotation) if isinstance(annotation, str) else annotation


PLAIN = (type(None), bool, int, float, complex, str, bytes, tuple, frozenset, set, list, dict)


def text_of_default(value: Any) -> Any:
    """Plain values as they are; of others the kind alone, as what they hold differs by machine."""
    if value is inspect.Parameter.empty:
        return value
    if isinstance(value, BuiltinFunctionType | FunctionType | type):
        return Verbatim(value.__qualname__)
    if isinstance(value, enum.Enum):
        return Verbatim(f"{type(value).__name__}.{value.name}")
    if type(value) in PLAIN or re.fullmatch(r"<[a-z ]+>", repr(value)):
        return value
    return Verbatim(f"<{type(value).__name__}>")


def signature(function: Any) -> str:
    """As written in the source, whether or not annotations are strings; empty where there is none."""
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    parameters = [
        parameter.replace(
            annotation=text_of_type(parameter.annotation), default=text_of_default(parameter.default)
        )
        for parameter in found.parameters.values()
    ]
    returns = text_of_type(found.return_annotation)
    if inspect.iscoroutinefunction(function):
        returns = Verbatim(
            f"Awaitable[{returns if isinstance(returns, Verbatim) else inspect.formatannotation(returns)}]"
        )
    return str(found.replace(parameters=parameters, return_annotation=returns))


def is_public_class(cls: type, public: set[Any]) -> bool:
    return cls in public or not cls.__module__.startswith("chassis")


def members(cls: type, public: set[Any]) -> Iterator[str]:
    """What a class adds to its public bases; what it has of private ones counts as its own."""
    if issubclass(cls, enum.Enum):
        yield from (f".{member.name} = {member.value!r}" for member in cls)
        return
    own = [cls, *(base for base in cls.__mro__[1:] if not is_public_class(base, public))]
    seen = set()
    for part in own:
        if not dataclasses.is_dataclass(part):
            for name, annotation in vars(part).get("__annotations__", {}).items():
                if not name.startswith("_") and name not in seen:
                    seen.add(name)
                    yield f".{name}: {text_of_type(annotation)!r}"
        for name, value in vars(part).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            if isinstance(value, property):
                returns = value.fget.__annotations__.get("return", "") if value.fget else ""
                yield f".{name}: {text_of_type(returns)!r}"
            elif isinstance(value, classmethod | staticmethod | FunctionType):
                yield f".{name}{signature(getattr(cls, name))}"


def lines_of(name: str, value: Any, public: set[Any]) -> Iterator[str]:
    """The lines of one public name, the name itself first."""
    if isinstance(value, type):
        bare = (
            issubclass(value, enum.Enum)
            or getattr(value, "_is_protocol", False)
            or "__init__" not in dir(value)
        )
        yield name + ("" if bare else signature(value).removesuffix(" -> None"))
        yield from (name + member for member in members(value, public))
    elif callable(value) and isinstance(value, FunctionType):
        yield name + signature(value)
    elif get_origin(value) is not None:
        yield f"{name} = {value}"
    else:
        yield f"{name}: {type(value).__name__}"


def describe() -> str:
    modules = {module.__name__: module for module in public_modules()}
    public = {
        value
        for module in modules.values()
        for value in (getattr(module, name) for name in module.__all__)
        if isinstance(value, type | FunctionType)
    }
    lines: list[str] = []
    for path, module in modules.items():
        for name in module.__all__:
            value = getattr(module, name)
            home = front_door(value, modules)
            if home not in (None, path) and name in modules[home].__all__:
                lines.append(f"{path}.{name} = {home}.{name}")
            else:
                lines.extend(lines_of(f"{path}.{name}", value, public))
    return "\n".join(sorted(lines)) + "\n"


def front_door(value: Any, modules: dict[str, ModuleType]) -> str | None:
    """The nearest public module above the one that defines ``value``."""
    path = getattr(value, "__module__", None) or ""
    while path and path not in modules:
        path = path.rpartition(".")[0]
    return path or None


def main() -> int:
    now = describe()
    if "--check" not in sys.argv[1:]:
        FILE.write_text(now)
        print(f"{FILE.name}: {now.count(chr(10))} lines")
        return 0
    written = FILE.read_text() if FILE.exists() else ""
    if written == now:
        return 0
    sys.stdout.writelines(
        difflib.unified_diff(written.splitlines(True), now.splitlines(True), "docs/api.txt", "the code")
    )
    print("The public API has changed: run `nox -s api`, read the difference, commit the file.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
