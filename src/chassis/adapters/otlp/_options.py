"""Where telemetry goes: options in code, overridden by OpenTelemetry's own environment names."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_count, check_seconds

Signal: TypeAlias = Literal["traces", "logs"]

_PROTOCOLS = ("http/protobuf", "http/json")
_COMPRESSIONS = ("none", "gzip")


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpOptions:
    """How telemetry is shipped. Each ``OTEL_EXPORTER_OTLP_*`` name overrides its option.

    :param endpoint: base URL of the receiver, e.g. ``http://collector:4318``; ``/v1/traces`` and
        ``/v1/logs`` are added to its path. None ships nothing.
    :param protocol: ``http/protobuf`` or ``http/json``; some receivers refuse JSON.
    :param headers: sent with each request; never printed.
    :param timeout: seconds one request may take.
    :param compression: ``gzip`` or ``none``.
    :param queue: records of one signal kept in memory while the receiver does not take them. Beyond
        that the oldest is dropped and counted; no caller ever waits. A span takes some 4 KB.
    :param batch: records in one request.
    :param linger: seconds after which an incomplete batch is sent.
    """

    endpoint: str | None = None
    protocol: Literal["http/protobuf", "http/json"] = "http/protobuf"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    timeout: Seconds = 10.0
    compression: Literal["none", "gzip"] = "none"
    queue: int = 16_384
    batch: int = 512
    linger: Seconds = 1.0

    def __post_init__(self) -> None:
        check_seconds("timeout", self.timeout)
        check_seconds("linger", self.linger)
        check_count("queue", self.queue)
        check_count("batch", self.batch)
        _check_protocol(self.protocol, "protocol", None)
        _check_compression(self.compression, "compression", None)
        if self.endpoint is not None:
            _check_url(self.endpoint, "endpoint", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where one signal goes, and how."""

    url: str
    json: bool
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    gzip: bool
    tls: ssl.SSLContext | None

    @property
    def shown(self) -> str:
        """The URL without the credentials that may stand in it."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def target(signal: Signal, options: OtlpOptions, environ: Mapping[str, str]) -> Target | None:
    """Where ``signal`` goes: the signal's own variable, else the common one, else the option.

    ``OTEL_TRACES_EXPORTER=none`` and ``OTEL_LOGS_EXPORTER=none`` switch a signal off.

    :returns: None if nothing says where to.
    :raises ConfigError: a variable cannot be used, with its name.
    """
    exporter = f"OTEL_{signal.upper()}_EXPORTER"
    kind = environ.get(exporter, "").strip().lower()
    if kind == "none":
        return None
    if kind not in {"", "otlp"}:
        raise ConfigError(
            f"there is no exporter {kind!r}",
            setting=exporter,
            origin="environment",
            remedy="give otlp or none",
        )

    def variable(name: str) -> tuple[str, str] | None:
        for full in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
            if value := environ.get(full, "").strip():
                return full, value
        return None

    url = _url(signal, options, environ)
    if url is None:
        return None
    protocol = _check_protocol(*reversed(variable("PROTOCOL") or ("protocol", options.protocol)))
    compression = _check_compression(
        *reversed(variable("COMPRESSION") or ("compression", options.compression))
    )
    headers = variable("HEADERS")
    timeout = variable("TIMEOUT")
    certificate, own, key = variable("CERTIFICATE"), variable("CLIENT_CERTIFICATE"), variable("CLIENT_KEY")
    return Target(
        url=url,
        json=protocol == "http/json",
        headers=dict(options.headers) if headers is None else _headers(*headers),
        timeout=options.timeout if timeout is None else _milliseconds(*timeout),
        gzip=compression == "gzip",
        tls=_tls(certificate, own, key) if url.startswith("https:") else None,
    )


def _url(signal: Signal, options: OtlpOptions, environ: Mapping[str, str]) -> str | None:
    name = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    if own := environ.get(name, "").strip():
        # The signal's own variable is taken as it is (OTLP exporter specification).
        return _check_url(own, name, "environment")
    name = "OTEL_EXPORTER_OTLP_ENDPOINT"
    base = environ.get(name, "").strip()
    if base:
        _check_url(base, name, "environment")
    elif options.endpoint is None:
        return None
    else:
        base = options.endpoint
    return f"{base.rstrip('/')}/v1/{signal}"


def _check_url(value: str, setting: str, origin: str | None) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        # The value is not shown: credentials may stand in it.
        raise ConfigError(
            "not a URL that can be used",
            setting=setting,
            origin=origin,
            remedy="give http://host:4318 or https://host:4318",
        )
    return value


def _check_protocol(value: str, setting: str, origin: str | None = "environment") -> str:
    if value not in _PROTOCOLS:
        remedy = "give http/protobuf or http/json"
        if value == "grpc":
            remedy += ", and the receiver's HTTP port, which is usually 4318"
        raise ConfigError(f"{value!r} is not supported", setting=setting, origin=origin, remedy=remedy)
    return value


def _check_compression(value: str, setting: str, origin: str | None = "environment") -> str:
    if value not in _COMPRESSIONS:
        raise ConfigError(
            f"{value!r} is not supported", setting=setting, origin=origin, remedy="give gzip or none"
        )
    return value


def _headers(setting: str, value: str) -> dict[str, str]:
    headers = {}
    for pair in filter(None, (each.strip() for each in value.split(","))):
        name, sign, text = pair.partition("=")
        if not sign or not name.strip():
            raise ConfigError(
                "it cannot be read (its value is not shown)",
                setting=setting,
                origin="environment",
                remedy="write name=value, comma-separated, with the values URL-encoded",
            )
        headers[unquote(name.strip())] = unquote(text.strip())
    return headers


def _milliseconds(setting: str, value: str) -> float:
    # Milliseconds, as the specification says; OpenTelemetry's own Python SDK reads seconds here.
    if not value.isdecimal() or int(value) == 0:
        raise ConfigError(
            f"{value!r} is not a time",
            setting=setting,
            origin="environment",
            remedy="give milliseconds: 10000",
        )
    return int(value) / 1000


def _tls(
    certificate: tuple[str, str] | None, own: tuple[str, str] | None, key: tuple[str, str] | None
) -> ssl.SSLContext:
    setting = "OTEL_EXPORTER_OTLP_CERTIFICATE"
    try:
        if certificate is not None:
            setting = certificate[0]
        context = ssl.create_default_context(cafile=certificate[1] if certificate is not None else None)
        if own is not None:
            setting = own[0]
            context.load_cert_chain(own[1], key[1] if key is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the file cannot be used: {error}",
            setting=setting,
            origin="environment",
            remedy="give the path of a PEM file this process may read",
        ) from error
    return context
