"""The one place where all records meet: made plain, written as a line, handed to be shipped."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from chassis.core.contracts import Sink
from chassis.core.forks import tell_after_fork
from chassis.core.request import request_id
from chassis.logs._context import NOTHING, bound
from chassis.logs._record import ExceptionText, Record, printable
from chassis.logs._scrub import Scrubber

PENDING = 10_000
"""Lines that wait while another thread is writing; more are counted and left out."""

NUMBERS = {"trace": 5, "debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class Stream(Protocol):
    """What lines are written to: a text file."""

    def write(self, text: str, /) -> Any: ...

    def flush(self) -> Any: ...


class Pipeline:
    """Takes what was logged, from any thread, signal handler or finaliser, and never raises.

    :param number: records below this level number are left out.
    :param render: makes a line of a record.
    :param stream: lines go here; None where there is none, as in a process without standard error.
    :param ids: trace id and span id that hold in the caller's context, or None.
    :param sink: takes each record for shipping.
    """

    def __init__(
        self,
        *,
        number: int,
        render: Callable[[Record], str],
        stream: Stream | None,
        scrubber: Scrubber,
        ids: Callable[[], tuple[str, str] | None],
        sink: Sink[Record] | None,
        access: bool,
    ) -> None:
        self.number = number
        self.access = access
        self.errors = 0
        """Lines that could not be made or written."""
        self.overflowed = 0
        """Lines left out because a thread's write took too long."""
        self._render = render
        self._stream = stream
        self._scrubber = scrubber
        self._ids = ids
        self._sink = sink
        self._pending: deque[Record] = deque()
        self._writing = threading.Lock()
        tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        """What the parent's threads were about to write, the parent writes."""
        self._pending.clear()
        self._writing = threading.Lock()

    def log(
        self,
        *,
        level: str,
        number: int,
        message: str,
        logger: str,
        fields: Mapping[Any, Any],
        error: BaseException | None = None,
        time_ns: int | None = None,
    ) -> None:
        """Log one record, in the caller's context."""
        if number < self.number:
            return
        try:
            context = bound.get(NOTHING)
            ids = self._ids()
            record = Record(
                time_ns=time.time_ns() if time_ns is None else time_ns,
                level=level,
                number=number,
                message=self._scrubber.text(message),
                logger=logger,
                trace_id=ids[0] if ids else None,
                span_id=ids[1] if ids else None,
                request_id=request_id.get(),
                fields=self._scrubber.fields({**context, **fields} if context else fields),
                exception=ExceptionText.of(error, self._scrubber) if error is not None else None,
            )
        except Exception:  # noqa: BLE001 - logging never raises
            self.errors += 1
            return
        if self._sink is not None:
            self._sink.accept(record)
        if self._stream is not None:
            self._write(record, self._stream)

    def _write(self, record: Record, stream: Stream) -> None:
        # Whoever holds the lock writes for all: a record that comes while this thread itself is
        # writing (from a signal handler, a finaliser, the stream) waits its turn, and no thread
        # waits for another one's slow terminal. Looking again after the release leaves no record
        # behind that came between the last look and the release.
        if len(self._pending) >= PENDING:
            self.overflowed += 1
            return
        self._pending.append(record)
        while self._pending and self._writing.acquire(blocking=False):
            try:
                while self._pending:
                    self._write_line(self._pending.popleft(), stream)
            finally:
                self._writing.release()

    def _write_line(self, record: Record, stream: Stream) -> None:
        try:
            stream.write(self._render(record))
            stream.flush()
        except Exception:  # noqa: BLE001 - a closed pipe or a full disk is not the caller's error
            self.errors += 1


class _Active:
    """The pipeline in force, if one is configured."""

    pipeline: Pipeline | None = None


active = _Active()


def emit(
    level: str, message: str, /, *, logger: str, exception: BaseException | None = None, **fields: Any
) -> None:
    """Log a record without passing through loguru: five times cheaper, and safe anywhere.

    Does nothing until :func:`~chassis.logs.configure` was called.

    :param level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
    :param logger: the name the record bears.
    :param exception: an error to log with its traceback.
    """
    pipeline = active.pipeline
    if pipeline is not None:
        pipeline.log(
            level=level.upper(),
            number=NUMBERS.get(level.lower(), 20),
            message=printable(message),
            logger=logger,
            fields=fields,
            error=exception,
        )


def access(method: str, path: str, status: int, seconds: float, /, **fields: Any) -> None:
    """Log one request served: ``GET /items 200``, logger ``chassis.access``, level INFO.

    Its fields are ``method``, ``path``, ``status``, ``duration_ms`` and those given. Nothing is
    logged if the option ``access`` is off.

    :param path: without the query, which may carry secrets.
    """
    pipeline = active.pipeline
    if pipeline is not None and pipeline.access:
        pipeline.log(
            level="INFO",
            number=20,
            message=f"{method} {path} {status}",
            logger="chassis.access",
            fields={
                "method": method,
                "path": path,
                "status": status,
                "duration_ms": round(seconds * 1000, 3),
                **fields,
            },
        )
