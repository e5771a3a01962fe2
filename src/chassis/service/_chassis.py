"""The one object that knows every component."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from chassis.client import ClientOptions, HTTPModuleName, async_client, sync_client
from chassis.core import ConfigError, Discovery, Registrar, Upstreams
from chassis.core.options import AS_IN_OPTIONS, Seconds, given_fields
from chassis.limits import LoadShedder
from chassis.loadbalancing import BalancingOptions
from chassis.metrics import ServerMetrics
from chassis.server import Address, Endpoints, Lifecycle, ServerEdge, WSGIEdge, WSGILifecycle
from chassis.service._examination import Examination
from chassis.service._install import install
from chassis.service._runtime import Runtime
from chassis.service._tasks import TaskFunction, Tasks
from chassis.service._worker import run_worker

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    import httpx2

    from chassis.breaker import BreakerOptions
    from chassis.config import Settings
    from chassis.loadbalancing import PolicyName
    from chassis.retries import HedgeOptions

T = TypeVar("T")
TaskT = TypeVar("TaskT", bound=TaskFunction)


class Chassis:
    """A service's chassis: what is configured lights up; nothing configured, and it runs.

    Constructing it reads nothing. The configuration is read when the service starts, or on first use.

    :param name: the service's name: others find it under this name, and the variables of its own
        settings begin with it.
    :param http: the module whose clients are made, ``httpx2`` or ``httpx``.
    :param file: a TOML file of settings; None takes ``chassis.toml`` if there is one.
    :param environment: in place of ``os.environ``.
    :param discovery: where services are, in place of what the configuration says.
    :param registrar: where this one is announced, in place of what the configuration says.
    :raises ConfigError: the name is no service name.
    """

    def __init__(
        self,
        name: str,
        *,
        http: HTTPModuleName = "httpx2",
        file: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        discovery: Discovery | None = None,
        registrar: Registrar | None = None,
    ) -> None:
        self._runtime = Runtime(
            name, environment=environment, file=file, discovery=discovery, registrar=registrar
        )
        self.name = self._runtime.service
        self._http: HTTPModuleName = http
        self._tasks = Tasks()
        self._start_failed: Callable[[Exception], None] = lambda error: None
        self._metrics = ServerMetrics()
        # The process's own, so it is described with the service; its options are the server's.
        self._shedder = LoadShedder("server", register=False)
        self._serving: Lifecycle | WSGILifecycle
        self._endpoints = Endpoints(
            self.name, self._runtime.health, token=self._health_token, describe=self.describe
        )
        self._lifecycle = Lifecycle(
            self.name,
            self,
            drain=lambda: self._runtime.options.server.drain,
        )
        self._serving = self._lifecycle

    def __repr__(self) -> str:
        return f"Chassis({self.name!r})"

    # the application

    def install(self, app: Any) -> None:
        """Put this chassis around a FastAPI, Starlette, Litestar or Flask application, in place.

        :raises ConfigError: it is of another framework, has begun to serve, or has a chassis already.
        """
        if chassis_of(app) is not None:
            raise ConfigError(
                "the application has a chassis already", setting="install", remedy="install once"
            )
        install(app, self)

    def asgi(self, app: Any) -> ServerEdge:
        """An ASGI application around ``app``: start, stop, context, telemetry, health endpoints."""
        self._serving = self._lifecycle
        edge = ServerEdge(
            app,
            lifecycle=self._lifecycle,
            endpoints=self._endpoints,
            metrics=self._metrics,
            options=lambda: self._runtime.options.server,
            shedder=self._shedder,
        )
        edge.owner = self
        return edge

    def wsgi(self, app: WSGIApplication) -> WSGIEdge:
        """The same for a WSGI application."""
        lifecycle = WSGILifecycle(self.name, self, drain=lambda: self._runtime.options.server.drain)
        self._serving = lifecycle
        edge = WSGIEdge(
            app,
            lifecycle=lifecycle,
            endpoints=self._endpoints,
            metrics=self._metrics,
            options=lambda: self._runtime.options.server,
            shedder=self._shedder,
        )
        edge.owner = self
        return edge

    # other services

    @property
    def upstreams(self) -> Upstreams:
        """All services by name, for what forwards requests of its own making."""
        return self._runtime.upstreams

    def client(
        self,
        service: str,
        *,
        timeout: Seconds = AS_IN_OPTIONS,
        retries: int = AS_IN_OPTIONS,
        deadline: Seconds = AS_IN_OPTIONS,
        max_in_flight: int | None = AS_IN_OPTIONS,
        hedge: HedgeOptions | None = AS_IN_OPTIONS,
        options: ClientOptions | None = None,
        breaker: BreakerOptions | None = None,
        balancing: BalancingOptions | PolicyName | None = None,
    ) -> httpx2.AsyncClient:
        """An ``AsyncClient`` for a service: discovered, balanced, guarded, traced.

        Its relative URLs go to the service. The options hold for all clients of the service in this
        process, so they are given once.

        :param timeout: seconds one attempt may take.
        :param retries: further attempts after the first.
        :param deadline: seconds the whole call may take.
        :param max_in_flight: calls at once; None for no limit.
        :param hedge: when a slow attempt gets another one beside it; None for never.
        :param options: all options at once; the five above change single fields of it.
        :param breaker: the options of its instances' breakers.
        :param balancing: how calls are spread over its instances: options, or a policy's name.
        :raises ConfigError: an option cannot be used, or other ones were given before.
        """
        self._declare(
            service,
            options,
            breaker,
            balancing,
            timeout=timeout,
            retries=retries,
            deadline=deadline,
            max_in_flight=max_in_flight,
            hedge=hedge,
        )
        return async_client(self._runtime.upstreams, service, http=self._http)

    def sync_client(
        self,
        service: str,
        *,
        timeout: Seconds = AS_IN_OPTIONS,
        retries: int = AS_IN_OPTIONS,
        deadline: Seconds = AS_IN_OPTIONS,
        max_in_flight: int | None = AS_IN_OPTIONS,
        options: ClientOptions | None = None,
        breaker: BreakerOptions | None = None,
        balancing: BalancingOptions | PolicyName | None = None,
    ) -> httpx2.Client:
        """A ``Client`` for a service; as :meth:`client`, for threads.

        :raises ConfigError: as there, or its calls are to be hedged, which threads cannot do.
        """
        self._declare(
            service,
            options,
            breaker,
            balancing,
            timeout=timeout,
            retries=retries,
            deadline=deadline,
            max_in_flight=max_in_flight,
        )
        return sync_client(self._runtime.upstreams, service, http=self._http)

    def _declare(
        self,
        service: str,
        options: ClientOptions | None,
        breaker: BreakerOptions | None,
        balancing: BalancingOptions | PolicyName | None,
        **single: Any,
    ) -> None:
        given = given_fields(**single)
        if given:
            options = replace(options or ClientOptions(), **given)
        if isinstance(balancing, str):
            balancing = BalancingOptions(policy=balancing)
        self._runtime.upstreams.upstream(service, options, breaker, balancing)

    # settings

    def settings(self, type_: type[T], *, table: str = "", prefix: str | None = None) -> Settings[T]:
        """A live handle on the service's own settings, typed and validated; nothing is read yet.

        :param type_: a pydantic model or a dataclass.
        :param table: the TOML table that holds it; "" for all that is not ``[chassis]``.
        :param prefix: of its environment variables; by default the model's own, else the service's
            name: ``INVOICES_``.
        """
        return self._runtime.configuration.settings(type_, table=table, prefix=prefix)

    def override(self, assignments: Iterable[str]) -> None:
        """Set ``name=value`` over every other source, as the command line does. Before the first use.

        :raises ConfigError: the configuration has been read.
        """
        self._runtime.configuration.override(assignments)

    def explain(self) -> str:
        """All settings of the ``[chassis]`` table with their origins; secrets masked."""
        return self._runtime.explain()

    # what else a service does

    def task(self, *, every: Seconds) -> Callable[[TaskT], TaskT]:
        """Run the decorated function every ``every`` seconds while the service runs.

        One run follows the other; a plain function runs in a thread. What a run raises is reported
        as an event, and the next run comes as planned.
        """

        def decorate(function: TaskT) -> TaskT:
            self._tasks.add(function, every)
            return function

        return decorate

    def check(
        self, name: str, function: Callable[[], Any], *, critical: bool = True, ttl: Seconds = 5.0
    ) -> None:
        """Add a health check; see :meth:`chassis.health.Health.check`."""
        self._runtime.health.check(name, function, critical=critical, ttl=ttl)

    def maintenance(self, reason: str | None) -> None:
        """Ask that no caller be sent to this instance for ``reason``, or end that with None.

        It goes on running and answering who calls it all the same; the registry names it as under
        maintenance. Any thread; returns at once, and :meth:`describe` shows when it holds. It is told
        again if the registry lost the registration, and ends with the registration. Any worker of the
        same address may end it. What an operator set is theirs to end.
        """
        self._runtime.maintenance(reason)

    @property
    def stopping(self) -> asyncio.Event:
        """Set when draining is over; a handler of a long stream may wait for it."""
        return self._lifecycle.stopping

    @property
    def draining(self) -> bool:
        """Whether the process has been told to stop."""
        return self._lifecycle.draining

    def on_ready(self, listener: Callable[[str, Address], None]) -> None:
        """Call ``listener(service, address)`` once the service serves and is registered."""
        self._runtime.ready_listeners.append(listener)

    def on_start_failure(self, listener: Callable[[Exception], None]) -> None:
        """Call ``listener(error)`` if the service cannot start, before the error is raised."""
        self._start_failed = listener

    def describe(self) -> dict[str, Any]:
        """The service's policies, sources, registration, load and telemetry, as plain values.

        ``drains_on_sigterm`` says whether the server it runs under lets it drain.
        """
        return {
            **self._runtime.describe(),
            "shedding": self._shedder.describe(),
            "drains_on_sigterm": self._serving.handles_sigterm,
        }

    def run(self) -> None:
        """Run a process without HTTP of its own until SIGTERM or SIGINT.

        Its tasks run; a small port answers for health and metrics; at the end tasks get their
        grace and telemetry is delivered.
        """
        asyncio.run(
            run_worker(
                self.name,
                start=self.start,
                drain=self.drain,
                stop=self.stop,
                endpoints=self._endpoints,
                host=lambda: self._runtime.options.worker.host,
                port=lambda: self._runtime.options.worker.port,
            )
        )

    # the lifecycle, for those who run it themselves

    async def start(self) -> None:
        """Read the configuration and start; edges do this by themselves.

        :raises ConfigError: a setting cannot be used, or a required system does not answer in time.
            What had begun has ended then.
        """
        try:
            await self._runtime.start()
        except BaseException as error:
            if isinstance(error, Exception):
                self._start_failed(error)
            await self.stop()
            raise
        self._tasks.start()

    async def listening(self, address: Address) -> None:
        """The process serves on ``address``: register it."""
        await self._runtime.listening(address)

    async def drain(self) -> None:
        """Leave the registry; no new requests are wanted."""
        await self._runtime.drain()

    async def stop(self) -> None:
        """End tasks and clients, and deliver telemetry."""
        await self._tasks.stop(self._runtime.grace)
        await self._runtime.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.drain()
        await self.stop()

    def _health_token(self) -> str | None:
        token = self._runtime.options.health_token
        return None if token is None else token.reveal()


def chassis_of(app: Any) -> Chassis | None:
    """The chassis an application was given, or None."""
    found = getattr(app, "owner", None)
    if found is None:
        found = getattr(getattr(app, "state", None), "chassis", None)
    if found is None:
        found = getattr(app, "extensions", {}).get("chassis")
    return found if isinstance(found, Chassis) else None


@asynccontextmanager
async def examining(chassis: Chassis) -> AsyncIterator[Examination]:
    """Read the settings as the service would, and give what they lead to; nothing is registered or served.

    :raises ConfigError: a setting cannot be used.
    """
    runtime = chassis._runtime
    try:
        yield await runtime.examine()
    finally:
        await runtime.stop()
