"""From a call of a logger to a line, whatever is logged and from wherever."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loguru import logger as loguru_logger

from chassis.core import ConfigError
from chassis.core.request import request_id
from chassis.core.secrets import Secret
from chassis.logs import LogOptions, Logs, Record, access, configure, emit, log, log_context, severity_number
from chassis.logs._pipeline import PENDING


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.closed: list[float] = []

    def accept(self, record: Record) -> bool:
        self.records.append(record)
        return True

    def flush(self, timeout: float) -> bool:
        return timeout > 0

    def close(self, timeout: float) -> bool:
        self.closed.append(timeout)
        return True


class Output:
    """Configures logging to a stream it keeps, and reads what came out."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.sink = Kept()
        self.logs: Logs | None = None

    def start(self, *, ids: Callable[[], tuple[str, str] | None] = lambda: None, **options: Any) -> None:
        chosen = LogOptions(**{"level": "trace", "format": "json"} | options)
        self.logs = configure("orders", chosen, ids=ids, sink=self.sink, stream=self.stream)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        (line,) = self.lines
        return line


@pytest.fixture
def out() -> Iterator[Output]:
    output = Output()
    output.start()
    yield output
    assert output.logs is not None
    output.logs.shutdown(0.1)


def test_a_record_is_one_line_of_json(out: Output) -> None:
    """The documented members, and none that would be empty."""
    log.info("order {} placed", 7, amount=1.5, tags=["a"])
    line = out.line
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "message": "order 7 placed",
        "logger": __name__,
        "service": "orders",
        "fields": {"amount": 1.5, "tags": ["a"]},
    }


def test_every_front_gives_the_same_record(out: Output) -> None:
    """Our logger, loguru's own, and the standard library's."""
    log.bind(a=1).warning("hello")
    loguru_logger.bind(a=1).warning("hello")
    logging.getLogger(__name__).warning("hello", extra={"a": 1})
    emit("warning", "hello", logger=__name__, a=1)
    lines = [{key: value for key, value in line.items() if key != "time"} for line in out.lines]
    assert lines == [lines[0]] * 4
    assert lines[0]["fields"] == {"a": 1}


def test_levels_are_named_and_numbered(out: Output) -> None:
    """Each by its own method or by its name."""
    log.trace("x")
    log.debug("x")
    log.info("x")
    log.success("x")
    log.warning("x")
    log.error("x")
    log.critical("x")
    log.log("DEBUG", "x")
    expected = ["TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL", "DEBUG"]
    assert [line["level"] for line in out.lines] == expected
    assert [record.number for record in out.sink.records] == [5, 10, 20, 25, 30, 40, 50, 10]


def test_severity_numbers_are_opentelemetrys() -> None:
    """Logs Data Model: TRACE 1, DEBUG 5, INFO 9, WARN 13, ERROR 17, FATAL 21."""
    numbers = [0, 5, 9, 10, 19, 20, 21, 25, 29, 30, 39, 40, 49, 50, 99]
    assert [severity_number(number) for number in numbers] == [
        1,
        1,
        1,
        5,
        5,
        9,
        10,
        10,
        10,
        13,
        13,
        17,
        17,
        21,
        21,
    ]


@pytest.mark.parametrize("level", ["info", "INFO", "Warning", "critical"])
def test_what_is_below_the_level_is_left_out(level: str) -> None:
    """From every front, and not shipped either."""
    output = Output()
    output.start(level=level)
    try:
        log.debug("x")
        logging.getLogger("x").debug("x")
        emit("debug", "x", logger="x")
        assert output.lines == []
        assert output.sink.records == []
        log.critical("x")
        assert output.line["level"] == "CRITICAL"
    finally:
        assert output.logs is not None
        output.logs.shutdown(0.1)


def test_a_record_carries_the_ids_of_trace_and_request(out: Output) -> None:
    """At the top level, named as OpenTelemetry asks; absent outside a trace, not zero."""
    out.start(ids=lambda: ("a" * 32, "b" * 16))
    token = request_id.set("req-1")
    try:
        log.info("x")
    finally:
        request_id.reset(token)
    assert (out.line["trace_id"], out.line["span_id"], out.line["request_id"]) == (
        "a" * 32,
        "b" * 16,
        "req-1",
    )
    assert out.sink.records[0].trace_id == "a" * 32


