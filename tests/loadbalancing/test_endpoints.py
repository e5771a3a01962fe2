"""The endpoint set: what belongs to an instance lives as long as the instance stays."""

from __future__ import annotations

import dataclasses
import os
import random
import sys
import threading
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core import Instance, Outcome, Status
from chassis.loadbalancing import BalancingOptions, Endpoint, EndpointEjected, EndpointSet, PolicyName
from tests.loadbalancing.balanced import Balanced, Pool, instance, named, snapshot


def endpoint_set(*instances: Instance) -> EndpointSet[Pool]:
    endpoints = EndpointSet("catalog", BalancingOptions(), create=Pool, dispose=Pool.close, draw=lambda: 0.0)
    endpoints.update(snapshot(*instances))
    return endpoints


def picked(endpoints: EndpointSet[Pool], **filters: Any) -> str | None:
    pick = endpoints.pick(**filters)
    if pick is None:
        return None
    pick.settle(Outcome.SUCCESS)
    return pick.instance.id


def not_ready(*names: str) -> Callable[[Endpoint[Pool]], bool]:
    return lambda endpoint: endpoint.instance.id not in names


def test_before_the_first_snapshot_nothing_is_known_or_picked() -> None:
    endpoints = EndpointSet("catalog", BalancingOptions(), create=Pool, dispose=Pool.close)
    assert endpoints.snapshot is None
    assert endpoints.endpoints() == ()
    assert endpoints.pick() is None


def test_picks_go_round_in_the_order_of_the_ids() -> None:
    endpoints = endpoint_set(instance("c"), instance("a"), instance("b"))
    assert [each.instance.id for each in endpoints.endpoints()] == ["a", "b", "c"]
    assert [picked(endpoints) for _ in range(4)] == ["a", "b", "c", "a"]


def test_only_passing_and_warning_instances_are_called() -> None:
    endpoints = endpoint_set(*(instance(each.value, status=each) for each in Status))
    assert {picked(endpoints) for _ in range(8)} == {"passing", "warning"}
    assert len(endpoints.endpoints()) == 4


def test_excluded_and_unready_endpoints_are_passed_over() -> None:
    endpoints = endpoint_set(instance("a"), instance("b"), instance("c"))
    a, b, _ = endpoints.endpoints()
    assert {picked(endpoints, exclude=[a]) for _ in range(6)} == {"b", "c"}
    assert {picked(endpoints, ready=not_ready("b")) for _ in range(6)} == {"a", "c"}
    assert {picked(endpoints, exclude={a, b}, ready=not_ready("b")) for _ in range(6)} == {"c"}
    assert picked(endpoints, exclude=endpoints.endpoints()) is None
    assert picked(endpoints, ready=lambda endpoint: False) is None
    assert picked(endpoints, exclude=[a, b], ready=not_ready("c")) is None


def test_the_turns_of_an_unready_instance_go_to_all_others_alike() -> None:
    endpoints = endpoint_set(*(instance(name) for name in "abcd"))
    turns = [picked(endpoints, ready=not_ready("a")) for _ in range(3000)]
    assert all(900 < turns.count(name) < 1100 for name in "bcd")


@pytest.mark.parametrize("policy", ["round_robin", "weighted"])
def test_further_attempts_do_not_fall_into_step_with_the_first_ones(policy: str) -> None:
    """Of two instances one fails. If its retry took a turn, every call would meet it first."""
    balanced = Balanced(instance("bad"), instance("good"), policy=policy, ejection_cap=0)
    met = 0
    for _ in range(100):
        pick = balanced.pick()
        bad = pick.instance.id == "bad"
        met += bad
        pick.settle(Outcome.FAILURE if bad else Outcome.SUCCESS)
        if bad:
            assert balanced.call(exclude=[pick.endpoint]) == "good"
    assert met == 50


def test_one_fit_among_a_thousand_is_found() -> None:
    endpoints = endpoint_set(*(instance(f"{number:04}") for number in range(1000)))
    assert {picked(endpoints, ready=lambda each: each.instance.id == "0777") for _ in range(5)} == {"0777"}


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_case_42_of_a_thousand_ready_endpoints_few_are_asked(policy: PolicyName) -> None:
    """A pick filters nothing: what is filtered is kept until somebody's standing changes."""
    balanced = Balanced(*named(1000), policy=policy)
    views = [balanced.set._machine.view]
    asked = 0

    def ready(endpoint: Endpoint[Pool]) -> bool:
        nonlocal asked
        asked += 1
        return True

    for _ in range(100):
        balanced.call(ready=ready, key="k")
        balanced.clock.advance(1.0)
        views.append(balanced.set._machine.view)
    assert asked <= 300
    assert all(each is views[0] for each in views)


