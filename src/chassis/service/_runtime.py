"""Everything a configured process has, built in the order of what depends on what.

Two phases. Arguments, environment, files and the secrets directory alone decide how Consul and the
secret store are reached; everything else may come from them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.adapters.consul import (
    ConsulAPI,
    ConsulDiscovery,
    ConsulDiscoveryOptions,
    ConsulOptions,
    ConsulRegistrar,
)
from chassis.background import background
from chassis.client import ServiceUpstreams, check_service_name
from chassis.config import Configuration, apply
from chassis.core import (
    Discovery,
    PolicyRegistry,
    Registrar,
    Status,
    policies,
)
from chassis.core.forks import tell_after_fork
from chassis.core.options import Seconds, check_seconds
from chassis.discovery import CompositeDiscovery, FileDiscovery, StaticDiscovery, parse_urls
from chassis.health import Health, State
from chassis.secrets import FileSecrets, SecretStore
from chassis.server import Address, LoopWatch, ServerOptions
from chassis.service._breaker_gauge import register_breaker_gauge
from chassis.service._checks import register_checks
from chassis.service._discovery_gauges import register_discovery_gauges
from chassis.service._examination import Examination
from chassis.service._options import KNOWN, PREFIX, TABLE, ChassisOptions
from chassis.service._policies import LivePolicies
from chassis.service._registration import SharedRegistration, register
from chassis.service._required import check_required, required_answer
from chassis.service._telemetry import Telemetry, telemetry

_CONFIRMED_WITHIN = 5.0


@dataclass(frozen=True, kw_only=True)
class _Bootstrap:
    """What must be known before any remote source is asked."""

    required: tuple[str, ...] = ()
    secrets_dir: str = ""
    secrets_poll: Seconds = 30.0

    def __post_init__(self) -> None:
        check_seconds("secrets_poll", self.secrets_poll)


class Runtime:
    """One process's configuration, registry, upstreams, telemetry and health.

    :param environment: in place of ``os.environ``.
    :param file: the TOML file; None takes ``chassis.toml`` if there is one.
    :param discovery: in place of what the configuration says.
    :param registrar: in place of what the configuration says.
    """

    def __init__(
        self,
        service: str,
        *,
        environment: Mapping[str, str] | None = None,
        file: str | Path | None = None,
        discovery: Discovery | None = None,
        registrar: Registrar | None = None,
    ) -> None:
        self.service = check_service_name(service)
        self._secrets = SecretStore(FileSecrets())
        self.health = Health()
        self.registry = PolicyRegistry()
        """The policies of this object's own clients; decorated ones are in the process-wide registry."""
        self.upstreams = ServiceUpstreams(
            self._discover_for_calls, zone=lambda: self.options.registration.zone, registry=self.registry
        )
        self.ready_listeners: list[Callable[[str, Address], None]] = []
        self.configuration = Configuration(
            self.service,
            file=file,
            environment=environment,
            secrets=self._secrets,
            local_only=tuple(f"{TABLE}.{each.name}" for each in dataclasses.fields(_Bootstrap)),
            known=KNOWN,
            prepare=self._prepare,
        )
        """The configuration; constructed, but not read before its first use."""
        self._options = self.configuration.settings(
            ChassisOptions, table=TABLE, prefix=PREFIX, name="chassis", strict=True
        )
        self._policies = LivePolicies(self._options, self.registry)
        self._environment = environment
        self._discovery = discovery
        self._services_file: FileDiscovery | None = None
        self._registrar = registrar
        self._bootstrap: _Bootstrap | None = None
        self._consul: ConsulAPI | None = None
        self._consul_discovery: ConsulDiscovery | None = None
        self._telemetry: Telemetry | None = None
        self._registering = False
        """Since it listens, if it is to be registered at all."""
        self._registration: SharedRegistration | None = None
        self._maintenance: str | None = None
        self._loop_watch: LoopWatch | None = None
        self._checking: asyncio.Task[None] | None = None
        self._undo: list[Callable[[], None]] = []
        self._started = False
        tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Threads, connections and the registration stayed with the parent: start anew."""
        self._started = False
        self._checking = None
        self._telemetry = None
        self._registering = False
        self._registration = None
        self._loop_watch = None

    @property
    def options(self) -> ChassisOptions:
        """The ``[chassis]`` table as it holds now; the first use reads it."""
        return self._options.current

    @property
    def grace(self) -> float:
        """Seconds that work under way gets at stop."""
        return self.options.server.grace if self._options.loaded else ServerOptions().grace

    def explain(self) -> str:
        """All options with their origins; secrets masked."""
        return self._options.explain()

    async def _prepare(self) -> None:
        """Phase one, before anything is read that may be remote. Runs on the background loop."""
        if self._bootstrap is not None:
            return
        bootstrap = await self.configuration.bootstrap_async(_Bootstrap, table=TABLE, prefix=PREFIX)
        environment = os.environ if self._environment is None else self._environment
        check_required(bootstrap.required, environment)
        if bootstrap.secrets_dir:
            self.configuration.set_secrets_dir(bootstrap.secrets_dir)
        if environment.get("BAO_ADDR") or environment.get("VAULT_ADDR"):
            from chassis.adapters.vault import VaultOptions, VaultSecrets

            options = VaultOptions.from_environment(environment)
            self._secrets.add(VaultSecrets(dataclasses.replace(options, poll=bootstrap.secrets_poll)))
        if environment.get("CONSUL_HTTP_ADDR"):
            from chassis.adapters.consul import ConsulKV

            self._consul = ConsulAPI(ConsulOptions.from_environment(environment))
            self.configuration.add(ConsulKV(self._consul, "config/application/data", shared=True))
            self.configuration.add(ConsulKV(self._consul, f"config/{self.service}/data"))
        self._bootstrap = bootstrap

    def _discover(self) -> Discovery:
        """Where services are: the settings, then the file of services, then Consul, then DNS of the name."""
        if self._discovery is None:
            from chassis.adapters.dns import DNSDiscovery

            options = self.options
            located = {}
            for name, each in options.services.items():
                origin = self._options.origin(("services", name))
                parse_urls(name, each.urls, setting=f"{TABLE}.services.{name}", origin=origin)
                if each.urls:
                    located[name] = each.urls
            sources: list[Discovery] = [StaticDiscovery(located)]
            if options.services_file:
                self._services_file = FileDiscovery(
                    options.services_file,
                    setting=f"{TABLE}.services_file",
                    origin=self._options.origin(("services_file",)),
                )
                sources.append(self._services_file)
            services = self._consul_options(options)
            if self._consul is not None:
                self._consul_discovery = ConsulDiscovery(self._consul, options.discovery, services=services)
                sources.append(self._consul_discovery)
            sources.append(DNSDiscovery(options.dns))
            self._discovery = CompositeDiscovery(sources)
        return self._discovery

    def _discover_for_calls(self) -> Discovery:
        """Where services are, when a client first asks.

        A program that makes calls without having been started has read its settings by now as far as
        that goes without waiting; what they say of its clients holds for it too.
        """
        if not self._started:
            self._policies.hold_of_clients()
        return self._discover()

    def _consul_options(self, options: ChassisOptions) -> dict[str, ConsulDiscoveryOptions]:
        """How Consul is asked for the services that have settings of their own."""
        return {
            name: apply(
                options.discovery,
                each.discovery,
                setting=f"{TABLE}.services.{name}.discovery",
                origin=functools.partial(self._service_origin, name),
            )
            for name, each in options.services.items()
            if each.discovery
        }

    def _service_origin(self, service: str, path: tuple[str, ...]) -> str:
        return self._options.origin(("services", service, "discovery", *path))

    async def examine(self) -> Examination:
        """Read the settings and find the sources, and start nothing else.

        :raises ConfigError: a setting cannot be used.
        """
        await background.run(self._prepare, name="settings")
        await self.configuration.start()
        clients = {
            name.removeprefix("client:")
            for name in self.registry.describe()
            if name.startswith("client:") and "/" not in name
        }
        discovery = self._discover()
        written = set() if self._services_file is None else set(self._services_file.services)
        return Examination(
            options=self.options,
            called=tuple(sorted(clients | set(self.options.services) | written)),
            written={
                **dict.fromkeys(written, self.options.services_file),
                **{
                    name: self._options.origin(("services", name, "urls"))
                    for name, each in self.options.services.items()
                    if each.urls
                },
            },
            configuration=self.configuration.describe(),
            discovery=discovery,
            consul=self._consul,
        )

    # the lifecycle's hooks

    async def start(self) -> None:
        """Load the configuration, then start what it lights up.

        :raises ConfigError: a setting cannot be used, or a required system does not answer in time.
        """
        if self._started:
            return
        self._started = True
        self._take_back()  # in a forked child, what the parent had begun
        await background.run(self._prepare, name="settings")
        await self.configuration.start()
        required = () if self._bootstrap is None else self._bootstrap.required
        await required_answer(required, self.configuration, self._where_required)
        self._telemetry = telemetry.join(self.service, self.options, self._environment)
        self._policies.hold()
        changes = self._options.subscribe(lambda old, new, changed: self._policies.hold())
        self._undo += [self._policies.withdraw, changes.close]
        self._discover()
        self.upstreams.open()
        unregistered = None if self._consul is None else self._unregistered
        self._undo.append(register_checks(self.health, self.configuration, unregistered))
        # In the loop that starts it, where a service's own async checks belong.
        self._checking = asyncio.create_task(self.health.run(), name="chassis:health")
        self._undo.append(register_breaker_gauge(self.registry))
        consul = self._consul_discovery
        self._undo.append(
            register_discovery_gauges(self._discover().describe, dict if consul is None else consul.describe)
        )
        self.health.state = State.READY

    async def listening(self, address: Address) -> None:
        """Register what listens on ``address``, and tell that the process is ready."""
        options = self.options.registration
        registrar = self._registrar
        if registrar is None and self._consul is not None:
            registrar = ConsulRegistrar(self._consul, self.options.heartbeat)
        if registrar is not None and options.enabled:
            self._registering = True
            url = self._consul.options.url if self._consul is not None else "http://127.0.0.1"
            if not background.here():
                # This is the loop that serves requests. A WSGI server has none.
                self._loop_watch = LoopWatch(
                    self.service, asyncio.get_running_loop(), ttl=self.options.heartbeat.ttl
                )
            registration = await register(registrar, self.service, address, options, self._readiness, url)
            if self.health.state in (State.DRAINING, State.STOPPED):
                # Told to stop meanwhile, when there was nothing to leave yet.
                await registration.leave()
                return
            self._registration = registration
            if self._maintenance is not None:
                registration.registered.maintenance(self._maintenance)
            await self._confirmed(registration)
        for listener in self.ready_listeners:
            listener(self.service, address)

    def _readiness(self) -> tuple[Status, str]:
        """What a heartbeat carries: the health's word, or the event loop's where that is worse."""
        status, note = self.health.readiness()
        watch = self._loop_watch
        return (status, note) if watch is None else watch.temper(status, note)

    def maintenance(self, reason: str | None) -> None:
        """Ask that nobody be sent here for ``reason``, or end that with None; see ``Registered``."""
        self._maintenance = reason
        if self._registration is not None:
            self._registration.registered.maintenance(reason)

    async def drain(self) -> None:
        """Leave the registry. Bounded, and raises nothing."""
        self.health.state = State.DRAINING
        if self._loop_watch is not None:
            self._loop_watch.stop()
            self._loop_watch = None
        self._maintenance = None
        self._registering = False
        registration, self._registration = self._registration, None
        if registration is not None:
            await registration.leave()

    async def stop(self) -> None:
        """End what runs and deliver what telemetry accepted."""
        self.health.state = State.STOPPED
        if self._checking is not None:
            self._checking.cancel()
        self._take_back()
        self.upstreams.close()
        if self._consul_discovery is not None:
            await background.run(self._consul_discovery.aclose, name="discovery")
        await self.configuration.stop()
        await self._secrets.aclose()
        if self._consul is not None:
            # Its connections belong to the loop its watches ran in.
            await background.run(self._consul.aclose, name="consul")
        if self._telemetry is not None:
            flush = self.options.flush
            if background.here():
                # At the interpreter's exit, when no thread can be had any more; nobody is served here.
                telemetry.leave(self._telemetry, flush)
            else:
                # In a thread: whoever receives may be served by this very loop.
                await asyncio.to_thread(telemetry.leave, self._telemetry, flush)
            self._telemetry = None
        self._started = False

    def _take_back(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _where_required(self) -> str | None:
        return self._options.origin("required") if self._options.loaded else None

    async def _confirmed(self, registration: SharedRegistration) -> None:
        """Wait a little for the registry, so that "ready" means "can be found" where there is one."""
        try:
            async with asyncio.timeout(_CONFIRMED_WITHIN):
                while not registration.registered.confirmed:  # noqa: ASYNC110 - on another loop
                    await asyncio.sleep(0.01)
        except TimeoutError:
            # It goes on in the background; /health shows it.
            return

    def _unregistered(self) -> str:
        """What keeps this process from being found; "" if nothing does, or it is not to be found."""
        if self._registration is None:
            return "not registered yet; if that stays, the log says why" if self._registering else ""
        registered = self._registration.registered
        return "" if registered.confirmed else registered.describe().get("trouble") or "not registered yet"

    def describe(self) -> dict[str, Any]:
        """All of it as plain values, for ``/health``."""
        described: dict[str, Any] = {
            "service": self.service,
            "policies": {**policies.describe(), **self.registry.describe()},
        }
        if self._discovery is not None:
            described["discovery"] = self._discovery.describe()
        described["configuration"] = self.configuration.describe()
        if self._registration is not None:
            described["registration"] = self._registration.registered.describe()
        if self._telemetry is not None:
            described["telemetry"] = self._telemetry.describe()
        return described
