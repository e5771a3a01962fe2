"""The life of one token: pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.secrets import Due, TokenSession


def session(drawn=0.5):
    return TokenSession(random=lambda: drawn)


def test_it_begins_with_a_login():
    """There is no token yet."""
    assert session().due(0.0) is Due.LOGIN
    assert session().retry_in(0.0) == 0.0


@pytest.mark.parametrize(("drawn", "at"), [(0.0, 54.0), (0.5, 60.0), (1.0, 66.0)])
def test_case_54_a_token_is_renewed_at_two_thirds_give_or_take_a_tenth(drawn, at):
    """So that replicas that began together do not renew together."""
    token = session(drawn)
    token.logged_in(100.0, ttl=90.0, renewable=True)
    assert token.due(100.0 + at - 0.1) is Due.NOTHING
    assert token.due(100.0 + at + 0.1) is Due.RENEW
    token.renewed(160.0, ttl=90.0)
    assert token.due(160.0 + at - 0.1) is Due.NOTHING
    assert token.due(160.0 + at + 0.1) is Due.RENEW


def test_never_more_often_than_once_a_second():
    """A token of a second's life is renewed once a second, not all the time."""
    token = session()
    token.logged_in(0.0, ttl=1.2, renewable=True)
    assert token.due(0.99) is Due.NOTHING
    assert token.due(1.01) is Due.RENEW


def test_a_token_that_lives_for_ever_needs_nothing():
    """A root token, or a time to live of zero."""
    token = session()
    token.logged_in(0.0, ttl=0.0, renewable=False)
    assert token.due(1e9) is Due.NOTHING


def test_a_token_that_cannot_be_renewed_is_replaced_at_two_thirds():
    """A batch token."""
    token = session()
    token.logged_in(0.0, ttl=90.0, renewable=False)
    assert token.due(59.0) is Due.NOTHING
    assert token.due(61.0) is Due.LOGIN
    token.logged_in(61.0, ttl=90.0, renewable=True)
    token.not_renewable()
    assert token.due(122.0) is Due.LOGIN


@pytest.mark.parametrize(("granted", "due"), [(80.0, Due.LOGIN), (81.0, Due.NOTHING), (90.0, Due.NOTHING)])
def test_case_32_a_renewal_that_is_cut_short_means_a_new_login_at_once(granted, due):
    """Near its greatest age a token gets less each time; it is not ridden down."""
    token = session()
    token.logged_in(0.0, ttl=90.0, renewable=True)
    token.renewed(60.0, ttl=granted)
    assert token.due(60.0) is due


def test_case_33_while_renewal_fails_the_token_goes_on_being_used():
    """It is tried again after a pause, until five seconds before the end; then a login."""
    token = session(1.0)
    token.logged_in(0.0, ttl=90.0, renewable=True)
    token.silent(70.0)
    assert token.due(70.1) is Due.NOTHING
    assert token.due(70.3) is Due.RENEW
    token.silent(70.3)
    assert token.due(70.7) is Due.NOTHING
    assert token.due(70.9) is Due.RENEW
    assert token.due(84.9) is Due.RENEW
    assert token.due(85.1) is Due.LOGIN
    token.renewed(84.9, ttl=90.0)
    assert token.due(85.1) is Due.NOTHING


def test_a_short_token_keeps_a_tenth_as_its_margin():
    """Five seconds would be most of its life."""
    token = session()
    token.logged_in(0.0, ttl=10.0, renewable=True)
    assert token.due(8.9) is Due.RENEW
    assert token.due(9.1) is Due.LOGIN
    assert token.due(10.1) is Due.LOGIN


def test_a_failed_login_holds_back_and_doubles():
    """A silent store from a quarter of a second to 30 s."""
    token, now, pauses = session(1.0), 0.0, []
    for _ in range(9):
        token.silent(now)
        pauses.append(token.retry_in(now))
        assert token.due(now + pauses[-1] - 0.01) is Due.HOLD
        now += pauses[-1]
        assert token.due(now) is Due.LOGIN
    assert pauses == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 16, 30, 30])


def test_case_38_a_refused_login_waits_longer():
    """From 5 s to 60 s, between half and all of it; the token in hand is used to its end."""
    token, pauses = session(1.0), []
    token.logged_in(0.0, ttl=90.0, renewable=False)
    for _ in range(6):
        token.refused(61.0)
        pauses.append(token.retry_in(61.0))
        assert token.due(61.0) is Due.NOTHING
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert token.due(89.9) is Due.NOTHING
    assert token.due(90.1) is Due.HOLD
    assert token.due(121.1) is Due.LOGIN
    low = session(0.0)
    low.refused(0.0)
    assert low.retry_in(0.0) == 2.5
    assert low.retry_in(99.0) == 0.0


def test_success_forgets_the_failures():
    """The next failure starts small again, and nothing holds back."""
    token = session(1.0)
    for _ in range(5):
        token.silent(0.0)
    token.logged_in(1.0, ttl=90.0, renewable=True)
    assert token.retry_in(1.0) == 0.0
    token.silent(62.0)
    assert token.retry_in(62.0) == 0.25


def test_case_34_a_dead_token_means_a_login_now():
    """It was revoked; and a failed login then leaves nothing to be used."""
    token = session(1.0)
    token.logged_in(0.0, ttl=90.0, renewable=True)
    token.dead()
    assert token.due(1.0) is Due.LOGIN
    token.silent(1.0)
    assert token.due(1.1) is Due.HOLD


def test_no_number_of_failures_is_too_large():
    """A store that is down for a year."""
    token = session(1.0)
    for _ in range(5_000):
        token.silent(0.0)
    assert token.retry_in(0.0) == 30.0


@given(
    st.lists(
        st.tuples(st.sampled_from(["login", "renew", "silent", "refused", "dead"]), st.floats(0.1, 100)),
        max_size=30,
    ),
    st.floats(0, 1),
)
def test_a_token_is_never_used_past_its_end_nor_before_a_login(steps, drawn):
    """Whatever happens: NOTHING means that there is a token alive."""
    token, now, alive_until = session(drawn), 0.0, -1.0
    for step, value in steps:
        now += value / 3
        if token.due(now) is Due.NOTHING:
            assert now < alive_until
        if step == "login":
            token.logged_in(now, ttl=value, renewable=True)
            alive_until = now + value
        elif step == "renew" and now < alive_until:
            token.renewed(now, ttl=value)
            alive_until = now + value
        elif step == "silent":
            token.silent(now)
        elif step == "refused":
            token.refused(now)
        elif step == "dead":
            token.dead()
            alive_until = -1.0