def test_case_10_the_same_instances_again_change_nothing_for_the_policy() -> None:
    """A snapshot re-sent, in whatever order, keeps turns, deadlines and estimates."""
    instances = named(5, weight=3)
    for policy in get_args(PolicyName):
        balanced = Balanced(*instances, policy=policy)
        for _ in range(3):
            pick = balanced.pick(key="k")
            balanced.clock.advance(0.02)
            pick.settle(Outcome.SUCCESS)
        candidates = balanced.set._machine.view.tiers[0].candidates
        latencies = [each.latency_at(balanced.clock.now) for each in balanced.set.endpoints()]
        assert any(latencies)
        balanced.update(*reversed(instances))
        assert balanced.set._machine.view.tiers[0].candidates is candidates
        assert [each.latency_at(balanced.clock.now) for each in balanced.set.endpoints()] == latencies


def test_case_10_round_robin_goes_on_where_it_was_when_the_instances_change() -> None:
    balanced = Balanced(*named(3), draw=lambda: 0.0)
    assert balanced.call() == "0000"
    balanced.update(*named(4))
    assert [balanced.call() for _ in range(4)] == ["0001", "0002", "0003", "0000"]


def test_state_survives_a_change_of_data_and_status() -> None:
    endpoints = endpoint_set(instance("a"), instance("b"))
    before = endpoints.endpoints()
    endpoints.update(snapshot(instance("a", weight=5), instance("b", status=Status.CRITICAL)))
    assert endpoints.endpoints() == before
    assert [each.state.closed for each in before] == [0, 0]
    assert before[0].instance.weight == 5
    assert {picked(endpoints) for _ in range(4)} == {"a"}
    endpoints.update(snapshot(instance("a"), instance("b")))
    assert {picked(endpoints) for _ in range(4)} == {"a", "b"}
    assert endpoints.endpoints() == before


def test_case_36_the_same_id_on_a_new_port_is_another_endpoint() -> None:
    endpoints = endpoint_set(instance("a", port=80))
    (old,) = endpoints.endpoints()
    endpoints.update(snapshot(instance("a", port=81)))
    (new,) = endpoints.endpoints()
    assert old.state.closed == 1
    assert new.state is not old.state
    assert new.state.instance.port == 81
    pick = endpoints.pick()
    assert pick is not None
    assert pick.instance.port == 81


def test_case_36_the_same_id_on_a_new_port_inherits_nothing() -> None:
    """Neither ejection nor estimates nor what it asked for: it is another process."""
    balanced = Balanced(instance("a"), instance("b"), instance("c"), slow_start=30.0)
    old = balanced.endpoint("a")
    balanced.call_at("b", Outcome.SUCCESS, 30)
    balanced.call_at("a", Outcome.FAILURE, 20)
    balanced.call_at("a", Outcome.FAILURE, retry_after=20.0)
    assert old.ejection.active
    balanced.update(instance("a", port=81), instance("b"), instance("c"))
    new = balanced.endpoint("a")
    assert old.state.closed == 1
    assert not new.ejection.active
    assert (new.told_until, new.failures, new.recent.total) == (0.0, 0, 0)
    assert new.latency_at(balanced.clock.now) == 0.0
    assert new.warm_since is not None


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_case_34_a_weight_of_zero_counts_as_one(policy: PolicyName) -> None:
    balanced = Balanced(instance("a", weight=0), instance("b", weight=-1), policy=policy)
    called = {balanced.call(key=f"{number}") for number in range(50)}
    assert called == ({"a"} if policy == "ordered" else {"a", "b"})


def test_a_departed_endpoint_is_disposed_of_after_its_last_call() -> None:
    endpoints = endpoint_set(instance("a"))
    first, second = endpoints.pick(), endpoints.pick()
    assert first is not None
    assert second is not None
    state = first.endpoint.state
    endpoints.update(snapshot())
    assert endpoints.pick() is None
    first.settle(Outcome.SUCCESS)
    assert state.closed == 0
    second.settle(Outcome.IGNORED)
    assert state.closed == 1
    second.settle(Outcome.IGNORED)
    assert state.closed == 1


