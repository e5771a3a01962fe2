"""What is kept on disk for a start without the registry."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chassis.core import Event, Instance, Status, events, monotonic
from chassis.discovery import SnapshotFile, SnapshotFileUnusable, SnapshotKeeper
from tests.support.waiting import eventually

A = Instance(
    id="a",
    service="catalog",
    host="fd00::1",
    port=8080,
    scheme="https",
    zone="z1",
    datacenter="dc2",
    priority=1,
    tags=("blue", "v2"),
    meta={"version": "2"},
    weight=7,
    status=Status.WARNING,
)
B = Instance(id="b", service="catalog", host="10.0.0.1", port=80)


@pytest.fixture
def unusable() -> Iterator[list[Event]]:
    found: list[Event] = []
    unsubscribe = events.subscribe(
        lambda event: found.append(event) if isinstance(event, SnapshotFileUnusable) else None
    )
    yield found
    unsubscribe()


def kept_in(directory: Path, service: str = "catalog", **question: Any) -> SnapshotFile:
    return SnapshotFile(str(directory), service, {"agent": "http://127.0.0.1:8500", **question})


def test_what_was_written_is_read_again_whole(tmp_path: Path, unusable: list[Event]) -> None:
    file = kept_in(tmp_path / "new" / "folder")
    file.write([A, B])
    read = kept_in(tmp_path / "new" / "folder").read()
    assert read is not None
    instances, fetched_at = read
    assert instances == (A, B)
    assert instances[0].meta == {"version": "2"}
    assert abs(monotonic() - fetched_at) < 2
    assert unusable == []


def test_only_the_owner_may_read_it_and_no_trace_is_left_beside_it(tmp_path: Path) -> None:
    file = kept_in(tmp_path)
    file.write([A])
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file.path]
    assert json.loads(file.path.read_text())["schema"] == 1


def test_another_question_is_another_file(tmp_path: Path) -> None:
    """Another agent, datacenter, filter or tag: what is true of one is not of the other."""
    kept_in(tmp_path).write([A])
    assert kept_in(tmp_path, agent="http://10.0.0.1:8500").read() is None
    assert kept_in(tmp_path, datacenter="dc2").read() is None
    assert kept_in(tmp_path, "orders").read() is None
    assert kept_in(tmp_path).read() is not None


@pytest.mark.parametrize("service", ["a b/c", "../up", "x" * 300, "é", "."])
def test_case_37_any_name_has_a_file_in_the_folder(tmp_path: Path, service: str) -> None:
    file = kept_in(tmp_path / "in", service)
    file.write([B])
    assert file.path.parent == tmp_path / "in"
    assert file.read() is not None
    assert [each.name for each in tmp_path.iterdir()] == ["in"]


def test_nothing_kept_is_no_trouble(tmp_path: Path, unusable: list[Event]) -> None:
    file = kept_in(tmp_path)
    assert file.read() is None
    file.write([])
    file.write([A])
    file.write([])
    assert file.read() is None
    assert not list(tmp_path.iterdir())
    assert unusable == []


def damaged(**changes: Any) -> str:
    instance = {"id": "a", "service": "catalog", "host": "h", "port": 80, "scheme": "http", "zone": "",
                "datacenter": "", "priority": 0, "tags": [], "meta": {}, "weight": 1, "status": "passing"}  # fmt: skip
    question = {"service": "catalog", "agent": "http://127.0.0.1:8500"}
    whole = {"schema": 1, "question": question, "written_at": 0, "instances": [{**instance, **changes}]}
    return json.dumps(whole)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": 1}',
        damaged().replace('"schema": 1', '"schema": 0'),
        damaged().replace('"schema": 1', '"schema": 2'),
        damaged().replace("8500", "8501"),
        damaged().replace('"written_at": 0', '"written_at": "x"'),
        damaged().replace('"written_at": 0', f'"written_at": {10**400}'),
        damaged(port="80"),
        damaged(port=0),
        damaged(port=True),
        damaged(host=""),
        damaged(host=None),
        damaged(host="a b"),
        damaged(host="a/b"),
        damaged(scheme="file"),
        damaged(status="fine"),
        damaged(meta=None),
        damaged(tags=None),
        "[" * 100_000,
    ],
)
def test_case_16_a_file_that_cannot_be_used_is_left_aside_with_a_warning(
    tmp_path: Path, unusable: list[Event], text: str
) -> None:
    file = kept_in(tmp_path)
    file.path.write_text(text)
    file.path.chmod(0o600)
    assert file.read() is None
    (event,) = unusable
    assert event.subject == "catalog"
    assert event.details()["file"] == str(file.path)
    file.write([A])
    assert file.read() is not None


def test_the_damage_above_is_the_only_thing_wrong_with_it(tmp_path: Path) -> None:
    file = kept_in(tmp_path)
    file.path.write_text(damaged())
    file.path.chmod(0o600)
    read = file.read()
    assert read is not None
    # It was written at the beginning of the epoch.
    assert monotonic() - read[1] > 1e9


@pytest.mark.parametrize("years", [-30, 30])
def test_case_41_a_clock_that_was_set_changes_only_the_age_that_is_shown(tmp_path: Path, years: int) -> None:
    """No decision is taken by the wall clock: what is kept is used, however old it seems."""
    file = kept_in(tmp_path)
    file.write([A])
    kept = json.loads(file.path.read_text())
    kept["written_at"] += years * 365 * 86_400_000
    file.path.write_text(json.dumps(kept))
    read = file.read()
    assert read is not None
    assert read[0] == (A,)
    assert read[1] <= monotonic()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_left_aside(tmp_path: Path, unusable: list[Event]) -> None:
    """In a folder that several users write to, anybody could say where requests are sent."""
    file = kept_in(tmp_path)
    file.write([A])
    os.chown(file.path, 12345, -1)
    assert file.read() is None
    assert "another user" in unusable[0].details()["error"]


def test_case_16_bytes_that_are_no_text_are_left_aside(tmp_path: Path, unusable: list[Event]) -> None:
    file = kept_in(tmp_path)
    file.path.write_bytes(b"\xff\xfe\x00")
    file.path.chmod(0o600)
    assert file.read() is None
    assert len(unusable) == 1


def test_a_file_that_others_can_write_is_not_trusted(tmp_path: Path, unusable: list[Event]) -> None:
    """Whoever writes it would say where this process sends its requests."""
    file = kept_in(tmp_path)
    file.write([A])
    file.path.chmod(0o620)
    assert file.read() is None
    file.path.chmod(0o600)
    file.path.rename(tmp_path / "elsewhere")
    file.path.symlink_to(tmp_path / "elsewhere")
    assert file.read() is None
    file.path.unlink()
    os.mkfifo(file.path)
    assert file.read() is None
    assert len(unusable) == 3


def opened(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def test_a_folder_in_its_place_is_left_aside_and_no_descriptor_with_it(
    tmp_path: Path, unusable: list[Event]
) -> None:
    file = kept_in(tmp_path)
    file.path.mkdir(0o700)
    assert file.read() is None
    assert len(unusable) == 1
    assert not any(opened(descriptor, file.path) for descriptor in range(3, 1024))


def test_case_16_a_folder_that_cannot_be_written_is_told_of_and_no_more(
    tmp_path: Path, unusable: list[Event]
) -> None:
    (tmp_path / "in").write_text("a file in its place")
    kept_in(tmp_path / "in").write([A])
    kept_in(tmp_path / "in").write([])
    assert len(unusable) == 2
    assert kept_in(tmp_path / "in").read() is None


def test_a_write_that_fails_half_way_leaves_what_was_there(tmp_path: Path, unusable: list[Event]) -> None:
    file = kept_in(tmp_path)
    file.write([A])
    file.write([Instance(id="a", service="catalog", host="h", port=80, zone=object())])  # type: ignore[arg-type]
    read = file.read()
    assert read is not None
    assert read[0] == (A,)
    assert list(tmp_path.iterdir()) == [file.path]
    assert len(unusable) == 1


class Counting(SnapshotFile):
    """Keeps what was written, and reads slowly if told to."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(str(tmp_path), "catalog", {})
        self.written: list[tuple[Instance, ...]] = []

    def write(self, instances: Any) -> bool:
        self.written.append(tuple(instances))
        return super().write(instances)


