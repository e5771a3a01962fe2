"""Under which of its machine's addresses a process is registered."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest

from chassis.core import ConfigError
from chassis.server import Address
from chassis.service._addresses import MachineAddress, address_in, machine_addresses
from chassis.service._options import RegistrationOptions, WorkerOptions
from chassis.service._registration import AddressMissing, host_in
from chassis.service._runtime import Runtime
from chassis.testing import ManualClock, capture_events, dev_agent
from tests.support.waiting import eventually

ALL, ALL_V6 = "0.0.0.0", "::"


def machine(*addresses: str) -> list[MachineAddress]:
    """``eth0 10.1.2.3`` each."""
    pairs = [each.split() for each in addresses]
    return [MachineAddress(interface, ip_address(address)) for interface, address in pairs]


MACHINE = machine(
    "lo 127.0.0.1", "eth0 192.168.7.2", "eth1 10.42.0.5", "eth1 10.42.0.6", "eth1 fd00::5", "wg0 172.16.0.9"
)


@pytest.mark.parametrize(
    ("networks", "listening", "expected"),
    [
        (["10.0.0.0/8"], ALL, "10.42.0.5"),
        (["10.42.0.6"], ALL, "10.42.0.6"),
        (["10.42.0.6/16"], ALL, "10.42.0.5"),
        (["172.16.0.0/12", "10.0.0.0/8"], ALL, "172.16.0.9"),
        (["203.0.113.0/24", "10.0.0.0/8"], ALL, "10.42.0.5"),
        (["eth1"], ALL, "10.42.0.5"),
        (["wg0", "eth1"], ALL, "172.16.0.9"),
        (["eth1"], ALL_V6, "fd00::5"),
        (["10.0.0.0/8"], ALL_V6, "10.42.0.5"),
        (["fd00::/8"], ALL_V6, "fd00::5"),
        (["eth0"], ALL_V6, "192.168.7.2"),
        # Nobody who is told an address that does not listen could tell why it does not answer.
        (["fd00::/8"], ALL, None),
        (["203.0.113.0/24"], ALL, None),
        (["eth"], ALL, None),
    ],
)
def test_the_first_address_in_the_first_network_that_has_any_and_listens(
    networks: list[str], listening: str, expected: str | None
) -> None:
    assert address_in(networks, MACHINE, listening) == expected


def test_the_addresses_of_this_machine_are_read() -> None:
    found = machine_addresses()
    (loopback,) = {each.interface for each in found if str(each.address) == "127.0.0.1"}
    assert loopback.startswith("lo")
    assert not any(each.address.is_link_local for each in found if each.address.version == 6)


def test_an_address_that_is_missing_is_told_once_with_those_there_are_and_waited_for() -> None:
    clock = ManualClock()
    known = MACHINE[:2]

    async def come_up() -> None:
        await asyncio.sleep(7.5)
        known.append(MACHINE[2])

    async def both() -> str:
        coming = asyncio.create_task(come_up())
        host = await host_in(("10.0.0.0/8",), "catalog", ALL, lambda: known)
        await coming
        return host

    with capture_events() as told:
        began = clock()
        assert clock.run(both()) == "10.42.0.5"
    assert clock() - began <= 9
    (missing,) = [each for each in told if isinstance(each, AddressMissing)]
    assert (missing.subject, missing.level) == ("catalog", "error")
    assert missing.details() == {
        "networks": ("10.0.0.0/8",),
        "addresses": ("127.0.0.1 (lo)", "192.168.7.2 (eth0)"),
    }


@pytest.mark.asyncio
async def test_health_tells_of_who_waits_for_an_address_to_be_registered_under() -> None:
    """It serves, but nobody finds it."""
    with dev_agent() as agent:
        environment = {
            "CONSUL_HTTP_ADDR": agent.url,
            "CHASSIS_REGISTRATION__NETWORKS": "203.0.113.0/24,none0",
        }
        runtime = Runtime("shop", environment=environment)
        await runtime.start()
        announcing = asyncio.create_task(runtime.listening(Address(ALL, 8080)))
        try:
            with capture_events() as told:
                await eventually(
                    lambda: any(isinstance(each, AddressMissing) for each in told), what="the address missed"
                )
            await eventually(
                lambda: b"not registered yet" in runtime.health.report(details=True).body,
                what="the check to tell",
            )
            announcing.cancel()
        finally:
            await runtime.drain()
            await runtime.stop()


@pytest.mark.parametrize("wrong", ["10.0.0.0/33", "10.0.0", "10.0.0.0-8", "", "eth0/24", "a name too long"])
def test_what_is_neither_network_nor_interface_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RegistrationOptions(networks=("10.0.0.0/8", wrong))
    assert str(caught.value) == (
        f"networks: {wrong!r} is neither a network nor an interface's name;"
        " write each like 10.0.0.0/8, fd00::/8 or eth1"
    )


@pytest.mark.parametrize(
    ("kind", "port"), [(RegistrationOptions, 0), (RegistrationOptions, 65536), (WorkerOptions, 65536)]
)
def test_case_37_what_is_no_port_is_refused_when_it_is_set(kind: Any, port: int) -> None:
    with pytest.raises(ConfigError, match="^port: "):
        kind(port=port)
    kind(port=65535)