def test_an_endpoint_that_returns_while_calls_are_in_flight_gets_a_state_of_its_own() -> None:
    endpoints = endpoint_set(instance("a"))
    pick = endpoints.pick()
    assert pick is not None
    endpoints.update(snapshot())
    endpoints.update(snapshot(instance("a")))
    (new,) = endpoints.endpoints()
    assert new.state is not pick.endpoint.state
    pick.settle(Outcome.SUCCESS)
    assert pick.endpoint.state.closed == 1
    assert new.state.closed == 0
    assert new.in_flight == 0


def test_case_38_a_pick_is_given_back_once_whatever_the_outcome() -> None:
    endpoints = endpoint_set(instance("a"))
    (endpoint,) = endpoints.endpoints()
    for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.FAILURE, Outcome.IGNORED):
        pick = endpoints.pick()
        assert pick is not None
        assert endpoint.in_flight == 1
        pick.settle(outcome)
        pick.settle(Outcome.FAILURE)
        assert endpoint.in_flight == 0
    assert (endpoint.successes, endpoint.failures) == (1, 2)


def test_case_39_a_call_is_in_flight_until_its_body_is_closed_but_timed_to_its_headers() -> None:
    balanced = Balanced(instance("a"))
    pick = balanced.pick()
    balanced.clock.advance(0.1)
    pick.answered()
    pick.answered()
    balanced.clock.advance(60.0)
    assert balanced.endpoint("a").in_flight == 1
    pick.settle(Outcome.SUCCESS)
    assert balanced.endpoint("a").in_flight == 0
    balanced.clock.advance(-60.0)
    assert balanced.endpoint("a").latency_at(balanced.clock.now) == pytest.approx(0.1)
    pick.answered()
    assert balanced.endpoint("a").latency_at(balanced.clock.now) == pytest.approx(0.1)


def test_case_38_a_cancelled_call_says_nothing_of_the_instance() -> None:
    balanced = Balanced(instance("a"))
    pick = balanced.pick()
    balanced.clock.advance(30.0)
    pick.settle(Outcome.IGNORED)
    endpoint = balanced.endpoint("a")
    assert (endpoint.in_flight, endpoint.successes, endpoint.failures) == (0, 0, 0)
    assert (endpoint.recent.total, endpoint.latency_at(balanced.clock.now)) == (0, 0.0)


def test_a_pick_keeps_the_data_it_was_made_with() -> None:
    endpoints = endpoint_set(instance("a", weight=1))
    pick = endpoints.pick()
    assert pick is not None
    endpoints.update(snapshot(instance("a", weight=2)))
    assert pick.instance.weight == 1
    assert pick.endpoint.instance.weight == 2


def test_closing_disposes_of_all_and_later_snapshots_change_nothing() -> None:
    endpoints = endpoint_set(instance("a"), instance("b"))
    busy = endpoints.pick()
    assert busy is not None
    states = [each.state for each in endpoints.endpoints()]
    endpoints.close()
    assert [each.closed for each in states] == [0, 1]
    made: list[Pool] = []
    endpoints._create = lambda instance: made.append(Pool(instance)) or made[-1]  # type: ignore[func-returns-value]
    endpoints.update(snapshot(instance("c")))
    assert [each.closed for each in made] == [1]
    assert endpoints.endpoints() == ()
    assert endpoints.pick() is None
    busy.settle(Outcome.SUCCESS)
    assert [each.closed for each in states] == [1, 1]
    endpoints.close()
    assert [each.closed for each in states] == [1, 1]


def test_a_state_that_cannot_be_made_leaves_the_set_as_it_was() -> None:
    made: list[Pool] = []

    def create(instance: Instance) -> Pool:
        if instance.id == "bad":
            raise OSError("no file descriptors left")
        made.append(Pool(instance))
        return made[-1]

    endpoints = EndpointSet("catalog", BalancingOptions(), create=create, dispose=Pool.close)
    endpoints.update(snapshot(instance("a")))
    old = endpoints.snapshot
    with pytest.raises(OSError, match="descriptors"):
        endpoints.update(snapshot(instance("aa"), instance("bad")))
    assert endpoints.snapshot is old
    assert picked(endpoints) == "a"
    assert [each.closed for each in made] == [0, 1]


def test_the_newest_snapshot_is_told() -> None:
    endpoints = endpoint_set(instance("a"))
    newest = snapshot(instance("b"))
    endpoints.update(newest)
    assert endpoints.snapshot is newest


def test_an_endpoint_that_leaves_between_choice_and_pick_is_not_handed_out() -> None:
    endpoints = endpoint_set(instance("a"), instance("b"))
    (a, _) = endpoints.endpoints()

    def ready(endpoint: Endpoint[Pool]) -> bool:
        """Lets the endpoint leave after it was found to be ready."""
        if endpoint is a:
            endpoints.update(snapshot(instance("b")))
        return True

    assert picked(endpoints, ready=ready) == "b"
    assert a.state.closed == 1
    assert a.in_flight == 0


