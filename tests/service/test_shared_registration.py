"""One registration of all workers that serve an address: who takes it away, and when."""

from __future__ import annotations

import asyncio
import fcntl
import tempfile
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from chassis.core import Registration, Status
from chassis.server import Address
from chassis.service._options import RegistrationOptions
from chassis.service._registration import SharedRegistration, register
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio


class Registered:
    """Notes how it was left."""

    confirmed = True

    def __init__(self, *, slow: bool = False) -> None:
        self.left: list[str] = []
        self.goes_on = asyncio.Event()
        if not slow:
            self.goes_on.set()

    def maintenance(self, reason: str | None) -> None:
        raise AssertionError

    def describe(self) -> dict[str, object]:
        return {}

    async def deregister(self) -> None:
        await self.goes_on.wait()
        self.left.append("deregistered")

    async def abandon(self) -> None:
        self.left.append("abandoned")


class Registry:
    """Hands out registrations."""

    def __init__(self) -> None:
        self.slow = False
        self.taken: list[Registered] = []
        self.hosts: list[str] = []

    async def register(self, registration: Registration) -> Registered:
        self.hosts.append(registration.host)
        self.taken.append(Registered(slow=self.slow))
        return self.taken[-1]

    async def announce(
        self, host: str = "127.0.0.1", url: str = "http://127.0.0.1", *, networks: tuple[str, ...] = ()
    ) -> SharedRegistration:
        return await register(
            self,
            "catalog",
            Address(host=host, port=8080),
            RegistrationOptions(networks=networks),
            lambda: (Status.PASSING, ""),
            url,
        )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the lock is, for this test alone."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path / "locks")
    (tmp_path / "locks").mkdir()
    yield tmp_path / "locks"
    tempfile.tempdir = before


async def test_case_40_the_last_worker_removes_the_registration(folder: Path) -> None:
    registry = Registry()
    first, second = await registry.announce(), await registry.announce()
    await first.leave()
    await second.leave()
    assert [each.left for each in registry.taken] == [["abandoned"], ["deregistered"]]


@pytest.mark.parametrize("hindrance", ["no folder", "a link in its place"])
async def test_where_no_lock_can_be_had_it_is_registered_and_removed_all_the_same(
    folder: Path, hindrance: str
) -> None:
    """A container whose file system cannot be written to must leave no ghost."""
    if hindrance == "no folder":
        folder.rmdir()
    else:
        registry = Registry()
        await (await registry.announce()).leave()
        (lock,) = folder.iterdir()
        lock.unlink()
        lock.symlink_to(folder / "elsewhere")
    registry = Registry()
    await (await registry.announce()).leave()
    assert [each.left for each in registry.taken] == [["deregistered"]]


async def test_who_comes_while_the_last_one_leaves_registers_after_that_and_blocks_nothing(
    folder: Path,
) -> None:
    """Else the deregistration under way would take the new registration with it."""
    registry = Registry()
    registry.slow = True
    leaving = asyncio.ensure_future((await registry.announce()).leave())
    await asyncio.sleep(0)
    registry.slow = False
    coming = asyncio.ensure_future(registry.announce())
    await asyncio.sleep(0.1)
    assert len(registry.taken) == 1
    assert not coming.done()
    registry.taken[0].goes_on.set()
    await leaving
    await eventually(coming.done, what="the registration")
    await (await coming).leave()
    assert [each.left for each in registry.taken] == [["deregistered"], ["deregistered"]]


async def test_who_gives_up_coming_while_the_last_one_leaves_holds_no_lock(folder: Path) -> None:
    """A process that was told to end meanwhile would count as a worker that stays, for as long as it lives."""
    registry = Registry()
    registry.slow = True
    leaving = asyncio.ensure_future((await registry.announce()).leave())
    await asyncio.sleep(0)
    coming = asyncio.ensure_future(registry.announce())
    await asyncio.sleep(0.1)
    assert not coming.done()
    coming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await coming
    registry.taken[0].goes_on.set()
    await leaving
    (path,) = folder.iterdir()
    await eventually(
        lambda: not any(each.name.startswith("chassis-lock") for each in threading.enumerate()),
        what="the thread that waited for the lock to end",
    )
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_who_listens_on_all_addresses_is_registered_under_the_one_the_registry_sees(
    folder: Path,
) -> None:
    registry = Registry()
    await registry.announce("0.0.0.0", "http://127.0.0.1:8500")
    assert registry.hosts == ["127.0.0.1"]


async def test_case_15_a_registry_whose_name_is_not_known_yet_keeps_nobody_from_being_announced(
    folder: Path,
) -> None:
    """Else what started before its registry's name would never be registered."""
    registry = Registry()
    await registry.announce("0.0.0.0", f"http://{'x' * 70}:8500")
    (host,) = registry.hosts
    assert not ip_address(host).is_unspecified


async def test_who_listens_on_all_addresses_is_registered_under_the_one_in_its_networks(folder: Path) -> None:
    """Whichever way leads to the registry."""
    registry = Registry()
    await registry.announce("0.0.0.0", "http://192.0.2.1:8500", networks=("127.0.0.0/8",))
    await registry.announce("127.0.0.1", networks=("203.0.113.0/24",))
    assert registry.hosts == ["127.0.0.1", "127.0.0.1"]


async def test_who_listens_on_ipv4_alone_is_not_registered_under_an_ipv6_address(folder: Path) -> None:
    registry = Registry()
    await registry.announce("0.0.0.0", "http://[::1]:8500")
    (host,) = registry.hosts
    assert ip_address(host).version == 4
