"""As little of an HTTP/1.1 client as the load needs, so that the load does not use up the machine it measures.

It keeps connections open, retries nothing, and says of a request that fails what its caller saw: it
was refused, cut off, or not answered in time.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


class RequestFailed(Exception):
    """No whole answer came: ``refused``, ``cut`` or ``timed out``, and why."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class PlainHTTP:
    """Requests to any number of servers.

    :param timeout: seconds a whole answer may take.
    """

    def __init__(self, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._idle: dict[str, list[_Connection]] = defaultdict(list)

    async def request(
        self,
        method: str,
        base: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Make one request.

        :param base: ``http://host:port``.
        :raises RequestFailed: no whole answer came.
        """
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._connect(base)
                try:
                    status, fields = await _exchange(connection, method, base, path, headers or {}, body)
                    content = b"".join([part async for part in _body(connection.reader, fields)])
                except BaseException:
                    connection.writer.close()
                    raise
        except TimeoutError:
            raise RequestFailed("timed out") from None
        if (
            fields.get("connection", "").lower() == "close"
            or not {"content-length", "transfer-encoding"} & fields.keys()
        ):
            connection.writer.close()
        else:
            self._idle[base].append(connection)
        return Answer(status, content)

    async def stream(self, base: str, path: str, headers: Mapping[str, str]) -> AsyncIterator[int | str]:
        """The status of a GET, then the answer's lines as they come. It may take any time.

        :raises RequestFailed: the answer does not end cleanly.
        """
        connection = await self._connect(base, new=True)
        try:
            status, fields = await _exchange(connection, "GET", base, path, headers, b"")
            yield status
            rest = b""
            async for part in _body(connection.reader, fields):
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    yield line.decode()
        finally:
            connection.writer.close()

    async def _connect(self, base: str, *, new: bool = False) -> _Connection:
        idle = self._idle[base]
        while idle and not new:
            connection = idle.pop()
            if not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            connection.writer.close()  # the server has closed it while nobody used it
        parts = urlsplit(base)
        try:
            return _Connection(*await asyncio.open_connection(parts.hostname, parts.port))
        except OSError as error:
            raise RequestFailed("refused") from error


async def _exchange(
    connection: _Connection, method: str, base: str, path: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, dict[str, str]]:
    """Send a request; the status and header fields of its answer."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(base).netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    try:
        connection.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        first, *fields = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except (OSError, EOFError) as error:
        raise RequestFailed(f"cut before the answer ({type(error).__name__})") from None
    named = (field.partition(":") for field in fields if field)
    return int(first.split(" ", 2)[1]), {name.lower(): value.strip() for name, _, value in named}


async def _body(reader: asyncio.StreamReader, fields: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The parts of a body (RFC 9112, section 6)."""
    try:
        if "chunked" in fields.get("transfer-encoding", ""):
            while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
                yield (await reader.readexactly(size + 2))[:-2]
            await reader.readuntil(b"\r\n")
        elif "content-length" in fields:
            yield await reader.readexactly(int(fields["content-length"]))
        else:
            while part := await reader.read(65_536):
                yield part
    except (OSError, EOFError) as error:
        raise RequestFailed(f"cut in the answer ({type(error).__name__})") from None
