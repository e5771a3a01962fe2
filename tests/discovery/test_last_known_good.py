"""What to believe of a service while its source falters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core import Freshness, Instance, Reason, Snapshot, Source, Status
from chassis.discovery import (
    DiscoveryExpired,
    DiscoveryRecovered,
    DiscoveryStale,
    EmptyAnswerAccepted,
    EmptyAnswerHeld,
    InstancesChanged,
    InstancesHeld,
    LastKnownGood,
    SnapshotRestored,
    Step,
)


def instance(name: str, status: Status = Status.PASSING) -> Instance:
    return Instance(id=name, service="catalog", host="10.0.0.1", port=80, status=status)


A, B = instance("a"), instance("b")


def kinds(step: Step) -> list[type]:
    return [type(each) for each in step.events]


def machine(**more: Any) -> LastKnownGood:
    return LastKnownGood("catalog", **more)


def test_the_first_answer_is_told_sorted_and_fresh() -> None:
    step = machine().answered([B, A], now=5.0, woke=False)
    assert step.changed
    assert step.snapshot == Snapshot(
        service="catalog", instances=(A, B), source=Source.LIVE, fetched_at=5.0, reason=None
    )
    (event,) = step.events
    assert event == InstancesChanged(subject="catalog", at=5.0, source="live", instances=2, fit=2, before=0)


def test_case_10_the_same_data_in_another_order_is_no_change_but_counts_as_an_answer() -> None:
    known = machine()
    known.answered([A, B], now=5.0, woke=False)
    step = known.answered([B, A], now=9.0, woke=True)
    assert not step.changed
    assert step.events == ()
    assert step.snapshot.fetched_at == 9.0


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        ([A, instance("b", Status.CRITICAL)], None),
        ([instance("b", Status.WARNING)], None),
        ([instance("b", Status.CRITICAL), instance("c", Status.MAINTENANCE)], Reason.NO_PASSING),
        ([], Reason.NOT_REGISTERED),
    ],
)
def test_a_snapshot_says_why_nothing_may_be_called(instances: list[Instance], reason: Reason | None) -> None:
    assert machine().answered(instances, now=0.0, woke=False).snapshot.reason is reason


def test_another_reason_for_emptiness_is_told_as_given() -> None:
    known = machine()
    assert known.answered([], now=0.0, woke=False).changed
    step = known.answered([], now=1.0, woke=True, empty=Reason.FILTERED)
    assert step.changed
    assert step.snapshot.reason is Reason.FILTERED
    assert step.events == ()


def test_a_change_of_status_alone_is_a_change() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    step = known.answered([instance("a", Status.CRITICAL)], now=1.0, woke=True)
    assert step.changed
    assert step.events == (
        InstancesChanged(subject="catalog", at=1.0, source="live", instances=1, fit=0, before=1),
    )


def test_case_1_a_silent_source_takes_no_instance_away() -> None:
    known = machine()
    known.answered([A, B], now=5.0, woke=False)
    step = known.failed("refused", now=8.0)
    assert step.changed
    assert step.snapshot.instances == (A, B)
    assert step.snapshot.freshness is Freshness.STALE
    assert step.snapshot.fetched_at == 5.0
    assert step.snapshot.reason is None
    assert step.events == (
        DiscoveryStale(subject="catalog", at=8.0, source="live", instances=2, error="refused"),
    )
    again = known.failed("refused", now=9.0)
    assert not again.changed
    assert again.events == ()


def test_an_answer_after_silence_is_fresh_and_tells_how_long_it_was() -> None:
    known = machine()
    known.answered([A], now=5.0, woke=False)
    known.failed("refused", now=8.0)
    known.failed("refused", now=9.0)
    step = known.answered([A], now=10.0, woke=False)
    assert step.changed
    assert step.snapshot.freshness is Freshness.FRESH
    assert step.events == (DiscoveryRecovered(subject="catalog", at=10.0, source="live", stale_for=2.0),)


def test_case_15_silence_from_the_beginning_is_told_with_its_reason() -> None:
    known = machine()
    step = known.failed("refused", now=3.0)
    assert step.changed
    assert step.snapshot == Snapshot(
        service="catalog",
        source=Source.LIVE,
        freshness=Freshness.STALE,
        fetched_at=3.0,
        reason=Reason.REGISTRY_DOWN,
    )
    assert kinds(step) == [DiscoveryStale]
    assert not known.failed("refused", now=4.0).changed
    denied = known.failed("denied", now=5.0, reason=Reason.ACL_FILTERED)
    assert denied.changed
    assert denied.snapshot.reason is Reason.ACL_FILTERED


def test_what_was_known_to_be_empty_keeps_its_reason_while_the_source_is_silent() -> None:
    known = machine()
    known.answered([], now=0.0, woke=False)
    assert known.failed("refused", now=1.0).snapshot.reason is Reason.NOT_REGISTERED


def test_a_first_empty_answer_is_believed_at_once() -> None:
    step = machine().answered([], now=0.0, woke=False)
    assert step.changed
    assert step.snapshot.freshness is Freshness.FRESH
    assert step.events == ()


def test_case_6_the_last_instance_leaving_in_quiet_times_is_believed_at_once() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    step = known.answered([], now=1.0, woke=True)
    assert step.snapshot.instances == ()
    assert step.snapshot.reason is Reason.NOT_REGISTERED
    assert kinds(step) == [InstancesChanged]


def test_case_5_an_empty_answer_after_trouble_is_held_back() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    known.failed("reset", now=1.0)
    step = known.answered([], now=2.0, woke=False)
    assert step.snapshot.instances == (A,)
    assert step.snapshot.freshness is Freshness.STALE
    assert not step.changed
    assert step.events == (
        EmptyAnswerHeld(subject="catalog", at=2.0, source="live", instances=1, grace=120.0),
    )
    assert known.holding
    back = known.answered([A], now=90.0, woke=True)
    assert back.snapshot.freshness is Freshness.FRESH
    assert kinds(back) == [DiscoveryRecovered]
    assert not known.holding


def test_an_empty_answer_that_is_no_change_of_its_own_is_held_back_and_turns_stale() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    step = known.answered([], now=500.0, woke=False)
    assert step.changed
    assert step.snapshot.freshness is Freshness.STALE
    assert kinds(step) == [DiscoveryStale, EmptyAnswerHeld]
    assert step.events[0] == DiscoveryStale(
        subject="catalog", at=500.0, source="live", instances=1, error="the answer is empty"
    )


def test_a_source_that_lost_its_past_is_not_believed_to_be_empty() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    known.disturbed(now=100.0)
    assert known.answered([], now=159.9, woke=True).snapshot.instances == (A,)


def test_case_5_what_a_blank_registry_does_not_name_yet_is_kept_beside_what_it_names() -> None:
    """The first to be registered again gets the calls of no other, and one that is ill stands for no other."""
    known = machine()
    known.answered([A, B], now=0.0, woke=False)
    known.failed("refused", now=1.0)
    known.disturbed(now=2.0)
    ill = replace(A, status=Status.CRITICAL)
    step = known.answered([ill], now=2.0, woke=False)
    assert step.snapshot.instances == (ill, B)
    assert (step.snapshot.freshness, step.snapshot.reason) == (Freshness.STALE, None)
    assert step.events == (
        InstancesChanged(subject="catalog", at=2.0, source="live", instances=2, fit=1, before=2),
        InstancesHeld(subject="catalog", at=2.0, source="live", instances=1, grace=120.0),
    )
    assert known.holding
    again = known.answered([ill], now=3.0, woke=True)
    assert (again.changed, again.events) == (False, ())
    whole = known.answered([A, B], now=40.0, woke=True)
    assert (whole.snapshot.instances, whole.snapshot.freshness) == ((A, B), Freshness.FRESH)
    assert kinds(whole) == [DiscoveryRecovered, InstancesChanged]
    assert not known.holding
    assert known.answered([B], now=41.0, woke=True).snapshot.instances == (B,)


def test_what_a_blank_registry_leaves_out_for_longer_than_the_grace_is_gone() -> None:
    known = machine()
    known.answered([A, B], now=0.0, woke=False)
    known.disturbed(now=10.0)
    assert kinds(known.answered([A], now=10.0, woke=False)) == [DiscoveryStale, InstancesHeld]
    # A registry that goes on losing its past, or to be empty now and then, prolongs nothing.
    known.disturbed(now=60.0)
    known.answered([], now=100.0, woke=True)
    assert known.answered([A], now=129.9, woke=True).snapshot.instances == (A, B)
    step = known.answered([A], now=130.0, woke=False)
    assert (step.snapshot.instances, step.snapshot.freshness) == ((A,), Freshness.FRESH)
    assert kinds(step) == [DiscoveryRecovered, InstancesChanged]


def test_what_is_kept_beside_an_answer_is_judged_with_it() -> None:
    known = machine()
    restored = known.restored([instance("a", Status.CRITICAL), B], fetched_at=-5.0, now=0.0).snapshot
    known.disturbed(now=1.0)
    step = known.answered([replace(B, status=Status.CRITICAL)], now=2.0, woke=False)
    assert (step.snapshot.reason, step.snapshot.source) == (Reason.NO_PASSING, Source.LIVE)
    assert step.snapshot.fetched_at == restored.fetched_at
    assert step.events[0] == DiscoveryStale(
        subject="catalog", at=2.0, source="live", instances=2, error="the answer lacks instances"
    )


def test_an_emptiness_between_answers_that_lack_instances_is_held_as_ever() -> None:
    known = machine()
    known.answered([A, B], now=0.0, woke=False)
    known.disturbed(now=1.0)
    known.answered([], now=1.0, woke=False)
    known.answered([A], now=2.0, woke=False)
    step = known.answered([], now=3.0, woke=False)
    assert (step.snapshot.instances, kinds(step)) == ((A, B), [EmptyAnswerHeld])
    assert known.answered([], now=122.0, woke=False).snapshot.instances == (A, B)
    assert known.answered([], now=123.0, woke=False).snapshot.instances == ()


def test_what_an_earlier_watch_knew_is_not_doubted_from_the_start() -> None:
    left = machine().answered([A], now=0.0, woke=False).snapshot
    known = machine(known=left)
    known.answered([], now=1.0, woke=False)
    assert known.answered([], now=2.0, woke=False).snapshot.instances == (A,)


def test_what_is_back_at_another_address_is_not_kept_at_the_old_one() -> None:
    known = machine()
    known.answered([A, B], now=0.0, woke=False)
    known.disturbed(now=10.0)
    moved = replace(A, port=81)
    assert known.answered([moved], now=11.0, woke=False).snapshot.instances == (moved, B)


def test_what_is_kept_beside_an_answer_is_given_up_when_all_callers_doubt_it() -> None:
    known = machine()
    known.answered([A, B], now=0.0, woke=False)
    known.disturbed(now=10.0)
    known.answered([A], now=11.0, woke=False)
    known.doubted()
    assert known.answered([A], now=12.0, woke=False).snapshot.instances == (A,)


def test_times_are_quiet_again_a_minute_after_trouble() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    known.failed("reset", now=100.0)
    known.answered([A], now=101.0, woke=False)
    assert known.answered([], now=160.0, woke=True).snapshot.instances == ()


def test_case_7_an_empty_answer_is_believed_when_it_has_been_repeated_long_enough() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    known.failed("reset", now=10.0)
    known.answered([], now=11.0, woke=False)
    assert known.answered([], now=130.9, woke=True).snapshot.instances == (A,)
    step = known.answered([], now=131.0, woke=False)
    assert step.changed
    assert step.snapshot.instances == ()
    assert step.snapshot.freshness is Freshness.FRESH
    assert step.events == (
        DiscoveryRecovered(subject="catalog", at=131.0, source="live", stale_for=121.0),
        EmptyAnswerAccepted(subject="catalog", at=131.0, source="live", held_for=120.0),
        InstancesChanged(subject="catalog", at=131.0, source="live", instances=0, fit=0, before=1),
    )
    assert not known.holding


def test_a_held_answer_is_told_of_once() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    known.answered([], now=1.0, woke=False)
    step = known.answered([], now=2.0, woke=True)
    assert step.events == ()
    assert not step.changed


def test_trouble_while_an_answer_is_held_begins_the_grace_anew() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    known.answered([], now=1.0, woke=False)
    known.failed("reset", now=100.0)
    assert not known.holding
    assert known.answered([], now=122.0, woke=True).snapshot.instances == (A,)
    assert known.holding
    assert known.answered([], now=241.9, woke=True).snapshot.instances == (A,)
    assert known.answered([], now=242.0, woke=True).snapshot.instances == ()


def test_the_grace_and_the_quiet_time_can_be_chosen() -> None:
    known = machine(empty_grace=3.0, quiet_time=2.0, source=Source.DNS)
    known.answered([A], now=0.0, woke=False)
    known.failed("reset", now=1.0)
    held = known.answered([], now=2.9, woke=True)
    assert held.snapshot.instances == (A,)
    assert held.snapshot.source is Source.DNS
    assert known.answered([], now=5.9, woke=False).snapshot.instances == ()
    known.answered([A], now=6.0, woke=True)
    assert known.answered([], now=7.0, woke=True).snapshot.instances == ()


def test_a_new_watch_goes_on_with_what_the_old_one_knew() -> None:
    old = machine()
    left = old.answered([A], now=0.0, woke=False).snapshot
    known = machine(known=left)
    step = known.failed("refused", now=5.0, reason=Reason.ACL_FILTERED)
    assert step.snapshot.instances == (A,)
    assert step.snapshot.reason is None
    assert kinds(step) == [DiscoveryStale]
    known = machine(known=replace(left, freshness=Freshness.STALE))
    assert known.failed("refused", now=5.0).events == ()
    assert kinds(known.answered([A], now=6.0, woke=False)) == [DiscoveryRecovered]


def test_a_new_watch_of_what_was_never_known_keeps_telling_the_newest_reason() -> None:
    left = machine().failed("refused", now=0.0).snapshot
    known = machine(known=left)
    step = known.failed("denied", now=1.0, reason=Reason.ACL_FILTERED)
    assert step.snapshot.reason is Reason.ACL_FILTERED


answers = st.tuples(
    st.sampled_from(["answered", "answered", "failed", "disturbed", "doubted"]),
    st.lists(st.sampled_from([A, B]), unique=True, max_size=2),
    st.booleans(),
    st.floats(0, 70),
)


@given(st.lists(answers, max_size=30))
def test_instances_only_disappear_by_an_answer_and_all_of_them_only_when_that_is_credible(
    steps: list[tuple[str, list[Instance], bool, float]],
) -> None:
    known, now, trouble, empties, blank, doubt = machine(), 0.0, -1000.0, None, None, False
    held: tuple[Instance, ...] = ()
    missing: list[Instance] = []
    for kind, instances, woke, pause in steps:
        now += pause
        if kind == "doubted":
            known.doubted()
            doubt = empties is not None or bool(missing)
            continue
        if kind == "disturbed":
            known.disturbed(now=now)
            trouble, empties, doubt = now, None, False
            blank = blank if missing else now
            continue
        if kind == "failed":
            step = known.failed("silent", now=now)
            trouble, empties, doubt = now, None, False
            assert step.snapshot.instances == held
            assert step.snapshot.freshness is Freshness.STALE
            continue
        step = known.answered(instances, now=now, woke=woke)
        believed = (woke and now - trouble >= 60) if empties is None else (doubt or now - empties >= 120)
        if instances or not held or believed:
            recent = blank is not None and now - blank < 120 and not doubt
            missing = [each for each in held if each not in instances] if instances and recent else []
            held, empties = tuple(sorted([*instances, *missing], key=lambda each: each.id)), None
            blank, doubt = blank if missing else None, False
        elif empties is None:
            empties, blank = now, blank if missing else now
        assert step.snapshot.instances == held
        assert known.holding == (empties is not None or bool(missing))
        assert (step.snapshot.freshness is Freshness.STALE) == known.holding


# doubt


def test_a_doubted_emptiness_is_believed_when_it_comes_once_more() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    known.failed("reset", now=1.0)
    known.answered([], now=2.0, woke=False)
    known.doubted()
    step = known.answered([], now=3.0, woke=False)
    assert step.snapshot.instances == ()
    assert EmptyAnswerAccepted in kinds(step)


def test_doubt_changes_nothing_while_no_empty_answer_is_held() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    known.doubted()
    known.failed("reset", now=1.0)
    known.doubted()
    assert known.answered([], now=2.0, woke=False).snapshot.instances == (A,)
    assert known.answered([], now=3.0, woke=False).snapshot.instances == (A,)


@pytest.mark.parametrize("between", ["answered", "disturbed"])
def test_doubt_does_not_outlast_what_was_doubted(between: str) -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    known.answered([], now=1.0, woke=False)
    known.doubted()
    if between == "answered":
        known.answered([A], now=2.0, woke=False)
    else:
        known.disturbed(now=2.0)
    assert known.answered([], now=3.0, woke=False).snapshot.instances == (A,)
    assert known.answered([], now=4.0, woke=False).snapshot.instances == (A,)


# expiry


def test_what_is_stale_for_too_long_expires_and_is_kept() -> None:
    known = machine(expire_after=60.0)
    known.answered([A], now=0.0, woke=False)
    assert known.expires_at is None
    known.failed("reset", now=10.0)
    assert known.expires_at == 70.0
    assert known.elapsed(now=69.9) is None
    step = known.elapsed(now=70.0)
    assert step is not None
    assert step.changed
    assert (step.snapshot.freshness, step.snapshot.instances) == (Freshness.EXPIRED, (A,))
    assert step.events == (
        DiscoveryExpired(subject="catalog", at=70.0, source="live", instances=1, stale_for=60.0),
    )
    assert known.elapsed(now=80.0) is None
    again = known.failed("reset", now=90.0)
    assert (again.changed, again.events) == (False, ())
    assert again.snapshot.freshness is Freshness.EXPIRED
    back = known.answered([A], now=100.0, woke=False)
    assert back.snapshot.freshness is Freshness.FRESH
    assert kinds(back) == [DiscoveryRecovered]


def test_without_a_limit_nothing_expires() -> None:
    known = machine()
    known.answered([A], now=0.0, woke=False)
    known.failed("reset", now=10.0)
    assert known.expires_at is None
    assert known.elapsed(now=1e9) is None


def test_what_has_no_instances_cannot_expire() -> None:
    known = machine(expire_after=1.0)
    known.failed("reset", now=10.0)
    assert known.elapsed(now=1e9) is None


# what an earlier process wrote down


def test_case_15_what_was_written_down_is_used_while_the_source_is_silent() -> None:
    known = machine()
    step = known.restored([B, A], fetched_at=-40.0, now=2.0)
    assert step.changed
    assert step.snapshot == Snapshot(
        service="catalog",
        instances=(A, B),
        source=Source.DISK,
        freshness=Freshness.STALE,
        fetched_at=-40.0,
        reason=None,
    )
    assert step.events == (SnapshotRestored(subject="catalog", at=2.0, instances=2, age=42.0),)
    silent = known.failed("refused", now=3.0)
    assert not silent.changed
    assert silent.snapshot.source is Source.DISK
    assert kinds(silent) == [DiscoveryStale]
    # Consul comes back blank: it does not take away what has just been restored.
    assert known.answered([], now=4.0, woke=False).snapshot.instances == (A, B)
    assert known.answered([A], now=5.0, woke=True).snapshot.instances == (A, B)
    live = known.answered([A, B], now=6.0, woke=True)
    assert (live.snapshot.source, live.snapshot.freshness) == (Source.LIVE, Freshness.FRESH)


def test_what_was_written_down_is_worth_nothing_once_the_source_has_spoken() -> None:
    known = machine()
    empty = known.answered([], now=0.0, woke=False).snapshot
    assert known.restored([A], fetched_at=0.0, now=1.0) == Step(snapshot=empty, changed=False)
    assert known.restored([], fetched_at=0.0, now=1.0) == Step(snapshot=empty, changed=False)
    nothing = Snapshot(service="catalog", fetched_at=1.0, reason=Reason.NOT_ASKED_YET)
    assert machine().restored([], fetched_at=0.0, now=1.0) == Step(snapshot=nothing, changed=False)


def test_a_restored_snapshot_without_a_passing_instance_says_so() -> None:
    step = machine().restored([instance("a", Status.CRITICAL)], fetched_at=0.0, now=1.0)
    assert step.snapshot.reason is Reason.NO_PASSING


def test_a_datacenters_events_bear_its_name() -> None:
    known = machine(subject="catalog@dc2", expire_after=1.0)
    happened = [
        *known.answered([A], now=0.0, woke=False).events,
        *known.failed("reset", now=1.0).events,
        *known.answered([], now=2.0, woke=False).events,
    ]
    step = known.elapsed(now=9.0)
    assert step is not None
    assert {each.subject for each in (*happened, *step.events)} == {"catalog@dc2"}
    assert step.snapshot.service == "catalog"
