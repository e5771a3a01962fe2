"""What the receiver has written: traces as trees, log lines, and how much came from whom."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BAR = 24


class Received:
    """The receiver's file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def mark(self) -> int:
        """Where the file ends now."""
        return self._file.stat().st_size

    def lines(self, *containing: str, since: int = 0) -> Iterator[dict[str, Any]]:
        """The whole lines after a mark in which all of these texts occur."""
        wanted = [each.encode() for each in containing]
        with self._file.open("rb") as file:
            file.seek(since)
            for line in file:
                if line.endswith(b"\n") and all(each in line for each in wanted):
                    yield json.loads(line)

    def counts(self) -> dict[str, Counter[str]]:
        """Spans (``traces``) and records (``logs``) by instance."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for line in self.lines():
            found[line["instance"]]["traces" if "span" in line else "logs"] += 1
        return found

    def trace(self, trace_id: str, since: int = 0) -> "Trace":
        """What is there of one trace."""
        lines = list(self.lines(trace_id, since=since))
        return Trace(
            [each for each in lines if "span" in each and each["trace_id"] == trace_id],
            [each for each in lines if "log" in each and each["trace_id"] == trace_id],
        )


class Trace:
    """One trace: its spans and the log lines written within them."""

    def __init__(self, spans: list[dict[str, Any]], logs: list[dict[str, Any]]) -> None:
        self.spans = sorted(spans, key=lambda span: span["start"])
        self.logs = sorted(logs, key=lambda record: record["time"])

    @property
    def services(self) -> set[str]:
        """The services whose work is in it."""
        return {span["service"] for span in self.spans if span["kind"] == "server"}

    def draw(self) -> list[str]:
        """It as a tree, every span with its time and its log lines."""
        known = {span["span_id"] for span in self.spans}
        roots = [span for span in self.spans if span["parent_id"] not in known]
        if not roots:
            return []
        begin = self.spans[0]["start"]
        whole = max(span["end"] for span in self.spans) - begin
        lines: list[str] = []

        def draw(span: dict[str, Any], first: str, rest: str) -> None:
            inner = [each for each in self.spans if each["parent_id"] == span["span_id"]]
            own = [each for each in self.logs if each["span_id"] == span["span_id"]]
            name = f"{first}{span['service']}  {span['span']} [{span['kind']}]"
            took = (span["end"] - span["start"]) / 1e6
            lines.append(
                f"{name:<74.74} {took:8.1f} ms  {bar(span['start'] - begin, span['end'] - begin, whole)}"
            )
            for record in own:
                fields = " ".join(f"{key}={value}" for key, value in sorted(record["attributes"].items()))
                text = f"{rest}{'│  ' if inner else '   '}· {record['severity'].lower()} {record['log']}  {fields}"
                lines.append(text[:118])
            for number, each in enumerate(inner):
                last = number == len(inner) - 1
                draw(each, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))

        for root in roots:
            draw(root, "", "")
        return lines


def bar(begin: int, end: int, whole: int) -> str:
    """Where a span lies within the whole, as a bar."""
    left = min(BAR - 1, BAR * begin // max(1, whole))
    width = max(1, min(BAR - left, round(BAR * (end - begin) / max(1, whole))))
    return ("·" * left + "█" * width).ljust(BAR, "·")


def new_traceparent() -> tuple[str, str]:
    """A trace id of our own, and the header that makes a request part of it (W3C Trace Context)."""
    trace_id, span_id = f"{time.time_ns():032x}", f"{time.monotonic_ns():016x}"
    return trace_id, f"00-{trace_id}-{span_id}-01"
