"""Where telemetry goes: options, and OpenTelemetry's environment names over them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chassis.adapters.otlp import OtlpOptions, log_shipper, span_shipper
from chassis.adapters.otlp._options import Target, target
from chassis.core import ConfigError

BASE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def traces(options: OtlpOptions | None = None, **environ: str) -> Target:
    found = target("traces", options or OtlpOptions(), environ)
    assert found is not None
    return found


def test_case_43_nothing_configured_ships_nothing() -> None:
    """No endpoint, no sink: no thread, no socket."""
    assert span_shipper({}, {}) is None
    assert log_shipper({}, {}) is None


def test_case_43_what_is_switched_off_ships_nothing() -> None:
    """OTEL_SDK_DISABLED for both, OTEL_LOGS_EXPORTER=none for one."""
    assert span_shipper({}, BASE | {"OTEL_SDK_DISABLED": "true"}) is None
    assert log_shipper({}, BASE | {"OTEL_LOGS_EXPORTER": "none"}) is None
    assert span_shipper({}, BASE | {"OTEL_LOGS_EXPORTER": "none"}) is not None


@pytest.mark.parametrize(
    ("option", "environ", "url"),
    [
        ("http://a:1", {}, "http://a:1/v1/traces"),
        ("http://a:1/base/", {}, "http://a:1/base/v1/traces"),
        ("http://a:1", {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://b:2/"}, "https://b:2/v1/traces"),
        (None, BASE | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:3/own"}, "http://c:3/own"),
        (None, BASE | {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://d:4"}, "http://collector:4318/v1/traces"),
        (None, BASE | {"OTEL_TRACES_EXPORTER": "otlp"}, "http://collector:4318/v1/traces"),
    ],
)
def test_the_endpoint(option: str | None, environ: dict[str, str], url: str) -> None:
    """The signal's own variable as it is, else the common one, else the option, with a path added."""
    assert traces(OtlpOptions(endpoint=option), **environ).url == url


def test_every_variable_overrides_its_option() -> None:
    """Common names, and a signal's own name over those."""
    options = OtlpOptions(
        endpoint="http://a:1",
        protocol="http/json",
        headers={"a": "b"},
        timeout=3.0,
        compression="gzip",
    )
    found = traces(options)
    assert (found.json, found.gzip, found.timeout, found.headers) == (True, True, 3.0, {"a": "b"})
    found = traces(
        options,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_COMPRESSION="none",
        OTEL_EXPORTER_OTLP_TIMEOUT="1500",
        OTEL_EXPORTER_OTLP_HEADERS="api-key=x%20y, other = z ,",
    )
    assert (found.json, found.gzip, found.timeout) == (False, False, 1.5)
    assert found.headers == {"api-key": "x y", "other": "z"}
    found = traces(
        options,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/json",
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_LOGS_TIMEOUT="1",
    )
    assert (found.json, found.timeout) == (False, 3.0)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "HTTP port, which is usually 4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "soap", "http/protobuf or http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip or none"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "=hunter2", "name=value"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "user:hunter2@collector:4318", "http://host:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://", "http://host:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:port", "http://host:4318"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp or none"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file", "PEM file"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/no/such/file", "PEM file"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(name: str, value: str, says: str) -> None:
    """Setting, origin and remedy; never a value that may be a secret."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318"} | {name: value}
    with pytest.raises(ConfigError, match=says) as refused:
        target("traces", OtlpOptions(), environ)
    assert refused.value.setting == name
    assert refused.value.origin == "environment"
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "collector:4318"},
        {"protocol": "grpc"},
        {"compression": "br"},
        {"timeout": 0},
        {"queue": 0},
        {"batch": 1.5},
        {"linger": -1},
    ],
    ids=str,
)
def test_an_option_that_cannot_be_used_is_named(options: dict[str, Any]) -> None:
    """At construction."""
    with pytest.raises(ConfigError) as refused:
        OtlpOptions(**options)
    assert [refused.value.setting] == list(options)


def test_credentials_are_not_shown() -> None:
    """Not in a representation, not in the URL for people."""
    options = OtlpOptions(endpoint="http://user:hunter2@a:1", headers={"api-key": "hunter2"})
    found = traces(options)
    assert found.shown == "http://a:1/v1/traces"
    assert "hunter2" not in repr(options.headers and OtlpOptions(headers=options.headers))
    assert "hunter2" not in repr(
        Target(url="x", json=False, headers=options.headers, timeout=1, gzip=False, tls=None)
    )


def test_a_tls_context_is_made_for_https_alone() -> None:
    """Loading a trust store is not for plain HTTP."""
    assert traces(OtlpOptions(endpoint="https://a")).tls is not None
    assert (
        traces(OtlpOptions(endpoint="http://a"), OTEL_EXPORTER_OTLP_CERTIFICATE="/no/such/file").tls is None
    )


def test_the_generated_classes_are_loaded_when_something_is_shipped() -> None:
    """Importing the adapter, and asking it with nothing configured, loads neither SDK nor protobuf."""
    script = (
        "import sys; from chassis.adapters.otlp import *; assert log_shipper({}, {}) is None;"
        "print([n for n in ('google.protobuf', 'opentelemetry.sdk', 'httpx2') if n in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout == "[]\n"
