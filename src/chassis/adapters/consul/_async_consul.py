from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._protocol import ConsulRequest

try:
    from consul import Timeout, base  # type: ignore[import-untyped]  # py-consul ships no py.typed
except ImportError as error:
    raise ImportError("AsyncConsul needs py-consul: pip install 'chassis-kit[consul]'") from error
if not hasattr(base.Consul, "http_connect"):
    raise ImportError(
        "python-consul, of 2018, is installed over py-consul, which AsyncConsul needs: "
        "pip uninstall python-consul && pip install --force-reinstall 'chassis-kit[consul]'"
    )

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_Callback: TypeAlias = Callable[[Any], Any]
_Params: TypeAlias = Sequence[tuple[str, Any]] | None
_Headers: TypeAlias = dict[str, str] | None
# How long Consul holds a blocking query that names no wait.
_DEFAULT_WAIT = 300.0


class AsyncConsul(base.Consul):  # type: ignore[misc]  # py-consul is untyped
    """py-consul's own API, with coroutines for results, over a :class:`ConsulAPI`.

    ``index, entry = await AsyncConsul(api).kv.get("key")``: everything py-consul offers, on the
    connections, time limits and token of ``api``. A ``token`` given to a call is used for that call. py-consul's
    errors come as they always do; no answer at all is a ``ConsulUnreachable``.

    :param api: stays the caller's to close.
    :param consistency: ``default``, ``consistent`` or ``stale``, where py-consul heeds it.
    """

    def __init__(self, api: ConsulAPI, *, consistency: str = "default") -> None:
        self._api = api
        options = api.options
        # host, port, scheme and verify are given, so that py-consul reads nothing from the environment.
        super().__init__(
            host="127.0.0.1",
            port=8500,
            scheme="http",
            verify=True,
            consistency=consistency,
            dc=options.datacenter or None,
        )
        # It does read CONSUL_HTTP_TOKEN, over any argument. The API knows the token.
        self.token = None

    def http_connect(self, *args: Any, **kwargs: Any) -> Any:
        """py-consul's hook for another HTTP client."""
        return _HTTPClient(self._api)


class _HTTPClient(base.HTTPClient):  # type: ignore[misc]  # py-consul is untyped
    def __init__(self, api: ConsulAPI) -> None:
        super().__init__()
        self._api = api

    # The parameters are py-consul's, in its order.

    def get(
        self,
        callback: _Callback,
        path: str,
        params: _Params = None,
        headers: _Headers = None,
        raw: bool = False,
        **more: Any,
    ) -> Coroutine[Any, Any, Any]:
        return self._call("GET", callback, path, params, headers=headers, raw=raw, **more)

    def put(
        self,
        callback: _Callback,
        path: str,
        params: _Params = None,
        data: str | bytes = "",
        headers: _Headers = None,
        **more: Any,
    ) -> Coroutine[Any, Any, Any]:
        return self._call("PUT", callback, path, params, data, headers, **more)

    def post(
        self,
        callback: _Callback,
        path: str,
        params: _Params = None,
        data: str | bytes = "",
        headers: _Headers = None,
        **more: Any,
    ) -> Coroutine[Any, Any, Any]:
        return self._call("POST", callback, path, params, data, headers, **more)

    def delete(
        self,
        callback: _Callback,
        path: str,
        params: _Params = None,
        data: str | bytes = "",
        headers: _Headers = None,
        **more: Any,
    ) -> Coroutine[Any, Any, Any]:
        return self._call("DELETE", callback, path, params, data, headers, **more)

    async def close(self) -> None:
        await self._api.aclose()

    async def _call(
        self,
        method: str,
        callback: _Callback,
        path: str,
        params: _Params = None,
        data: str | bytes = "",
        headers: _Headers = None,
        *,
        raw: bool = False,
        connections_timeout: float | None = None,
    ) -> Any:
        pairs = [(name, str(value)) for name, value in params or ()]
        request = ConsulRequest(
            method=method,
            path=quote(path, safe="/:"),
            params=pairs,
            content=data.encode() if isinstance(data, str) else data,
            wait=_wait(dict(pairs)),
        )
        token = (headers or {}).get("X-Consul-Token", "")
        try:
            async with asyncio.timeout(connections_timeout):
                response = await self._api.send(request, token=token)
        except TimeoutError as error:
            raise Timeout(f"no answer within {connections_timeout:g} s") from error
        body = response.content if raw else response.content.decode()
        return callback(base.Response(response.status, response.headers, body))


def _wait(params: dict[str, str]) -> float:
    """Seconds Consul may hold back the answer to these parameters."""
    if "index" not in params:
        return 0.0
    if "wait" not in params:
        return _DEFAULT_WAIT
    parts = re.findall(r"([\d.]+)(ns|us|µs|ms|s|m|h)", params["wait"])
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
