"""The fetching shell: single flight, rotation, last good keys, files."""

from __future__ import annotations

import asyncio
import contextvars
import json

import pytest

from chassis.auth import JWKS, JWKSOptions, KeysChanged, KeysFetchFailed, KeysUnavailable
from chassis.core import ConfigError, Deadline, current_deadline, deadline_scope, events
from tests.auth.issuing import Provider, jwk, rsa_key

pytestmark = pytest.mark.asyncio


class ManualClock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def heard():
    seen = []
    stop = events.subscribe(seen.append)
    seen.clear()
    yield seen
    stop()


async def test_nothing_is_fetched_before_the_first_token(provider):
    """A gateway starts whether its provider is up or not."""
    keys = JWKS(provider.fetch)
    assert provider.fetches == 0
    assert keys.describe() == {"keys": [], "age": None, "failing": False}
    assert (await keys.find("first", "RS256")).kid == "first"
    assert keys.describe()["keys"] == ["first"]


async def test_a_hundred_first_tokens_cause_one_fetch(provider):
    """Single flight."""
    keys = JWKS(provider.fetch)
    found = await asyncio.gather(*(keys.find("first", "RS256") for _ in range(100)))
    assert {key.kid for key in found} == {"first"}
    assert provider.fetches == 1


async def test_a_cancelled_caller_does_not_cancel_the_fetch_for_the_others(provider):
    """The flight belongs to everyone who waits for it."""
    gate = asyncio.Event()

    async def slow() -> bytes:
        await gate.wait()
        return await provider.fetch()

    keys = JWKS(slow)
    first = asyncio.create_task(keys.find("first", "RS256"))
    second = asyncio.create_task(keys.find("first", "RS256"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert (await second).kid == "first"


async def test_a_key_published_before_it_signs_is_found_at_its_first_token(provider, heard):
    """Rotation costs no caller a 401, even right after another fetch: the token waits out the floor."""
    keys = JWKS(provider.fetch, options=JWKSOptions(floor=0.05))
    await keys.find("first", "RS256")
    provider.publish(rsa_key(1), "second")
    found = await asyncio.gather(*(keys.find("second", "RS256") for _ in range(50)))
    assert {key.kid for key in found} == {"second"}
    assert provider.fetches == 2
    changes = [(event.added, event.removed) for event in heard if isinstance(event, KeysChanged)]
    assert changes == [(("first",), ()), (("second",), ())]


async def test_a_fetch_that_was_already_on_its_way_does_not_speak_for_a_later_key(provider):
    """The document may have been made before the key was published, so one more fetch is made."""
    leave, arrived = asyncio.Event(), asyncio.Event()

    async def slow() -> bytes:
        document = await provider.fetch()
        if provider.fetches == 2:
            arrived.set()
            await leave.wait()
        return document

    keys = JWKS(slow, options=JWKSOptions(floor=0.0))
    await keys.find("first", "RS256")
    flood = asyncio.create_task(keys.find("invented", "RS256"))
    await arrived.wait()
    provider.publish(rsa_key(1), "second")
    waiting = asyncio.create_task(keys.find("second", "RS256"))
    await asyncio.sleep(0)
    leave.set()
    assert (await waiting).kid == "second"
    assert await flood is None
    assert provider.fetches == 3


async def test_a_flood_of_invented_key_ids_is_refused_without_reaching_the_provider(provider):
    """After the burst every one is refused at once."""
    keys = JWKS(provider.fetch, options=JWKSOptions(floor=0.0, unknown_burst=3))
    for number in range(50):
        assert await keys.find(f"invented-{number}", "RS256") is None
    # The first of all is covered by the very first fetch; three more are allowed.
    assert provider.fetches == 1 + 3


async def test_old_keys_are_fetched_behind_the_request_and_very_old_ones_before_it(provider):
    """``refresh`` seconds: go on; twice that: wait, for a key may have been withdrawn."""
    clock = ManualClock()
    keys = JWKS(provider.fetch, options=JWKSOptions(refresh=300.0), clock=clock)
    await keys.find("first", "RS256")
    provider.published = [jwk(rsa_key(1), "second")]
    clock.now += 300
    assert await keys.find("first", "RS256") is not None
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert provider.fetches == 2
    assert keys.describe()["keys"] == ["second"]
    provider.published = [jwk(rsa_key(2), "third")]
    clock.now += 600
    await keys.freshen()
    assert keys.describe()["keys"] == ["third"]


async def test_the_last_good_keys_serve_while_the_provider_is_down(provider, heard):
    """One event per outage, keys kept, tried again with growing pauses."""
    clock = ManualClock()
    keys = JWKS(provider.fetch, name="users", clock=clock)
    await keys.find("first", "RS256")
    provider.down = OSError("unreachable")
    for _ in range(5):
        clock.now += 1_000
        assert (await keys.find("first", "RS256")).kid == "first"
    assert provider.fetches == 6
    failures = [event for event in heard if isinstance(event, KeysFetchFailed)]
    assert [(each.subject, each.error, each.keys) for each in failures] == [
        ("users", "OSError: unreachable", 1)
    ]
    assert keys.describe()["failing"]
    provider.down = None
    clock.now += 1_000
    await keys.freshen()
    assert not keys.describe()["failing"]


async def test_an_unknown_key_while_the_provider_is_down_cannot_be_judged(provider):
    """It may be the provider's newest: 503 and not 401."""
    keys = JWKS(provider.fetch, options=JWKSOptions(floor=0.0))
    await keys.find("first", "RS256")
    provider.down = OSError()
    with pytest.raises(KeysUnavailable) as caught:
        await keys.find("second", "RS256")
    assert 0 < caught.value.retry_after <= 1.0


async def test_without_any_keys_every_token_cannot_be_judged_and_the_provider_is_not_hammered(provider):
    """Down from the start."""
    provider.down = OSError()
    keys = JWKS(provider.fetch)
    for _ in range(10):
        with pytest.raises(KeysUnavailable, match="cannot be fetched"):
            await keys.find("first", "RS256")
    assert provider.fetches == 1


@pytest.mark.parametrize("document", [b"{}", b"<html>", b'{"keys": []}'])
async def test_a_document_that_is_no_key_set_counts_as_a_failed_fetch(provider, document):
    """A blank provider takes no key away."""
    clock, answers = ManualClock(), [provider.document, document]

    async def fetch() -> bytes:
        return answers.pop(0)

    keys = JWKS(fetch, clock=clock)
    await keys.find("first", "RS256")
    clock.now += 1_000
    assert (await keys.find("first", "RS256")).kid == "first"
    assert keys.describe()["failing"]


async def test_a_fetch_that_hangs_is_given_up():
    """``fetch_timeout`` bounds it, whatever the function does."""

    async def hang() -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(KeysUnavailable):
        await JWKS(hang, options=JWKSOptions(fetch_timeout=0.02)).find("first", "RS256")


async def test_a_fetch_carries_nothing_of_the_request_that_caused_it(provider):
    """Neither its deadline nor its context: the fetch serves everyone."""
    mark = contextvars.ContextVar("mark", default="none")
    seen = []

    async def fetch() -> bytes:
        seen.append((current_deadline(), mark.get()))
        return provider.document

    mark.set("request")
    with deadline_scope(Deadline.after(0.5)):
        await JWKS(fetch).find("first", "RS256")
    assert seen == [(None, "none")]


async def test_keys_come_from_a_file_and_follow_it(provider, tmp_path):
    """Read at construction, and again at every refresh; a broken file keeps the last good keys."""
    clock = ManualClock()
    file = tmp_path / "keys.json"
    file.write_bytes(provider.document)
    keys = JWKS.from_file(file, clock=clock)
    assert (await keys.find("first", "RS256")).kid == "first"
    provider.publish(rsa_key(1), "second")
    file.write_bytes(provider.document)
    clock.now += 600
    assert (await keys.find("second", "RS256")).kid == "second"
    file.write_text("{")
    clock.now += 600
    assert (await keys.find("second", "RS256")).kid == "second"


@pytest.mark.parametrize("content", [None, "{", json.dumps({"keys": []})])
async def test_a_key_file_that_cannot_be_used_is_a_config_error(tmp_path, content):
    """It names the setting, the file and the remedy."""
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        JWKS.from_file(file)
    assert caught.value.setting == "jwks"
    assert "keys.json" in str(caught.value)
    assert caught.value.remedy
