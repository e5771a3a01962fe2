"""The life of one secret in use: pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.secrets import Secret, SecretVersion
from chassis.secrets._machine import Rotation


def version(number="1", **values):
    return SecretVersion(values={name: Secret(each) for name, each in values.items()}, version=number)


def test_the_first_read_is_no_rotation():
    """It is simply there."""
    rotation = Rotation(30.0)
    assert rotation.current is None
    assert rotation.read(version(a="1")) == ()
    assert rotation.current == version(a="1")


def test_a_rotation_names_the_fields_that_changed():
    """Changed, come and gone; not those that stayed."""
    rotation = Rotation(30.0)
    rotation.read(version(a="1", b="2", c="3"))
    assert rotation.read(version("2", a="1", b="x", d="4")) == ("b", "c", "d")
    assert rotation.current == version("2", a="1", b="x", d="4")


def test_values_count_not_versions():
    """Rewritten alike: no rotation, though the version shown is the new one; same number, other value: one."""
    rotation = Rotation(30.0)
    rotation.read(version("1", a="1"))
    assert rotation.read(version("2", a="1")) == ()
    assert rotation.current.version == "2"
    assert rotation.read(version("2", a="2")) == ("a",)


def test_a_failure_keeps_the_last_good_and_is_news_once():
    """Until it heals; before the first read there is nothing to lose."""
    rotation = Rotation(30.0)
    assert not rotation.failed("down")
    assert rotation.lost
    rotation.read(version(a="1"))
    assert not rotation.lost
    assert rotation.failed("down")
    assert rotation.reason == "down"
    assert not rotation.failed("still down")
    assert rotation.reason == "still down"
    assert rotation.current == version(a="1")
    rotation.read(version(a="1"))
    assert (rotation.lost, rotation.reason) == (False, "")
    assert rotation.failed("down again")


@pytest.mark.parametrize(("drawn", "delay"), [(0.0, 27.0), (0.5, 30.0), (1.0, 33.0)])
def test_case_54_polls_are_spread_by_a_tenth_each_way(drawn, delay):
    """So that many processes do not ask at once."""
    assert Rotation(30.0, random=lambda: drawn).delay() == pytest.approx(delay)


def test_after_failures_it_asks_sooner_and_then_less_and_less():
    """Doubling from half a second to the poll, between half and all of it."""
    rotation = Rotation(3.0, random=lambda: 1.0)
    delays = []
    for _ in range(5):
        rotation.failed("down")
        delays.append(rotation.delay())
    assert delays == [0.5, 1.0, 2.0, 3.0, 3.0]
    low = Rotation(3.0, random=lambda: 0.0)
    low.failed("down")
    assert low.delay() == 0.25
    low.read(version(a="1"))
    assert low.delay() == pytest.approx(2.7)


def test_no_number_of_failures_is_too_large():
    """A store that is down for a year."""
    rotation = Rotation(30.0, random=lambda: 1.0)
    for _ in range(5_000):
        rotation.failed("down")
    assert rotation.delay() == 30.0


@given(
    st.lists(st.one_of(st.none(), st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), max_size=2)))
)
def test_the_current_version_is_always_the_last_good_one(reads):
    """Whatever order reads and failures come in; and a rotation is told exactly when values changed."""
    rotation, good = Rotation(1.0), None
    for values in reads:
        if values is None:
            rotation.failed("down")
        else:
            told = rotation.read(version(**values))
            assert bool(told) == (good is not None and good != values)
            good = values
        assert (rotation.current is None) == (good is None)
        if good is not None:
            assert rotation.current == version(**good)
