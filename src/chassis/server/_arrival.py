"""What both edges do with a request before the application sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chassis.core import Outcome, Permit, events
from chassis.limits import LoadShedder, LoadShedderOptions
from chassis.server._context import Form, deadline_forms, read_context
from chassis.server._events import DeadlineMalformed
from chassis.server._options import ServerOptions

SUBJECT = "server"


class Arrivals:
    """Reads the context of requests, and sheds load, as the options of the moment say."""

    def __init__(self, shedder: LoadShedder | None) -> None:
        self.shedder = shedder or LoadShedder(SUBJECT, register=False)
        self._known: tuple[tuple[str, ...], Mapping[bytes, Form]] = ((), deadline_forms(()))

    def read(self, headers: Iterable[tuple[bytes, bytes]], options: ServerOptions) -> tuple[str, float]:
        """The request's id, and the seconds it has; none or fewer if its caller has gone."""
        names, forms = self._known
        if names is not options.deadline_headers:
            forms = deadline_forms(options.deadline_headers)
            self._known = (options.deadline_headers, forms)
        request_id, told, malformed = read_context(headers, forms)
        if malformed and events.listening:
            for header in malformed:
                events.emit(DeadlineMalformed(subject=SUBJECT, header=header))
        return request_id, options.deadline(told)

    def sheds(self, options: LoadShedderOptions) -> bool:
        """Whether any load is shed; if not, nothing need be asked of the shedder."""
        if options is not self.shedder.options and options != self.shedder.options:
            self.shedder.reconfigure(options)
        return options.max_in_flight is not None or options.max_lag is not None or options.hopeless

    def admit(self, options: LoadShedderOptions) -> Permit | None:
        """Leave to serve one request, or None where none is asked for.

        :raises Overloaded: there are too many.
        """
        return self.shedder.acquire() if self.sheds(options) else None

    async def admit_async(self, options: LoadShedderOptions) -> Permit | None:
        """As :meth:`admit`; the lag of the loop that serves counts too."""
        return await self.shedder.acquire_async() if self.sheds(options) else None


def outcome_of(status: int, failure: BaseException | None) -> Outcome:
    """How a request went, for who measures how long work takes: only what was done tells that."""
    if failure is None and 0 < status < 400:
        return Outcome.SUCCESS
    return Outcome.FAILURE if status >= 500 else Outcome.IGNORED
