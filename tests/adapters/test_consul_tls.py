"""Consul over TLS: whose certificates are trusted, and which is shown."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from chassis.adapters.consul import ConsulAPI, ConsulOptions, ConsulUnreachable
from chassis.core import ConfigError
from tests.support.certificates import Authority
from tests.support.scripted_agent import Answer, ScriptedAgent

pytestmark = pytest.mark.asyncio


@dataclass
class Agents:
    authority: Authority
    plain: ScriptedAgent
    """Its certificate is for 127.0.0.1."""
    named: ScriptedAgent
    """Its certificate is for server.dc1.consul."""
    mutual: ScriptedAgent
    """It asks for the client's certificate."""


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    authority = Authority(tmp_path_factory.mktemp("certificates"))

    def agent(name: str, *names: x509.GeneralName, mutual: bool = False) -> ScriptedAgent:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue(name, *names))
        if mutual:
            context.load_verify_locations(authority.file)
            context.verify_mode = ssl.CERT_REQUIRED
        return ScriptedAgent(lambda asked: Answer('"leader"'), tls=context)

    local = x509.IPAddress(ip_address("127.0.0.1"))
    with (
        agent("plain", local) as plain,
        agent("named", x509.DNSName("server.dc1.consul")) as named,
        agent("mutual", local, mutual=True) as mutual,
    ):
        yield Agents(authority, plain, named, mutual)


async def leader(agent: ScriptedAgent, **options: str | bool) -> str:
    async with ConsulAPI(ConsulOptions(url=agent.url, **options)) as api:  # type: ignore[arg-type]
        return await api.leader()


async def test_an_agent_is_trusted_for_its_authority_and_not_otherwise(agents: Agents) -> None:
    assert await leader(agents.plain, ca=agents.authority.file) == "leader"
    with pytest.raises(ConsulUnreachable, match="certificate verify failed"):
        await leader(agents.plain)


async def test_verification_can_be_switched_off(agents: Agents) -> None:
    assert await leader(agents.plain, verify=False) == "leader"


async def test_the_certificate_must_bear_the_host_or_the_name_given(agents: Agents) -> None:
    with pytest.raises(ConsulUnreachable, match="certificate verify failed"):
        await leader(agents.named, ca=agents.authority.file)
    ca = agents.authority.file
    assert await leader(agents.named, ca=ca, tls_server_name="server.dc1.consul") == "leader"
    with pytest.raises(ConsulUnreachable, match="certificate verify failed"):
        await leader(agents.named, ca=ca, tls_server_name="server.dc2.consul")


async def test_an_agent_that_asks_for_a_certificate_is_shown_one(agents: Agents) -> None:
    ca = agents.authority.file
    certificate, key = agents.authority.issue("client")
    assert await leader(agents.mutual, ca=ca, certificate=certificate, key=key) == "leader"
    with pytest.raises(ConsulUnreachable):
        await leader(agents.mutual, ca=ca)


async def test_a_file_that_cannot_be_used_is_told_of_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca: '.*missing.pem' cannot be used"):
        ConsulAPI(ConsulOptions(url="https://127.0.0.1:1", ca=str(tmp_path / "missing.pem")))
