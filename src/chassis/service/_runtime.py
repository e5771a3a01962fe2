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
from typing import Any, ClassVar

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
    ConfigError,
    Discovery,
    Event,
    Level,
    PolicyRegistry,
    Registrar,
    Status,
    events,
    monotonic,
    policies,
)
from chassis.core.forks import tell_after_fork
from chassis.core.options import Seconds, check_seconds
from chassis.discovery import CompositeDiscovery, FileDiscovery, StaticDiscovery, parse_urls
from chassis.health import Health, State
from chassis.metrics import register_gauge
from chassis.secrets import FileSecrets, SecretStore
from chassis.server import Address, LoopWatch, ServerOptions
from chassis.service._discovery_gauges import register_discovery_gauges
from chassis.service._examination import Examination
from chassis.service._options import KNOWN, PREFIX, TABLE, ChassisOptions
from chassis.service._registration import SharedRegistration, register
from chassis.service._telemetry import Telemetry

_REQUIRED_WITHIN = 30.0
_CONFIRMED_WITHIN = 5.0
_OPEN = frozenset({"open", "half_open", "forced_open"})
_ADDRESSES = {"consul": ("CONSUL_HTTP_ADDR",), "vault": ("BAO_ADDR", "VAULT_ADDR")}
"""The systems that can be required, and the variables that say where they are."""


