"""The words of chassis.core: errors, outcomes, deadlines, events, instances, options, the registry."""

from __future__ import annotations

import asyncio
import copy
import gc
import math
import pickle
import re
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass, replace
from typing import Any

import pytest

from chassis.core import (
    BulkheadFull,
    CircuitOpen,
    ConfigError,
    Deadline,
    DeadlineExceeded,
    Event,
    EventBus,
    Instance,
    NoInstance,
    Outcome,
    Overloaded,
    PolicyRegistry,
    Rejected,
    classify_error,
    current_deadline,
    deadline_scope,
)
from chassis.core.options import check_count, check_fraction, check_rate, check_seconds


def test_core_needs_neither_asyncio_nor_anything_outside_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import chassis.core;"
        "print(sorted({m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)),"
        " 'asyncio' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "['chassis'] False"


def test_a_rejection_says_when_to_come_back_and_what_failed_last() -> None:
    error = CircuitOpen("payments", retry_after=4.25, last_failure="ReadTimeout: 3 s")
    assert isinstance(error, Rejected)
    assert error.retry_after == 4.25
    assert (
        str(error)
        == "circuit breaker 'payments' is open; it admits a probe in 4.25 s (last failure: ReadTimeout: 3 s)"
    )
    assert str(BulkheadFull("orders", limit=64)) == "bulkhead 'orders' is full, with 64 in flight"
    told = BulkheadFull("orders", limit=64, retry_after=0.25)
    assert str(told).endswith("; a place may be free in 0.25 s")
    assert str(Overloaded("orders", retry_after=0.5)).endswith("; try again in 0.5 s")
    assert "NO" not in str(NoInstance("x", reason="nothing is registered under this name"))


def test_a_breaker_held_open_by_an_operator_says_so_and_promises_no_time() -> None:
    error = CircuitOpen("payments", last_failure="ReadTimeout: 3 s", state="forced_open")
    assert error.retry_after is None
    assert str(error) == "circuit breaker 'payments' is held open by an operator"


@pytest.mark.parametrize(
    "error",
    [
        Rejected("full", retry_after=2.0),
        CircuitOpen("payments", retry_after=4.25, last_failure="OSError: no", state="half_open"),
        BulkheadFull("orders", limit=64),
        NoInstance("x", reason="nothing is registered under this name", retry_after=1.0),
    ],
)
def test_a_rejection_goes_to_other_processes_whole(error: Rejected) -> None:
    error.add_note("seen by a worker")
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert other.args == error.args
        assert other.state_of() == error.state_of()
        assert other.retry_after == error.retry_after


def test_a_config_error_is_a_value_error_with_setting_origin_and_remedy() -> None:
    error = ConfigError("'x' is no number", setting="port", origin="environment PORT", remedy="give a number")
    assert isinstance(error, ValueError)
    assert str(error) == "port: 'x' is no number (from environment PORT); give a number"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.SUCCESS),
        (ValueError(), Outcome.FAILURE),
        (DeadlineExceeded(), Outcome.FAILURE),
        (CircuitOpen("x"), Outcome.IGNORED),
        (asyncio.CancelledError(), Outcome.IGNORED),
        (KeyboardInterrupt(), Outcome.IGNORED),
        (BaseExceptionGroup("", [asyncio.CancelledError()]), Outcome.IGNORED),
        (ExceptionGroup("", [CircuitOpen("x")]), Outcome.IGNORED),
        (BaseExceptionGroup("", [asyncio.CancelledError(), ValueError()]), Outcome.FAILURE),
    ],
)
def test_cancellation_and_local_refusals_say_nothing_about_a_dependency(
    error: BaseException | None, outcome: Outcome
) -> None:
    assert classify_error("result", error) is outcome


def test_nested_deadlines_take_the_earliest_and_the_outer_one_comes_back() -> None:
    with deadline_scope(Deadline.after(1.0)) as outer:
        with deadline_scope(Deadline.after(5.0)) as inner:
            assert inner == outer
            assert current_deadline() == outer
        with deadline_scope(Deadline.after(0.1)) as shorter:
            assert shorter is not None
            assert shorter.remaining() <= 0.1
        assert current_deadline() == outer
        with deadline_scope(None):
            assert current_deadline() is None
    assert current_deadline() is None


