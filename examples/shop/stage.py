"""What the acts play on: the shop, the load, the receiver's file, and the time."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from examples.shop.figures import LoadFile, Window
from examples.shop.processes import Processes
from examples.shop.received import Received
from examples.shop.shop import Shop
from examples.shop.terminal import Terminal

TICK = 0.1
LOOK_AT_BREAKERS_EVERY = 1.0
ENOUGH = 0.9
"""The share of the load that must be achieved for an act's figures to mean anything."""


@dataclass
class Act:
    """One act, and what was found.

    :param began: in seconds of the monotonic clock.
    """

    title: str
    began: float = field(default_factory=time.monotonic)
    failures: list[str] = field(default_factory=list)
    busy: bool = False

    @property
    def passed(self) -> bool:
        return not self.failures and not self.busy


class Stage:
    """Lets time pass while it shows how things stand, and keeps what the acts found.

    :param rate: requests a second that the load offers.
    :param pace: what the acts' waits are multiplied with.
    """

    def __init__(
        self,
        terminal: Terminal,
        processes: Processes,
        shop: Shop,
        load: LoadFile,
        received: Received,
        *,
        rate: float,
        pace: float,
    ) -> None:
        self.terminal = terminal
        self.processes = processes
        self.shop = shop
        self.load = load
        self.received = received
        self.rate = rate
        self.pace = pace
        self.acts: list[Act] = []
        self._breakers = ""
        self._looked = 0.0

    # Time

    def watch(self, seconds: float) -> None:
        """Let the load run for ``seconds`` at the story's pace."""
        end = time.monotonic() + seconds * self.pace
        while (left := end - time.monotonic()) > 0:
            self.tick()
            time.sleep(min(TICK, left))

    def until(self, condition: Callable[[], Any], limit: float) -> bool:
        """Let it run until ``condition`` holds; says whether it did within ``limit`` seconds."""
        end = time.monotonic() + limit
        while not (holds := condition()) and time.monotonic() < end:
            self.tick()
            time.sleep(TICK / 2)
        return bool(holds)

    def tick(self) -> None:
        """Look after the processes and show how things stand.

        :raises ProcessFailed: a process has ended by itself.
        """
        self.processes.check()
        self.load.read()
        now = time.monotonic()
        if now - self._looked > LOOK_AT_BREAKERS_EVERY:
            self._looked = now
            self._breakers = self._look_at_breakers()
        if self.acts:
            window = self.load.window(self.acts[-1].began, now)
            recent = self.load.window(now - 2, now)
            self.terminal.status(
                f"   {recent.answered / 2:4.0f}/s   {len(window.requests):5} requests  {len(window.errors):3} failed"
                f"   p50 {window.ms(0.5):5.1f} ms  p99 {window.ms(0.99):6.1f} ms   breakers: {self._breakers}"
            )

    def _look_at_breakers(self) -> str:
        found: Counter[str] = Counter()
        for process in [*self.shop.running["gateway"], *self.shop.running["orders"]]:
            try:
                callees = self.shop.callees(process)
            except httpx2.HTTPError:
                found[f"{process.name} does not tell"] += 1
                continue
            for service, states in callees.items():
                asking = process.name.rpartition("-")[0]
                found.update(f"{asking}→{service} {state}" for state in states.values() if state != "closed")
        return ", ".join(f"{number} {text}" for text, number in found.items()) or "all closed"

    # Acts

    def begin(self, title: str) -> Act:
        """Begin an act."""
        act = Act(title)
        self.acts.append(act)
        self.terminal.title(title)
        return act

    def end(self, act: Act) -> Window:
        """End an act: wait until all requests that were due in it have been told of."""
        end = time.monotonic()
        self.until(lambda: self.load.told_until >= end, 15)
        window = self.load.window(act.began, end)
        act.busy = window.achieved < ENOUGH * self.rate
        self.terminal.say(
            f"   offered {self.rate:.0f}/s, achieved {window.achieved:.0f}/s; {len(window.requests)} requests,"
            f" p50 {window.ms(0.5):.1f} ms, p99 {window.ms(0.99):.1f} ms"
        )
        return window

    def check(self, holds: bool, text: str) -> None:
        """Note a finding of the act that is being played."""
        if not holds:
            self.acts[-1].failures.append(text)
        self.terminal.verdict(holds, text)

    def check_unharmed(self, window: Window) -> None:
        """No request failed, and no event stream was cut."""
        errors = window.errors
        cut = [each for each in errors if each.startswith("cut")]
        self.check(
            not errors, f"{len(errors)} of {len(window.requests)} requests failed, {len(cut)} of them cut"
        )
        for text, times in window.count("error").most_common(5):
            self.terminal.say(f"       {times} × {text}")
        streams = window.cut_streams
        self.check(not streams, f"{len(streams)} event streams cut {sorted(set(streams)) or ''}")
