"""Services from a file that changes while it is read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core import ConfigError, Event, Freshness, Reason, Snapshot, Source, Status, events
from chassis.discovery import DiscoveryRecovered, DiscoveryStale, FileDiscovery
from chassis.discovery._file import FollowedFile
from tests.support.waiting import wait_until

ONE = b'[services]\ncatalog = "http://a:1"\n'
TWO = b'[services]\ncatalog = "http://a:1,http://b:1"\n'
POLL = 0.03


def ids(followed: FollowedFile, service: str = "catalog") -> list[str]:
    return [each.id for each in followed.located.of(service)]


# what is believed


def test_what_is_written_in_place_is_believed_when_it_was_read_twice_alike() -> None:
    """The first read may have met it half-written, which TOML does not show."""
    file = FollowedFile("s.toml", TWO, (1, 1))
    file.read(ONE, (1, 1))
    assert ids(file) == ["a:1", "b:1"]
    file.read(ONE, (1, 1))
    assert ids(file) == ["a:1"]


def test_what_was_put_in_its_place_is_believed_at_once() -> None:
    file = FollowedFile("s.toml", TWO, (1, 1))
    file.read(ONE, (1, 2))
    assert ids(file) == ["a:1"]


@pytest.mark.parametrize(
    "bad",
    [b"", b"[services", b"\xff", b'[services]\ncatalog = "http//x"', b"[other]\n", b"services = 3"],
)
def test_a_file_that_cannot_be_used_keeps_what_it_said_last(bad: bytes) -> None:
    file = FollowedFile("s.toml", ONE, (1, 1))
    file.read(bad, (1, 1))
    assert file.error == ""
    file.read(bad, (1, 1))
    assert "s.toml" in file.error
    assert ids(file) == ["a:1"]
    file.read(TWO, (1, 1))
    assert file.error, "it may be half-written again"
    file.read(TWO, (1, 1))
    assert (ids(file), file.error) == (["a:1", "b:1"], "")


def test_a_file_that_is_restored_is_well_again() -> None:
    file = FollowedFile("s.toml", ONE, (1, 1))
    file.read(b"[", (1, 2))
    assert file.error
    file.read(ONE, (1, 3))
    assert file.error == ""
    file.unreadable("gone")
    assert file.error == "gone"
    file.read(ONE, (1, 3))
    assert file.error == ""


def test_a_file_that_was_away_may_be_half_written_when_it_is_back() -> None:
    """Editors that delete a file and write it anew put nothing whole in its place."""
    file = FollowedFile("s.toml", ONE, (1, 1))
    file.unreadable("gone")
    file.read(b"[services]\n", (1, 2))
    assert ids(file) == ["a:1"]
    file.read(TWO, (1, 2))
    file.read(TWO, (1, 2))
    assert ids(file) == ["a:1", "b:1"]


contents = st.sampled_from([ONE, TWO, b"", b"[services]\n", b"[serv"])


@given(st.lists(st.tuples(contents, st.booleans()), max_size=30))
def test_whatever_is_written_what_is_told_was_whole_once(writes: list[tuple[bytes, bool]]) -> None:
    whole = {ONE: ["a:1"], TWO: ["a:1", "b:1"], b"[services]\n": []}
    file = FollowedFile("s.toml", ONE, (1, 0))
    told, last, inode = ["a:1"], ONE, 0
    for content, replaced in writes:
        inode += replaced
        file.read(content, (1, inode))
        if (replaced or content == last) and content in whole:
            told = whole[content]
            assert file.error == ""
        last = content
        assert ids(file) == told


# what may be written


def located(written: Any) -> list[Any]:
    file = FollowedFile("s.json", json.dumps({"services": {"catalog": written}}).encode(), (1, 1))
    return list(file.located.of("catalog"))


def test_an_instance_may_bear_everything_a_balancer_looks_at() -> None:
    table = {
        "url": "https://a:1",
        "id": "first",
        "zone": "z",
        "datacenter": "dc2",
        "priority": 1,
        "tags": ["v2"],
        "meta": {"version": "2"},
        "weight": 3,
        "status": "maintenance",
    }
    second, first = located([table, "http://b:2"])
    assert (first.id, first.scheme, first.host, first.port) == ("first", "https", "a", 1)
    assert (first.zone, first.datacenter, first.priority, first.weight) == ("z", "dc2", 1, 3)
    assert (first.tags, first.meta, first.status) == (("v2",), {"version": "2"}, Status.MAINTENANCE)
    assert (second.id, second.weight, second.status) == ("b:2", 1, Status.PASSING)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (3, "services.catalog: 3 is no list (from s.json)"),
        ({"url": "http://a:1"}, "services.catalog: {'url': 'http://a:1'} is no list"),
        ([3], "services.catalog[0]: 3 is no address"),
        (["http://a:1", {}], "services.catalog[1]: the instance has no url"),
        (["a:1"], "services.catalog[0]: 'a:1' has no scheme"),
        ([{"url": "a:1"}], "services.catalog[0].url: 'a:1' has no scheme"),
        ([{"url": "http://a:1", "wieght": 2}], "services.catalog[0]: there is no 'wieght'"),
        ([{"url": "http://a:1", "weight": 0}], "services.catalog[0].weight: 0 cannot be used"),
        ([{"url": "http://a:1", "weight": True}], "services.catalog[0].weight: True cannot be used"),
        ([{"url": "http://a:1", "priority": -1}], "services.catalog[0].priority: -1 cannot be used"),
        ([{"url": "http://a:1", "status": "up"}], "services.catalog[0].status: 'up' cannot be used"),
        ([{"url": "http://a:1", "tags": "v2"}], "services.catalog[0].tags: 'v2' cannot be used"),
        ([{"url": "http://a:1", "meta": {"a": 1}}], "services.catalog[0].meta: {'a': 1} cannot be used"),
        ([{"url": "http://a:1", "zone": 1}], "services.catalog[0].zone: 1 cannot be used"),
        ([{"url": "http://a:1", "id": " "}], "services.catalog[0].id: ' ' cannot be used"),
        (["http://a:1", {"url": "http://a:1"}], "services.catalog: a:1 is listed twice"),
    ],
)
def test_what_cannot_be_used_is_named_with_place_and_remedy(written: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        located(written)
    assert str(caught.value).startswith(told)
    assert caught.value.remedy
    assert caught.value.origin == "s.json"


# the file itself


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    heard: list[Event] = []
    unsubscribe = events.subscribe(heard.append)
    heard.clear()  # what nobody heard when it happened is replayed, and is another test's
    yield heard
    unsubscribe()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "services.toml"
    path.write_bytes(ONE)
    return path


@pytest.fixture
def follow(file: Path) -> Iterator[Callable[..., list[Snapshot]]]:
    closing: list[Callable[[], None]] = []

    def follow(service: str = "catalog", discovery: FileDiscovery | None = None) -> list[Snapshot]:
        told: list[Snapshot] = []
        discovery = discovery or FileDiscovery(file, poll=POLL)
        closing.append(discovery.subscribe(service, told.append).close)
        wait_until(lambda: told, what="the first snapshot")
        return told

    yield follow
    for close in closing:
        close()


def urls(told: list[Snapshot]) -> list[str]:
    return [each.url for each in told[-1].instances]


def test_a_file_is_followed_while_it_is_written_replaced_and_linked_elsewhere(
    file: Path, follow: Any, tmp_path: Path
) -> None:
    told = follow()
    assert (told[-1].source, told[-1].freshness, told[-1].reason) == (Source.FILE, Freshness.FRESH, None)
    assert urls(told) == ["http://a:1"]
    file.write_bytes(TWO)
    wait_until(lambda: urls(told) == ["http://a:1", "http://b:1"], what="the file written in place")
    new = tmp_path / "new"
    new.write_bytes(ONE)
    os.utime(new, (1, 1))  # older than what it replaces
    new.replace(file)
    wait_until(lambda: urls(told) == ["http://a:1"], what="the file put in its place")
    # Kubernetes: the file is a link, and what it leads to changes.
    (tmp_path / "v2").write_bytes(TWO)
    link = tmp_path / "link"
    link.symlink_to("v2")
    link.replace(file)
    wait_until(lambda: urls(told) == ["http://a:1", "http://b:1"], what="the link to be followed")
    assert len(told) == 4


def test_a_bad_file_keeps_the_last_good_and_is_told_of_once(
    file: Path, follow: Any, heard: list[Event]
) -> None:
    discovery = FileDiscovery(file, poll=POLL)
    told = follow("catalog", discovery)
    file.write_bytes(b"[services\n")
    wait_until(lambda: told[-1].freshness is Freshness.STALE, what="staleness")
    assert urls(told) == ["http://a:1"]
    # Between its truncation and the write the file is empty, which may have been read twice.
    wait_until(lambda: "the file is not TOML" in discovery.describe()["catalog"]["error"], what="the error")
    assert str(file) in discovery.describe()["catalog"]["error"]
    file.unlink()
    wait_until(lambda: "No such file" in (discovery.describe()["catalog"]["error"] or ""))
    file.write_bytes(TWO)
    wait_until(lambda: urls(told) == ["http://a:1", "http://b:1"], what="recovery")
    assert told[-1].freshness is Freshness.FRESH
    assert discovery.describe()["catalog"]["error"] is None
    # The events follow the snapshot, in the background thread.
    wait_until(lambda: [each for each in heard if isinstance(each, DiscoveryRecovered)], what="the event")
    happened = [type(each) for each in heard if isinstance(each, DiscoveryStale | DiscoveryRecovered)]
    assert happened == [DiscoveryStale, DiscoveryRecovered]


def test_a_service_that_is_taken_out_is_gone_at_once(file: Path, follow: Any) -> None:
    """Also right after trouble: a file says what somebody means."""
    told = follow()
    file.write_bytes(b"[")
    wait_until(lambda: told[-1].freshness is Freshness.STALE, what="staleness")
    file.write_bytes(b"[services]\n")
    wait_until(lambda: not told[-1].instances, what="its end")
    assert told[-1].reason is Reason.NOT_REGISTERED


def test_many_services_read_the_file_once_a_poll(file: Path, follow: Any) -> None:
    discovery = FileDiscovery(file, poll=0.1)
    reads = 0
    followed = discovery._followed.read

    def counting(content: bytes, identity: tuple[int, int]) -> None:
        nonlocal reads
        reads += 1
        followed(content, identity)

    discovery._followed.read = counting  # type: ignore[method-assign]  # counted, not replaced
    for number in range(20):
        follow(f"service-{number}", discovery)
    wait_until(lambda: reads >= 1)
    before, begun = reads, time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 0.5)
    assert reads - before <= (time.monotonic() - begun) / 0.05 + 1


@pytest.mark.parametrize("content", [None, b"[", b"services = 1"])
def test_a_file_that_cannot_be_used_at_the_start_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "services.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        FileDiscovery(path)
    assert "services.toml" in str(caught.value)
    assert caught.value.remedy


def test_the_poll_must_be_a_duration(file: Path) -> None:
    with pytest.raises(ConfigError, match="poll"):
        FileDiscovery(file, poll=0)
