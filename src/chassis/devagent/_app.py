"""The agent as an ASGI application: routes, blocking queries, and the clockwork's timer."""

from __future__ import annotations

import asyncio
import posixpath
import random
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import quote

from chassis.devagent import _agent_routes, _catalog_routes, _kv_routes
from chassis.devagent._agent import DevAgent
from chassis.devagent._errors import AgentError
from chassis.devagent._http import Query, Request, Response, text_response
from chassis.devagent._kv import MAX_VALUE

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Handler: TypeAlias = Callable[[DevAgent, Request, str], Response | Query]

_ROUTES: dict[str, dict[str, Handler]] = {
    "/v1/agent/self": {"GET": _agent_routes.agent_self},
    "/v1/agent/services": {"GET": _agent_routes.services},
    "/v1/agent/checks": {"GET": _agent_routes.checks},
    "/v1/agent/maintenance": {"PUT": _agent_routes.node_maintenance},
    "/v1/agent/service/register": {"PUT": _agent_routes.register},
    "/v1/agent/service/deregister/": {"PUT": _agent_routes.deregister},
    "/v1/agent/service/maintenance/": {"PUT": _agent_routes.service_maintenance},
    "/v1/agent/service/": {"GET": _agent_routes.service},
    "/v1/agent/check/update/": {"PUT": _agent_routes.check_update},
    "/v1/agent/check/": {"PUT": _agent_routes.check_status},
    "/v1/health/service/": {"GET": _catalog_routes.health_service},
    "/v1/catalog/services": {"GET": _catalog_routes.catalog_services},
    "/v1/catalog/service/": {"GET": _catalog_routes.catalog_service},
    "/v1/catalog/nodes": {"GET": _catalog_routes.catalog_nodes},
    "/v1/kv/": {"GET": _kv_routes.read_key, "PUT": _kv_routes.put_key, "DELETE": _kv_routes.delete_key},
    "/v1/txn": {"PUT": _kv_routes.transact},
    "/v1/status/leader": {"GET": _agent_routes.leader},
    "/v1/status/peers": {"GET": _agent_routes.peers},
}
"""Longest first where one is the beginning of another; one that ends in a slash takes a rest."""

_CONSUL_SECTIONS = {
    "acl", "agent", "catalog", "config", "connect", "coordinate", "discovery-chain", "event",
    "exported-services", "health", "imported-services", "internal", "kv", "namespace", "namespaces", "operator",
    "partition", "partitions", "peering", "peerings", "query", "session", "snapshot", "status", "txn",
}  # fmt: skip


