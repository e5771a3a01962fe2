"""Plain lines, and below them, on a terminal, one status line that is written anew."""

import shutil
import sys
import time

PLAIN_STATUS_EVERY = 2.0
"""Seconds between two status lines where they cannot be written over."""


class Terminal:
    """Writes to standard output."""

    def __init__(self) -> None:
        self._tty = sys.stdout.isatty()
        self._status_shown = False
        self._last_status = 0.0
        self._began = time.monotonic()

    def say(self, *lines: str) -> None:
        """Write lines that stay."""
        self._wipe()
        for line in lines:
            print(line, flush=True)

    def title(self, text: str) -> None:
        """Begin an act."""
        self.say(
            "", self._styled("1", f"── {text} ".ljust(78, "─") + f" {time.monotonic() - self._began:5.1f} s")
        )

    def verdict(self, passed: bool, text: str) -> None:
        """Write what was found, with a mark."""
        self.say(self._styled("32", f"   ✓ {text}") if passed else self._styled("31", f"   ✗ {text}"))

    def status(self, text: str) -> None:
        """Show how it stands now."""
        now = time.monotonic()
        if self._tty:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[2K{text[:width]}", end="", flush=True)
            self._status_shown = True
        elif now - self._last_status >= PLAIN_STATUS_EVERY:
            print(text, flush=True)
            self._last_status = now

    def _wipe(self) -> None:
        if self._status_shown:
            print("\r\x1b[2K", end="")
            self._status_shown = False

    def _styled(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._tty else text
