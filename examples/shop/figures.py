"""What the load's lines say of a stretch of time."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def percentile(values: list[float], share: float) -> float:
    """The smallest of ``values`` that ``share`` of them do not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


@dataclass
class Window:
    """The requests that were due in one stretch of time, and the turns of the event stream.

    :param begin: its first instant, in seconds of the monotonic clock.
    :param end: its last.
    """

    begin: float
    end: float
    requests: list[dict[str, Any]] = field(default_factory=list)
    turns: list[dict[str, Any]] = field(default_factory=list)
    answered: int = 0

    def until(self, end: float) -> "Window":
        """The requests that were due before ``end``."""
        return Window(self.begin, end, [each for each in self.requests if each["at"] < end])

    def of(self, *kinds: str) -> "Window":
        """The requests of these kinds alone."""
        return Window(self.begin, self.end, [each for each in self.requests if each["kind"] in kinds])

    def since(self, begin: float) -> "Window":
        """The requests that were due at ``begin`` or later."""
        return Window(begin, self.end, [each for each in self.requests if each["at"] >= begin])

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def errors(self) -> list[str]:
        """How each request that failed did."""
        return [each["error"] for each in self.requests if "error" in each]

    @property
    def achieved(self) -> float:
        """Answers and failures per second; below what was offered if load or services cannot keep up."""
        return self.answered / self.seconds

    def ms(self, share: float) -> float:
        """The latency that ``share`` of the requests do not exceed, in milliseconds."""
        return percentile([each["ms"] for each in self.requests], share)

    def count(self, name: str) -> Counter[Any]:
        """How often each value of a field was told."""
        return Counter(each[name] for each in self.requests if name in each)

    @property
    def cut_streams(self) -> list[str]:
        """How each event stream that did not end cleanly was cut or refused."""
        return [each["error"] for each in self.turns if "error" in each]

    @property
    def opened(self) -> int:
        """How often an event stream was opened."""
        return sum(each["turn"] == "opened" for each in self.turns)


class LoadFile:
    """The lines the load has written so far."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0
        self._requests: list[dict[str, Any]] = []
        self._turns: list[dict[str, Any]] = []
        self.told_until = 0.0
        """Every request that was due before this instant has been told of."""

    def read(self) -> None:
        """Take in what has been written since."""
        with self._file.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in map(json.loads, whole.splitlines()):
            match line.get("kind"):
                case "told":
                    self.told_until = line["at"]
                case "stream":
                    self._turns.append(line)
                case None:
                    pass  # its ready line
                case _:
                    self._requests.append(line)

    def window(self, begin: float, end: float) -> Window:
        """What was due, or happened, between two instants."""
        return Window(
            begin,
            end,
            [each for each in self._requests if begin <= each["at"] < end],
            [each for each in self._turns if begin <= each["at"] < end],
            sum(
                begin <= each["at"] + each["ms"] / 1000 < end
                for each in self._requests
                if each["kind"] != "token"
            ),
        )
