"""Real processes for tests: output in a file, signals to their own pid, never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

_POLL = 0.01


class ProcessFailed(AssertionError):
    """A process ended, or did not do in time what a test waited for; the message has its output."""


class ManagedProcess:
    """One process whose output (both streams) goes to a file.

    Use as a context manager, or call :meth:`start` and :meth:`stop`. After an end it may be
    started again: the file is appended to, and waiting looks at the output of the latest start.

    :param command: the program and its arguments.
    :param env: changes to this process's environment; None as a value removes the name.
    :param cwd: its working directory.
    :param log: the output file; a temporary one by default, removed by ``__exit__``.
    :param name: what failure messages call it; the program's name by default.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        log: Path | None = None,
        name: str | None = None,
    ) -> None:
        self.command = [os.fspath(part) for part in command]
        self.name = name or Path(self.command[0]).name
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._temporary = log is None
        if log is None:
            handle, path = tempfile.mkstemp(prefix=f"{self.name}-", suffix=".log")
            os.close(handle)
            log = Path(path)
        self.log = log
        self._offset = 0
        self._popen: subprocess.Popen[bytes] | None = None

    @classmethod
    def python(cls, *arguments: str | os.PathLike[str], **options: Any) -> ManagedProcess:
        """A process of the running interpreter, unbuffered: ``python("-m", "http.server")``."""
        name = options.pop("name", None) or " ".join(["python", *map(str, arguments[:2])])
        return cls([sys.executable, "-u", *arguments], name=name.replace("/", "_"), **options)

    # Life

    def start(self) -> Self:
        """Start it; returns at once, with itself."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already, as pid {self.pid}")
        with self.log.open("ab") as output:
            self._offset = output.tell()
            self._popen = subprocess.Popen(
                self.command,
                env={name: value for name, value in self._env.items() if value is not None},
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if self._temporary:
            self.log.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs or before it was started."""
        return None if self._popen is None else self._popen.poll()

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for its own end.

        :returns: the exit status, negative for a signal.
        :raises ProcessFailed: it still runs after ``timeout`` seconds.
        """
        try:
            return self._started().wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.failure(f"still runs after {timeout:g} s") from None

    def terminate(self, timeout: float = 10.0) -> int:
        """SIGTERM, then wait: the exit status. Fails if it has not ended in ``timeout`` seconds."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> int:
        """SIGKILL, then wait: the exit status."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def pause(self) -> None:
        """SIGSTOP: it keeps its sockets and answers nothing. Returns when it has stopped.

        On a busy machine some of its threads go on for a while after the signal has been sent.
        """
        self.signal(signal.SIGSTOP)
        stopped = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        while self.running and os.waitid(os.P_PID, self.pid, stopped) is None:
            time.sleep(_POLL)

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send a signal; does nothing when it has ended."""
        self._started().send_signal(number)

    def stop(self, grace: float = 10.0) -> None:
        """End it in whatever state it is: SIGTERM, and SIGKILL after ``grace`` seconds.

        They are enough for a service to drain on a busy machine: one that is killed stays registered.
        """
        if self._popen is None or self._popen.poll() is not None:
            return
        self.resume()
        self.signal(signal.SIGTERM)
        try:
            self._popen.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()

    # Output

    @property
    def output(self) -> str:
        """Everything it wrote since the latest start."""
        with self.log.open("rb") as log:
            log.seek(self._offset)
            return log.read().decode(errors="replace")

    def tail(self, lines: int = 40) -> str:
        """The last lines it wrote."""
        return "\n".join(self.output.splitlines()[-lines:])

    def wait_for_line(self, wanted: str | Callable[[str], Any], timeout: float = 30.0) -> str:
        """The first whole line that contains ``wanted`` (or for which it is true).

        :raises ProcessFailed: it ended without, or ``timeout`` seconds passed.
        """
        test = wanted if callable(wanted) else lambda line: wanted in line
        what = repr(wanted) if isinstance(wanted, str) else "the line waited for"
        return next(line for line in self._lines(timeout, what) if test(line))

    def wait_for_json(self, *keys: str, timeout: float = 30.0) -> dict[str, Any]:
        """The first line that is a JSON object with all of ``keys``, decoded: the ready line."""
        what = f"a JSON line with {', '.join(keys) or 'anything'}"
        for line in self._lines(timeout, what):
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    found = json.loads(line)
                    if isinstance(found, dict) and found.keys() >= set(keys):
                        return found
        raise AssertionError("unreachable: _lines ends by raising")

    def _lines(self, timeout: float, what: str) -> Iterator[str]:
        end = time.monotonic() + timeout
        seen = 0
        while True:
            ended = not self.running  # looked at before reading, so that the last words are read
            lines = self.output.splitlines(keepends=True)
            for line in lines[seen:]:
                if line.endswith("\n") or ended:
                    seen += 1
                    yield line.rstrip("\r\n")
            if ended:
                raise self.failure(f"ended with status {self.returncode} before it wrote {what}")
            if time.monotonic() >= end:
                raise self.failure(f"did not write {what} in {timeout:g} s")
            time.sleep(_POLL)

    def failure(self, problem: str) -> ProcessFailed:
        """An error that says what went wrong and shows the output's end."""
        return ProcessFailed(f"{self.name} {problem}\n--- the end of its output ---\n{self.tail()}")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._popen is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._popen
