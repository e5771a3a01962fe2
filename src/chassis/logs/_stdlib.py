"""The standard library's logging, straight into the pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from chassis.logs._pipeline import Pipeline
from chassis.logs._record import printable

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "color_message",
    "taskName",
}

_SERVERS = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.asgi",
    "_granian",
    "granian",
    "gunicorn.error",
    "hypercorn.error",
)
"""Loggers that servers give handlers of their own: those go, the records come here."""
_ACCESS = ("uvicorn.access", "granian.access", "gunicorn.access", "hypercorn.access", "werkzeug")
"""Their request lines, at INFO, which say less than ours."""
_CHATTY = ("httpx", "httpx2")
"""Log every request at INFO, with the whole URL."""


class PipelineHandler(logging.Handler):
    """Hands standard records to the pipeline. Has no lock: the pipeline needs none."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self._pipeline = pipeline

    def createLock(self) -> None:  # noqa: N802 - the base class' name
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit; the base class would take the lock, from Python 3.13 on even where there is none."""
        found: Any = self.filter(record)
        if found:
            # From 3.12 on a filter may give another record in place of this one.
            self.emit(found if isinstance(found, logging.LogRecord) else record)
        return bool(found)

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {
            name: value for name, value in record.__dict__.items() if name not in _STANDARD
        }
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - logging never raises
            message = printable(record.msg)
            fields |= {"args": record.args, "format_error": type(error).__name__}
        self._pipeline.log(
            level=record.levelname,
            number=record.levelno,
            message=message,
            logger=record.name,
            fields=fields,
            error=record.exc_info[1] if record.exc_info else None,
            time_ns=int(record.created * 1e9),
        )


def add_to_logging(pipeline: Pipeline) -> Callable[[], None]:
    """Send the standard library's records to ``pipeline``, in place of handlers that print them.

    :returns: a function that puts everything back as it was.
    """
    root = logging.getLogger()
    before = [_state(root)]
    # Handlers of other kinds (files, a test runner's) are the application's own and stay.
    root.handlers = [each for each in root.handlers if type(each) is not logging.StreamHandler]
    root.addHandler(PipelineHandler(pipeline))
    root.setLevel(pipeline.number)
    for name in (*_SERVERS, *_ACCESS, *_CHATTY):
        logger = logging.getLogger(name)
        before.append(_state(logger))
        if name not in _SERVERS:
            logger.setLevel(max(logger.level, logging.WARNING))
        if name not in _CHATTY:
            logger.handlers, logger.propagate = [], True

    def remove() -> None:
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)

    return remove


def _state(logger: logging.Logger) -> tuple[logging.Logger, list[logging.Handler], int, bool]:
    return logger, list(logger.handlers), logger.level, logger.propagate
