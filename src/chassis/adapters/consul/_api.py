from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from chassis.adapters.consul._errors import (
    ConsulError,
    ConsulForbidden,
    ConsulNotFound,
    ConsulUnreachable,
    status_error,
)
from chassis.adapters.consul._options import ConsulOptions
from chassis.adapters.consul._protocol import (
    ConsulAnswer,
    ConsulRequest,
    KVEntry,
    answer,
    dump,
    kv_entry,
    kv_path,
    parse,
    parse_kv,
    path,
    query,
)
from chassis.core.forks import tell_after_fork
from chassis.wire import plain_client, ssl_context

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

# An agent serves 200 connections to one client address (http_max_conns_per_client), and every
# blocking query holds one.
_MAX_CONNECTIONS = 128


class ConsulAPI:
    """The part of a Consul agent's HTTP API that chassis needs, typed and with time limits.

    May be used from several event loops: each has connections of its own. Every method raises a
    :class:`~chassis.adapters.consul.ConsulError` when Consul does not answer, refuses, or answers
    what cannot be used; blocking queries (those with ``index`` and ``wait``) are given up after
    ``wait`` + ``wait``/16 + ``options.timeout`` seconds, never sooner than Consul itself would.

    :param options: None takes them from Consul's environment variables.
    :raises ConfigError: a certificate or key cannot be used.
    """

    def __init__(self, options: ConsulOptions | None = None) -> None:
        self.options = ConsulOptions.from_environment() if options is None else options
        # Made here, so that a file that cannot be used is told of now and not by every watch.
        self._context = _context(self.options)
        self._token: str | None = None
        self._lock = threading.Lock()
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )
        tell_after_fork(self)

    def __repr__(self) -> str:
        return f"ConsulAPI({self.options.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    # health and catalog

    async def health(
        self,
        service: str,
        *,
        index: int | None = None,
        wait: float = 30.0,
        tag: str = "",
        datacenter: str = "",
        filter: str = "",  # noqa: A002 - the parameter's name in Consul's own API
        near: str = "",
        stale: bool = False,
        cached: bool = False,
    ) -> ConsulAnswer[list[Any]]:
        """All instances of ``service`` with their checks, of every status, as Consul writes them.

        :param index: the last answer's index; the answer comes when it has changed or ``wait`` is up.
        :param stale: any server may answer, not the leader alone.
        :param cached: the agent's own cache may answer.
        """
        params = query(
            datacenter=datacenter or self.options.datacenter,
            index=index,
            wait=wait,
            stale=stale,
            cached=cached,
            tag=tag,
            filter=filter,
            near=near,
        )
        request = ConsulRequest(
            method="GET",
            path=path("health", "service", service),
            params=params,
            wait=0.0 if index is None else wait,
        )
        return await self.call(request, lambda body: parse(request.what, body, list))

    async def services(
        self, *, index: int | None = None, wait: float = 30.0, datacenter: str = ""
    ) -> ConsulAnswer[dict[str, Any]]:
        """The names of all registered services, each with its tags."""
        params = query(datacenter=datacenter or self.options.datacenter, index=index, wait=wait)
        request = ConsulRequest(
            method="GET",
            path=path("catalog", "services"),
            params=params,
            wait=0.0 if index is None else wait,
        )
        return await self.call(request, lambda body: parse(request.what, body, dict))

    async def leader(self) -> str:
        """The address of the servers' leader, or "" if they have none."""
        request = ConsulRequest(method="GET", path=path("status", "leader"))
        return (await self.call(request, lambda body: parse(request.what, body, str))).value

    async def may_read(self, service: str) -> bool | None:
        """Whether the token may read ``service``; None if Consul does not say.

        An agent before Consul 1.11 answers as if there were no instances where the token may not see
        them. The question is the one Consul's own web page asks, and no part of its promised API: an
        agent that does not know it leaves us with None.
        """
        asked = [{"Resource": "service", "Access": "read", "Segment": service}]
        request = ConsulRequest(method="POST", path=path("internal", "acl", "authorize"), content=dump(asked))
        try:
            (told,) = (await self.call(request, lambda body: parse(request.what, body, list))).value
            return bool(told["Allow"])
        except ConsulError as error:
            # 401 is an agent without ACLs: everybody may read.
            return True if error.status == 401 else None
        except (ValueError, TypeError, KeyError):
            return None

    # this agent's services

    async def register_service(self, definition: Mapping[str, Any]) -> None:
        """Register or replace a service on this agent; ``definition`` as Consul's API takes it."""
        await self._put(path("agent", "service", "register"), content=dump(definition))

    async def deregister_service(self, service_id: str) -> None:
        """Remove a service from this agent; one that is not there is no error."""
        try:
            await self._put(path("agent", "service", "deregister", service_id))
        except ConsulNotFound:
            # Newer agents answer 404, older ones 200: either way it is gone.
            return

    async def service_maintenance(self, service_id: str, enable: bool, *, reason: str = "") -> None:
        """Put a service of this agent under maintenance, or end that."""
        params = query(enable="true" if enable else "false", reason=reason)
        await self._put(path("agent", "service", "maintenance", service_id), params)

    async def agent_service(self, service_id: str) -> dict[str, Any] | None:
        """The service as this agent holds it, or None."""
        request = ConsulRequest(method="GET", path=path("agent", "service", service_id))
        try:
            return (await self.call(request, lambda body: parse(request.what, body, dict))).value
        except ConsulNotFound:
            return None

    async def update_check(self, check_id: str, status: str, *, output: str = "") -> None:
        """Say how a TTL check stands, and so keep it from running out.

        :param status: ``passing``, ``warning`` or ``critical``.
        """
        content = dump({"Status": status, "Output": output})
        await self._put(path("agent", "check", "update", check_id), content=content)

    # KV

    async def kv_get(
        self,
        key: str,
        *,
        recurse: bool = False,
        index: int | None = None,
        wait: float = 30.0,
        datacenter: str = "",
        stale: bool = False,
    ) -> ConsulAnswer[tuple[KVEntry, ...]]:
        """The entry ``key``, or all whose keys begin with it; none is an empty tuple, not an error."""
        params = query(datacenter=datacenter or self.options.datacenter, index=index, wait=wait, stale=stale)
        if recurse:
            params["recurse"] = ""
        request = ConsulRequest(
            method="GET", path=kv_path(key), params=params, wait=0.0 if index is None else wait
        )
        return await self.call(request, lambda body: parse_kv(request.what, body), missing=())

    async def kv_put(
        self, key: str, value: bytes | str, *, cas: int | None = None, flags: int = 0, datacenter: str = ""
    ) -> bool:
        """Write an entry.

        :param cas: write only if the entry's modify index is this one; 0 only if there is none.
        :returns: whether it was written.
        """
        params = query(
            datacenter=datacenter or self.options.datacenter,
            cas=None if cas is None else str(cas),
            flags=str(flags) if flags else None,
        )
        content = value.encode() if isinstance(value, str) else value
        request = ConsulRequest(method="PUT", path=kv_path(key), params=params, content=content)
        return (await self.call(request, lambda body: parse(request.what, body, bool))).value

    async def kv_delete(
        self, key: str, *, recurse: bool = False, cas: int | None = None, datacenter: str = ""
    ) -> bool:
        """Remove an entry, or all whose keys begin with ``key``.

        :returns: whether that was done; False only if ``cas`` did not match.
        """
        params = query(
            datacenter=datacenter or self.options.datacenter, cas=None if cas is None else str(cas)
        )
        if recurse:
            params["recurse"] = ""
        request = ConsulRequest(method="DELETE", path=kv_path(key), params=params)
        return (await self.call(request, lambda body: parse(request.what, body, bool))).value

    async def txn(
        self, operations: Sequence[Mapping[str, Any]], *, datacenter: str = ""
    ) -> tuple[KVEntry, ...]:
        """Apply KV operations together or not at all.

        :param operations: as Consul's API takes them, e.g. ``{"KV": {"Verb": "get-tree", "Key": "a/"}}``.
        :returns: the entries the operations touched or read.
        :raises ConsulConflict: it was rolled back; the message holds Consul's reasons.
        """
        params = query(datacenter=datacenter or self.options.datacenter)
        request = ConsulRequest(method="PUT", path=path("txn"), params=params, content=dump(list(operations)))
        results = (await self.call(request, lambda body: parse(request.what, body, dict))).value
        return tuple(
            kv_entry(request.what, each["KV"]) for each in results.get("Results") or () if "KV" in each
        )

    # the one way out

    async def call(
        self, request: ConsulRequest, parse_body: Callable[[bytes], T], *, missing: T | None = None
    ) -> ConsulAnswer[T]:
        """Send ``request`` and parse what comes back.

        :param missing: the value a 404 stands for; None makes it a ``ConsulNotFound``.
        :raises ConsulError: see the class.
        """
        response = await self.send(request)
        if response.status_code == 404 and missing is not None:
            return answer(missing, response.headers)
        if not response.is_success:
            raise status_error(request.what, response.status_code, response.text)
        return answer(parse_body(response.content), response.headers)

    async def send(self, request: ConsulRequest, *, token: str = "") -> httpx2.Response:
        """Send ``request``; the response is read, whatever its status.

        :param token: in place of the one in the options.
        :raises ConsulUnreachable: no answer came.
        """
        if token:
            return await self._send(request, token)
        token = self._current_token()
        response = await self._send(request, token)
        if response.status_code == 403 and self.options.token_file:
            # The token may have been rotated: read the file again, and ask once more if it changed.
            self._token = None
            renewed = self._current_token()
            if renewed != token:
                response = await self._send(request, renewed)
        return response

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

    async def _put(self, where: str, params: Mapping[str, str] | None = None, content: bytes = b"") -> None:
        request = ConsulRequest(method="PUT", path=where, params=params or {}, content=content)
        await self.call(request, lambda body: None)

    async def _send(self, request: ConsulRequest, token: str) -> httpx2.Response:
        import httpx2

        options = self.options
        read = options.timeout
        if request.wait:
            # Consul adds up to a sixteenth of the wait. Giving up sooner would leave the query
            # holding its connection slot on the agent until then.
            read += request.wait + request.wait / 16
        client = self._client()
        try:
            return await client.request(
                request.method,
                request.path,
                params=_pairs(request.params),
                content=request.content,
                headers=_headers(token, options.auth),
                timeout=httpx2.Timeout(options.timeout, connect=options.connect_timeout, read=read),
                extensions={"sni_hostname": options.tls_server_name} if options.tls_server_name else None,
            )
        except httpx2.PoolTimeout as error:
            raise ConsulUnreachable(
                f"{_MAX_CONNECTIONS} queries to Consul at {options.url} are under way, so {request.what} "
                f"had to wait too long; watch fewer services and keys in this process"
            ) from error
        except (httpx2.RequestError, OSError) as error:
            # A certificate refused in TLS 1.3 is told with the first read, as a bare ssl.SSLError.
            reason = _reason(error)
            raise ConsulUnreachable(
                f"Consul at {options.url} did not answer {request.what}: "
                f"{type(error).__name__}{f': {reason}' if reason else ''}",
                dropped=isinstance(error, httpx2.ReadError | httpx2.WriteError | httpx2.RemoteProtocolError),
            ) from error

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
        # A name alone has an empty password, as in Consul's own tools.
        auth = auth if ":" in auth else f"{auth}:"
        headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    return headers


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
