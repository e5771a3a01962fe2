from __future__ import annotations

from typing import Any

from granian import Granian


class HurriedGranian(Granian):  # type: ignore[valid-type,misc]  # granian chooses its class at import
    """Granian that tells its workers when it is told a second time to stop.

    Of itself it passes only the first SIGTERM on, and workers that drain would go on draining.
    """

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        """SIGTERM or SIGINT reached the parent."""
        if self.interrupt_signal:
            for worker in self.wrks:
                worker.terminate()
        super().signal_handler_interrupt(*args, **kwargs)
