"""What keeps a registration alive."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core import ConfigError, Registration, Status
from chassis.discovery import (
    RegistrationConfirmed,
    RegistrationDrifted,
    RegistrationLost,
    RegistrationMachine,
    RegistrationRefused,
    RegistrationUnreachable,
    Task,
    check_registration,
    readiness,
)


def machine(*, random: float = 0.5, ttl: float = 15.0) -> RegistrationMachine:
    return RegistrationMachine("catalog:1", ttl=ttl, now=100.0, draw=lambda: random)


def confirmed(*, random: float = 0.5) -> RegistrationMachine:
    """Registered, beaten and inspected at 100."""
    registration = machine(random=random)
    registration.registered(now=100.0)
    assert isinstance(registration.beaten(now=100.0), RegistrationConfirmed)
    registration.inspected(now=100.0)
    return registration


def test_it_registers_at_once_and_beats_right_after() -> None:
    registration = machine()
    assert registration.next() == (Task.REGISTER, 100.0)
    registration.registered(now=100.1)
    assert registration.next() == (Task.BEAT, 100.1)
    assert not registration.confirmed
    event = registration.beaten(now=100.2)
    assert event == RegistrationConfirmed(subject="catalog:1", at=100.2)
    assert registration.confirmed


@pytest.mark.parametrize(("random", "interval"), [(0.0, 4.5), (0.5, 5.0), (1.0, 5.5)])
def test_it_beats_every_third_of_the_ttl_give_or_take_a_tenth(random: float, interval: float) -> None:
    registration = confirmed(random=random)
    assert registration.next() == (Task.BEAT, pytest.approx(100.0 + interval))
    assert registration.beaten(now=104.0) is None
    assert registration.next() == (Task.BEAT, pytest.approx(104.0 + interval))


@pytest.mark.parametrize("random", [0.0, 1.0])
def test_case_17_a_lost_registration_is_renewed_within_a_second_and_beaten_at_once(random: float) -> None:
    registration = confirmed(random=random)
    event = registration.lost("unknown check", now=105.0)
    assert event == RegistrationLost(subject="catalog:1", at=105.0, error="unknown check")
    assert not registration.confirmed
    assert registration.next() == (Task.REGISTER, pytest.approx(105.0 + random))
    registration.registered(now=106.0)
    assert registration.next() == (Task.BEAT, 106.0)
    assert isinstance(registration.beaten(now=106.0), RegistrationConfirmed)


def test_case_5b_renewals_do_not_come_twice_within_ten_seconds() -> None:
    registration = confirmed()
    registration.lost("unknown check", now=105.0)
    registration.registered(now=105.5)
    assert registration.lost("unknown check", now=105.6) is None
    assert registration.next() == (Task.REGISTER, 115.5)


def test_the_first_registration_is_no_renewal() -> None:
    registration = machine()
    registration.registered(now=100.0)
    registration.lost("unknown check", now=100.1)
    assert registration.next() == (Task.REGISTER, pytest.approx(100.6))


@pytest.mark.parametrize("task", [Task.REGISTER, Task.BEAT])
def test_case_18_what_is_not_answered_is_tried_again_each_second(task: Task) -> None:
    registration = machine() if task is Task.REGISTER else confirmed()
    event = registration.unreachable(task, "refused", now=105.0)
    assert event == RegistrationUnreachable(subject="catalog:1", at=105.0, error="refused")
    assert registration.next() == (task, 106.0)
    assert not registration.confirmed
    assert registration.unreachable(task, "refused", now=106.0) is None
    assert registration.next() == (task, 107.0)


def test_what_is_refused_is_tried_again_at_the_pace_of_heartbeats() -> None:
    registration = machine()
    event = registration.refused(Task.REGISTER, "403", now=105.0)
    assert event == RegistrationRefused(subject="catalog:1", at=105.0, error="403")
    assert registration.next() == (Task.REGISTER, 110.0)
    assert registration.refused(Task.REGISTER, "403", now=110.0) is None
    assert not registration.confirmed


def test_another_kind_of_trouble_is_news_and_so_is_its_return_after_recovery() -> None:
    registration = confirmed()
    assert registration.unreachable(Task.BEAT, "refused", now=105.0) is not None
    assert registration.refused(Task.BEAT, "403", now=106.0) is not None
    assert isinstance(registration.beaten(now=107.0), RegistrationConfirmed)
    assert registration.confirmed
    assert registration.refused(Task.BEAT, "403", now=112.0) is not None


def test_case_5b_absence_from_the_catalog_renews_although_heartbeats_are_answered() -> None:
    registration = confirmed()
    registration.inspected(now=150.0)
    event = registration.absent(now=200.0)
    assert event == RegistrationLost(subject="catalog:1", at=200.0, error="the catalog does not show it")
    assert not registration.confirmed
    assert registration.next() == (Task.BEAT, 105.0)
    assert registration.beaten(now=200.2) is None
    assert not registration.confirmed
    assert registration.next() == (Task.REGISTER, 200.5)
    registration.registered(now=200.5)
    assert registration.next() == (Task.BEAT, 200.5)
    assert isinstance(registration.beaten(now=200.5), RegistrationConfirmed)
    assert registration.confirmed


def test_absence_right_after_registration_waits_until_it_can_mean_something() -> None:
    registration = confirmed()
    assert registration.absent(now=100.0) is None
    assert registration.confirmed
    assert registration.next() == (Task.REGISTER, 102.0)
    registration.present()
    assert registration.next() == (Task.BEAT, 105.0)
    registration.unreachable(Task.BEAT, "refused", now=105.0)
    assert isinstance(registration.beaten(now=106.0), RegistrationConfirmed)


def test_an_absence_that_ends_by_itself_is_confirmed_by_the_next_heartbeat() -> None:
    registration = confirmed()
    registration.absent(now=200.0)
    registration.present()
    assert isinstance(registration.beaten(now=200.1), RegistrationConfirmed)


def test_absence_before_the_first_registration_means_nothing() -> None:
    registration = machine()
    assert registration.absent(now=99.0) is None
    registration.unreachable(Task.REGISTER, "refused", now=100.0)
    assert registration.absent(now=100.5) is None
    assert registration.next() == (Task.REGISTER, 101.0)
    registration.present()
    assert registration.next() == (Task.REGISTER, 101.0)


def test_presence_does_not_call_off_the_renewal_of_a_lost_check() -> None:
    registration = confirmed()
    registration.absent(now=200.0)
    registration.lost("unknown check", now=200.1)
    registration.present()
    assert registration.next() == (Task.REGISTER, pytest.approx(200.6))


def test_renewing_an_absence_that_it_does_not_heal_becomes_ever_rarer() -> None:
    registration = confirmed()
    at, gaps = 1000.0, []
    for _ in range(9):
        registration.absent(now=at)
        while (due := registration.next()) is not None and due[0] is not Task.REGISTER:
            if due[0] is Task.BEAT:
                registration.beaten(now=due[1])
            else:
                registration.inspected(now=due[1])
        assert due is not None
        gaps.append(due[1] - at)
        at = due[1]
        registration.registered(now=at)
        registration.beaten(now=at)
    assert gaps == pytest.approx([0.5, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0])
    registration.absent(now=at)
    registration.present()
    registration.absent(now=at + 1)
    registration.beaten(now=at + 5)
    registration.beaten(now=at + 10)
    assert registration.next() == (Task.REGISTER, pytest.approx(at + 10.0))


# drift and maintenance


def test_case_19_what_the_registry_holds_is_looked_at_soon_and_then_every_minute() -> None:
    registration = machine()
    registration.registered(now=100.0)
    registration.beaten(now=100.0)
    assert registration.next() == (Task.INSPECT, 102.0)
    registration.inspected(now=102.0)
    assert registration._inspect_at == 162.0
    registration.lost("unknown check", now=110.0)
    assert registration.next() == (Task.REGISTER, 110.5)
    registration.registered(now=110.5)
    assert registration._inspect_at == 170.5


@pytest.mark.parametrize("random", [0.0, 1.0])
def test_case_19_what_somebody_changed_is_registered_again_and_told_of_once(random: float) -> None:
    registration = confirmed(random=random)
    event = registration.drifted("another Port", now=160.0)
    assert event == RegistrationDrifted(subject="catalog:1", at=160.0, error="another Port")
    assert registration.confirmed
    assert registration._register_at == 160.0 + random
    registration.registered(now=161.0)
    # Two processes that register one id would change it back and forth: once a minute, and quietly.
    assert registration.drifted("another Port", now=220.0) is None
    registration.registered(now=221.0)
    assert registration.drifted("another Address", now=280.0) is not None
    registration.inspected(now=340.0)
    assert registration.drifted("another Address", now=400.0) is not None
    assert registration._inspect_at == 460.0


def test_case_5b_drift_does_not_renew_twice_within_ten_seconds() -> None:
    registration = confirmed()
    registration.lost("unknown check", now=159.0)
    registration.registered(now=159.5)
    registration.drifted("another Port", now=160.0)
    assert registration._register_at == 169.5


def test_a_renewal_because_of_drift_makes_those_for_absence_no_rarer() -> None:
    registration = confirmed()
    registration.drifted("another Port", now=160.0)
    registration.registered(now=161.0)
    registration.absent(now=172.0)
    assert registration._register_at <= 173.0


def test_maintenance_is_told_at_once_and_again_after_each_registration() -> None:
    registration = confirmed()
    registration.maintain("migrating", now=101.0)
    assert registration.next() == (Task.MAINTAIN, 101.0)
    registration.maintained()
    assert registration.next() == (Task.BEAT, 105.0)
    registration.lost("unknown check", now=105.0)
    registration.registered(now=105.5)
    assert registration.next() == (Task.MAINTAIN, 105.5)
    registration.maintained()
    registration.maintain(None, now=106.0)
    assert registration.next() == (Task.BEAT, 105.5)
    registration.beaten(now=105.5)
    assert registration.next() == (Task.MAINTAIN, 106.0)
    registration.maintained()
    registration.registered(now=110.0)
    assert registration.next() == (Task.BEAT, 110.0)


def test_maintenance_asked_for_while_it_is_not_registered_waits_until_it_is() -> None:
    registration = machine()
    registration.maintain("migrating", now=100.0)
    assert registration.next() == (Task.REGISTER, 100.0)
    registration.registered(now=101.0)
    assert registration.next() == (Task.MAINTAIN, 101.0)
    registration.maintained()
    registration.lost("unknown check", now=102.0)
    registration.maintain(None, now=102.1)
    assert registration.next() == (Task.REGISTER, 102.5)
    registration.registered(now=102.5)
    assert registration.next() == (Task.MAINTAIN, 102.5)


def test_maintenance_that_somebody_else_ended_does_not_come_back() -> None:
    registration = confirmed()
    registration.maintain("migrating", now=101.0)
    registration.maintained()
    registration.maintenance_ended()
    registration.lost("unknown check", now=105.0)
    registration.registered(now=105.5)
    assert registration.next() == (Task.BEAT, 105.5)


@pytest.mark.parametrize(("why", "shown"), [("lost", "before"), ("lost", "after"), ("drifted", "after")])
def test_maintenance_is_not_over_because_the_registry_does_not_know_it_yet(why: str, shown: str) -> None:
    """A quick watch, or another worker's registration, shows the instance before its maintenance is told again."""
    registration = confirmed()
    registration.maintain("migrating", now=101.0)
    registration.maintained()
    getattr(registration, why)("x", now=105.0)
    if shown == "after":
        registration.registered(now=105.5)
    registration.maintenance_ended()
    if shown == "before":
        registration.registered(now=105.5)
    assert registration.next() == (Task.MAINTAIN, 105.5)
    assert registration.maintenance == "migrating"
    registration.maintained()
    registration.maintenance_ended()
    assert registration.maintenance is None