def test_context_fields_are_on_every_record_of_the_block_and_its_tasks(out: Output) -> None:
    """Inner blocks add, a record's own fields win, and afterwards all is as before."""
    out.start(level="info")  # asyncio says something at DEBUG

    async def work() -> None:
        log.info("task")

    async def main() -> None:
        with log_context(order=7, who="a"):
            with log_context(who="b"):
                await asyncio.create_task(work())
                logging.getLogger("x").info("standard")
            log.info("own", order=8)

    asyncio.run(main())
    log.info("outside")
    assert [line.get("fields") for line in out.lines] == [
        {"order": 7, "who": "b"},
        {"order": 7, "who": "b"},
        {"order": 8, "who": "a"},
        None,
    ]


def test_requests_are_logged_by_one_line(out: Output) -> None:
    """With fields to compute by; and not at all if the option is off."""
    access("GET", "/items", 200, 0.0123456, instance="x")
    assert (out.line["message"], out.line["logger"]) == ("GET /items 200", "chassis.access")
    assert out.line["fields"] == {
        "method": "GET",
        "path": "/items",
        "status": 200,
        "duration_ms": 12.346,
        "instance": "x",
    }
    out.start(access=False)
    access("GET", "/items", 200, 0.1)
    assert len(out.lines) == 1


# Never raises, never leaks


class Odd:
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize(
    ("message", "arguments", "fields", "expected"),
    [
        ('{"a": 1}', (), {"user": 7}, '{"a": 1}'),
        ("{", (), {"user": 7}, "{"),
        ("{0.nothing}", (1,), {}, "{0.nothing}"),
        ("{} {}", (1,), {}, "{} {}"),
        ("{:d}", ("x",), {}, "{:d}"),
        ("{}", (Odd(),), {}, "{}"),
        (Odd(), (), {}, "<unprintable Odd>"),
    ],
    ids=["json", "brace", "attribute", "too few", "format", "bad argument", "bad message"],
)
def test_case_23_a_message_that_cannot_be_formatted_is_logged_as_it_stands(
    out: Output, message: Any, arguments: tuple[Any, ...], fields: dict[str, Any], expected: str
) -> None:
    """With its fields and arguments, and the reason; nothing reaches the caller."""
    log.info(message, *arguments, **fields)
    assert out.line["message"] == expected
    assert out.line["fields"].get("user") == fields.get("user")
    assert out.line["fields"]["format_error"] in {
        "KeyError",
        "ValueError",
        "AttributeError",
        "IndexError",
        "RuntimeError",
    }
    assert out.line["logger"] == __name__


def test_case_23_a_standard_message_that_cannot_be_formatted_too(out: Output) -> None:
    """``logging`` would print a traceback to standard error."""
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if type(each).__module__.startswith("chassis.")]
    logging.getLogger("x").info("%d", "x")
    logging.getLogger("x").info(Odd())
    first, second = out.lines
    assert (first["message"], first["fields"]) == ("%d", {"args": ["x"], "format_error": "TypeError"})
    assert second["message"] == "<unprintable Odd>"


def test_an_unknown_level_counts_as_info(out: Output) -> None:
    """A typing error in a log call is no reason to fail a request."""
    log.log("NONE", "x", a=1)
    assert (out.line["level"], out.line["fields"]) == ("INFO", {"a": 1, "format_error": "ValueError"})


@pytest.mark.parametrize(
    "text",
    ["a\x00b", "\ud800", "x" * 10_000_000, "a\nb", "\x1b[31m"],
    ids=["nul", "surrogate", "huge", "newline", "escape"],
)
def test_case_23_any_text_is_one_valid_line(out: Output, text: str) -> None:
    """NUL, lone surrogates, ten megabytes, line ends."""
    log.info("{}", text, field=text)
    assert out.stream.getvalue().count("\n") == 1
    assert len(out.stream.getvalue()) < 40_000
    assert out.line["level"] == "INFO"


def test_case_24_secrets_show_nowhere(out: Output) -> None:
    """Not as values, in fields, in URLs, in an exception's text or its traceback's local variables."""
    secret = Secret("hunter2")
    local = "hunter2"
    log.info("value {}", secret, password="hunter2", nested={"api_key": local}, secret_object=secret)
    try:
        raise ConnectionError(f"postgres://app:{local}@db token={local}")
    except ConnectionError:
        log.exception("failed")
        logging.getLogger("x").exception("failed")
    assert "hunter2" not in out.stream.getvalue()
    assert "hunter2" not in repr(out.sink.records)
    error = out.lines[1]["exception"]
    assert error["type"] == "ConnectionError"
    assert error["message"] == "postgres://app:[redacted]@db token=[redacted]"
    assert "Traceback" in error["stacktrace"]
    assert out.lines[2]["exception"] == error


