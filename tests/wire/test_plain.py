"""The plain client that adapters use."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx2
import pytest

from chassis.core import ConfigError
from chassis.wire import plain_client, ssl_context
from tests.support.scripted_agent import Answer, ScriptedAgent


@pytest.mark.asyncio
async def test_it_speaks_to_one_host_below_its_path_with_its_headers() -> None:
    with ScriptedAgent(lambda asked: Answer("pong")) as agent:
        async with plain_client(f"{agent.url}/base", headers={"X-Token": "t"}) as client:
            response = await client.get("/ping")
        assert response.text == "pong"
        (asked,) = agent.asked
        assert asked.path == "/base/ping"
        assert asked.headers["x-token"] == "t"


@pytest.mark.asyncio
async def test_it_leaves_the_environments_proxies_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with ScriptedAgent(lambda asked: Answer("direct")) as agent:
        async with plain_client(agent.url) as client:
            assert (await client.get("/")).text == "direct"


@pytest.mark.asyncio
async def test_it_keeps_connections_and_follows_no_redirect() -> None:
    with ScriptedAgent(lambda asked: Answer(status=301, headers={"location": "/elsewhere"})) as agent:
        async with plain_client(agent.url) as client:
            assert (await client.get("/")).status_code == 301
            assert (await client.get("/")).status_code == 301
        assert [each.path for each in agent.asked] == ["/", "/"]


def test_time_limits_and_connections_are_as_asked() -> None:
    client = plain_client("http://a:1", timeout=7.0, connect_timeout=0.5)
    assert client.timeout == httpx2.Timeout(7.0, connect=0.5)
    assert not client.follow_redirects
    assert not client.trust_env


@pytest.mark.asyncio
async def test_no_more_requests_than_allowed_are_under_way_at_once() -> None:
    with ScriptedAgent(lambda asked: Answer("slow")) as agent:
        client = plain_client(agent.url, timeout=0.2, max_connections=1)
        async with client, client.stream("GET", "/"):
            with pytest.raises(httpx2.PoolTimeout):
                await client.get("/")


@pytest.mark.asyncio
async def test_a_client_for_plain_http_trusts_no_https_server_and_costs_no_trust_store() -> None:
    client = plain_client("http://a:1")
    context = client._transport._pool._ssl_context  # type: ignore[attr-defined]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats()["x509_ca"] == 0
    await client.aclose()


def test_the_default_context_is_made_once_and_verifies() -> None:
    context = ssl_context()
    assert context is ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_verification_can_be_switched_off() -> None:
    context = ssl_context(verify=False)
    assert context is ssl_context(verify=False)
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("not a certificate")
    with pytest.raises(ConfigError, match=r"ca: '.*bad.pem' cannot be used: .*; name a PEM file"):
        ssl_context(ca=str(bad))
    with pytest.raises(ConfigError, match=r"ca: '.*missing.pem' cannot be used"):
        ssl_context(ca=str(tmp_path / "missing.pem"))
    with pytest.raises(ConfigError, match=r"certificate: '.*bad.pem' with key .* cannot be used"):
        ssl_context(certificate=str(bad), key=str(bad))
