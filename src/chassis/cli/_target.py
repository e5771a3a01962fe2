"""Finding an application by ``module:attribute``."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any, Literal

from chassis.core import ConfigError


def load_target(target: str) -> Any:
    """The object ``module:attribute`` names; the current directory is searched too.

    :raises ConfigError: there is no such module or attribute. An error inside the module is raised
        as it is: it is the application's own.
    """
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError(
            f"{target!r} names no application",
            setting="MODULE:APP",
            origin="command line",
            remedy="write module:attribute, e.g. hello:app",
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise ConfigError(
            f"there is no module {error.name!r} here",
            setting="MODULE:APP",
            origin="command line",
            remedy="start in the directory that holds it, or install it",
        ) from None
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ConfigError(
                f"module {module_name!r} has no attribute {attribute!r}",
                setting="MODULE:APP",
                origin="command line",
                remedy="name the application object after the colon",
            ) from None
    return found


def interface_of(app: Any) -> Literal["asgi", "wsgi"]:
    """Whether an application is ASGI or WSGI, by the shape of its call."""
    call = app if inspect.isfunction(app) or inspect.ismethod(app) else getattr(app, "__call__", app)  # noqa: B004 - the method is looked at
    if inspect.iscoroutinefunction(call):
        return "asgi"
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        return "asgi"
    required = [
        each for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    ]
    return "wsgi" if len(required) == 2 else "asgi"
