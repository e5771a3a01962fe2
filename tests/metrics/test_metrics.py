"""What is measured and what the page says of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from chassis.core import ConfigError, Outcome, Rejected
from chassis.metrics import (
    ClientMetrics,
    ServerMetrics,
    count_event,
    counted,
    exposition,
    register_gauge,
    render,
    timed,
    worker_exited,
)
from chassis.metrics._exposition import Renderer, _renderer
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def samples(registry: CollectorRegistry, *names: str) -> dict[tuple[str, ...], float]:
    """Every sample of the rendered page by its name and its labels' values, sorted by label name.

    :param names: what those begin with that are read, of a page that takes seconds to read; none for all.
    """
    body = Renderer(registry).render(openmetrics=False).body.decode()
    if names:
        body = "".join(line for line in body.splitlines(keepends=True) if line.startswith(names))
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parse_text(body)
        for sample in family.samples
    }


def test_requests_served_are_counted_timed_and_seen_in_flight(registry: CollectorRegistry) -> None:
    """Rate, errors and duration by method, route and status; and how many are under way."""
    metrics = ServerMetrics(registry)
    metrics.begin()
    metrics.begin()
    metrics.end("GET", "/items/{id}", 200, 0.03)
    page = samples(registry)
    assert page["http_server_active_requests",] == 1
    name = "http_server_request_duration_seconds"
    # method, route, status: the labels' names in alphabetical order; a bucket's `le` comes first.
    assert page[f"{name}_count", "GET", "/items/{id}", "200"] == 1
    assert page[f"{name}_sum", "GET", "/items/{id}", "200"] == 0.03
    assert page[f"{name}_bucket", "0.025", "GET", "/items/{id}", "200"] == 0
    assert page[f"{name}_bucket", "0.05", "GET", "/items/{id}", "200"] == 1


def test_calls_made_are_counted_as_a_whole_and_by_attempt(registry: CollectorRegistry) -> None:
    """The caller's view, and beside it what each instance did."""
    metrics = ClientMetrics(registry)
    metrics.begin("catalog")
    metrics.attempt("catalog", Outcome.FAILURE, "catalog-1")
    metrics.attempt("catalog", Outcome.SUCCESS, "catalog-2")
    assert samples(registry)["http_client_active_requests", "catalog"] == 1
    metrics.end("catalog", "GET", 200, 0.2)
    metrics.begin("catalog")
    metrics.end("catalog", "GET", None, 0.1)
    page = samples(registry)
    assert page["http_client_active_requests", "catalog"] == 0
    # outcome, peer, service
    assert page["http_client_attempts_total", "failure", "catalog-1", "catalog"] == 1
    assert page["http_client_attempts_total", "success", "catalog-2", "catalog"] == 1
    # method, service, status
    assert page["http_client_request_duration_seconds_count", "GET", "catalog", "200"] == 1
    assert page["http_client_request_duration_seconds_count", "GET", "catalog", "error"] == 1


def test_two_objects_on_one_registry_count_in_the_same_series(registry: CollectorRegistry) -> None:
    """Two services in one process, or a restart in a test, are no error."""
    for metrics in (ServerMetrics(registry), ServerMetrics(registry)):
        metrics.begin()
        metrics.end("GET", "", 200, 0.1)
    assert samples(registry)["http_server_request_duration_seconds_count", "GET", "", "200"] == 2


def test_case_32_a_scanner_adds_no_series(registry: CollectorRegistry) -> None:
    """Unmatched paths have the route "", unknown methods one name: 20,000 requests, one series."""
    metrics = ServerMetrics(registry)
    for number in range(20_000):
        metrics.begin()
        metrics.end(f"M{number}", "", 404, 0.001)
    page = samples(registry)
    assert page["http_server_request_duration_seconds_count", "_OTHER", "", "404"] == 20_000
    assert sum(key[0].endswith("_seconds_count") for key in page) == 1


def test_case_34_what_is_beyond_the_limit_goes_to_one_series_and_is_counted(
    registry: CollectorRegistry,
) -> None:
    """2,000 label sets of a metric; the total stays right."""
    metrics = ServerMetrics(registry)
    for number in range(2_005):
        metrics.begin()
        metrics.end("GET", f"/route-{number}", 200, 0.001)
    name = "http_server_request_duration_seconds"
    page = samples(registry, f"{name}_count", "chassis_metric_overflow")
    overflow = "__overflow__"
    assert page[f"{name}_count", overflow, overflow, overflow] == 5
    assert sum(value for key, value in page.items() if key[0] == f"{name}_count") == 2_005
    assert page["chassis_metric_overflow_total", name] == 5