def test_threads_that_pick_while_the_set_changes_leave_nothing_in_flight_and_nothing_open() -> None:
    made: list[Pool] = []
    endpoints = EndpointSet(
        "catalog",
        BalancingOptions(),
        create=lambda each: made.append(Pool(each)) or made[-1],  # type: ignore[func-returns-value]
        dispose=Pool.close,
    )
    endpoints.update(snapshot(instance("a"), instance("b")))
    used_closed: list[str] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            pick = endpoints.pick()
            if pick is not None:
                if pick.endpoint.state.closed:
                    used_closed.append(pick.instance.id)
                pick.settle(Outcome.SUCCESS)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for each in threads:
        each.start()
    for turn in range(200):
        endpoints.update(snapshot(instance("a", port=80 + turn % 3), instance("b")))
    stop.set()
    for each in threads:
        each.join()
    endpoints.close()
    assert used_closed == []
    assert [each.closed for each in made] == [1] * len(made)


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_threads_that_fail_eject_and_probe_leave_nothing_in_flight(policy: PolicyName) -> None:
    """Under a tiny switch interval, with instances that come, go, fail, ask to wait and return."""
    balanced = Balanced(*named(4), policy=policy, ejection_minimum=3, slow_start=1.0, zone="a")
    raised: list[BaseException] = []
    stop = threading.Event()

    def call(seed: int) -> None:
        luck = random.Random(seed)
        try:
            while not stop.is_set():
                pick = balanced.set.pick(ready=lambda each: luck.random() < 0.9, key=str(luck.random()))
                if pick is not None:
                    pick.answered()
                    bad = pick.instance.id == "0001"
                    told = 0.5 if luck.random() < 0.05 else None
                    pick.settle(Outcome.FAILURE if bad else Outcome.SUCCESS, retry_after=told)
        except BaseException as error:
            raised.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
        for each in threads:
            each.start()
        for turn in range(60):
            balanced.clock.advance(0.5)
            some = named(2 + turn % 3)
            balanced.update(*some, *named(8, zone="a", port=81)[6:])
            balanced.set.describe()
        stop.set()
        for each in threads:
            each.join()
    finally:
        sys.setswitchinterval(interval)
    assert raised == []
    assert all(each.in_flight == 0 for each in balanced.set.endpoints())


names = st.sampled_from("abc")
instances = st.builds(instance, names, port=st.sampled_from([80, 81]), status=st.sampled_from(list(Status)))
steps = st.one_of(
    st.lists(instances, max_size=4, unique_by=lambda each: each.key).map(lambda each: ("update", each)),
    st.sampled_from([("pick", None), ("settle", None), ("close", None)]),
)


@given(st.lists(steps, max_size=30))
def test_whatever_happens_each_state_is_disposed_of_exactly_once_and_only_when_idle(
    sequence: list[tuple[str, Any]],
) -> None:
    made: list[Pool] = []
    endpoints = EndpointSet(
        "catalog",
        BalancingOptions(),
        create=lambda each: made.append(Pool(each)) or made[-1],  # type: ignore[func-returns-value]
        dispose=Pool.close,
    )
    current: dict[Any, Instance] = {}
    picks: list[Any] = []
    closed = False
    for step, value in sequence:
        if step == "update":
            endpoints.update(snapshot(*value))
            if not closed:
                current = {each.key: each for each in value}
        elif step == "pick":
            pick = endpoints.pick()
            fit = [each for each in current.values() if each.status in (Status.PASSING, Status.WARNING)]
            assert (pick is not None) == bool(fit)
            if pick is not None:
                assert pick.instance in fit
                assert pick.endpoint.state.closed == 0
                picks.append(pick)
        elif step == "settle" and picks:
            picks.pop(0).settle(Outcome.FAILURE)
        elif step == "close":
            endpoints.close()
            closed, current = True, {}
        assert [each.instance for each in endpoints.endpoints()] == [current[key] for key in sorted(current)]
        held = {id(each.endpoint.state) for each in picks}
        held |= {id(each.state) for each in endpoints.endpoints()}
        assert all(each.closed == (id(each) not in held) for each in made)
    for each in picks:
        each.settle(Outcome.SUCCESS)
    endpoints.close()
    assert all(each.closed == 1 for each in made)


