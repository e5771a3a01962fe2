from __future__ import annotations

import os
from typing import Any

from granian import Granian


class HurriedGranian(Granian):  # type: ignore[valid-type,misc]  # granian chooses its class at import
    """Granian that tells its workers when it is told a second time to stop, or told before they began.

    Of itself it passes only the first SIGTERM on, and workers that drain would go on draining. A worker
    that still imports its application has a copy of the parent's handler, which would keep the signal to
    itself: the worker would start, register and serve until it is killed.
    """

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        """SIGTERM or SIGINT reached the parent, or a worker that has no handler of its own yet."""
        if os.getpid() != self.pid:
            os._exit(0)  # nothing has begun, so there is nothing to end
        if self.interrupt_signal:
            for worker in self.wrks:
                worker.terminate()
        super().signal_handler_interrupt(*args, **kwargs)

    def shutdown(self, exit_code: int = 0) -> None:
        """Stop the workers; the status is 0 if all of them ended well because they were told to."""
        workers = list(self.wrks)
        try:
            super().shutdown(exit_code)
        except SystemExit:
            # A signal for the whole group may have ended a worker before its parent told it.
            if not self.interrupt_signal or any(worker.inner.exitcode for worker in workers):
                raise
