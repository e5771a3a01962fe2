from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chassis.auth import JWKSOptions, TokenOptions
from chassis.core import ConfigError
from chassis.core.options import Seconds, check_count, check_seconds
from chassis.gateway._template import Target, Template, parse_template

_SERVICE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_METHOD = re.compile(r"[A-Z][A-Z-]*")
_AUTH_NAME = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(r"[A-Za-z0-9-]+")


def _check_service(service: str) -> None:
    # The name reaches discovery and DNS: an address, a port or a user in it would be a way out.
    if not _SERVICE.fullmatch(service):
        raise ConfigError(
            f"{service!r} is no service name",
            setting="service",
            remedy="write lower-case letters, digits and hyphens, at most 63",
        )


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """One part of an aggregate.

    :param service: the service that is asked, with GET.
    :param path: the path there, with the route's variables: ``/for/{user}``.
    :param required: without it there is no answer. An optional part that fails is replaced.
    :param timeout: seconds after which the part has failed, its whole body included.
    :param default: what stands in the answer for an optional part that failed; null if not given.
    """

    service: str
    path: str
    required: bool = False
    timeout: Seconds = 3.0
    default: Any = None

    def __post_init__(self) -> None:
        _check_service(self.service)
        check_seconds("timeout", self.timeout)
        if self.required and self.default is not None:
            raise ConfigError(
                "a required part has no default", setting="default", remedy="remove one of the two"
            )
        try:
            json.dumps(self.default, allow_nan=False)
        except (TypeError, ValueError):
            raise ConfigError(
                "the default cannot be written as JSON",
                setting="default",
                remedy="use texts, numbers, lists and tables",
            ) from None


@dataclass(frozen=True, kw_only=True)
class RouteOptions:
    """Which requests, and what becomes of them: they go to a service, or are put together from parts.

    :param path: ``/orders/{id}``: a variable is one whole segment; ``/catalog/{rest:path}`` takes
        everything below, ``/catalog`` itself too. The most specific route wins, whatever the order.
    :param host: only requests for this host, without a port; None for all.
    :param methods: only these; empty for all. GET brings HEAD. An aggregate takes GET.
    :param service: where requests are forwarded.
    :param strip: leading segments of ``path`` that are not forwarded, e.g. ``/catalog``.
    :param auth: names of ``[auth.*]`` tables, any one of which lets a caller in; empty: everybody.
    :param scopes: what the caller's token must allow, all of them.
    :param forward_credentials: pass Authorization, Cookie and the API key on to the service. Only
        for a service that may act as the caller.
    :param max_body: bytes of a request's body; None for the gateway's.
    :param parts: the parts of an aggregate, by their name in the answer.
    """

    path: str
    host: str | None = None
    methods: tuple[str, ...] = ()
    service: str | None = None
    strip: str = ""
    auth: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    forward_credentials: bool = False
    max_body: int | None = None
    parts: Mapping[str, PartOptions] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        template = parse_template(self.path)
        if self.host is not None and not _HOST.fullmatch(self.host):
            raise ConfigError(
                f"{self.host!r} is no host", setting="host", remedy="write it in lower case, without a port"
            )
        for method in self.methods:
            if not _METHOD.fullmatch(method) or method in ("CONNECT", "TRACE"):
                raise ConfigError(
                    f"{method!r} cannot be routed", setting="methods", remedy='write e.g. ["GET", "POST"]'
                )
        if self.scopes and not self.auth:
            raise ConfigError(
                "scopes are asked of nobody", setting="scopes", remedy="set auth too, or remove scopes"
            )
        if self.max_body is not None:
            check_count("max_body", self.max_body, least=0)
        if (self.service is None) == (not self.parts):
            raise ConfigError(
                "a route has either a service or parts",
                setting="service",
                remedy="give exactly one of the two",
            )
        if self.service is not None:
            _check_service(self.service)
            self._check_strip(template)
        else:
            self._check_parts(template)

    @property
    def accepted(self) -> tuple[str, ...]:
        """The methods it takes; empty for all."""
        return ("GET",) if self.parts else self.methods

    @property
    def stripped(self) -> int:
        """How many leading segments are not forwarded."""
        return self.strip.count("/")

    def _check_strip(self, template: Template) -> None:
        leading = "/".join(("", *(segment or "{" for segment in template.segments)))
        if self.strip and (self.strip.endswith("/") or not f"{leading}/".startswith(f"{self.strip}/")):
            raise ConfigError(
                f"{self.strip!r} is no beginning of {self.path!r}",
                setting="strip",
                remedy="write its first segments, without variables and without a slash at the end",
            )

    def _check_parts(self, template: Template) -> None:
        for name, given in (("strip", self.strip), ("methods", self.methods), ("max_body", self.max_body)):
            if given:
                raise ConfigError("an aggregate has no use for it", setting=name, remedy="remove it")
        if "errors" in self.parts:
            raise ConfigError(
                "the name is taken: an answer lists failed parts there",
                setting="parts.errors",
                remedy="rename the part",
            )
        for name, part in self.parts.items():
            try:
                Target(part.path, template)
            except ConfigError as error:
                raise ConfigError(error.message, setting=f"parts.{name}.path", remedy=error.remedy) from None