def test_a_passed_deadline_raises() -> None:
    with pytest.raises(DeadlineExceeded):
        Deadline.after(-0.001).check()
    Deadline.after(60).check()


@dataclass(frozen=True, kw_only=True)
class Opened(Event):
    name = "test.opened"
    times: int = 1


@dataclass(frozen=True, kw_only=True)
class Refused(Event):
    name = "test.refused"
    transition = False


def test_transitions_before_the_first_listener_are_kept_and_refusals_are_not() -> None:
    bus = EventBus(keep=2)
    for times in (1, 2, 3):
        bus.emit(Opened(subject="a", times=times))
    bus.emit(Refused(subject="a"))
    seen: list[Event] = []
    stop = bus.subscribe(seen.append)
    assert [event.details() for event in seen] == [{"times": 2}, {"times": 3}]
    bus.emit(Refused(subject="b"))
    assert seen[-1].subject == "b"
    late: list[Event] = []
    bus.subscribe(late.append)
    assert late == []
    stop()
    stop()
    bus.emit(Opened(subject="c"))
    assert seen[-1].subject == "b"
    assert late[-1].subject == "c"


def test_what_ends_while_an_event_is_kept_may_tell_of_it() -> None:
    """The collector may end a forgotten call right there, whose breaker tells of its opening."""
    bus = EventBus(keep=1)
    oldest = Opened(subject="dropped for the next one")
    weakref.finalize(oldest, bus.emit, Opened(subject="told meanwhile"))
    bus.emit(oldest)
    del oldest
    thread = threading.Thread(target=bus.emit, args=(Opened(subject="next"),), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    seen: list[Event] = []
    bus.subscribe(seen.append)
    assert [event.subject for event in seen] == ["told meanwhile"]


def test_a_listener_that_raises_is_counted_and_breaks_nothing() -> None:
    bus = EventBus()
    assert not bus.listening

    def broken(event: Event) -> None:
        raise RuntimeError("broken")

    seen: list[Event] = []
    bus.subscribe(broken)
    bus.subscribe(seen.append)
    assert bus.listening
    bus.emit(Opened(subject="a"))
    assert bus.listener_errors == 1
    assert len(seen) == 1


def test_an_ipv6_address_is_bracketed() -> None:
    instance = Instance(id="a", service="s", host="::1", port=80)
    assert instance.address == "[::1]:80"
    assert replace(instance, host="h").url == "http://h:80"
    assert replace(instance, port=81).key != instance.key


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, -(10**400), -1, 0, True, "1", None])
def test_trap_60_a_bad_duration_is_refused_with_its_field(value: object) -> None:
    with pytest.raises(ConfigError, match="^open_for: "):
        check_seconds("open_for", value)


def test_zero_seconds_are_allowed_where_said() -> None:
    check_seconds("wait", 0, zero=True)
    check_seconds("wait", 0.001)


CENTURY = 100 * 365.25 * 86_400


@pytest.mark.parametrize("value", [5e-324, 1e-310, 9.9e-10, CENTURY + 1, 1e308, sys.float_info.max])
def test_trap_60_durations_no_machine_can_reckon_with_are_refused(value: float) -> None:
    """The limits are the same for all durations, and the error tells the one that was passed."""
    for zero in (False, True):
        with pytest.raises(ConfigError, match=re.escape(repr(value))) as caught:
            check_seconds("window", value, zero=zero)
        assert caught.value.setting == "window"
        told = "3155760000, a century" if value > 1 else "1e-09"
        assert told in str(caught.value.remedy)


def test_trap_60_durations_at_the_limits_are_taken() -> None:
    """A nanosecond, a century and, where it has a meaning, nothing."""
    check_seconds("window", 1e-9)
    check_seconds("window", CENTURY)
    check_seconds("wait", 0.0, zero=True)
    check_seconds("wait", 1e-9, zero=True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1e-310, 1e10, True, "1", None, 10**400])
