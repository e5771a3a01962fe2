from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

from chassis.adapters.consul._connections import Connections
from chassis.adapters.consul._errors import ConsulError, ConsulNotFound, status_error
from chassis.adapters.consul._options import ConsulOptions
from chassis.adapters.consul._protocol import (
    ConsulAnswer,
    ConsulRequest,
    ConsulResponse,
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

T = TypeVar("T")


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
        self._connections = Connections(self.options)

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
        told = await self.call(request, lambda body: parse(request.what, body, list, null=False))
        if told.acl_filtered and not told.value and self._connections.renew_token():
            # At once, not when something changes: it is another who asks.
            now = {name: value for name, value in params.items() if name not in ("index", "wait")}
            request = replace(request, params=now, wait=0.0)
            told = await self.call(request, lambda body: parse(request.what, body, list, null=False))
        return told

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
            if not told["Allow"]:
                # What was asked before was asked with this token; what comes next may use another.
                self._connections.renew_token()
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
        if response.status == 404 and missing is not None:
            return answer(missing, response.headers)
        if not 200 <= response.status < 300:
            told, location = map(
                self._connections.without_secrets, (response.text, response.headers.get("location", ""))
            )
            raise status_error(request.what, response.status, told, location=location)
        return answer(parse_body(response.content), response.headers)

    async def send(self, request: ConsulRequest, *, token: str = "") -> ConsulResponse:
        """Send ``request``; the response is read, whatever its status.

        :param token: in place of the one in the options.
        :raises ConsulUnreachable: no answer came, or not in time.
        :raises ConsulAnswerError: it cannot be read, or is too large to be one of Consul's.
        """
        return await self._connections.send(request, token=token)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the next call opens new ones."""
        await self._connections.aclose()

    async def _put(self, where: str, params: Mapping[str, str] | None = None, content: bytes = b"") -> None:
        request = ConsulRequest(method="PUT", path=where, params=params or {}, content=content)
        await self.call(request, lambda body: None)
