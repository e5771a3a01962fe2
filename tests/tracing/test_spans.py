"""What a provider gets to see. The scenarios run in one child process: see scenario.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, **environment: str) -> Any:
    """What ``script`` prints as JSON, run by a fresh interpreter."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, *(["-c", script] if "\n" in script else ["-m", script])],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def seen() -> Any:
    return run("tests.tracing.scenario")


def test_a_served_request_is_one_server_span_below_its_caller(seen: Any) -> None:
    """Remote parent, route in the name, stable attribute names, ended once."""
    (span,) = seen["served"]["spans"]
    assert span["name"] == "GET /items/{id}"
    assert span["kind"] == "SERVER"
    assert (span["trace"], span["parent"]) == ("a" * 32, "b" * 16)
    assert span["attributes"] == {
        "http.request.method": "GET",
        "url.path": "/items/7",
        "url.scheme": "http",
        "http.route": "/items/{id}",
        "chassis.note": "x",
        "http.response.status_code": 200,
    }
    assert span["status"] == "UNSET"
    assert span["service"] == "orders"


def test_the_span_is_current_until_it_is_detached(seen: Any) -> None:
    """Logs written inside carry its ids, those after it do not."""
    (span,) = seen["served"]["spans"]
    assert seen["served"]["returned"] == {"inside": [span["trace"], span["id"]], "after": None}


def test_a_server_span_fails_from_500_on_and_never_shows_a_message(seen: Any) -> None:
    """404 is the client's error; an exception is recorded by its type alone."""
    missing, unavailable, raised = seen["server_errors"]["spans"]
    assert (missing["status"], missing["attributes"].get("error.type")) == ("UNSET", None)
    assert (unavailable["status"], unavailable["attributes"]["error.type"]) == ("ERROR", "503")
    assert (raised["status"], raised["attributes"]["error.type"]) == ("ERROR", "KeyError")
    assert "hunter2" not in json.dumps(raised)


def test_case_33_an_unknown_method_is_named_other(seen: Any) -> None:
    """Anybody may send any word as a method: it does not become a span's name."""
    (span,) = seen["strange_method"]["spans"]
    assert span["name"] == "HTTP /all"
    assert span["attributes"]["http.request.method"] == "_OTHER"
    assert span["attributes"]["http.request.method_original"] == "FOO"


def test_a_call_is_an_internal_span_over_one_client_span_for_each_attempt(seen: Any) -> None:
    """Each attempt's own id goes out, and the second says that it is one."""
    first, second, call = seen["called"]["spans"]
    assert (call["name"], call["kind"], call["status"]) == ("POST catalog", "INTERNAL", "ERROR")
    assert call["attributes"]["error.type"] == "ConnectionError"
    assert [span["name"] for span in (first, second)] == ["POST", "POST"]
    assert [span["kind"] for span in (first, second)] == ["CLIENT", "CLIENT"]
    assert [span["parent"] for span in (first, second)] == [call["id"], call["id"]]
    assert [span["attributes"].get("http.request.resend_count") for span in (first, second)] == [None, 1]
    assert [span["status"] for span in (first, second)] == ["ERROR", "ERROR"]
    assert first["attributes"]["server.address"] == "10.0.0.7"
    # The last field is the flags: sampled, and perhaps "random" (W3C Trace Context level 2).
    sent = [header.rpartition("-")[0] for header in seen["called"]["returned"]]
    assert sent == [f"00-{span['trace']}-{span['id']}" for span in (first, second)]


def test_case_31_an_unsampled_parent_is_followed_and_nothing_exported(seen: Any) -> None:
    """No span, but ids for the logs, and the decision goes on."""
    result = seen["unsampled"]
    assert result["spans"] == []
    trace_id, span_id = result["returned"]["ids"]
    assert trace_id == "a" * 32
    assert result["returned"]["out"] == {"traceparent": f"00-{trace_id}-{span_id}-00", "tracestate": "x=y"}
    assert result["returned"]["recording"] is False


def test_a_span_may_end_in_another_context_than_it_began_in(seen: Any) -> None:
    """Detached where it was begun, ended at body close in another task."""
    (span,) = seen["ended_elsewhere"]["spans"]
    assert span["attributes"]["http.response.status_code"] == 200
    assert seen["ended_elsewhere"]["returned"] is None


def test_a_server_span_of_the_applications_own_is_adopted(seen: Any) -> None:
    """Exactly one SERVER span a request: theirs, with our attributes, ended by them."""
    (span,) = seen["adopted"]["spans"]
    assert (span["name"], span["kind"]) == ("theirs", "SERVER")
    assert span["attributes"]["http.route"] == "/r"
    assert span["attributes"]["error.type"] == "500"


