"""How an agent is reached: connections, time limits, token, TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chassis.adapters.consul._errors import ConsulAnswerError, ConsulForbidden, ConsulUnreachable
from chassis.adapters.consul._options import ConsulOptions
from chassis.adapters.consul._protocol import ConsulRequest, ConsulResponse
from chassis.core.forks import tell_after_fork
from chassis.core.secrets import MASK
from chassis.wire import plain_client, ssl_context

if TYPE_CHECKING:
    import httpx2

# An agent serves 200 connections to one client address (http_max_conns_per_client), and every
# blocking query holds one.
_MAX_CONNECTIONS = 128
_MAX_ANSWER = 32 * 1024 * 1024
"""Bytes: more than ten thousand instances have. What comes over a network may have no end."""
_SLOWEST = 128 * 1024
"""Bytes a second that a large answer comes with at least: a slow link is no reason never to learn of anything."""


class Connections:
    """Sends requests to one agent, from several event loops: each has connections of its own.

    :raises ConfigError: a certificate or key cannot be used.
    """

    def __init__(self, options: ConsulOptions) -> None:
        self.options = options
        # Made here, so that a file that cannot be used is told of now and not by every watch.
        self._context = _context(options)
        self._token: str | None = None
        self._lock = threading.Lock()
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )
        tell_after_fork(self)

    async def send(self, request: ConsulRequest, *, token: str = "") -> ConsulResponse:
        """Send ``request``; the response is read, whatever its status.

        :param token: in place of the one in the options.
        :raises ConsulUnreachable: no answer came, or not in time.
        :raises ConsulAnswerError: it cannot be decoded, or is too large to be one of Consul's.
        :raises ConsulForbidden: the token's file cannot be read or holds no token, or no header can hold
            ``token``.
        """
        if token:
            if not (token.isascii() and token.isprintable()):
                # An HTTP library would name the whole value in its error.
                raise ConsulForbidden(
                    f"the token for {request.what} holds what no header can; "
                    "give the ACL token and nothing else"
                )
            return await self._send(request, token)
        token = self._current_token()
        response = await self._send(request, token)
        if response.status == 403 and self.options.token_file:
            # The token may have been rotated: read the file again, and ask once more if it changed.
            self._token = None
            renewed = self._current_token()
            if renewed != token:
                response = await self._send(request, renewed)
        return response

    def renew_token(self) -> bool:
        """Read the token's file again; whether it holds another token than the one in use.

        For answers that hide something without a refusal. A file that cannot be read changes nothing: what
        it held may see little, but something.
        """
        if not self.options.token_file:
            return False
        before = self._token
        with contextlib.suppress(ConsulForbidden):
            self._token = self._read_token()
        return self._token != before

    def without_secrets(self, text: str) -> str:
        """``text`` with the token and the credentials masked.

        What stands between this process and the agent may repeat what it was sent.
        """
        for secret in (self._token, self.options.auth, _basic(self.options.auth)):
            if secret:
                text = text.replace(secret, MASK)
        return text

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the next call opens new ones."""
        with self._lock:
            client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def after_fork_in_child(self) -> None:
        """Make the lock anew: see :mod:`chassis.core.forks`."""
        # The parent's connections belong to its event loops, which do not run here.
        self._lock = threading.Lock()

    async def _send(self, request: ConsulRequest, token: str) -> ConsulResponse:
        import httpx2

        options = self.options
        read = options.timeout
        if request.wait:
            # Consul adds up to a sixteenth of the wait. Giving up sooner would leave the query
            # holding its connection slot on the agent until then.
            read += request.wait + request.wait / 16
        client = self._client()
        answered = False
        try:
            # The library's own limits are for each read, so that an answer that comes drop by drop would
            # keep a watch or a heartbeat for ever.
            async with (
                asyncio.timeout(options.connect_timeout + read) as limit,
                client.stream(
                    request.method,
                    request.path,
                    params=_pairs(request.params),
                    content=request.content,
                    headers=_headers(token, options.auth),
                    timeout=httpx2.Timeout(options.timeout, connect=options.connect_timeout, read=read),
                    extensions={"sni_hostname": options.tls_server_name} if options.tls_server_name else None,
                ) as response,
            ):
                answered = True
                content = await self._read(request, response, limit)
            return ConsulResponse(status=response.status_code, headers=response.headers, content=content)
        except httpx2.PoolTimeout as error:
            raise ConsulUnreachable(
                f"{_MAX_CONNECTIONS} queries to Consul at {options.url} are under way, so {request.what} "
                f"had to wait too long; watch fewer services and keys in this process"
            ) from error
        except httpx2.DecodingError as error:
            raise ConsulAnswerError(
                f"Consul's answer to {request.what} cannot be decoded: {error}"
            ) from error
        except (httpx2.RequestError, OSError) as error:
            # A certificate refused in TLS 1.3 is told with the first read, as a bare ssl.SSLError.
            reason = self.without_secrets(_reason(error))
            if isinstance(error, httpx2.ConnectTimeout):
                # Whoever waits for a request in plain HTTP answers no handshake.
                tls = " with TLS, as its address says https" if options.url.startswith("https:") else ""
                reason = f"more than {options.connect_timeout:g} s for a connection{tls}"
            elif isinstance(error, TimeoutError | httpx2.ReadTimeout):
                reason = f"more than {options.timeout if answered else read:g} s"
            did = "did not end its answer to" if answered else "did not answer"
            broken = isinstance(error, httpx2.ReadError | httpx2.WriteError | httpx2.RemoteProtocolError)
            raise ConsulUnreachable(
                f"Consul at {options.url} {did} {request.what}: "
                f"{type(error).__name__}{f': {reason}' if reason else ''}",
                # An agent that refuses a connection says nothing at all.
                dropped=broken and not answered,
            ) from error

    async def _read(self, request: ConsulRequest, response: httpx2.Response, limit: asyncio.Timeout) -> bytes:
        """The response's body, unless it has no end.

        What the agent waited for has come: the rest follows at once, as far as the link allows.
        """
        until = asyncio.get_running_loop().time() + self.options.timeout
        limit.reschedule(until)
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > _MAX_ANSWER:
                raise ConsulAnswerError(
                    f"Consul's answer to {request.what} is larger than {_MAX_ANSWER >> 20} MiB, "
                    "and was not read on"
                )
            limit.reschedule(until + len(content) / _SLOWEST)
        return bytes(content)

    def _client(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        with self._lock:
            client = self._clients.get(loop)
            if client is None:
                options = self.options
                client = self._clients[loop] = plain_client(
                    options.url,
                    timeout=options.timeout,
                    connect_timeout=options.connect_timeout,
                    verify=options.verify if self._context is None else self._context,
                    max_connections=_MAX_CONNECTIONS,
                )
            return client

    def _current_token(self) -> str:
        if self._token is None:
            self._token = self._read_token()
        return self._token

    def _read_token(self) -> str:
        if not self.options.token_file:
            return self.options.token
        try:
            token = Path(self.options.token_file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConsulForbidden(
                f"the Consul token file {self.options.token_file!r} cannot be read: {error}; "
                "put the ACL token there"
            ) from error
        if not token.isprintable():
            # An HTTP library would name the whole value in its error.
            raise ConsulForbidden(
                f"the Consul token file {self.options.token_file!r} holds more than one line; "
                "put the ACL token there and nothing else"
            )
        return token


def _reason(error: BaseException) -> str:
    """What the operating system said, where there is a word of it: the libraries above say less."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return str(cause.strerror)
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return str(error)


def _headers(token: str, auth: str) -> dict[str, str]:
    headers = {"X-Consul-Token": token} if token else {}
    if auth:
        headers["Authorization"] = f"Basic {_basic(auth)}"
    return headers


def _basic(auth: str) -> str:
    """The credentials as RFC 7617 writes them; "" for none."""
    # A name alone has an empty password, as in Consul's own tools.
    return base64.b64encode((auth if ":" in auth else f"{auth}:").encode()).decode() if auth else ""


def _context(options: ConsulOptions) -> ssl.SSLContext | None:
    if not options.url.startswith("https:") or not (options.ca or options.certificate):
        return None
    return ssl_context(
        ca=options.ca or None,
        certificate=options.certificate or None,
        key=options.key or None,
        verify=options.verify,
    )


def _pairs(
    params: Mapping[str, str] | Sequence[tuple[str, str]],
) -> list[tuple[str, str | int | float | bool | None]]:
    return list(params.items() if isinstance(params, Mapping) else params)
