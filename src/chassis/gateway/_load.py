"""From ``gateway.toml`` to options: parse, validate, name what is wrong and where."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from chassis.config import ConfigErrors, build
from chassis.core import ConfigError
from chassis.gateway._options import GatewayOptions, KeyAuth, TokenAuth

T = TypeVar("T")


def load_options(path: str | Path) -> GatewayOptions:
    """The options that the file holds.

    :raises ConfigError: it cannot be read, is not TOML, or says what cannot be done. Every problem
        names the setting, the file and the remedy.
    """
    file = Path(path)
    try:
        tree = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"the file cannot be read: {error.strerror}", origin=str(file), remedy="name a readable TOML file"
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"the file is not TOML: {error}", origin=str(file), remedy="mend it there"
        ) from None
    return parse_options(tree, origin=str(file))


def parse_options(tree: Mapping[str, Any], *, origin: str) -> GatewayOptions:
    """The options that a parsed document holds.

    :param origin: what messages call it.
    :raises ConfigError: as :func:`load_options`.
    """
    rest = dict(tree)
    tables = rest.pop("auth", {})
    if not isinstance(tables, Mapping):
        raise ConfigError(
            "it is not a table", setting="auth", origin=origin, remedy="write [auth.<name>] tables"
        )
    auth = {name: _auth(name, table, origin) for name, table in tables.items()}
    return _build(GatewayOptions, rest | {"auth": auth}, (), origin)


def _auth(name: str, table: Any, origin: str) -> TokenAuth | KeyAuth:
    if not isinstance(table, Mapping) or not {"jwks", "api_keys", "api_keys_file"} & table.keys():
        raise ConfigError(
            "it says nothing of what callers show",
            setting=f"auth.{name}",
            origin=origin,
            remedy="give jwks and audience (for JWTs), or api_keys or api_keys_file",
        )
    type_: type[TokenAuth | KeyAuth] = TokenAuth if "jwks" in table else KeyAuth
    return _build(type_, table, ("auth", name), origin)


def _build(type_: type[T], tree: Mapping[str, Any], table: tuple[str, ...], origin: str) -> T:
    try:
        return build(type_, tree, table=table, origin=origin, hint=lambda path: f"add {path[-1]} there")
    except ConfigErrors as several:
        raise ConfigErrors([_placed(each, origin) for each in several.errors]) from None
    except ConfigError as error:
        raise _placed(error, origin) from None


def _placed(error: ConfigError, origin: str) -> ConfigError:
    """``error`` with the file, which a value that is missing cannot name, and with a remedy."""
    return ConfigError(
        error.message,
        setting=error.setting,
        origin=error.origin or origin,
        remedy=error.remedy or "correct it there",
    )