@pytest.mark.asyncio
async def test_it_is_written_at_once_and_then_at_most_once_in_the_interval(tmp_path: Path) -> None:
    file = Counting(tmp_path)
    keeper = SnapshotKeeper(file, interval=0.3)
    begun = monotonic()
    keeper.keep((A,))
    await eventually(lambda: file.written == [(A,)], what="the first write")
    for each in ((A, B), (B,), (A, B)):
        keeper.keep(each)
    await eventually(lambda: len(file.written) == 2, what="the second write")
    assert monotonic() - begun > 0.29
    assert file.written[1] == (A, B)


@pytest.mark.asyncio
async def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    file = Counting(tmp_path)
    keeper = SnapshotKeeper(file, interval=0.0)
    for _ in range(3):
        keeper.keep((A,))
        await keeper.flush()
    assert file.written == [(A,)]


@pytest.mark.asyncio
async def test_case_16_what_could_not_be_written_is_tried_again_and_told_of_once(
    tmp_path: Path, unusable: list[Event]
) -> None:
    """A disk that was full for a while must not cost the next cold start its instances."""
    in_its_place = tmp_path / "in"
    in_its_place.write_text("a file")
    file = Counting(in_its_place)
    keeper = SnapshotKeeper(file, interval=0.0)
    for _ in range(2):
        keeper.keep((A,))
        await keeper.flush()
    assert file.written == [(A,), (A,)]
    assert len(unusable) == 1
    in_its_place.unlink()
    for _ in range(2):
        keeper.keep((A,))
        await keeper.flush()
    assert len(file.written) == 3
    read = file.read()
    assert read is not None
    assert read[0] == (A,)


@pytest.mark.asyncio
async def test_a_flush_does_not_wait_for_the_interval(tmp_path: Path) -> None:
    file = Counting(tmp_path)
    keeper = SnapshotKeeper(file, interval=60.0)
    await keeper.flush()
    keeper.keep((A,))
    await keeper.flush()
    keeper.keep((A, B))
    keeper.keep((B,))
    async with asyncio.timeout(5):
        await keeper.flush()
    assert file.written == [(A,), (B,)]
    keeper.keep((A,))
    await asyncio.sleep(0.05)
    assert len(file.written) == 2


@pytest.mark.asyncio
async def test_a_disk_that_hangs_delays_a_start_by_no_more_than_a_second(tmp_path: Path) -> None:
    import threading

    let_go = threading.Event()

    class Hung(Counting):
        def read(self) -> Any:
            let_go.wait(10)

    begun = monotonic()
    assert await SnapshotKeeper(Hung(tmp_path)).read() is None
    assert monotonic() - begun < 2
    let_go.set()
