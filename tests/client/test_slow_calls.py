"""What makes an instance slow to its breaker: the time to the headers, not the reader's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chassis.breaker import BreakerOptions
from tests.client.calling import Caller, catalog
from tests.client.scripted import Behaviour, ScriptedServer, answer, slow_body

Serve = Callable[..., ScriptedServer]


@pytest.mark.parametrize(
    ("behaviour", "slow"), [(slow_body(0.35), False), (answer(delay=0.35), True)], ids=["body", "headers"]
)
def test_an_instance_is_slow_by_its_headers_alone(
    serve: Serve, calling: Callable[..., Caller], behaviour: Behaviour, slow: bool
) -> None:
    """A body that takes long, or is read slowly, says nothing of how soon it answers."""
    breaker = BreakerOptions(slow_after=0.3, consecutive_failures=None)
    caller = calling(catalog(serve(behaviour)), None, breaker)
    # On a busy machine good headers may be late, too; not those of five calls.
    for calls in range(1, 2 if slow else 6):
        assert caller.get().status_code == 200
        described = caller.breaker().describe()
        assert (described["calls"], described["failures"]) == (calls, 0)
        if described["slow"] < calls:
            break
    assert (described["slow"] == described["calls"]) is slow
