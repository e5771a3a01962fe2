"""The acts of the story, in their order. Each does something to the shop and checks what its callers saw."""

import time
from collections.abc import Callable

import httpx2

from examples.shop.load import API_KEY
from examples.shop.received import Trace, new_traceparent
from examples.shop.shop import CATALOG_SETTINGS, INSTANCES
from examples.shop.stage import Stage

ASKED = {"gateway", "orders", "catalog", "payments"}
"""The services that one order asks."""

OPENS_WITHIN = 1.0
"""Seconds from the first failed charge that orders received until its breaker opened."""

NOTICED_WITHIN = 0.6
"""Seconds from a turn of payments' switch until orders that were due before are through with it."""

ORDER_MS = 700.0

HOME_MS = 300.0
PRICE_SEEN_WITHIN = 1.0
STARTED_WITHIN = 20.0
STOPPED_WITHIN = 10.0


def steady(stage: Stage) -> None:
    """Steady load, and one request through all of it"""
    act = stage.begin("Steady load")
    stage.watch(5)
    trace = one_order(stage)
    window = stage.end(act)
    stage.check_unharmed(window)
    stage.terminal.say(
        "", "   One order, as the receiver has it:", *(f"   {line}" for line in trace.draw()), ""
    )
    stage.check(
        trace.services == ASKED and {each["service"] for each in trace.logs} == ASKED,
        f"one trace across {len(trace.services)} services: {len(trace.spans)} spans, {len(trace.logs)} log lines",
    )


def one_order(stage: Stage) -> Trace:
    """Place one order of our own, in a trace of our own, and wait for what the receiver gets of it."""
    mark = stage.received.mark()
    gateway = stage.shop.running["gateway"][0].address
    trace_id, traceparent = new_traceparent()
    with httpx2.Client(base_url=gateway, timeout=10.0) as http:
        token = http.post("/token", headers={"X-API-Key": API_KEY}, json={"user": "bob"}).json()[
            "access_token"
        ]
        headers = {"Authorization": f"Bearer {token}", "traceparent": traceparent}
        http.post("/orders", headers=headers, json={"item": "teapot"}).raise_for_status()

    def whole() -> bool:
        trace = stage.received.trace(trace_id, mark)
        return trace.services >= ASKED and {each["service"] for each in trace.logs} >= ASKED

    stage.until(whole, 8)
    return stage.received.trace(trace_id, mark)


def kill(stage: Stage) -> None:
    """A catalog instance is killed"""
    act = stage.begin("A catalog instance is killed")
    stage.watch(1)
    victim = stage.shop.running["catalog"][0]
    stage.shop.kill(victim)
    stage.terminal.say(f"   kill -9 {victim.pid} ({victim.name}); the registry still has it")
    stage.watch(5)
    started = start(stage, "catalog")
    window = stage.end(act)
    stage.check_unharmed(window)
    stage.check(started, "another instance was started and is in rotation")


def payments(stage: Stage) -> None:
    """Payments fails, its breaker opens, orders degrade"""
    act = stage.begin("Payments fails")
    stage.watch(1)
    mark = stage.received.mark()
    stage.shop.switch("payments", "fail")
    failed = time.monotonic()
    stage.terminal.say("   payments answers 503 after 0.2 s")
    # By now it must be open, however slow the story is told.
    stage.until(lambda: time.monotonic() > failed + NOTICED_WITHIN + OPENS_WITHIN, 5)
    settled, before = time.monotonic(), stage.shop.arrived("payments")
    stage.watch(4)
    after = stage.shop.arrived("payments")
    stage.shop.switch("payments", "ok")
    mended = time.monotonic()
    stage.terminal.say("   payments is in order again")
    closed = stage.until(lambda: stage.shop.breakers("orders", "payments") == {"closed"}, 15)
    took = time.monotonic() - mended
    stage.watch(1)
    window = stage.end(act)
    stage.check_unharmed(window)

    opened = opened_after(stage, mark)
    stage.check(
        opened is not None and opened <= OPENS_WITHIN,
        "the breaker never opened"
        if opened is None
        else f"opened {opened:.2f} s after the first failed charge",
    )
    orders = window.since(settled).until(mended - NOTICED_WITHIN).of("order")
    stage.check(
        set(orders.count("state")) == {"payment pending"} and orders.ms(0.95) <= ORDER_MS,
        f"then {len(orders.requests)} orders: {dict(orders.count('state'))},"
        f" p95 {orders.ms(0.95):.0f} ms (at most {ORDER_MS:.0f})",
    )
    # One probe may be due in that time.
    stage.check(after - before <= 2, f"and {after - before} attempts reached payments ({before} until then)")
    stage.check(closed, f"closed again {took:.1f} s after payments was mended")