def test_maintenance_asked_for_anew_outlives_the_end_of_an_earlier_one() -> None:
    """The news of the end may come after the next request for it."""
    registration = confirmed()
    for reason in ("one", None):
        registration.maintain(reason, now=1.0)
        registration.maintained()
    registration.maintain("two", now=2.0)
    registration.maintenance_ended()
    assert registration.maintenance == "two"


@pytest.mark.parametrize(("trouble", "at"), [("unreachable", 102.0), ("refused", 106.0)])
def test_maintenance_that_cannot_be_told_is_tried_again(trouble: str, at: float) -> None:
    registration = confirmed()
    registration.maintain("migrating", now=101.0)
    getattr(registration, trouble)(Task.MAINTAIN, "x", now=101.0)
    assert registration._maintain_at == at


def test_what_keeps_it_from_being_confirmed_is_known() -> None:
    registration = confirmed()
    assert registration.trouble == ""
    registration.unreachable(Task.BEAT, "refused", now=105.0)
    registration.unreachable(Task.BEAT, "timed out", now=106.0)
    assert registration.trouble == "timed out"
    registration.beaten(now=107.0)
    assert registration.trouble == ""


def test_case_21_when_it_has_ended_nothing_registers_or_beats_any_more() -> None:
    registration = confirmed()
    registration.end()
    assert registration.next() is None
    assert not registration.confirmed
    # What was under way when it ended comes back, and is no news any more.
    assert registration.beaten(now=101.0) is None
    assert registration.lost("unknown check", now=101.0) is None
    assert registration.unreachable(Task.BEAT, "refused", now=101.0) is None
    assert registration.absent(now=101.0) is None
    assert registration.drifted("another Port", now=101.0) is None
    registration.maintain("migrating", now=101.0)
    registration.registered(now=101.0)
    assert registration.next() is None
    assert not registration.confirmed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"service": " "}, "service: the registration has no service; give one"),
        ({"id": ""}, "id: the registration has no id; give one"),
        ({"host": ""}, "host: the registration has no host; give one"),
        ({"port": 0}, "port: 0 is not a port; give one from 1 to 65535"),
        ({"port": 65536}, "port: 65536 is not a port; give one from 1 to 65535"),
        ({"scheme": "ftp"}, "scheme: 'ftp' is not known; give http or https"),
        ({"weight": 0}, "weight: 0 is no weight; give at least 1"),
    ],
)
def test_case_37_a_registration_no_registry_can_hold_is_refused(wrong: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"service": "a", "id": "a", "host": "h", "port": 1, **wrong}
    with pytest.raises(ConfigError) as caught:
        check_registration(Registration(**given))
    assert str(caught.value) == message