def test_an_application_called_in_process_gets_a_span_of_its_own(seen: Any) -> None:
    """A SERVER span of ours that happens to be current is the caller's, not this request's."""
    inner, outer = seen["in_process_call"]["spans"]
    assert (inner["attributes"]["url.path"], outer["attributes"]["url.path"]) == ("/inner", "/outer")


def test_events_are_put_on_the_current_span(seen: Any) -> None:
    """Plain values as they are, others as text, None left out; outside a span nothing happens."""
    (span,) = seen["events"]["spans"]
    assert span["events"] == [["breaker.opened", {"subject": "payments", "odd": "['x']", "rate": 0.5}]]


def test_traced_spans_every_kind_of_function(seen: Any) -> None:
    """Plain, async, generator and async generator, with the span current inside and only there."""
    spans = {span["name"]: span for span in seen["decorated"]["spans"]}
    plain = next(name for name in spans if name.endswith("plain"))
    returned = seen["decorated"]["returned"]
    ids = {name: [span["trace"], span["id"]] for name, span in spans.items()}
    assert returned["plain"] == ids[plain]
    assert returned["asynchronous"] == ids["named"]
    assert returned["generator"] == [ids["generator"], None, "sent", "caught", "end"]
    assert returned["agenerator"] == [ids["agenerator"], None, "sent", "caught"]
    assert (spans["failing"]["status"], spans["failing"]["description"]) == ("ERROR", "ValueError")
    assert {spans[name]["status"] for name in ("named", "generator", "agenerator", "closed")} == {"UNSET"}
    assert len(spans) == len(seen["decorated"]["spans"]) == 8
    assert returned["methods"] == [
        ids[next(n for n in spans if n.endswith(m))] for m in ("of_class", "static")
    ]


def test_a_process_has_one_provider_and_each_installation_its_turn(seen: Any) -> None:
    """A second service in one process takes over when the first has shut down."""
    assert (seen["installed"], seen["second_while_open"], seen["second_after"]) == (True, False, True)
    assert (seen["first_got"], seen["second_got"]) == (0, 1)
    assert (seen["flushed"], seen["closed"]) == ([1.5], [2.5])


INSTALL = """
import json, sys
from chassis import tracing
from tests.tracing.scenario import Kept
{before}
sink = Kept()
handle = tracing.install_provider("orders", tracing.TracingOptions({options}), sink)
for _ in range({requests}):
    span = tracing.begin_server_span("GET", "/", "http", ())
    span.detach()
    span.end(200)
resource = dict(sink.spans[0].resource.attributes) if sink.spans else {{}}
json.dump([handle.installed, len(sink.spans), resource, handle.shutdown(0.1)], sys.stdout)
"""


def test_the_applications_own_provider_is_left_alone() -> None:
    """Set before the start, it gets all spans; ours is not installed, and shutdown flushes theirs."""
    before = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
"""
    installed, spans, _, flushed = run(INSTALL.format(before=before, options="", requests=1))
    assert (installed, spans, flushed) == (False, 0, True)


def test_case_43_disabled_by_the_environment_nothing_is_installed() -> None:
    """OTEL_SDK_DISABLED=true: no provider, and requests still have ids."""
    script = INSTALL.format(before="", options="", requests=1)
    assert run(script, OTEL_SDK_DISABLED="true")[:2] == [False, 0]


def test_the_share_of_traces_recorded_is_an_option_that_the_environment_overrides() -> None:
    """``sample_ratio`` for new traces; OTEL_TRACES_SAMPLER and its argument replace it."""
    script = INSTALL.format(before="", options="sample_ratio=0.000001", requests=200)
    assert run(script)[1] == 0
    assert run(script, OTEL_TRACES_SAMPLER="always_on")[1] == 200


def test_the_resource_names_the_process_and_the_environment_overrides_it() -> None:
    """Options, then OTEL_RESOURCE_ATTRIBUTES, then OTEL_SERVICE_NAME."""
    script = INSTALL.format(before="", options="resource={'zone': 'a', 'team': 'x'}", requests=1)
    resource = run(script)[2]
    assert (resource["service.name"], resource["zone"], resource["team"]) == ("orders", "a", "x")
    resource = run(script, OTEL_RESOURCE_ATTRIBUTES="zone=b", OTEL_SERVICE_NAME="renamed")[2]
    assert (resource["service.name"], resource["zone"], resource["team"]) == ("renamed", "b", "x")
