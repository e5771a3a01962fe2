"""Options, and the putting together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from chassis.core.contracts import Sink
from chassis.core.errors import ConfigError
from chassis.logs._front import add_to_loguru
from chassis.logs._lines import json_line, text_line
from chassis.logs._pipeline import NUMBERS, Pipeline, Stream, active
from chassis.logs._record import Record
from chassis.logs._scrub import Scrubber
from chassis.logs._stdlib import add_to_logging

_FORMATS = ("auto", "json", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is logged and how.

    :param level: ``trace``, ``debug``, ``info``, ``warning``, ``error`` or ``critical``, in any
        case; records below it are left out.
    :param format: ``json``, ``text``, or ``auto``: text on a terminal, JSON elsewhere.
    :param redact: names of fields that are secret, besides password, secret, token, authorization,
        cookie, API key and the like.
    :param access: whether one line is logged for each request served.
    """

    level: str = "info"
    format: Literal["auto", "json", "text"] = "auto"
    redact: tuple[str, ...] = ()
    access: bool = True

    def __post_init__(self) -> None:
        if str(self.level).lower() not in NUMBERS:
            remedy = f"give one of {', '.join(NUMBERS)}"
            raise ConfigError(f"{self.level!r} is not a level", setting="level", remedy=remedy)
        if self.format not in _FORMATS:
            remedy = f"give one of {', '.join(_FORMATS)}"
            raise ConfigError(f"{self.format!r} is not a format", setting="format", remedy=remedy)


class Logs:
    """What :func:`configure` set up."""

    def __init__(self, pipeline: Pipeline, sink: Sink[Record] | None, undo: list[Callable[[], None]]) -> None:
        self._pipeline = pipeline
        self._sink = sink
        self._undo = undo

    @property
    def counts(self) -> dict[str, int]:
        """Lines lost: ``errors`` could not be written, ``overflowed`` waited on a slow stream."""
        return {"errors": self._pipeline.errors, "overflowed": self._pipeline.overflowed}

    def flush(self, timeout: float) -> bool:
        """Wait, for at most ``timeout`` seconds, until what was logged so far has been shipped.

        :returns: whether all of it was.
        """
        return True if self._sink is None else self._sink.flush(timeout)

    def shutdown(self, timeout: float) -> bool:
        """Ship what was logged, then put the logging of the process back as it was. Twice does nothing.

        :returns: whether everything was shipped.
        """
        shipped = True if self._sink is None else self._sink.close(timeout)
        self.release()
        return shipped

    def release(self) -> None:
        """Take the sinks out of loguru and the standard library's logging."""
        if active.pipeline is self._pipeline:
            active.pipeline = None
        while self._undo:
            self._undo.pop()()


class _Configured:
    logs: Logs | None = None


def configure(
    service: str,
    options: LogOptions | None = None,
    *,
    ids: Callable[[], tuple[str, str] | None] = lambda: None,
    sink: Sink[Record] | None = None,
    stream: Stream | None = None,
) -> Logs:
    """Make all logging of this process structured.

    loguru's default handler and handlers that print the standard library's records are replaced;
    other handlers stay. Servers' own lines come the same way, their access lines are left out in
    favour of ours, and httpx is heard from WARNING on. A second call takes the first one's place.

    :param service: its name, on every line.
    :param ids: trace id and span id of the caller's context: ``chassis.tracing.current_ids``.
    :param sink: takes every record for shipping; none ships nothing.
    :param stream: lines go here; standard error if left out.
    """
    options = options or LogOptions()
    stream = stream if stream is not None else sys.stderr
    render: Callable[[Record], str] = partial(json_line, service=service)
    terminal = bool(getattr(stream, "isatty", bool)())
    if options.format == "text" or (options.format == "auto" and terminal):
        render = partial(text_line, service=service, colour=terminal)
    pipeline = Pipeline(
        number=NUMBERS[options.level.lower()],
        render=render,
        stream=stream,
        scrubber=Scrubber(options.redact),
        ids=ids,
        sink=sink,
        access=options.access,
    )
    if _Configured.logs is not None:
        _Configured.logs.release()
    active.pipeline = pipeline
    logs = _Configured.logs = Logs(pipeline, sink, [add_to_loguru(pipeline), add_to_logging(pipeline)])
    return logs
