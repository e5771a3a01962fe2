"""What an admission gives out."""

from __future__ import annotations

from typing import Protocol

from chassis.core.outcomes import Outcome


class Permit(Protocol):
    """Leave to make one call; given back once, with how the call ended."""

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Give the permit back. A second call, or one from an earlier generation, does nothing.

        :param error: the error behind a FAILURE, kept as type name and message only.
        """
