"""Which documents hold: pure."""

import pytest

from chassis.config._layers import leaves
from chassis.config._machine import Reload, SourceState, SourceStatus


def doc(value):
    return leaves({"a": value}, "x")


A, B, C = doc(1), doc(2), doc(3)


def test_a_new_document_is_tried_beside_those_that_hold():
    """One candidate; accepting it makes it hold."""
    machine = Reload()
    (first,) = machine.candidates("file", A)
    machine.accept(first)
    assert machine.candidates("kv", B) == [{"file": A, "kv": B}]
    assert machine.accepted == {"file": A}


def test_the_same_document_again_is_nothing_to_do():
    """No candidate, so no generation, no callback."""
    machine = Reload()
    machine.accept({"file": A})
    assert machine.candidates("file", doc(1)) == []
    assert not machine.rejects("file")


def test_a_rejected_document_leaves_the_last_good_one_and_is_news_once():
    """The same bad document offered again is neither tried nor told."""
    machine = Reload()
    machine.accept({"file": A})
    assert machine.reject("file", B)
    assert machine.accepted == {"file": A}
    assert machine.rejects("file")
    assert machine.candidates("file", B) == []
    assert not machine.reject("file", B)
    assert machine.candidates("file", C) == [{"file": C}]
    assert machine.reject("file", C)


def test_going_back_to_the_good_document_heals():
    """The good document is in use already: nothing is tried and nothing waits."""
    machine = Reload()
    machine.accept({"file": A})
    machine.reject("file", B)
    assert machine.candidates("file", A) == []
    assert not machine.rejects("file")
    assert machine.candidates("kv", C) == [{"file": A, "kv": C}]


def test_a_waiting_document_is_tried_together_with_the_next_change():
    """Two documents that are right only together get in together, else the new one alone."""
    machine = Reload()
    machine.accept({"file": A, "kv": A})
    machine.reject("file", B)
    assert machine.candidates("kv", C) == [{"file": B, "kv": C}, {"file": A, "kv": C}]
    machine.accept({"file": A, "kv": C})
    assert machine.rejects("file")
    machine.accept({"file": B, "kv": C})
    assert not machine.rejects("file")


def test_a_source_with_its_own_waiting_document_is_tried_with_the_new_one_only():
    """The newer document replaces the one that waits."""
    machine = Reload()
    machine.accept({"file": A})
    machine.reject("file", B)
    assert machine.candidates("file", C) == [{"file": C}]


def test_a_temporary_rejection_is_tried_again():
    """What only a silent secret store kept out is offered until it gets in or is replaced."""
    machine = Reload()
    machine.accept({"file": A, "kv": A})
    machine.reject("kv", C, temporary=True)
    machine.reject("file", B, temporary=True)
    assert machine.retries() == [("file", B), ("kv", C)]
    assert machine.candidates("file", B) == [{"file": B, "kv": C}, {"file": B, "kv": A}]
    assert not machine.reject("file", B)
    assert machine.retries() == [("kv", C)]
    machine.accept({"file": A, "kv": C})
    assert machine.retries() == []


def test_an_unreadable_document_replaces_the_one_that_waits():
    """Until it can be read again, nothing of this source waits, and it counts as rejected."""
    machine = Reload()
    machine.accept({"file": A, "kv": A})
    machine.reject("file", B, temporary=True)
    machine.withdraw("file")
    assert machine.rejects("file")
    assert machine.retries() == []
    assert machine.candidates("kv", C) == [{"file": A, "kv": C}]
    assert machine.candidates("file", A) == []
    assert not machine.rejects("file")


def test_a_status_is_news_when_the_state_changes():
    """Another reason for the same state is noted and no news."""
    machine = Reload()
    assert machine.status("kv") == SourceStatus(SourceState.WAITING)
    before = machine.set_status("kv", SourceStatus(SourceState.UNREACHABLE, "refused"))
    assert before == SourceStatus(SourceState.WAITING, "")
    assert machine.set_status("kv", SourceStatus(SourceState.UNREACHABLE, "timeout")) is None
    assert machine.status("kv").reason == "timeout"
    assert machine.set_status("kv", SourceStatus(SourceState.READY)).state is SourceState.UNREACHABLE


@pytest.mark.parametrize("state", SourceState)
def test_what_somebody_should_look_at_is_bad(state):
    """Waiting, ready and absent are not."""
    good = {SourceState.WAITING, SourceState.READY, SourceState.ABSENT}
    assert SourceStatus(state).bad is (state not in good)
