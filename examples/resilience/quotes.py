"""Shipping quotes of several carriers, each policy where it belongs, and nothing that a test has to wait for.

Run: python quotes.py
Test: pytest test_quotes.py
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Protocol

from chassis import (
    CircuitOpen,
    KeyedBreakers,
    LoadShedder,
    Pipeline,
    Rejected,
    bulkhead,
    fallback,
    hedge,
    rate_limit,
    remaining,
    retry,
    timeout,
)
from chassis.retries import RetryBudget

UNANSWERED = (ConnectionError, TimeoutError)  # a DeadlineExceeded is a TimeoutError too


class CarrierAPI(Protocol):
    """What the carriers offer; your own client stands here."""

    async def quote(self, carrier: str, tenant: str, parcel: str) -> float: ...

    async def track(self, carrier: str, parcel: str) -> str: ...

    def print_label(self, carrier: str, parcel: str) -> bytes: ...


class Carriers:
    """The same, guarded. A test hands in a clock of its own."""

    def __init__(
        self,
        api: CarrierAPI,
        *,
        clock: Callable[[], float] = monotonic,
        sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        # One for retries and hedges of all carriers: together they add a fifth to the load at most.
        budget = RetryBudget("carriers", ratio=0.2, per_second=1, clock=clock)

        # One breaker for each carrier: the one that is down does not close the door of the others.
        breakers = KeyedBreakers(
            "carriers", key=lambda carrier, *_: carrier, consecutive_failures=3, clock=clock
        )

        retries = partial(retry, on=UNANSWERED, budget=budget, clock=clock, sleep_async=sleep_async)

        self.quoting = Pipeline(
            timeout(2.0),  # the caller's patience, whatever is tried
            rate_limit("quotes", rate=5, per=1, key=lambda carrier, tenant, parcel: tenant, clock=clock),
            retries("quotes"),
            breakers,
            timeout(0.5),  # one attempt; inside the breaker, which so learns of it
            name="quoting",
        )
        self.tracking = Pipeline(
            fallback("unknown", on=(*UNANSWERED, Rejected)),  # breaker and shedder raise neither of the two
            timeout(2.0),
            LoadShedder("tracking", max_in_flight=50, clock=clock),  # more at once would all be late
            retries("tracking"),
            hedge("tracking", idempotent=True, delay=0.05, extra_load=0.5, budget=budget),
            breakers,
            timeout(0.5),
            name="tracking",
        )
        self.printing = bulkhead("labels", limit=2, clock=clock)  # the printer takes two at once

        self.quote = self.quoting(api.quote)
        self.track = self.tracking(api.track)
        self.print_label = self.printing(api.print_label)


class Flaky:
    """Carriers for the run below: "north" loses every third call, "south" every one."""

    def __init__(self) -> None:
        self.calls = 0

    async def quote(self, carrier: str, tenant: str, parcel: str) -> float:
        self.calls += 1
        if carrier == "south" or self.calls % 3 == 0:
            raise ConnectionError(f"{carrier} does not answer")
        print(f"  {carrier} is asked, which has {remaining():.1f} s for it")
        return 4.2

    async def track(self, carrier: str, parcel: str) -> str:
        raise ConnectionError(f"{carrier} does not answer")

    def print_label(self, carrier: str, parcel: str) -> bytes:
        return b"%PDF"


async def main() -> None:
    carriers = Carriers(Flaky())
    for pipeline in (carriers.quoting, carriers.tracking):
        print(f"{pipeline.name}: {' > '.join(pipeline.order())}")
    for carrier in ("north", "north", "south", "south", "south"):
        try:
            print(f"{carrier}: {await carriers.quote(carrier, 'ann', 'tea')}")
        except (*UNANSWERED, CircuitOpen) as error:
            print(f"{carrier}: {type(error).__name__}: {error}")
    print(f"south tracks: {await carriers.track('south', 'tea')}")


if __name__ == "__main__":
    asyncio.run(main())
