"""The story's figures: what is reckoned from the load's lines and the receiver's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from examples.shop.figures import LoadFile, percentile
from examples.shop.received import Received, Trace, bar, new_traceparent


def request(at: float, ms: float = 5.0, kind: str = "catalog", **more: Any) -> dict[str, Any]:
    return {"at": at, "kind": kind, "ms": ms, "status": 200, **more}


def load(tmp_path: Path, *lines: dict[str, Any]) -> LoadFile:
    file = tmp_path / "load.out"
    file.write_text("".join(json.dumps(each) + "\n" for each in lines))
    figures = LoadFile(file)
    figures.read()
    return figures


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_smallest_value_that_its_share_does_not_exceed(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(each <= found for each in values) >= share * len(values) - 1e-6
    assert sum(each < found for each in values) < share * len(values)


def test_a_percentile_of_nothing_is_nothing() -> None:
    assert percentile([], 0.5) == 0.0


def test_a_window_has_the_requests_that_were_due_in_it(tmp_path: Path) -> None:
    figures = load(tmp_path, request(0.9), request(1.0), request(1.9), request(2.0))
    assert [each["at"] for each in figures.window(1.0, 2.0).requests] == [1.0, 1.9]


def test_achieved_is_what_ended_in_the_window_whenever_it_was_due(tmp_path: Path) -> None:
    """A load that cannot keep up shows: requests that were due but did not end are not achieved."""
    figures = load(tmp_path, request(0.9, ms=200), request(1.0, ms=1500), request(1.1, ms=5))
    assert figures.window(1.0, 2.0).achieved == 2.0


def test_token_requests_are_no_part_of_the_rate(tmp_path: Path) -> None:
    assert load(tmp_path, request(1.1, kind="token")).window(1.0, 2.0).achieved == 0.0


def test_errors_and_cut_streams_are_told_apart(tmp_path: Path) -> None:
    figures = load(
        tmp_path,
        request(1.0, error="refused"),
        {"kind": "stream", "turn": "opened", "at": 1.1, "status": 200},
        {"kind": "stream", "turn": "ended", "at": 1.2, "error": "cut (ReadError)"},
        {"kind": "stream", "turn": "ended", "at": 1.3},
    )
    window = figures.window(1.0, 2.0)
    assert window.errors == ["refused"]
    assert window.cut_streams == ["cut (ReadError)"]
    assert window.opened == 1


def test_a_half_written_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "load.out"
    whole = json.dumps(request(1.0)) + "\n" + json.dumps({"kind": "told", "at": 3.5}) + "\n"
    file.write_text(whole[:-4])
    figures = LoadFile(file)
    figures.read()
    assert figures.told_until == 0.0
    file.write_text(whole)
    figures.read()
    assert figures.told_until == 3.5
    assert len(figures.window(0, 2).requests) == 1


def span(name: str, parent: str, start: int, end: int, service: str, kind: str = "server") -> dict[str, Any]:
    return {
        "span": f"GET {name}",
        "service": service,
        "trace_id": "t",
        "span_id": name,
        "parent_id": parent,
        "kind": kind,
        "start": start,
        "end": end,
    }


def test_a_trace_is_drawn_as_a_tree_with_the_log_lines_of_each_span() -> None:
    spans = [
        span("c", "b", 2_000_000, 3_000_000, "catalog"),
        span("a", "outside", 0, 4_000_000, "gateway"),
        span("b", "a", 1_000_000, 4_000_000, "orders"),
        span("d", "b", 3_000_000, 4_000_000, "payments"),
    ]
    logs = [{"log": "paid", "span_id": "d", "time": 1, "severity": "INFO", "attributes": {"sum": 4}}]
    trace = Trace(spans, logs)
    assert trace.services == {"gateway", "orders", "catalog", "payments"}
    assert [line[:12].rstrip() for line in trace.draw()] == [
        "gateway  GET",
        "└─ orders  G",
        "   ├─ catalo",
        "   └─ paymen",
        "         · i",
    ]
    assert trace.draw()[-1].strip() == "· info paid  sum=4"


def test_a_trace_whose_root_is_missing_is_drawn_from_what_is_there() -> None:
    assert len(Trace([span("b", "lost", 0, 1, "orders")], []).draw()) == 1
    assert Trace([], []).draw() == []


@given(st.integers(1, 10**9), st.data())
def test_a_bar_lies_within_the_whole(whole: int, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, whole))
    end = data.draw(st.integers(begin, whole))
    drawn = bar(begin, end, whole)
    assert len(drawn) == 24
    assert "█" in drawn


def test_lines_are_found_by_what_they_contain_and_after_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "received.jsonl"
    file.write_text('{"span":"old","service":"orders"}\n')
    received = Received(file)
    mark = received.mark()
    with file.open("a") as more:
        more.write('{"span":"new","service":"orders"}\n{"span":"other","service":"catalog"}\n')
    assert [each["span"] for each in received.lines('"service":"orders"', since=mark)] == ["new"]


def test_our_own_trace_ids_are_valid() -> None:
    trace_id, header = new_traceparent()
    version, trace, parent, flags = header.split("-")
    assert (version, trace, flags) == ("00", trace_id, "01")
    assert len(trace) == 32
    assert len(parent) == 16
    assert int(trace, 16)
    assert int(parent, 16)