@dataclass(frozen=True, kw_only=True)
class PolicyUnknown(Event):
    """Settings name a policy that is not there; they wait for one that registers under this name."""

    name: ClassVar[str] = "policy.unknown"
    level: ClassVar[Level] = "warning"


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
        self._options.check(self._check_policies)
        self._environment = environment
        self._discovery = discovery
        self._services_file: FileDiscovery | None = None
        self._registrar = registrar
        self._bootstrap: _Bootstrap | None = None
        self._consul: ConsulAPI | None = None
        self._consul_discovery: ConsulDiscovery | None = None
        self._telemetry: Telemetry | None = None
        self._registration: SharedRegistration | None = None
        self._maintenance: str | None = None
        self._loop_watch: LoopWatch | None = None
        self._told_unknown: set[str] = set()
        self._checking: asyncio.Task[None] | None = None
        self._undo: list[Callable[[], None]] = []
        self._started = False
        tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Threads, connections and the registration stayed with the parent: start anew."""
        self._started = False
        self._checking = None
        self._telemetry = None
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
        for system in bootstrap.required:
            if system not in _ADDRESSES:
                raise ConfigError(
                    f"{system!r} is no system that can be required",
                    setting="chassis.required",
                    remedy="name consul, vault or both",
                )
            variables = _ADDRESSES[system]
            if not any(environment.get(each) for each in variables):
                raise ConfigError(
                    f"{system} is required, and nothing says where it is",
                    setting="chassis.required",
                    remedy=f"set {' or '.join(variables)}",
                )
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
                self._services_file = FileDiscovery(options.services_file)
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
            self.registry.override(self._own_overrides())
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
        await background.run(self._prepare, name="settings")
        await self.configuration.start()
        await self._required_answer()
        self._telemetry = Telemetry(self.service, self.options, self._environment)
        self._override_policies()
        changes = self._options.subscribe(lambda old, new, changed: self._override_policies())
        self._undo.append(changes.close)
        self._discover()
        self.upstreams.open()
        self._add_checks()
        # In the loop that starts it, where a service's own async checks belong.
        self._checking = asyncio.create_task(self.health.run(), name="chassis:health")
        self._undo.append(
            register_gauge(
                "chassis_breaker_open",
                "1 while a circuit breaker is open, half-open or forced open, else 0; of a family how many are.",
                ["breaker"],
                self._breaker_gauge,
            )
        )
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
            url = self._consul.options.url if self._consul is not None else "http://127.0.0.1"
            if not background.here():
                # This is the loop that serves requests. A WSGI server has none.
                self._loop_watch = LoopWatch(
                    self.service, asyncio.get_running_loop(), ttl=self.options.heartbeat.ttl
                )
            self._registration = await register(
                registrar, self.service, address, options, self._readiness, url
            )
            if self._maintenance is not None:
                self._registration.registered.maintenance(self._maintenance)
            await self._confirmed()
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
        registration, self._registration = self._registration, None
        if registration is not None:
            await registration.leave()

    async def stop(self) -> None:
        """End what runs and deliver what telemetry accepted."""
        self.health.state = State.STOPPED
        if self._checking is not None:
            self._checking.cancel()
        while self._undo:
            self._undo.pop()()
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
                self._telemetry.close(flush)
            else:
                # In a thread: whoever receives may be served by this very loop.
                await asyncio.to_thread(self._telemetry.close, flush)
            self._telemetry = None
        self._started = False

    async def _required_answer(self) -> None:
        """Wait for what was told to be required; everything else is tried again in the background."""
        until = monotonic() + _REQUIRED_WITHIN
        while silent := self._silent():
            if monotonic() >= until:
                raise ConfigError(
                    f"{' and '.join(silent)} did not answer within {_REQUIRED_WITHIN:g} s",
                    setting=f"{TABLE}.required",
                    origin=self._options.origin("required") if self._options.loaded else None,
                    remedy="see that it is reachable, or do not require it",
                )
            await asyncio.sleep(0.1)

    def _silent(self) -> list[str]:
        """The required systems of which something is still missing."""
        required = () if self._bootstrap is None else self._bootstrap.required
        described = self.configuration.describe()
        silent = []
        if "consul" in required and any(
            name.startswith("consul ") and each["state"] in ("waiting", "unreachable")
            for name, each in described["sources"].items()
        ):
            silent.append("consul")
        if "vault" in required and not all(each["loaded"] for each in described["settings"].values()):
            silent.append("vault")
        return silent

    async def _confirmed(self) -> None:
        """Wait a little for the registry, so that "ready" means "can be found" where there is one."""
        assert self._registration is not None  # noqa: S101 - set by the only caller
        try:
            async with asyncio.timeout(_CONFIRMED_WITHIN):
                while not self._registration.registered.confirmed:  # noqa: ASYNC110 - on another loop
                    await asyncio.sleep(0.01)
        except TimeoutError:
            # It goes on in the background; /health shows it.
            return

    def _override_policies(self) -> None:
        """Lay the ``policies`` table over the options given in code."""
        overrides = self._overrides(self.options)
        own = self._own_overrides()
        others = {key: each for key, each in overrides.items() if key not in own}
        unknown = self.registry.override(own) | policies.override(others)
        for key in sorted(unknown - self._told_unknown):
            # It may be a misspelling, or the name of one that registers when its module is imported.
            events.emit(PolicyUnknown(subject=key))
        self._told_unknown |= unknown

    def _own_overrides(self) -> dict[str, Callable[[Any], Any]]:
        overrides = self._overrides(self.options)
        return {key: each for key, each in overrides.items() if key.startswith("client:")}

    def _overrides(self, options: ChassisOptions) -> dict[str, Callable[[Any], Any]]:
        return {
            key: _Override(f'chassis.policies."{key}"', values, functools.partial(self._origin, key))
            for key, values in options.policies.items()
        }

    def _origin(self, key: str, path: tuple[str, ...]) -> str:
        return self._options.origin(("policies", key, *path))

    def _check_policies(self, options: ChassisOptions) -> None:
        """Veto options that a live policy could not take, before they get in."""
        for key, override in self._overrides(options).items():
            policy = self.registry.get(key) or policies.get(key)
            if policy is not None:
                override(policy.defaults)

    def _add_checks(self) -> None:
        if self._consul is None:
            return

        def consul_answers() -> bool:
            sources = self.configuration.describe()["sources"].values()
            registered = self._registration is None or self._registration.registered.confirmed
            return registered and not any(each["bad"] for each in sources)

        # Not critical: what is known goes on being used, and no other instance has more.
        self._undo.append(self.health.check("consul", consul_answers, critical=False, ttl=1.0))

    def _breaker_gauge(self) -> dict[tuple[str, ...], float]:
        """How many are open, by name: breakers in code, families of them, those of each instance called."""
        states: dict[tuple[str, ...], float] = {}
        for key, described in {**policies.describe(), **self.registry.describe()}.items():
            if key.startswith("breaker:"):
                # A family is one series: its keys may be many, and are for describe().
                each_of = described.get("breakers", {"": described}).values()
                states[(key,)] = float(sum(each["state"] in _OPEN for each in each_of))
            elif key.startswith("client:") and key.endswith("/breaker"):
                for instance, each in described["instances"].items():
                    states[(f"{key}/{instance}",)] = float(each["state"] in _OPEN)
        return states

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


@dataclass(frozen=True)
class _Override:
    """The options of one policy, made from its defaults."""

    setting: str
    values: Mapping[str, Any]
    origin: Callable[[tuple[str, ...]], str]

    def __call__(self, defaults: Any) -> Any:
        return apply(defaults, self.values, setting=self.setting, origin=self.origin)
