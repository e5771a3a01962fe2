"""Between this process and its agent stands a network, and in it what was never meant to answer for Consul."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from chassis.adapters.consul import (
    ConsulAnswerError,
    ConsulAPI,
    ConsulError,
    ConsulForbidden,
    ConsulOptions,
    ConsulRegistrar,
    ConsulRegistrarOptions,
    ConsulRequest,
    ConsulUnreachable,
)
from chassis.core import ConfigError, Event, Freshness, Registration, Status, events
from chassis.discovery import RegistrationConfirmed, RegistrationUnreachable, RegistryCrowded, WatchFailed
from tests.support.consul_script import Agent, Watch, entry
from tests.support.raw_agent import RawAgent
from tests.support.scripted_agent import Answer, Asked, ScriptedAgent
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio

HEAD = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 12\r\n"


@pytest_asyncio.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch()
    yield watch
    await watch.close()


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((b"HTTP/1.1 200 OK\r\nX-Drop: ", b"x"), id="the head"),
        pytest.param((HEAD + b"Content-Length: 1000\r\n\r\n[", b" "), id="the body"),
        pytest.param((HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), id="chunks"),
    ],
)
async def test_case_3_an_answer_that_comes_drop_by_drop_is_given_up_in_time(
    pieces: tuple[bytes, ...],
) -> None:
    """A limit for each read is none: an agent behind a sick proxy would keep a watch or a heartbeat for ever."""
    with RawAgent(*pieces, pause=0.02) as agent:
        options = ConsulOptions(url=agent.url, timeout=0.15, connect_timeout=0.15)
        async with ConsulAPI(options) as api:
            begun = time.monotonic()
            for _ in range(2):
                with pytest.raises(ConsulUnreachable, match=r"more than 0\.15 s") as caught:
                    async with asyncio.timeout(5):
                        await api.health("a")
                assert not caught.value.dropped
            assert time.monotonic() - begun >= 0.3
            await eventually(lambda: agent.open == 0, what="both connections to be closed")


async def test_case_3_what_follows_a_blocking_querys_first_byte_is_not_given_the_wait_again() -> None:
    """Once the agent has begun to answer there is nothing left to wait for."""
    with RawAgent(HEAD + b"Content-Length: 1000\r\n\r\n[", b" ", pause=0.02) as agent:
        async with ConsulAPI(ConsulOptions(url=agent.url, timeout=0.15)) as api:
            with pytest.raises(ConsulUnreachable, match="did not end its answer"):
                async with asyncio.timeout(5):
                    await api.health("a", index=1, wait=60)


async def test_a_large_answer_is_read_to_its_end_though_the_link_is_slow() -> None:
    """It takes longer than an answer may, but what comes shows that it does."""
    piece = bytes(1 << 20)
    head = HEAD + f"Content-Length: {13 * len(piece)}\r\n\r\n".encode()
    with RawAgent(head + piece, piece, pause=0.04) as agent:
        async with ConsulAPI(ConsulOptions(url=agent.url, timeout=0.3)) as api:
            begun = time.monotonic()
            response = await api.send(ConsulRequest(method="GET", path="/v1/agent/services"))
            assert time.monotonic() - begun > 0.4
    assert len(response.content) == 13 * len(piece)


async def test_an_answer_without_end_is_not_read_on() -> None:
    """Memory is not given to whoever sends the most; what is compressed counts as it is unpacked."""
    # A chunk of 4 MiB, sent again and again.
    piece = b"400000\r\n" + bytes(0x400000) + b"\r\n"
    with RawAgent(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", piece, pause=1e-6) as agent:
        async with ConsulAPI(ConsulOptions(url=agent.url, timeout=20.0)) as api:
            with pytest.raises(ConsulAnswerError, match="larger than 32 MiB"):
                await api.health("a")
        assert agent.sent < 64 << 20


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer("[" * 100_000), "is not JSON"),
        (Answer("null", headers={"X-Consul-Index": "99"}), "NoneType, not a list"),
        (Answer("no gzip", headers={"Content-Encoding": "gzip"}), "cannot be decoded"),
        (Answer("trouble", 500, {"Content-Type": "text/html; charset=hex"}), "answered 500 .*: trouble"),
        (Answer("", 301, {"Location": "https://consul.example/"}), "redirects to https://consul.example/"),
    ],
)
async def test_case_12_whatever_is_answered_keeps_the_snapshot_and_is_an_error_of_consul(
    watch: Watch, answer: Answer, told: str
) -> None:
    """And not one that ends the watch, of which nobody would be told what is known is stale."""
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        await watching.until_ids("a")
        agent.override = answer
        await watching.until(lambda each: each.freshness is Freshness.STALE, "staleness")
        assert watching.ids == ["a"]
        assert watching.of(WatchFailed) == []
        async with ConsulAPI(ConsulOptions(url=server.url)) as api:
            with pytest.raises(ConsulError, match=told):
                await api.health("catalog")


async def test_case_14_a_connection_cut_within_an_answer_is_no_sign_of_a_crowded_agent(watch: Watch) -> None:
    """An agent that refuses a connection says nothing; whoever begins to answer had room."""
    with RawAgent(HEAD + b"Content-Length: 100\r\n\r\n[", b" ") as server:
        watching = watch(server.url)
        await eventually(lambda: watching.described.get("errors", {}).get("unreachable", 0) >= 3, 10)
        assert watching.of(RegistryCrowded) == []


async def test_no_cookie_is_kept() -> None:
    """Who sets another one with each answer would be sent them all, until no server takes the request."""
    answer = Answer('"10.0.0.1:8300"', headers={"Set-Cookie": "route=a"})
    with ScriptedAgent(lambda asked: answer) as agent:
        async with ConsulAPI(ConsulOptions(url=agent.url)) as api:
            await api.leader()
            await api.leader()
    assert "cookie" not in agent.asked[1].headers


@pytest.mark.parametrize("where", ["body", "location"])
async def test_a_secret_that_is_repeated_by_whoever_answers_is_not_told_on(where: str) -> None:
    """A proxy's page of an error may show the request; what it shows ends in events, logs and /health."""

    def script(asked: Asked) -> Answer:
        seen = " ".join(asked.headers.values())
        return Answer(seen, 500) if where == "body" else Answer("", 302, {"Location": f"/?{seen}"})

    options: dict[str, Any] = {"token": "s3cret-token", "auth": "proxy:s3cret-password"}
    with ScriptedAgent(script) as agent:
        async with ConsulAPI(ConsulOptions(url=agent.url, **options)) as api:
            with pytest.raises(ConsulError) as caught:
                await api.leader()
    for secret in ("s3cret", "cHJveHk6czNjcmV0LXBhc3N3b3Jk"):
        assert secret not in f"{caught.value} {caught.value.body}"
    assert "**********" in str(caught.value)


