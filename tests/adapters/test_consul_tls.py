"""Consul over TLS: whose certificates are trusted, and which is shown."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chassis.adapters.consul import ConsulAPI, ConsulOptions, ConsulUnreachable
from chassis.core import ConfigError
from tests.support.scripted_agent import Answer, ScriptedAgent

pytestmark = pytest.mark.asyncio


class Authority:
    """Signs certificates, and writes them into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = self._sign(self.name, self.key, authority=True)
        self.file = self._write("ca.pem", self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *names: x509.GeneralName) -> tuple[str, str]:
        """The files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, names=names)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = certificate.public_bytes(serialization.Encoding.PEM)
        return self._write(f"{name}.pem", public), self._write(f"{name}-key.pem", private)

    def _write(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        authority: bool = False,
        names: tuple[x509.GeneralName, ...] = (),
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            # Python 3.13 verifies strictly (RFC 5280): key identifiers, and an authority's key usage.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        if authority:
            usage = dict.fromkeys(_KEY_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
            builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        return builder.sign(self.key, hashes.SHA256())


_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


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
