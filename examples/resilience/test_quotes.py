"""How an application tests its own policies: a clock that goes when it is told to, and carriers with a script."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from quotes import Carriers

from chassis import BulkheadFull, CircuitOpen, DeadlineExceeded, RateLimited, timeout
from chassis.breaker import BreakerOpened
from chassis.limits import LoadShed
from chassis.testing import Hang, ScriptedDependency, assert_order

pytestmark = pytest.mark.usefixtures("chassis_policies")  # names are taken anew in each test


def carriers(clock, *script, repeat=False):
    """The application's own object; every call of the carriers takes the next step of the script."""
    asked = ScriptedDependency(*script, repeat=repeat, clock=clock)
    api = SimpleNamespace(quote=asked.call_async, track=asked.call_async, print_label=asked.call)
    return Carriers(api, clock=clock, sleep_async=clock.sleep_async), asked


def test_the_order_of_the_policies(chassis_clock):
    guarded, _ = carriers(chassis_clock)
    assert_order(guarded.quoting, "Timeout", "RateLimit", "Retry", "KeyedBreakers", "Timeout")
    order = ["Fallback", "Timeout", "LoadShedder", "Retry", "Hedge", "KeyedBreakers", "Timeout"]
    assert_order(guarded.tracking, *order)


def test_a_quote_that_was_lost_is_asked_for_again(chassis_clock):
    guarded, asked = carriers(chassis_clock, ConnectionError, 4.2)
    assert asyncio.run(guarded.quote("north", "ann", "tea")) == 4.2
    assert len(asked.calls) == 2
    assert len(chassis_clock.slept) == 1, "a pause between the two, which took no time here"


def test_a_carrier_that_is_down_is_left_alone_until_a_probe_succeeds(chassis_clock, chassis_events):
    async def main():
        guarded, asked = carriers(chassis_clock, *[ConnectionError] * 3, 4.2, repeat=True)
        with pytest.raises(ConnectionError):
            await guarded.quote("south", "ann", "tea")
        assert chassis_events.one(BreakerOpened).subject == "breaker:carriers/south"
        with pytest.raises(CircuitOpen) as refused:
            await guarded.quote("south", "ann", "tea")
        assert await guarded.quote("north", "ann", "tea") == 4.2, "the others are asked all the same"
        assert len(asked.calls) == 4

        chassis_clock.advance(refused.value.retry_after)
        assert await guarded.quote("south", "ann", "tea") == 4.2

    asyncio.run(main())


def test_retries_add_a_share_of_the_calls_and_do_not_multiply_them(chassis_clock):
    async def main():
        guarded, asked = carriers(chassis_clock, ConnectionError, repeat=True)
        for number in range(100):
            with pytest.raises(ConnectionError):  # each carrier but once, so that no breaker opens
                await guarded.quote(f"carrier {number}", f"tenant {number}", "tea")
        assert 100 < len(asked.calls) < 150, "without the budget they were 300"

    asyncio.run(main())


def test_a_tenant_that_asks_too_often_is_refused_and_others_are_not(chassis_clock):
    async def main():
        guarded, _ = carriers(chassis_clock, 4.2, repeat=True)
        for _ in range(5):
            await guarded.quote("north", "ann", "tea")
        with pytest.raises(RateLimited) as refused:
            await guarded.quote("north", "ann", "tea")
        assert await guarded.quote("north", "bob", "tea") == 4.2
        chassis_clock.advance(refused.value.retry_after)
        assert await guarded.quote("north", "ann", "tea") == 4.2

    asyncio.run(main())


def test_a_slow_answer_is_asked_for_once_more_beside_it(chassis_clock):
    guarded, asked = carriers(chassis_clock, Hang(), "in Bremen")
    assert asyncio.run(guarded.track("north", "tea")) == "in Bremen"
    assert [call.outcome for call in asked.calls] == ["cancelled", "returned"]


def test_where_a_parcel_is_may_be_unknown(chassis_clock):
    guarded, asked = carriers(chassis_clock, ConnectionError, repeat=True)
    assert [asyncio.run(guarded.track("south", "tea")) for _ in range(2)] == ["unknown"] * 2
    assert len(asked.calls) == 3, "at the second time the breaker was open"


def test_beyond_fifty_at_once_a_parcel_is_unknown_without_a_question(chassis_clock, chassis_events):
    guarded, asked = carriers(chassis_clock, Hang(then="in Bremen"), repeat=True)

    async def main():
        tracking = [asyncio.create_task(guarded.track("north", "tea")) for _ in range(50)]
        await asyncio.sleep(0.01)  # of the clock's time: all of them hang, and none is slow yet
        assert await guarded.track("north", "tea") == "unknown"
        assert len(asked.calls) == 50
        assert chassis_events.one(LoadShed).in_flight == 50
        asked.release()
        assert await asyncio.gather(*tracking) == ["in Bremen"] * 50

    chassis_clock.run(main())


def test_the_printer_takes_two_at_once(chassis_clock):
    guarded, asked = carriers(chassis_clock, Hang(then=b"%PDF"), repeat=True)
    with ThreadPoolExecutor() as threads:
        printing = [threads.submit(guarded.print_label, "north", "tea") for _ in range(2)]
        while asked.hanging < 2:
            time.sleep(0)
        with pytest.raises(BulkheadFull):
            guarded.print_label("north", "tea")
        asked.release()
        assert [each.result() for each in printing] == [b"%PDF"] * 2


def test_a_caller_in_a_hurry_is_not_kept_waiting(chassis_clock):
    """A deadline is told in real time: a carrier that hangs, and a short real limit."""
    guarded, asked = carriers(chassis_clock, Hang(), repeat=True)

    async def main():
        async with timeout(0.02):
            await guarded.quote("north", "ann", "tea")

    with pytest.raises(DeadlineExceeded):
        asyncio.run(main())
    assert [call.outcome for call in asked.calls] == ["cancelled"]