def test_trap_60_a_bad_rate_is_refused(value: object) -> None:
    """Per second: nothing, or between one in thirty years and one in a nanosecond."""
    with pytest.raises(ConfigError, match="^per_second: "):
        check_rate("per_second", value)
    for good in (0, 1e-9, 10, 1e9):
        check_rate("per_second", good)


@pytest.mark.parametrize("check", [check_seconds, check_count, check_fraction, check_rate])
def test_trap_60_a_number_python_will_not_print_is_refused_like_any_other(check: Any) -> None:
    """Of more than 4,300 digits there is no text, and the error still names the field."""
    with pytest.raises(ConfigError, match="^probes: a number of thousands of digits") as caught:
        check("probes", 10**5_000)
    assert caught.value.remedy


@pytest.mark.parametrize("value", [math.nan, 0, -0.5, 50, True, "0.5", 1e-310])
def test_trap_60_a_bad_fraction_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="^failure_rate: "):
        check_fraction("failure_rate", value)


def test_a_percentage_for_a_fraction_is_told_the_fraction() -> None:
    with pytest.raises(ConfigError, match="e.g. 0.5 for 50 %"):
        check_fraction("failure_rate", 50)
    check_fraction("failure_rate", 1)


@pytest.mark.parametrize("value", [0, 1.5, True, "3", 2**63])
def test_trap_60_a_bad_count_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="^probes: "):
        check_count("probes", value)


@dataclass
class Knob:
    name: str
    kind: str = "knob"
    defaults: int = 1
    options: int = 1
    __hash__ = object.__hash__

    def describe(self) -> dict[str, object]:
        return {"options": self.options}

    def reconfigure(self, options: int) -> None:
        self.options = options


def test_an_override_waits_for_its_policy_and_goes_when_it_is_withdrawn() -> None:
    registry = PolicyRegistry()
    assert registry.override({"knob:a": lambda default: default + 1}) == {"knob:a"}
    knob = Knob("a")
    assert registry.register(knob) == "knob:a"
    assert registry.describe() == {"knob:a": {"options": 2}}
    assert registry.override({"knob:a": lambda default: default + 4}) == set()
    assert knob.options == 5
    registry.override({})
    assert knob.options == 1


def test_one_bad_override_changes_nothing() -> None:
    registry = PolicyRegistry()
    a, b = Knob("a"), Knob("b")
    registry.register(a)
    registry.register(b)

    def bad(default: int) -> int:
        raise ConfigError("bad")

    with pytest.raises(ConfigError):
        registry.override({"knob:a": lambda default: 9, "knob:b": bad})
    assert (a.options, b.options) == (1, 1)


def test_two_live_policies_of_one_name_are_refused_and_a_dead_one_is_forgotten() -> None:
    registry = PolicyRegistry()
    first = Knob("a")
    registry.register(first)
    registry.register(first)
    with pytest.raises(ConfigError, match="knob:a"):
        registry.register(Knob("a"))
    del first
    gc.collect()
    assert registry.get("knob:a") is None
    second = Knob("a")
    registry.register(second)
    assert registry.get("knob:a") is second


def test_policies_are_listed_when_nobody_is_registering() -> None:
    """``/health`` asks in one thread while another one makes a breaker: a dictionary in use must not grow."""
    registry = PolicyRegistry()
    inside, go_on = threading.Event(), threading.Event()

    def override(default: int) -> int:
        inside.set()
        go_on.wait(10)
        return default

    registry.override({"knob:a": override})
    knob, listed = Knob("a"), []
    threads = [
        threading.Thread(target=lambda: registry.register(knob)),
        threading.Thread(target=lambda: listed.extend(registry.items())),
    ]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    threads[1].join(0.1)
    assert threads[1].is_alive()
    go_on.set()
    for each in threads:
        each.join(10)
    assert listed == [("knob:a", knob)]


@pytest.mark.parametrize("name", [len, "", None])
def test_trap_60_what_is_no_name_is_refused(name: Any) -> None:
    """As when a policy that wants a name is written as a bare decorator."""
    with pytest.raises(ConfigError, match="is not a name"):
        PolicyRegistry().register(Knob(name))