class DevAgentApp:
    """An ASGI application around one :class:`DevAgent`; see :func:`create_app`."""

    def __init__(self, agent: DevAgent) -> None:
        self.agent = agent
        self._timer: asyncio.TimerHandle | None = None
        self._blocked: set[asyncio.Future[None]] = set()
        self._stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        # No websocket in Consul's API: a server takes the return for a refusal.

    def stop(self) -> None:
        """Let every blocked query answer now, with what it has; later ones do not block.

        A server that is told to stop calls this first: it waits for its open requests.
        """
        self._stopping = True
        for blocked in tuple(self._blocked):
            if not blocked.done():
                blocked.set_result(None)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = await _read(scope, receive)
            if request is None:
                return  # the client left before it had sent everything
            answer = self._answer(request)
            if isinstance(answer, Query):
                found = await self._read_when_changed(answer, request, receive)
                if found is None:
                    return  # the client left while it waited
                answer = found
        except AgentError as error:
            answer = text_response(error.status, error.text)
        self._set_timer()
        await _respond(answer, send)

    def _answer(self, request: Request) -> Response | Query:
        clean = _clean(request.path)
        if clean != request.path:
            return _moved(clean, request)
        for prefix, methods in _ROUTES.items():
            if request.path + "/" == prefix and request.path not in _ROUTES:
                return _moved(prefix, request)
            rest = request.path.removeprefix(prefix)
            if request.path == prefix or (prefix.endswith("/") and rest != request.path):
                allowed = ",".join(["OPTIONS", *methods])
                if request.method == "OPTIONS":
                    return Response(headers=(("Allow", allowed),))
                if request.method not in methods:
                    return text_response(405, f"method {request.method} not allowed", ("Allow", allowed))
                node = self.agent.catalog.node
                request.refuse_what_is_lacking(node.datacenter, node.name)
                return methods[request.method](self.agent, request, rest)
        return _unknown(request)

    async def _read_when_changed(self, query: Query, request: Request, receive: Receive) -> Response | None:
        """The answer once its index is beyond the one asked for, at the latest when the wait is up."""
        index, wait = request.wait()
        loop = asyncio.get_running_loop()
        # Consul adds up to a sixteenth, so that a thousand watchers do not come back at once.
        end = loop.time() + wait + random.uniform(0, wait / 16)
        gone: asyncio.Future[Message] | None = None
        missing = False
        changed: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not changed.done():
                changed.set_result(None)

        unwatch = self.agent.watch(query.domain, wake)
        try:
            while True:
                self.agent.advance()
                changed = loop.create_future()
                reading = query.read()
                if query.until_found and not reading.found:
                    index = reading.index if missing and index else index
                    missing = True
                if index == 0 or reading.index > index or self._stopping or loop.time() >= end:
                    return _with_index(reading.response, reading.index, stale=request.has("stale"))
                self._set_timer()
                gone = gone or asyncio.ensure_future(receive())
                await self._first_of(changed, gone, end - loop.time())
                if gone.done():
                    return None
        finally:
            unwatch()
            if gone is not None:
                gone.cancel()
                await asyncio.wait((gone,))  # the server must not find it still reading

    async def _first_of(
        self, changed: asyncio.Future[None], gone: asyncio.Future[Message], timeout: float
    ) -> None:
        self._blocked.add(changed)
        try:
            await asyncio.wait((changed, gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._blocked.discard(changed)

    def _set_timer(self) -> None:
        """Be called when the next TTL lapses, so that watchers hear of it at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.agent.next_due()
        if due is not None and not self._stopping:
            # Never 0: a timer may come a little early, and must not then spin.
            delay = max(0.001, due - self.agent.clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        self.agent.advance()
        self._set_timer()


def _unknown(request: Request) -> Response:
    if request.path == "/":
        return text_response(200, "Consul Agent")
    section = request.path.removeprefix("/v1/").partition("/")[0]
    if request.path.startswith("/v1/") and section in _CONSUL_SECTIONS:
        what = f"{request.method} {request.path}"
        return text_response(501, f"chassis dev does not have {what}: run a real Consul agent for it")
    return Response(status=404)


def _clean(path: str) -> str:
    """The path without empty and dotted segments; Go's router sends clients there."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _moved(path: str, request: Request) -> Response:
    query = f"?{request.query_string}" if request.query_string else ""
    return Response(status=301, headers=(("Location", quote(path) + query),))


def _with_index(response: Response, index: int, *, stale: bool) -> Response:
    headers = (
        ("X-Consul-Index", str(index)),
        ("X-Consul-KnownLeader", "true"),
        ("X-Consul-LastContact", "0"),
        ("X-Consul-Effective-Consistency", "stale" if stale else "leader"),
    )
    return Response(status=response.status, body=response.body, headers=(*response.headers, *headers))


async def _read(scope: Scope, receive: Receive) -> Request | None:
    declared = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
    if declared > MAX_VALUE:
        raise _too_large(declared)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_VALUE:
            raise _too_large(len(body))
        if not message.get("more_body"):
            break
    query = scope["query_string"].decode("latin-1")
    return Request(method=scope["method"], path=scope["path"], query_string=query, body=bytes(body))


def _too_large(size: int) -> AgentError:
    setting = "https://developer.hashicorp.com/docs/agent/config/config-files#kv_max_value_size"
    return AgentError(
        413, f"Request body({size} bytes) too large, max size: {MAX_VALUE} bytes. See {setting}."
    )


async def _respond(response: Response, send: Send) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.headers]
    headers.append((b"x-consul-default-acl-policy", b"allow"))
    headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