@dataclass(frozen=True, kw_only=True)
class TokenAuth(TokenOptions, JWKSOptions):
    """Callers show a JWT as ``Authorization: Bearer``.

    :param jwks: where the provider's keys are: ``http://identity/.well-known/jwks.json`` asks the
        service ``identity``, as any other service is asked; a URL with a dot or a port in its host,
        or https, is fetched from there; ``file:keys.json`` is a file, relative to the gateway's.
    """

    jwks: str

    def __post_init__(self) -> None:
        TokenOptions.__post_init__(self)
        JWKSOptions.__post_init__(self)
        if not re.match(r"(?:https?://[^\s/?#@]+/|file:.)\S*$", self.jwks):
            raise ConfigError(
                f"{self.jwks!r} is no place to fetch keys from",
                setting="jwks",
                remedy='write "http://identity/.well-known/jwks.json", an https URL or "file:keys.json"',
            )


@dataclass(frozen=True, kw_only=True)
class KeyAuth:
    """Callers show an API key.

    :param api_keys: consumer to ``sha256:`` hash of its key, or to several.
    :param api_keys_file: a TOML file of such lines, relative to the gateway's.
    :param header: the header that carries the key.
    """

    api_keys: Mapping[str, str | list[str]] = field(default_factory=dict, hash=False)
    api_keys_file: str | None = None
    header: str = "X-API-Key"

    def __post_init__(self) -> None:
        if bool(self.api_keys) == bool(self.api_keys_file):
            raise ConfigError(
                "the keys are given twice or not at all",
                setting="api_keys",
                remedy="give api_keys or api_keys_file",
            )
        if not _HEADER.fullmatch(self.header):
            raise ConfigError(
                f"{self.header!r} is no header", setting="header", remedy='write e.g. "X-API-Key"'
            )


@dataclass(frozen=True, kw_only=True)
class GatewayOptions:
    """Everything a gateway does.

    :param routes: at least one.
    :param auth: ways to show who one is, by the name routes use.
    :param max_body: bytes of a request's body, unless the route says otherwise; more is 413.
    :param max_url: bytes of path and query; more is 414.
    :param max_headers: how many header fields a request may have; more is 431.
    :param max_header_bytes: bytes of all of them together; more is 431.
    """

    routes: tuple[RouteOptions, ...]
    auth: Mapping[str, TokenAuth | KeyAuth] = field(default_factory=dict, hash=False)
    max_body: int = 10 * 1024 * 1024
    max_url: int = 8 * 1024
    max_headers: int = 100
    max_header_bytes: int = 32 * 1024

    def __post_init__(self) -> None:
        if not self.routes:
            raise ConfigError(
                "there is no route", setting="routes", remedy="write at least one [[routes]] table"
            )
        for name in ("max_body", "max_url", "max_headers", "max_header_bytes"):
            check_count(name, getattr(self, name), least=0 if name == "max_body" else 1)
        for name in self.auth:
            if not _AUTH_NAME.fullmatch(name):
                raise ConfigError(
                    f"{name!r} is no name",
                    setting="auth",
                    remedy="use letters, digits, hyphens and underscores",
                )
        for number, route in enumerate(self.routes):
            for name in route.auth:
                if name not in self.auth:
                    known = ", ".join(sorted(self.auth)) or "none"
                    raise ConfigError(
                        f"there is no [auth.{name}]",
                        setting=f"routes.{number}.auth",
                        remedy=f"known are: {known}",
                    )