def test_instances_that_come_and_go_stop_being_told_apart(registry: CollectorRegistry) -> None:
    """After 200 of them service and outcome stay, the name goes."""
    metrics = ClientMetrics(registry)
    for number in range(210):
        metrics.attempt("catalog", Outcome.SUCCESS, f"catalog-{number}")
    page = samples(registry)
    assert page["http_client_attempts_total", "success", "__overflow__", "catalog"] == 10
    assert page["http_client_attempts_total", "success", "catalog-199", "catalog"] == 1


def test_events_are_counted_by_name(registry: CollectorRegistry) -> None:
    """Under the name they have in logs and traces."""
    count_event("breaker.opened", registry)
    count_event("breaker.opened", registry)
    assert samples(registry)["chassis_events_total", "breaker.opened"] == 2


# State gauges


def test_of_two_gauges_with_the_same_labels_the_first_is_shown(registry: CollectorRegistry) -> None:
    """A page with the same sample twice is refused by those who collect it."""
    register_gauge("known", "Known.", ["name"], lambda: {("a",): 1}, registry=registry)
    register_gauge("known", "Known.", ["name"], lambda: {("a",): 2, ("b",): 3}, registry=registry)
    page = Renderer(registry).render(openmetrics=False).body.decode()
    assert [each for each in page.splitlines() if each.startswith("known{")] == [
        'known{name="a"} 1.0',
        'known{name="b"} 3.0',
    ]


def test_a_gauge_is_asked_when_the_page_is_rendered(registry: CollectorRegistry) -> None:
    """Several callbacks share a name; taking one away leaves the others."""
    state = {"a": 1.0}
    first = register_gauge(
        "breaker_state", "State.", ["name"], lambda: {("a",): state["a"]}, registry=registry
    )
    second = register_gauge("breaker_state", "State.", ["name"], lambda: {("b",): 2}, registry=registry)
    assert samples(registry)["breaker_state", "a"] == 1
    state["a"] = 3.0
    assert samples(registry)["breaker_state", "a"] == 3
    assert samples(registry)["breaker_state", "b"] == 2
    first()
    assert ("breaker_state", "a") not in samples(registry)
    assert ("breaker_state", "b") in samples(registry)
    second()
    second()
    assert not [key for key in samples(registry) if key[0] == "breaker_state"]


def test_a_gauge_that_raises_costs_its_samples_and_not_the_page(registry: CollectorRegistry) -> None:
    """And is counted."""

    def broken() -> dict[tuple[str, ...], float]:
        raise RuntimeError

    register_gauge("broken", "Broken.", (), broken, registry=registry)
    register_gauge("whole", "Whole.", (), lambda: {(): 1}, registry=registry)
    page = samples(registry)
    assert page["whole",] == 1
    assert ("broken",) not in page
    assert samples(registry)["chassis_scrape_errors",] >= 1


def test_a_gauge_of_other_labels_is_refused(registry: CollectorRegistry) -> None:
    """One metric has one set of label names."""
    register_gauge("g", "G.", ["a"], dict, registry=registry)
    with pytest.raises(ConfigError, match="exists with the labels"):
        register_gauge("g", "G.", ["b"], dict, registry=registry)


def test_a_gauge_shows_at_most_2000_samples(registry: CollectorRegistry) -> None:
    """A runaway callback does not make the page endless."""
    register_gauge("g", "G.", ["n"], lambda: {(str(n),): 1 for n in range(3_000)}, registry=registry)
    assert sum(key[0] == "g" for key in samples(registry)) == 2_000


# Exposition


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_page_is_kept_for_a_second(registry: CollectorRegistry) -> None:
    """However many scrapers there are, it is rendered once a second."""
    rendered = []
    register_gauge("g", "G.", (), lambda: rendered.append(1) or {(): 1}, registry=registry)
    clock = Clock()
    renderer = Renderer(registry, clock)
    renderer.render(openmetrics=False)
    clock.now += 0.99
    renderer.render(openmetrics=False)
    assert len(rendered) == 1
    clock.now += 0.02
    renderer.render(openmetrics=False)
    assert len(rendered) == 2
    renderer.render(openmetrics=True)
    assert len(rendered) == 3


def test_case_37_openmetrics_for_who_asks_and_the_classic_text_for_others() -> None:
    """Both parse; whatever versions and escapings a scraper lists, two formats are served."""
    count_event("test.formats")
    prometheus = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.3,*/*;q=0.1"
    )
    page = render(prometheus)
    assert page.content_type.startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_openmetrics(page.body.decode())}
    assert "chassis_events" in names
    assert render("application/openmetrics-text; version=garbage").content_type == page.content_type
    for accept in (None, "", "text/html", "*/*"):
        page = render(accept)
        assert page.content_type.startswith("text/plain; version=0.0.4")
        assert {family.name for family in parse_text(page.body.decode())} > {"chassis_events"}