@given(
    policy=st.sampled_from(get_args(PolicyName)),
    panic=st.sampled_from(["off", "ejection", "all"]),
    seed=st.integers(0, 9999),
)
def test_whatever_happens_a_pick_is_fit_and_there_is_one_whenever_anyone_is(
    policy: PolicyName, panic: Any, seed: int
) -> None:
    """Excluded, unready and maintenance are never chosen; the rest, ejected or not, before None is given."""
    luck = random.Random(seed)
    pool = [
        instance(
            f"{number}",
            status=luck.choice([*[Status.PASSING] * 4, Status.WARNING, Status.CRITICAL, Status.MAINTENANCE]),
            zone=luck.choice("ab"),
            priority=luck.choice([0, 0, 1]),
            weight=luck.choice([1, 1, 5]),
        )
        for number in range(6)
    ]
    options = {"slow_start": luck.choice([0.0, 5.0]), "subset": luck.choice([0, 0, 2])}
    balanced = Balanced(policy=policy, panic=panic, zone="a", ejection_minimum=2, seed=seed, **options)
    held: list[Any] = []
    for _ in range(60):
        balanced.clock.advance(luck.random() ** 4 * 8)
        if luck.random() < 0.15:
            balanced.update(*luck.sample(pool, luck.randrange(7)))
        unready = {each for each in balanced.set.endpoints() if luck.random() < 0.3}
        excluded = [each for each in balanced.set.endpoints() if luck.random() < 0.2]
        pick = balanced.set.pick(
            exclude=excluded,
            ready=lambda each, unready=unready: each not in unready,  # type: ignore[misc]
            key=luck.choice([None, "k"]),
        )
        fit = [
            each for each in balanced.set.callable_endpoints() if each not in unready and each not in excluded
        ]
        if pick is None:
            assert not fit
        else:
            assert pick.endpoint not in unready
            assert pick.endpoint not in excluded
            assert pick.endpoint in fit or panic == "all"
            assert pick.instance.status is not Status.MAINTENANCE
            held.append(pick)
        while held and luck.random() < 0.6:
            outcome = luck.choice([Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED])
            asked = luck.choice([None, None, None, 3.0])
            held.pop(luck.randrange(len(held))).settle(outcome, retry_after=asked)
        for each in balanced.set.endpoints():
            assert each.in_flight == sum(pick.endpoint is each for pick in held)


def test_after_a_fork_the_child_has_no_calls_in_flight_and_turns_of_its_own() -> None:
    balanced = Balanced(*named(1000))
    pick = balanced.pick()
    first = balanced.call()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            balanced.clock.advance(1.0)
            pick.settle(Outcome.SUCCESS)
            told = [str(pick.endpoint.in_flight), str(pick.endpoint.successes), balanced.call()]
            os.write(write, " ".join(told).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    in_flight, successes, second = os.read(read, 100).decode().split()
    os.close(read)
    assert (in_flight, successes) == ("0", "0")
    assert int(second) != (int(first) + 1) % 1000
    assert pick.endpoint.in_flight == 1


def test_a_lock_that_another_thread_held_at_the_fork_is_free_in_the_child() -> None:
    balanced = Balanced(*named(2))
    with balanced.set._lock:
        child = os.fork()
        if child == 0:
            balanced.clock.advance(1.0)
            os._exit(0 if balanced.call() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_an_endpoint_says_who_it_is() -> None:
    endpoints = endpoint_set(dataclasses.replace(instance("a"), port=8080))
    endpoints.pick()
    assert repr(endpoints.endpoints()[0]) == "Endpoint('a', '10.0.0.1:8080', in_flight=1)"


def test_a_collection_may_end_a_forgotten_call_in_the_middle_of_a_change() -> None:
    """The same thread holds the lock then: it must not wait for itself."""
    forgotten: list[Any] = []

    def draw() -> float:
        # Drawn inside, as an object may be collected anywhere.
        while forgotten:
            forgotten.pop().settle(Outcome.IGNORED)
        return 0.5

    balanced = Balanced(*named(3), draw=draw, ejection_minimum=2)
    others = balanced.set.endpoints()[1:]
    for each in others:
        balanced.call_at(each.instance.id, Outcome.SUCCESS, times=3)
    held = balanced.pick(exclude=others)
    forgotten.append(held)
    failing = threading.Thread(
        target=balanced.call_at, args=("0000", Outcome.FAILURE), kwargs={"times": 2}, daemon=True
    )
    failing.start()
    failing.join(5)
    assert not failing.is_alive()
    assert balanced.names(EndpointEjected) == ["0000"]
    assert [each.in_flight for each in balanced.set.endpoints()] == [0, 0, 0]
