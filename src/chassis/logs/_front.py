"""loguru as the front: ``log``, which never raises, and loguru's way into the pipeline."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from loguru import logger as loguru_logger

from chassis.logs._pipeline import NUMBERS, Pipeline, active, emit
from chassis.logs._record import printable

if TYPE_CHECKING:
    from loguru import Logger, Message

_DEPTH = 2
"""Frames between a caller's line and loguru's."""


class Log:
    """loguru's logger with one difference: no message, argument or value makes it raise.

    ``logger.info('{"a": 1}', user=7)`` is a KeyError in loguru, since it formats what looks like a
    placeholder. Here the record is logged as it stands, with the field ``format_error``.
    Keyword arguments become fields; positional ones are for the message's placeholders.
    """

    __slots__ = ("_logger",)

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def trace(self, message: str, /, *args: Any, **fields: Any) -> None:
        """Log at level TRACE (5)."""
        self._log("TRACE", message, args, fields)

    def debug(self, message: str, /, *args: Any, **fields: Any) -> None:
        """Log at level DEBUG (10)."""
        self._log("DEBUG", message, args, fields)

    def info(self, message: str, /, *args: Any, **fields: Any) -> None:
        """Log at level INFO (20)."""
        self._log("INFO", message, args, fields)

    def success(self, message: str, /, *args: Any, **fields: Any) -> None:
        """Log at level SUCCESS (25)."""
        self._log("SUCCESS", message, args, fields)

    def warning(self, message: str, /, *args: Any, **fields: Any) -> None:
        """Log at level WARNING (30)."""
        self._log("WARNING", message, args, fields)

    def error(self, message: str, /, *args: Any, **fields: Any) -> None:
        """Log at level ERROR (40)."""
        self._log("ERROR", message, args, fields)

    def critical(self, message: str, /, *args: Any, **fields: Any) -> None:
        """Log at level CRITICAL (50)."""
        self._log("CRITICAL", message, args, fields)

    def exception(self, message: str, /, *args: Any, **fields: Any) -> None:
        """Log at level ERROR, with the exception being handled."""
        Log(self._logger.opt(exception=True, depth=_DEPTH))._log("ERROR", message, args, fields)

    def log(self, level: str, message: str, /, *args: Any, **fields: Any) -> None:
        """Log at a level by its name; one that does not exist counts as INFO."""
        self._log(level, message, args, fields)

    def bind(self, **fields: Any) -> Log:
        """A logger whose records all carry ``fields``."""
        return Log(self._logger.bind(**fields))

    def _log(self, level: str, message: str, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        if _writing.inside():
            # In a signal handler or finaliser that interrupted loguru in this thread: its lock is
            # held, and the record would be refused.
            emit(level, printable(message), logger="chassis.logs", **_safely(args, fields))
            return
        try:
            self._logger.log(level, message, *args, **fields)
        except Exception as error:  # noqa: BLE001 - logging never raises
            level = level if level in _LEVELS else "INFO"
            fields = {**_safely(args, fields), "format_error": type(error).__name__}
            self._logger.bind(**fields).log(level, "{}", printable(message))


_LEVELS = frozenset(name.upper() for name in NUMBERS) | {"SUCCESS"}


def _safely(args: tuple[Any, ...], fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, and the arguments that no placeholder takes."""
    return {**fields, "args": list(args)} if args else fields


class _Writing:
    """Knows which threads are inside our loguru sink."""

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def inside(self) -> bool:
        return threading.get_ident() in self._threads

    def __enter__(self) -> None:
        self._threads.add(threading.get_ident())

    def __exit__(self, *error: object) -> None:
        self._threads.discard(threading.get_ident())


_writing = _Writing()

log = Log(loguru_logger.opt(depth=_DEPTH))
"""The logger to use: ``from chassis.logs import log``."""


class LoguruSink:
    """What is added to loguru; hands each record to the pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.expected_stop = False

    def write(self, message: Message) -> None:
        """Called by loguru, under its lock, in the thread and context of the caller."""
        with _writing:
            record = message.record
            exception = record["exception"]
            self._pipeline.log(
                level=record["level"].name,
                number=record["level"].no,
                message=record["message"],
                logger=record["name"] or "unknown",
                fields=record["extra"],
                error=exception.value if exception is not None else None,
                time_ns=int(record["time"].timestamp() * 1e9),
            )

    def stop(self) -> None:
        """Called by loguru when the sink is removed; adding it again here would deadlock."""
        if not self.expected_stop and active.pipeline is self._pipeline:
            emit(
                "warning",
                "chassis' sink was removed from loguru: what loguru logs from now on is not shipped",
                logger="chassis.logs",
                remedy="call logger.configure() and logger.remove() before the service starts",
            )


class _Default:
    """loguru's own handler to standard error, by its number; 0 until we have put it back once."""

    number: int | None = 0


def add_to_loguru(pipeline: Pipeline) -> Callable[[], None]:
    """Send loguru's records to ``pipeline``, in place of its default handler.

    :returns: a function that puts the default handler back, if it was there.
    """
    replaced = _remove(_Default.number)
    sink = LoguruSink(pipeline)
    # No format: the sink reads the record itself. diagnose would write local variables, and with
    # them secrets, into every traceback.
    handler = loguru_logger.add(
        sink, level=pipeline.number, format=_no_format, backtrace=False, diagnose=False, catch=True
    )

    def undo() -> None:
        sink.expected_stop = True
        _remove(handler)
        if replaced:
            _Default.number = loguru_logger.add(sys.stderr) if sys.stderr is not None else None

    return undo


def _remove(handler: int | None) -> bool:
    """Remove a handler from loguru; False if the application has done so already."""
    if handler is None:
        return False
    try:
        loguru_logger.remove(handler)
    except ValueError:
        return False
    return True


def _no_format(record: Any) -> str:
    return ""