@pytest.mark.asyncio
async def test_case_35_rendering_does_not_stall_the_event_loop() -> None:
    """It runs in a thread of its own, even while every other worker thread is busy."""
    released = threading.Event()
    entered = threading.Event()

    def slow() -> dict[tuple[str, ...], float]:
        entered.set()
        released.wait(5)
        return {(): 1}

    remove = register_gauge("test_slow_gauge", "Slow.", (), slow)
    loop = asyncio.get_running_loop()
    hogs = [loop.run_in_executor(None, released.wait, 5) for _ in range(64)]
    try:
        await eventually(lambda: _renderer.kept(False) is None, what="the kept page growing old")
        page = asyncio.ensure_future(exposition())
        turns = 0
        while not entered.is_set() and turns < 500:
            await asyncio.sleep(0.01)
            turns += 1
        assert entered.is_set()
        assert not page.done()
        released.set()
        assert b"test_slow_gauge 1.0" in (await page).body
    finally:
        released.set()
        remove()
        await asyncio.gather(*hogs)


WORKER = """
import os, sys
from chassis.metrics import ServerMetrics, count_event, register_gauge, render
metrics = ServerMetrics()
for _ in range(int(sys.argv[1])):
    metrics.begin()
    metrics.end("GET", "/x", 200, 0.1)
metrics.begin()
register_gauge("state", "State.", (), lambda: {(): 7})
print(os.getpid(), flush=True)
sys.stdin.readline()
if len(sys.argv) > 2:
    sys.stdout.write(render().body.decode())
"""


def test_several_workers_are_summed_up(tmp_path: Path) -> None:
    """With PROMETHEUS_MULTIPROC_DIR any worker's page tells of all; a dead one's live gauges go."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    with start("3") as one, start("4", "render") as two, start("5", "render") as three:
        assert one.stdout is not None
        assert two.stdout is not None
        assert three.stdout is not None
        first = int(one.stdout.readline())
        two.stdout.readline()
        three.stdout.readline()
        page, _ = two.communicate("go\n", timeout=20)
        values = {sample.name: sample.value for family in parse_text(page) for sample in family.samples}
        assert values["http_server_request_duration_seconds_count"] == 12
        assert values["http_server_active_requests"] == 3
        assert values["state"] == 7
        one.communicate("go\n", timeout=20)
        script = f"from chassis.metrics import worker_exited; worker_exited({first})"
        subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, check=True)
        page, _ = three.communicate("go\n", timeout=20)
    values = {sample.name: sample.value for family in parse_text(page) for sample in family.samples}
    assert values["http_server_request_duration_seconds_count"] == 12
    assert values["http_server_active_requests"] == 2


def test_a_worker_that_exited_means_nothing_in_a_single_process() -> None:
    """Without the common directory there is nothing to take away."""
    worker_exited(1)


# Decorators


def test_timed_measures_every_kind_of_function(registry: CollectorRegistry) -> None:
    """By outcome; a generator to its end."""
    measure = timed("load_seconds", registry=registry)

    @measure
    def plain(error: BaseException | None = None) -> int:
        if error is not None:
            raise error
        return 7

    @timed("load_seconds", registry=registry)
    async def asynchronous() -> int:
        return 8

    @measure
    def generator():
        yield 1
        yield 2

    assert plain() == 7
    assert asyncio.run(asynchronous()) == 8
    assert list(generator()) == [1, 2]
    with pytest.raises(KeyError):
        plain(KeyError())
    with pytest.raises(Rejected):
        plain(Rejected("no"))
    page = samples(registry)
    assert page["load_seconds_count", "success"] == 3
    assert page["load_seconds_count", "failure"] == 1
    assert page["load_seconds_count", "ignored"] == 1
    assert page["load_seconds_sum", "success"] > 0


def test_counted_counts_by_outcome(registry: CollectorRegistry) -> None:
    """And its name gets ``_total`` if it lacks it."""

    @counted("orders", registry=registry)
    def order(good: bool) -> None:
        if not good:
            raise ValueError

    order(True)
    order(True)
    with pytest.raises(ValueError):
        order(False)
    page = samples(registry)
    assert page["orders_total", "success"] == 2
    assert page["orders_total", "failure"] == 1


def test_a_name_that_cannot_be_a_metrics_is_refused_where_it_is_written(registry: CollectorRegistry) -> None:
    """At decoration, not at the first call in production."""
    with pytest.raises(ValueError):
        timed("", registry=registry)
    Counter("taken", "Taken.", registry=registry)
    with pytest.raises(ValueError):
        counted("taken", registry=registry)