@pytest.mark.parametrize("good", [{}, {"port": 65535}, {"scheme": "https"}, {"weight": 2}])
def test_a_registration_that_can_be_held_passes(good: dict[str, Any]) -> None:
    check_registration(Registration(**{"service": "a", "id": "a", "host": "h", "port": 1, **good}))


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["go", "lost", "unreachable", "refused", "absent", "present", "drifted", "maintain", "resume"]
        ),
        st.floats(0, 30),
    ),
    max_size=60,
)


@given(steps, st.floats(0, 1))
def test_whatever_happens_there_is_a_next_task_and_renewals_are_no_storm(
    sequence: list[tuple[str, float]], random: float
) -> None:
    """Against a registry that is a few variables: what it holds is what the service wants, in the end."""
    registration = RegistrationMachine("id", ttl=15.0, now=0.0, draw=lambda: random)
    now, renewed = 0.0, [-math.inf]
    registered = absent = False
    wanted: str | None = None
    held: str | None = None

    def succeed(task: Task) -> None:
        nonlocal registered, held
        if task is Task.REGISTER:
            registration.registered(now=now)
            if registered:
                renewed.append(now)
            registered = True
        elif task is Task.MAINTAIN:
            held = registration.maintenance
            registration.maintained()
        elif task is Task.INSPECT:
            registration.inspected(now=now)
        else:
            registration.beaten(now=now)
            assert registration.confirmed or absent

    for kind, pause in sequence:
        due = registration.next()
        assert due is not None
        task, at = due
        assert at <= max(now, 0.0) + 600
        if kind in ("absent", "present", "maintain", "resume"):
            now += pause
            if kind in ("absent", "present"):
                absent = kind == "absent"
                registration.absent(now=now) if absent else registration.present()
            else:
                wanted = "why" if kind == "maintain" else None
                registration.maintain(wanted, now=now)
            continue
        now = max(now, at)
        if kind == "lost" and task in (Task.BEAT, Task.MAINTAIN):
            held = None
            registration.lost("x", now=now)
            assert not registration.confirmed
        elif kind == "drifted" and task is Task.INSPECT:
            registration.drifted("x", now=now)
        elif kind == "unreachable":
            registration.unreachable(task, "x", now=now)
        elif kind == "refused":
            registration.refused(task, "x", now=now)
        else:
            succeed(task)
        if kind in ("unreachable", "refused"):
            # What failed is not done again at once, and so for ever.
            again = registration.next()
            assert again is not None
            assert again != due
    # Whatever went wrong: once the registry answers, all is as it should be before two beats are over.
    registration.present()
    absent = False
    end = now + 25.0
    while (due := registration.next()) is not None and due[1] < end:
        now = max(now, due[1])
        succeed(due[0])
    assert registered
    assert registration.confirmed
    assert held == wanted
    assert all(later - earlier >= 9.99 for earlier, later in itertools.pairwise(renewed))


def test_a_readiness_check_that_raises_is_critical() -> None:
    def fail() -> tuple[Status, str]:
        raise RuntimeError("secret detail")

    registration = Registration(service="a", id="a", host="h", port=1, readiness=fail)
    assert readiness(registration) == (Status.CRITICAL, "the readiness check raised RuntimeError")
    registration = Registration(
        service="a", id="a", host="h", port=1, readiness=lambda: (Status.WARNING, "so so")
    )
    assert readiness(registration) == (Status.WARNING, "so so")
