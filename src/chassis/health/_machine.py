"""What the checks' results and the lifecycle's state come to. Pure: takes ``now``, does no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["pass", "warn", "fail"]

FAILURES = 2
"""A check that was healthy is failed after this many failures in a row: one lost packet is no outage."""


class State(Enum):
    """Where the process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Result:
    """How a check's last run ended."""

    at: float
    healthy: bool
    note: str
    seconds: float


class Check:
    """The memory of one check.

    :param critical: whether readiness depends on it.
    :param ttl: seconds a result is good for.
    :param timeout: seconds one run may take.
    """

    def __init__(self, name: str, *, critical: bool, ttl: float, timeout: float) -> None:
        self.name = name
        self.critical = critical
        self.ttl = ttl
        self.timeout = timeout
        self.running = False
        self.result: Result | None = None
        self.failed: bool | None = None
        """The verdict; None until the first run has ended."""
        self._failures = 0

    def due(self, now: float) -> bool:
        """Whether it should be run: it is not running, and its result is old or there is none."""
        return not self.running and self.wait(now) <= 0

    def wait(self, now: float) -> float:
        """Seconds until its result is old; 0 if there is none."""
        return 0.0 if self.result is None else self.result.at + self.ttl - now

    def stale(self, now: float) -> bool:
        """Whether nobody has run it for so long that its result says nothing any more."""
        return self.result is not None and now - self.result.at > 3 * self.ttl + self.timeout

    def settle(self, result: Result) -> bool:
        """Take the result of a run.

        :returns: whether the verdict changed (a healthy first run changes nothing).
        """
        before = self.failed
        self.running = False
        self.result = result
        if result.healthy:
            self._failures = 0
            self.failed = False
        else:
            self._failures += 1
            # What has never been healthy gets no second chance: nothing good is known of it.
            if before is None or self._failures >= FAILURES:
                self.failed = True
        return bool(self.failed) is not bool(before)

    def verdict(self, now: float) -> tuple[Verdict, str]:
        """The verdict and a short note."""
        bad: Verdict = "fail" if self.critical else "warn"
        if self.result is None:
            return bad, "not checked yet"
        if self.stale(now):
            return bad, f"not checked for {now - self.result.at:.0f} s"
        return (bad if self.failed else "pass"), self.result.note


class Board:
    """All checks and the lifecycle's state."""

    def __init__(self) -> None:
        self.state = State.STARTING
        self.checks: dict[str, Check] = {}

    def due(self, now: float) -> list[Check]:
        """The checks that should be run now; they are marked as running."""
        due = [check for check in self.checks.values() if check.due(now)]
        for check in due:
            check.running = True
        return due

    def wait(self, now: float) -> float | None:
        """Seconds until the next check is due; None if there is none to wait for."""
        waits = [check.wait(now) for check in self.checks.values() if not check.running]
        return max(0.0, min(waits)) if waits else None

    def ready(self, now: float) -> tuple[bool, str]:
        """Whether traffic is wanted, and why not or what is degraded."""
        if self.state is not State.READY:
            return False, self.state.value
        verdicts = [(check.name, *check.verdict(now)) for check in self.checks.values()]
        failed = sorted(name for name, verdict, _ in verdicts if verdict == "fail")
        degraded = sorted(name for name, verdict, _ in verdicts if verdict == "warn")
        if failed:
            return False, f"failed: {', '.join(failed)}"
        return True, f"degraded: {', '.join(degraded)}" if degraded else "ready"

    def status(self, now: float) -> Verdict:
        """The whole in one word: ``fail`` if not ready, ``warn`` if something is degraded."""
        ready, _ = self.ready(now)
        if not ready:
            return "fail"
        warned = any(check.verdict(now)[0] != "pass" for check in self.checks.values())
        return "warn" if warned else "pass"
