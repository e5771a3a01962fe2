"""The gateway under real servers, with raw bytes on both sides: what an application cannot see for itself."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.ports import free_port
from tests.support.processes import ManagedProcess
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.asyncio

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM_PORT = free_port()
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "tests.gateway.served:app", "--no-proxy-headers", "--log-level", "warning", "--port"],
    "granian": ["-m", "granian", "tests.gateway.served:app", "--interface", "asgi", "--log-level", "warning", "--port"],
}  # fmt: skip


@pytest.fixture(scope="module", params=list(SERVERS))
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A gateway served on this port of 127.0.0.1."""
    listening = free_port()
    environment = {"UPSTREAM": f"127.0.0.1:{UPSTREAM_PORT}", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    command = [*SERVERS[request.param], str(listening)]
    with ManagedProcess([sys.executable, *command], env=environment, cwd=ROOT, name=request.param) as process:

        def connected() -> bool:
            assert process.running, process.tail()
            with socket.create_connection(("127.0.0.1", listening), 0.2):
                return True

        wait_until(connected, 20, "the server")
        yield listening


class Upstream:
    """A raw HTTP/1.1 server: keeps every byte it gets, answers by the path's first word."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.closed = asyncio.Event()
        self.go_on = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                number = len(self.requests)
                self.requests.append(head)
                length = re.search(rb"(?i)content-length: (\d+)", head)
                if length is not None:
                    self.requests[number] += await reader.readexactly(int(length[1]))
                elif re.search(rb"(?i)transfer-encoding: chunked", head):
                    while not self.requests[number].endswith(b"0\r\n\r\n"):
                        more = await reader.read(65536)
                        if not more:
                            raise asyncio.IncompleteReadError(b"", 1)
                        self.requests[number] += more
                if not await self.answer(head, reader, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
        finally:
            writer.close()

    async def answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if b" /cut-length " in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            return False
        if b" /cut-chunked " in head:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            await writer.drain()
            await self.go_on.wait()
            return False
        if b" /silent " in head:
            await reader.read()
            self.closed.set()
            return False
        if b" /events " in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            await writer.drain()
            await reader.read()
            self.closed.set()
            return False
        body = b"" if head.startswith(b"HEAD") else b"ok"
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"
            b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: inside\r\nDate: x\r\n\r\n" + body
        )
        await writer.drain()
        return True


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    it = Upstream()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        it.tasks.append(asyncio.create_task(it.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", UPSTREAM_PORT)
    yield it
    it.go_on.set()
    server.close()
    for task in it.tasks:
        task.cancel()
    await asyncio.gather(*it.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def talk(port: int, raw: bytes, *, until_closed: bool = False) -> bytes:
    """Send ``raw``; what came back, to the end of the first answer or of the connection."""
    async with connection(port) as (reader, writer), asyncio.timeout(10):
        writer.write(raw)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while True:
                if not until_closed and b"\r\n\r\n" in answer:
                    head, _, body = answer.partition(b"\r\n\r\n")
                    length = re.search(rb"(?i)content-length: (\d+)", head)
                    if length is not None and (len(body) >= int(length[1]) or raw.startswith(b"HEAD")):
                        break
                    if body.endswith(b"0\r\n\r\n"):
                        break
                more = await reader.read(65536)
                if not more:
                    break
                answer += more
        return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


HOST = b"Host: shop.test\r\n"


async def test_row_19_to_25_the_bytes_of_the_target_arrive_as_they_were_sent(port, upstream):
    """Through two HTTP libraries that would each have liked to repair them."""
    target = b"/a%2Db/%7e;x=1/%252e%252e//c?a=%zz&a=1?2&&b=[%7C]|'..//"
    assert status(await talk(port, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")) == 200
    assert upstream.requests[0].split(b" ")[1] == target.replace(b"%252e//c", b"%252e/c", 1)


@pytest.mark.parametrize(
    "target", [b"/pub/../admin", b"/pub/%2e%2e/admin", b"/pub/..%2fadmin", b"/a\\b", b"/pub/..;/admin", b"/a%0d%0ab", b"/%zz"]
)  # fmt: skip
async def test_row_19_to_24_paths_with_two_readings_never_reach_the_upstream(port, upstream, target):
    """400, whatever the server made of them."""
    assert status(await talk(port, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")) == 400
    assert upstream.requests == []


async def test_row_22_a_target_that_begins_with_two_slashes_is_a_path(port, upstream):
    """It never names the host that is asked."""
    assert status(await talk(port, b"GET //evil.test/a HTTP/1.1\r\n" + HOST + b"\r\n")) == 200
    head = upstream.requests[0].lower()
    assert head.startswith(b"get /evil.test/a http/1.1\r\n")
    assert b"\r\nhost: raw\r\n" in head


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3, 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: ex.test/../x@evil\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: b\0c\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ],
)
async def test_rows_01_to_27_what_can_be_read_in_two_ways_never_reaches_the_upstream(port, upstream, head):
    """Refused by the server or by the gateway."""
    answer = await talk(port, head)
    assert status(answer) in (0, 400, 405, 501), answer
    assert upstream.requests == []


async def test_row_01_two_framings_never_leave_together(port, upstream):
    """Refused, or (RFC 9112, 6.3) read as chunked alone by the server, which then closes the connection."""
    both = b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
    answer = await talk(port, b"POST /both HTTP/1.1\r\n" + HOST + both, until_closed=True)
    assert status(answer) in (200, 400)
    assert answer.count(b"HTTP/1.1 ") == 1
    for request in upstream.requests:
        assert request.startswith(b"POST /both ")
        assert (b"content-length" in request.lower()) != (b"transfer-encoding" in request.lower())


async def test_row_07_trailers_speak_for_nobody(port, upstream):
    """Uvicorn takes them for headers; identity is stripped from those as from all, and lengths clash."""
    trailers = b"X-Chassis-Identity: root\r\nX_Chassis_Identity: root\r\nX-Forwarded-For: 9.9.9.9\r\n"
    raw = (
        b"POST /t HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
        + trailers
        + b"\r\n"
    )
    assert status(await talk(port, raw)) == 200
    assert b"root" not in upstream.requests[0]
    assert b"9.9.9.9" not in upstream.requests[0]


async def test_row_15_to_18_and_28_what_is_for_one_hop_stays_there(port, upstream):
    """As the bytes on both wires show."""
    headers = (
        b"Connection: keep-alive, X-Drop, X-Forwarded-For, Upgrade, HTTP2-Settings\r\nX-Drop: 1\r\nTE: trailers\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nX-Forwarded-For: 9.9.9.9\r\nX_User_Id: root\r\nX-Kept: 2\r\n"
    )
    answer = await talk(port, b"GET /h HTTP/1.1\r\n" + HOST + headers + b"\r\n")
    assert status(answer) == 200
    sent = upstream.requests[0].lower()
    for word in (b"x-drop", b"\r\nte:", b"upgrade", b"http2-settings", b"9.9.9.9", b"root"):
        assert word not in sent
    for word in (
        b"\r\nx-kept: 2\r\n",
        b"\r\nx-forwarded-for: 127.0.0.1\r\n",
        b"\r\nx-forwarded-host: shop.test\r\n",
    ):
        assert word in sent
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"x-hop" not in head
    assert b"server: inside" not in head
    assert head.count(b"set-cookie") == 2
    assert head.count(b"\r\ndate:") <= 1


async def test_row_29_a_client_that_expects_100_gets_it_from_the_server_in_front(port, upstream):
    """And the upstream is not asked to expect anything."""
    async with connection(port) as (reader, writer), asyncio.timeout(10):
        writer.write(b"POST /e HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"hi")
        assert status(await reader.readuntil(b"\r\n\r\n")) == 200
    assert b"expect" not in upstream.requests[0].lower()
    assert upstream.requests[0].endswith(b"\r\n\r\nhi")


async def test_row_30_a_get_with_a_body_is_forwarded_whole_and_one_without_has_none(port, upstream):
    """The next request on the connection is read right, too."""
    with_body = b"GET /b HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nbody"
    assert status(await talk(port, with_body)) == 200
    assert status(await talk(port, b"GET /n HTTP/1.1\r\n" + HOST + b"\r\n")) == 200
    assert upstream.requests[0].endswith(b"\r\n\r\nbody")
    assert b"content-length" not in upstream.requests[1].lower()
    assert b"transfer-encoding" not in upstream.requests[1].lower()


@pytest.mark.parametrize("path", [b"/cut-length", b"/cut-chunked"])
async def test_row_33_a_cut_answer_is_cut_for_the_client(port, upstream, path):
    """By Content-Length it is short, chunked it has no last chunk; the connection is closed."""

    async def soon() -> None:
        await asyncio.sleep(0.05)
        upstream.go_on.set()

    going = asyncio.create_task(soon())
    answer = await talk(port, b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n", until_closed=True)
    await going
    assert status(answer) in (0, 200)
    assert not answer.endswith(b"0\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", answer)
    assert length is None or len(answer.partition(b"\r\n\r\n")[2]) < int(length[1])


async def test_row_44_head_keeps_its_length_and_has_no_body(port, upstream):
    """And the connection to the upstream can be used again."""
    for _ in range(2):
        answer = await talk(port, b"HEAD /x HTTP/1.1\r\n" + HOST + b"\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert (status(answer), body) == (200, b"")
        assert b"content-length: 2" in head.lower()


@pytest.mark.parametrize("path", [b"/silent", b"/events"])
async def test_a_client_that_leaves_is_seen_by_the_upstream(port, upstream, path):
    """Before the head of the answer or after it, while nothing is being sent."""
    async with connection(port) as (reader, writer), asyncio.timeout(10):
        writer.write(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        await eventually(lambda: upstream.requests)
        if path == b"/events":
            await reader.readuntil(b"data: 1\n\n")
    left = time.monotonic()
    async with asyncio.timeout(5):
        await upstream.closed.wait()
    assert time.monotonic() - left < 1.0


async def test_an_upload_that_grows_too_large_is_cut_off(port, upstream):
    """413 while it is still being sent; the upstream's request is aborted, never ended."""
    async with connection(port) as (reader, writer), asyncio.timeout(20):
        writer.write(b"POST /up HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                writer.write(chunk)
                await writer.drain()
        answer = b""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert status(answer) in (0, 413)
    async with asyncio.timeout(5):
        await upstream.closed.wait()
    assert not upstream.requests[0].endswith(b"0\r\n\r\n")
    assert len(upstream.requests[0]) < 1_100_000


async def test_row_06_a_broken_chunk_aborts_the_upstreams_request(port, upstream):
    """It is never taken for the end of the body."""
    async with connection(port) as (_, writer), asyncio.timeout(10):
        writer.write(b"POST /up HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n")
        await writer.drain()
        await eventually(lambda: upstream.requests)
        writer.write(b"0x3\r\nabc\r\n0\r\n\r\n")
        await upstream.closed.wait()
    assert not upstream.requests[0].endswith(b"0\r\n\r\n")