def opened_after(stage: Stage, mark: int) -> float | None:
    """Seconds from the first failed charge that orders received to the opening of its breaker."""

    def opening() -> int | None:
        lines = stage.received.lines('"service":"orders"', "breaker.opened", "client:payments", since=mark)
        return min((line["time"] for line in lines if "log" in line), default=None)

    stage.until(opening, 5)
    opened = opening()
    calls = stage.received.lines('"service":"orders"', '"kind":"client"', '"payments', since=mark)
    failed = min((span["end"] for span in calls if span["status"] == "error"), default=None)
    return None if opened is None or failed is None else (opened - failed) / 1e9


def recommendations(stage: Stage) -> None:
    """Recommendations hangs, and home still answers"""
    act = stage.begin("Recommendations hangs")
    stage.watch(1)
    stage.shop.switch("recommendations", "hang")
    hung = time.monotonic()
    stage.terminal.say("   recommendations takes requests and answers none")
    stage.watch(5)
    mended = time.monotonic()
    stage.shop.switch("recommendations", "ok")
    stage.watch(1)
    window = stage.end(act)
    stage.check_unharmed(window)
    homes = window.since(hung).until(mended).of("home")
    complete = homes.count("complete")
    stage.check(
        homes.ms(0.95) <= HOME_MS and not homes.errors,
        f"{len(homes.requests)} times home, all answered, {complete[False]} without advice:"
        f" p50 {homes.ms(0.5):.0f} ms, p95 {homes.ms(0.95):.0f} ms (at most {HOME_MS:.0f})",
    )


def keys(stage: Stage) -> None:
    """Signing keys rotate"""
    act = stage.begin("Signing keys rotate")
    stage.watch(1)
    for _ in range(2):
        stage.shop.post("identity", "/rotate")
        stage.terminal.say("   the key published last time signs from now on; a new one is published")
        stage.watch(2.5)
    window = stage.end(act)
    stage.check_unharmed(window)
    used = window.of("order", "home").count("key")
    refused = sum(each["status"] == 401 for each in window.requests if "status" in each)
    stage.check(len(used) == 3, f"tokens of {len(used)} keys were shown: {list(used.values())} requests")
    stage.check(refused == 0, f"{refused} answers 401")


def price(stage: Stage) -> None:
    """A price changes in the registry's key-value store"""
    act = stage.begin("A price changes")
    stage.watch(1)
    stage.shop.registry.write(CATALOG_SETTINGS, "price_multiplier = 1.5\n")
    written = time.monotonic()
    stage.terminal.say(f"   {CATALOG_SETTINGS}: price_multiplier = 1.5")
    stage.watch(3)
    window = stage.end(act)
    stage.check_unharmed(window)
    reads = window.of("catalog")
    earlier = stage.load.window(0, written - 0.5).of("catalog").requests
    before = {each["item"]: each["price"] for each in earlier if "price" in each}
    changed = [each for each in reads.requests if each.get("price") == before[each["item"]] * 1.5]
    last = max(
        (each["at"] for each in reads.requests if each.get("price") == before[each["item"]]), default=written
    )
    stage.check(
        len(changed) > 0 and last - written <= PRICE_SEEN_WITHIN,
        f"{len(changed)} answers with the new price; the last with the old one {max(0, last - written) * 1000:.0f} ms"
        " after the change",
    )


def rolling(stage: Stage) -> None:
    """Everything is restarted, one after the other"""
    act = stage.begin("Rolling restart of everything")
    stopped = []
    ready = True
    for service in INSTANCES:
        for old in list(stage.shop.running[service]):
            ready = ready and start(stage, service)
            stage.shop.stop(old)
            stopped.append(old)
            stage.terminal.say(f"   {old.name} replaced")
    ended = stage.until(lambda: all(each.status is not None for each in stopped), STOPPED_WITHIN)
    stage.watch(1)
    window = stage.end(act)
    stage.check_unharmed(window)
    statuses = {each.name: each.status for each in stopped if each.status != 0}
    stage.check(
        ready and ended and not statuses,
        f"{len(stopped)} instances replaced and ended {statuses or 'in order'}",
    )
    stage.terminal.say(f"   the event stream ended cleanly and was opened again {window.opened} times")


def start(stage: Stage, service: str) -> bool:
    """Start one more instance and wait until it is in rotation."""
    process = stage.shop.start(service)
    return stage.until(lambda: stage.shop.registered(process), STARTED_WITHIN)


ACTS: dict[str, Callable[[Stage], None]] = {
    act.__name__: act for act in (steady, kill, payments, recommendations, keys, price, rolling)
}
