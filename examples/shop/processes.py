"""Real processes: started with their output in files, signalled by their own group, never left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""Where ``examples`` can be imported from."""


def own_environment() -> dict[str, str]:
    """Our environment without settings of chassis and OpenTelemetry: those of the story are its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CHASSIS_", "OTEL_"))}


class ProcessFailed(Exception):
    """A process ended when it should not have; the message has the end of its output."""


class Process:
    """One process and those it starts itself: a group of its own, so that Ctrl-C reaches the story alone.

    :param folder: where its output goes, as ``<name>.out`` and ``<name>.log``.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.out, self.log = folder / f"{name}.out", folder / f"{name}.log"
        self.ready: dict[str, Any] | None = None
        self.ended_on_purpose = False
        with self.out.open("wb") as out, self.log.open("wb") as log:
            self._popen = subprocess.Popen(  # noqa: S603 - the story's own commands
                command,
                cwd=ROOT,
                env={**own_environment(), **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                process_group=0,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def address(self) -> str:
        """Where it serves, as its ready line said."""
        return self.ready["address"] if self.ready else ""

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def is_ready(self) -> bool:
        """Whether it has printed its ready line: one JSON object with an address.

        :raises ProcessFailed: it has ended instead.
        """
        if self.ready is None:
            ended = self.status is not None  # looked at before reading, so that its last words are read
            for line in self.out.read_text(errors="replace").splitlines():
                with suppress(ValueError):
                    found = json.loads(line)
                    if isinstance(found, dict) and "address" in found:
                        self.ready = found
            if ended and self.ready is None:
                raise self.failure(f"ended with status {self.status} at its start")
        return self.ready is not None

    def signal(self, number: int) -> None:
        """Send a signal to it alone."""
        self.ended_on_purpose = True
        self._popen.send_signal(number)

    def kill(self) -> None:
        """End it and all it started at once, as a crash would."""
        self.ended_on_purpose = True
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def failure(self, what: str) -> ProcessFailed:
        """An error that shows the end of what it wrote."""
        lines = (self.out.read_text(errors="replace") + self.log.read_text(errors="replace")).splitlines()
        return ProcessFailed(f"{self.name} {what}\n" + "\n".join(f"    {line}" for line in lines[-15:]))


class Processes:
    """All processes of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Process] = []

    def name_for(self, kind: str) -> str:
        """The next name of its kind: ``catalog-1``, ``catalog-2``."""
        return f"{kind}-{1 + sum(each.name.rpartition('-')[0] == kind for each in self.all)}"

    def start(self, name: str, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Start ``python -m ARGUMENTS``; returns at once."""
        return self.start_program(name, sys.executable, "-m", *arguments, env=env)

    def start_program(self, name: str, *command: str, env: Mapping[str, str] | None = None) -> Process:
        """Start a program; returns at once."""
        process = Process(name, command, self.folder, env or {})
        self.all.append(process)
        return process

    def check(self) -> None:
        """Look after them.

        :raises ProcessFailed: one has ended by itself.
        """
        for process in self.all:
            if process.status is not None and not process.ended_on_purpose:
                raise process.failure(f"ended by itself with status {process.status}")

    def end(self, grace: float = 5.0) -> None:
        """End all that still run: SIGTERM, and SIGKILL for those that have not ended after ``grace`` seconds."""
        running = [each for each in self.all if each.status is None]
        for process in running:
            process.signal(signal.SIGTERM)
        limit = time.monotonic() + grace
        while any(each.status is None for each in running) and time.monotonic() < limit:
            time.sleep(0.02)
        for process in self.all:
            process.kill()  # its group too: a worker may outlive its parent


def wait_for(condition: Callable[[], bool], limit: float) -> None:
    """Wait until ``condition`` holds.

    :raises ProcessFailed: it does not within ``limit`` seconds.
    """
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise ProcessFailed(f"not everything was ready after {limit:.0f} s")
        time.sleep(0.05)


@contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    """The processes of a run; all of them have ended when the block is left, however it is left."""
    group = Processes(folder)
    previous: Callable[..., Any] | int | None = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield group
    finally:
        # A second Ctrl-C must not leave them behind.
        interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
        group.end()
        signal.signal(signal.SIGINT, interrupted)
        signal.signal(signal.SIGTERM, previous)