@pytest.mark.parametrize("token", ["s3cret\n", "s3cret\u00e9"])
async def test_a_token_for_one_request_that_no_header_can_hold_is_refused_and_not_shown(token: str) -> None:
    with ScriptedAgent(lambda asked: Answer('""')) as agent:
        async with ConsulAPI(ConsulOptions(url=agent.url)) as api:
            with pytest.raises(ConsulForbidden) as caught:
                await api.send(ConsulRequest(method="GET", path="/v1/status/leader"), token=token)
    assert "s3cret" not in str(caught.value)


async def test_a_handshake_that_nobody_answers_names_what_may_be_wrong() -> None:
    """An agent of plain HTTP behind an address with https waits for a request, as this process for the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        async with ConsulAPI(ConsulOptions(url=url, connect_timeout=0.1)) as api:
            with pytest.raises(ConsulUnreachable, match=r"0\.1 s for a connection with TLS.* says https"):
                await api.leader()


@pytest.mark.parametrize("address", ["999.1.1.1:8500", "http://consul\x7f:8500"])
async def test_an_address_no_request_can_be_sent_to_is_refused_at_the_start(address: str) -> None:
    with pytest.raises(ConfigError, match="CONSUL_HTTP_ADDR"):
        ConsulOptions.from_environment({"CONSUL_HTTP_ADDR": address})


@pytest.mark.integration  # it takes seconds
@pytest.mark.parametrize("slow", [0.0, 0.6], ids=["answered last", "answered before the deregistration"])
async def test_case_21_a_registration_that_arrives_late_leaves_no_ghost(slow: float) -> None:
    """SIGTERM comes during the first registration, and the network holds that back longer than anybody waits."""
    held: list[str] = []
    arrived = threading.Event()

    def script(asked: Asked) -> Answer:
        if asked.path == "/v1/agent/service/register":
            time.sleep(1.3)
            held.append("a ghost")
            arrived.set()
        elif "/deregister/" in asked.path:
            held.clear()
            time.sleep(slow)
        return Answer("[]", headers={"X-Consul-Index": "1"})

    with ScriptedAgent(script) as agent:
        registrar = ConsulRegistrar(ConsulAPI(ConsulOptions(url=agent.url)))
        registered = await registrar.register(
            Registration(
                service="orders", id="orders:1", host="h", port=1, readiness=lambda: (Status.PASSING, "")
            )
        )
        await eventually(lambda: any(each.method == "PUT" for each in agent.asked), what="it on its way")
        begun = time.monotonic()
        await registered.deregister()
        assert time.monotonic() - begun < 5
        await eventually(arrived.is_set, what="the registration")
        assert held == []


class Registered:
    """A registration at an agent that answers some questions oddly."""

    def __init__(self, odd: dict[str, Answer]) -> None:
        self.odd = odd
        self.events: list[Event] = []

    def __call__(self, asked: Asked) -> Answer:
        found = next((each for path, each in self.odd.items() if asked.path.startswith(path)), None)
        if found is not None:
            return found
        if asked.path == "/v1/agent/service/orders:1":
            return Answer(json.dumps({"Service": "orders", "Address": "h", "Port": 1, **WEIGHTS}))
        return Answer("[]", headers={"X-Consul-Index": "1"}) if asked.method == "GET" else Answer()


WEIGHTS = {"Weights": {"Passing": 1, "Warning": 1}}
ODD_ENTRIES = [None, 7, {"Service": "x"}, {"Service": {"ID": "orders:1"}, "Checks": [None, 7]}]


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(
            {"/v1/agent/services": Answer('{"a": null, "b": 7}')},
            id="others at the address",
            marks=pytest.mark.integration,  # it is looked for after two seconds
        ),
        pytest.param({"/v1/health/service": Answer(json.dumps(ODD_ENTRIES))}, id="the catalog"),
    ],
)
async def test_a_registration_outlives_entries_of_any_form(odd: dict[str, Answer]) -> None:
    """What others have registered is theirs to answer for: it neither ends nor unsettles the own registration."""
    script = Registered(odd)
    with ScriptedAgent(script) as agent:
        api = ConsulAPI(ConsulOptions(url=agent.url, timeout=1.0))
        registrar = ConsulRegistrar(api, ConsulRegistrarOptions(ttl=0.6))
        unsubscribe = events.subscribe(script.events.append)
        script.events.clear()
        registered = await registrar.register(
            Registration(
                service="orders", id="orders:1", host="h", port=1, readiness=lambda: (Status.PASSING, "")
            )
        )
        try:
            path = next(iter(odd))
            await eventually(lambda: any(each.path.startswith(path) for each in agent.asked), 5)
            beats = len(agent.asked)
            await eventually(lambda: len(agent.asked) > beats + 2, 5, "heartbeats that go on")
            assert registered.confirmed
        finally:
            await registered.deregister()
            unsubscribe()
    kinds = [type(each) for each in script.events]
    assert kinds.count(RegistrationConfirmed) == 1
    assert RegistrationUnreachable not in kinds
    assert WatchFailed not in kinds
