"""The key machine, with a clock that is only a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.auth._keyset import Key
from chassis.auth._machine import KeyMachine, Need
from chassis.auth._options import JWKSOptions

RS, ES = frozenset({"RS256"}), frozenset({"ES256"})


def key(kid: str, algorithms: frozenset[str] = RS, fingerprint: str | None = None) -> Key:
    return Key(kid, algorithms, fingerprint or f"{kid}/{sorted(algorithms)}", object())


def machine(**options: float) -> KeyMachine:
    return KeyMachine(JWKSOptions(**options))  # type: ignore[arg-type]


def loaded(*keys: Key, at: float = 0.0, **options: float) -> KeyMachine:
    it = machine(**options)
    it.began(at)
    it.loaded(keys, at)
    return it


def test_a_new_machine_needs_a_fetch_before_it_can_judge():
    """Nothing is known at first, so the first token waits for the keys."""
    it = machine()
    assert it.need(0.0) is Need.WAIT
    assert it.age(5.0) is None
    assert it.keys == ()
    assert not it.failing


def test_keys_are_fetched_again_after_refresh_and_waited_for_after_twice_that():
    """A fresh set serves; an old one serves while it is fetched; a very old one is not trusted."""
    it = loaded(key("a"), at=100.0, refresh=300.0)
    assert it.need(100.0) is Need.NOTHING
    assert it.need(399.9) is Need.NOTHING
    assert it.need(400.0) is Need.REFRESH
    assert it.need(699.9) is Need.REFRESH
    assert it.need(700.0) is Need.WAIT
    assert it.age(150.0) == 50.0


def test_the_key_is_chosen_by_id_and_algorithm():
    """A key verifies only what its own kind can have signed."""
    a, b = key("a", RS), key("b", ES)
    it = loaded(a, b)
    assert it.find("a", "RS256") is a
    assert it.find("b", "ES256") is b
    assert it.find("a", "ES256") is None
    assert it.find("c", "RS256") is None


def test_one_id_may_stand_for_keys_of_two_kinds():
    """RFC 7517, 4.5: equivalent keys of different kinds may share a key id."""
    a, b = key("a", RS), key("a", ES)
    it = loaded(a, b)
    assert it.find("a", "ES256") is b


def test_a_token_without_a_key_id_is_judged_only_by_the_one_key_that_fits():
    """Keys never stand in for each other."""
    it = loaded(key("a", RS), key("b", ES))
    found = it.find(None, "ES256")
    assert found is not None
    assert found.kid == "b"
    assert loaded(key("a", RS), key("b", RS)).find(None, "RS256") is None
    assert it.find(None, "ES384") is None


def test_an_unknown_key_id_causes_a_fetch_at_once():
    """Rotation: the provider signs with a key that nobody here has seen."""
    it = loaded(key("a"), at=0.0, floor=1.0)
    assert it.wait_for_unknown(10.0) == 0.0


def test_a_fetch_just_made_is_followed_by_another_only_after_the_floor():
    """The token waits the floor out; it is not refused."""
    it = loaded(key("a"), at=10.0, floor=1.0)
    assert it.wait_for_unknown(10.25) == pytest.approx(0.75)
    assert it.wait_for_unknown(11.5) == 0.0


def test_before_the_first_fetch_an_unknown_id_waits_for_nothing():
    """There is no last fetch to keep a distance from."""
    assert machine().wait_for_unknown(0.0) == 0.0


def test_invented_key_ids_use_up_an_allowance_that_comes_back_slowly():
    """A flood of unknown key ids reaches the provider ``unknown_burst`` times, then once per refill."""
    it = loaded(key("a"), at=0.0, floor=0.0, unknown_burst=3, unknown_refill=30.0)
    grants = [it.wait_for_unknown(100.0 + 0.001 * number) for number in range(100)]
    assert [grant is not None for grant in grants] == [True] * 3 + [False] * 97
    assert it.wait_for_unknown(129.0) is None
    assert it.wait_for_unknown(130.0) == 0.0
    assert it.wait_for_unknown(130.1) is None


def test_the_allowance_never_exceeds_the_burst():
    """A quiet day does not save up fetches for an attacker."""
    it = loaded(key("a"), floor=0.0, unknown_burst=2, unknown_refill=1.0)
    grants = [it.wait_for_unknown(1e6) for _ in range(5)]
    assert sum(grant is not None for grant in grants) == 2


def test_after_a_failure_the_next_fetch_waits_twice_as_long_each_time_up_to_half_a_minute():
    """A provider that is down is not hammered, and found again within 30 s."""
    it, now, pauses = machine(), 0.0, []
    for number in range(40):
        it.began(now)
        assert it.failed(now) is (number == 0)
        assert it.failing
        assert it.need(now) is Need.NOTHING
        assert it.wait_for_unknown(now) is None
        pauses.append(it.retry_after(now))
        now += it.retry_after(now)
        assert it.need(now) is Need.WAIT
        assert it.retry_after(now + 1) == 0.0
    assert pauses[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert set(pauses[5:]) == {30.0}


def test_a_failure_takes_no_key_away_and_a_success_ends_it():
    """Last good keys serve while the provider is down."""
    a = key("a")
    it = loaded(a, refresh=300.0)
    it.failed(300.0)
    assert it.find("a", "RS256") is a
    assert it.holds(a.fingerprint)
    assert it.age(300.0) == 300.0
    it.loaded((a,), 301.0)
    assert not it.failing
    assert it.need(301.0) is Need.NOTHING
    assert it.wait_for_unknown(400.0) == 0.0
    assert it.failed(500.0)
    assert it.retry_after(500.0) == 1.0


def test_a_change_names_the_keys_that_came_and_went():
    """What the event says is what changed, and nothing else."""
    a, b, c = key("a"), key("b"), key("c")
    it = machine()
    assert it.loaded((a, b), 0.0) == (("a", "b"), ())
    assert it.loaded((b, c), 1.0) == (("c",), ("a",))
    assert it.loaded((b, c), 2.0) == ((), ())
    assert not it.holds(a.fingerprint)
    assert it.holds(c.fingerprint)
    assert it.keys == (b, c)


@given(
    times=st.lists(st.floats(0, 20), min_size=1, max_size=200),
    burst=st.integers(1, 6),
    refill=st.floats(1, 60),
)
def test_whatever_the_flood_the_provider_is_asked_a_bounded_number_of_times(times, burst, refill):
    """In any span of time: at most the burst and one per refill."""
    it = loaded(key("a"), floor=0.0, unknown_burst=burst, unknown_refill=refill)
    now, granted = 0.0, 0
    for step in times:
        now += step
        granted += it.wait_for_unknown(now) is not None
    assert granted <= burst + now / refill + 1e-6