def test_case_23_a_huge_exception_is_cut(out: Output) -> None:
    """Its message and its stack trace: ten megabytes are not searched for secrets."""
    try:
        raise ValueError("x" * 10_000_000)
    except ValueError:
        log.exception("failed")
    error = out.line["exception"]
    assert len(error["message"]) < 10_000
    assert len(error["stacktrace"]) < 70_000


def test_names_to_redact_can_be_added() -> None:
    """The option ``redact``."""
    output = Output()
    output.start(redact=("iban",))
    log.info("x", iban="DE00", other=1)
    assert output.line["fields"] == {"iban": "[redacted]", "other": 1}
    assert output.logs is not None
    output.logs.shutdown(0.1)


class Broken(io.StringIO):
    """Fails like a closed pipe."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_stream_that_fails_is_counted_and_nothing_else() -> None:
    """The record is still shipped."""
    output = Output()
    output.stream = Broken()
    output.start()
    log.info("x")
    assert output.logs is not None
    assert output.logs.counts == {"errors": 1, "overflowed": 0}
    assert len(output.sink.records) == 1
    output.logs.shutdown(0.1)


# Re-entrance and threads


class LogsWhileWriting(io.StringIO):
    """Logs from inside the write, as a finaliser or a signal handler may."""

    def __init__(self) -> None:
        super().__init__()
        self.fronts: list[Callable[[], None]] = []

    def write(self, text: str) -> int:
        if self.fronts:
            self.fronts.pop()()
        return super().write(text)


def test_case_25_logging_inside_logging_neither_deadlocks_nor_loses(out: Output) -> None:
    """Through every front: the record waits its turn and comes after."""
    stream = out.stream = LogsWhileWriting()
    out.start()
    stream.fronts = [
        lambda: log.info("inner", by="front"),
        lambda: logging.getLogger("x").info("inner", extra={"by": "standard"}),
        lambda: emit("info", "inner", logger="x", by="emit"),
    ]
    log.info("outer")
    assert [line["message"] for line in out.lines] == ["outer", "inner", "inner", "inner"]
    assert {line["fields"]["by"] for line in out.lines[1:]} == {"front", "standard", "emit"}
    assert len(out.sink.records) == 4


def test_case_27_logging_from_a_signal_handler_and_a_finaliser(out: Output) -> None:
    """While records are written in the same thread, thousands of times."""

    class Finalised:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            log.info("finalised")

    fired = True

    def on_signal(*_: object) -> None:
        nonlocal fired
        fired = True
        log.info("signalled")

    before = signal.signal(signal.SIGVTALRM, on_signal)
    try:
        for number in range(1_000):
            if fired:
                # Once, and armed again by us: with an interval a slow machine would do nothing else.
                fired = False
                signal.setitimer(signal.ITIMER_VIRTUAL, 0.001)
            Finalised()
            log.info("plain")
            if number % 100 == 0:
                gc.collect()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    gc.collect()
    messages = [line["message"] for line in out.lines]
    assert messages.count("plain") == 1_000
    assert messages.count("signalled") > 0
    assert messages.count("finalised") > 0


def test_case_26_many_threads_lose_no_line(out: Output) -> None:
    """And never mix two lines."""

    def work(number: int) -> None:
        for _ in range(200):
            emit("info", "x" * 100, logger=str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(out.lines) == 1_600


class Slow(io.StringIO):
    """Blocks in its first write, like a terminal that is stopped; in its own process, not in a child of that."""

    def __init__(self) -> None:
        super().__init__()
        self._process = os.getpid()
        self.entered, self.released = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        if os.getpid() == self._process:
            self.released.wait(10)
        return super().write(text)


def test_a_slow_stream_holds_up_one_thread_alone(out: Output) -> None:
    """The others go on; what waits is bounded, and what is beyond is counted."""
    stream = out.stream = Slow()
    out.start()
    blocked = threading.Thread(target=emit, args=("info", "first"), kwargs={"logger": "x"})
    blocked.start()
    stream.entered.wait(5)
    for _ in range(PENDING + 7):
        emit("info", "more", logger="x")
    stream.released.set()
    blocked.join(10)
    assert len(out.lines) == PENDING + 1
    assert out.logs is not None
    assert out.logs.counts == {"errors": 0, "overflowed": 7}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_case_19_a_fork_while_another_thread_writes_leaves_no_lock_behind(out: Output) -> None:
    """The child logs; what the parent's threads were writing is the parent's."""
    stream = out.stream = Slow()
    out.start()
    writer = threading.Thread(target=emit, args=("info", "parent"), kwargs={"logger": "x"})
    writer.start()
    stream.entered.wait(5)
    emit("info", "waiting", logger="x")
    child = os.fork()
    if child == 0:
        emit("info", "child", logger="x")
        # What other tests left to run goes on in the child, and may have words of its own.
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        os._exit(0 if [line["message"] for line in lines if line["logger"] == "x"] == ["child"] else 1)
    stream.released.set()
    writer.join(10)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [line["message"] for line in out.lines] == ["parent", "waiting"]


# Putting together and taking apart


def test_servers_and_http_clients_own_lines(out: Output) -> None:
    """Servers' messages come here once, their access lines and httpx' request lines are left out."""
    logging.getLogger("uvicorn.error").info("started")
    for name in ("uvicorn.access", "granian.access", "httpx", "httpx2"):
        logging.getLogger(name).info("GET http://x/?token=hunter2")
        logging.getLogger(name).warning("odd")
    assert [(line["logger"], line["message"]) for line in out.lines] == [
        ("uvicorn.error", "started"),
        *((name, "odd") for name in ("uvicorn.access", "granian.access", "httpx", "httpx2")),
    ]


def test_what_was_there_before_is_put_back() -> None:
    """Handlers that print are replaced while it lasts; others stay throughout."""
    root, server = logging.getLogger(), logging.getLogger("uvicorn")
    printing, other = logging.StreamHandler(io.StringIO()), logging.NullHandler()
    root.addHandler(printing)
    root.addHandler(other)
    server.addHandler(printing)
    server.propagate = False
    before = (list(root.handlers), root.level)
    output = Output()
    try:
        output.start()
        assert printing not in root.handlers
        assert other in root.handlers
        assert server.handlers == []
        assert output.logs is not None
        assert output.logs.flush(1) is True
        assert output.logs.shutdown(1.5) is True
        assert (list(root.handlers), root.level) == before
        assert (server.handlers, server.propagate) == ([printing], False)
        log.info("x")
        emit("info", "x", logger="x")
        access("GET", "/", 200, 0.1)
        assert output.lines == []
        assert output.sink.closed == [1.5]
    finally:
        root.removeHandler(printing)
        root.removeHandler(other)
        server.removeHandler(printing)
        server.propagate = True


def test_a_second_configuration_takes_the_first_ones_place(out: Output) -> None:
    """No line comes twice."""
    second = Output()
    second.start()
    log.info("x")
    logging.getLogger("x").info("x")
    assert out.lines == []
    assert len(second.lines) == 2
    assert second.logs is not None
    second.logs.shutdown(0.1)


def test_the_applications_own_loguru_sinks_stay(out: Output) -> None:
    """Ours stands beside them."""
    theirs: list[str] = []
    number = loguru_logger.add(theirs.append, format="{message}")
    try:
        out.start()
        log.info("x")
        assert theirs == ["x\n"]
        assert out.line["message"] == "x"
    finally:
        loguru_logger.remove(number)


def test_removing_our_sink_from_loguru_is_said(out: Output) -> None:
    """``logger.remove()`` by the application would silently end shipping."""
    loguru_logger.remove()
    assert out.line["level"] == "WARNING"
    assert "removed from loguru" in out.line["message"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("format", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("text", io.StringIO, False),
    ],
)
def test_text_is_for_terminals(out: Output, format: str, stream: type[io.StringIO], is_json: bool) -> None:
    """``auto`` asks the stream; the others are meant as they are."""
    out.stream = stream()
    out.start(format=format)
    log.info("x")
    assert out.stream.getvalue().startswith("{") is is_json


def test_standard_error_is_where_lines_go(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is the application's own."""
    logs = configure("orders", LogOptions(format="json"))
    log.info("x")
    logs.shutdown(0.1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["message"] == "x"
    assert sys.stderr is not None


@pytest.mark.parametrize(("field", "value"), [("level", "loud"), ("format", "xml")])
def test_an_option_that_cannot_be_is_refused(field: str, value: str) -> None:
    """With its name, the value and what to write."""
    with pytest.raises(ConfigError, match=f"{field}.*{value}.*give one of"):
        LogOptions(**{field: value})
