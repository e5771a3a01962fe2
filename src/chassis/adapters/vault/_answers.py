"""What the servers' answers mean, without any I/O.

Source: the HTTP API reference of OpenBao and Vault (KV version 2, token and AppRole methods); the
shapes of errors as OpenBao 2.x gives them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from chassis.core.secrets import Secret, SecretError, SecretVersion

_EXACT = 2**53
"""Beyond it the servers' JSON numbers lose their last digits."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A token and how long it lives; 0 is for ever."""

    token: Secret
    ttl: float
    renewable: bool


def data_path(path: str) -> str:
    """The URL path of ``mount/path`` in the KV version 2 API.

    :raises SecretError: there is no path in the mount.
    """
    mount, _, rest = path.strip("/").partition("/")
    if not rest:
        raise SecretError(
            f"vault:{path} names no secret: write vault:mount/path, e.g. vault:secret/payments",
            permanent=True,
        )
    return f"/v1/{quote(mount, safe='')}/data/{quote(rest, safe='/')}"


def secret_version(path: str, body: Any) -> SecretVersion:
    """The secrets in the answer to a KV version 2 read.

    :raises SecretError: the answer is not one, or holds a number that has lost digits.
    """
    data = _member(body, "data")
    values, metadata = _member(data, "data"), _member(data, "metadata")
    if not isinstance(values, dict) or not isinstance(metadata, dict):
        raise SecretError(f"vault:{path} is answered with no KV version 2 secret", permanent=True)
    return SecretVersion(
        values={name: Secret(_text(path, name, each)) for name, each in values.items()},
        version=str(metadata.get("version", "")),
    )


def missing(path: str, body: Any) -> SecretError:
    """What a 404 to a KV version 2 read means."""
    metadata = _member(_member(body, "data"), "metadata")
    if isinstance(metadata, dict):
        version = metadata.get("version")
        if metadata.get("destroyed"):
            why = f"version {version} was destroyed; write a new one"
        else:
            why = f"version {version} was deleted; undelete it or write a new one"
        return SecretError(f"vault:{path}: {why}", permanent=True)
    mount = path.strip("/").partition("/")[0]
    if any("no handler for route" in each for each in errors(body)):
        return SecretError(
            f"vault:{path}: nothing is mounted at {mount!r}; check the mount and the namespace",
            permanent=True,
        )
    return SecretError(
        f"vault:{path}: there is no such secret; check the path, and that {mount!r} is a KV version 2 mount",
        permanent=True,
    )


def trouble(what: str, status: int, body: Any) -> SecretError:
    """What any other refusal means; 5xx and 429 pass by themselves."""
    told = "; ".join(" ".join(each.split()) for each in errors(body))[:300] or "no explanation"
    sealed = "; unseal it" if status == 503 and "sealed" in told else ""
    temporary = status >= 500 or status == 429
    return SecretError(
        f"the secret store answered {status} to {what}: {told}{sealed}", permanent=not temporary
    )


def login_grant(body: Any) -> Grant | None:
    """The token in the answer to a login or renewal; None if there is none."""
    auth = _member(body, "auth")
    token, ttl = _member(auth, "client_token"), _member(auth, "lease_duration")
    if not isinstance(token, str) or not token or not isinstance(ttl, int | float):
        return None
    return Grant(Secret(token), float(ttl), bool(_member(auth, "renewable")))


def lookup_grant(token: Secret, body: Any) -> Grant | None:
    """What a lookup of the token itself says of it; None if it says nothing."""
    ttl = _member(_member(body, "data"), "ttl")
    if not isinstance(ttl, int | float):
        return None
    return Grant(token, float(ttl), bool(_member(_member(body, "data"), "renewable")))


def errors(body: Any) -> list[str]:
    """The server's own words."""
    found = _member(body, "errors")
    return [str(each) for each in found] if isinstance(found, list) else []


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _text(path: str, name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        raise SecretError(
            f"vault:{path}#{name} is a number too large to have survived in JSON; store it as a text",
            permanent=True,
        )
    return json.dumps(value)
