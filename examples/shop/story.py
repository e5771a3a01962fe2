"""The story from its beginning to its verdict."""

import json
import math
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

from examples.shop.acts import ACTS
from examples.shop.figures import LoadFile
from examples.shop.processes import Process, Processes, processes, wait_for
from examples.shop.received import Received
from examples.shop.shop import CATALOG_SETTINGS, INSTANCES, Registry, Shop
from examples.shop.stage import Stage
from examples.shop.terminal import Terminal
from examples.shop.without import settings

READY_WITHIN = 40.0
"""Seconds all services get to start: they start at once, on however few cores there are."""

STOPPED_WITHIN = 15.0
QUICK = 0.4


class BadInput(Exception):
    """What was given cannot be used; the message names the setting and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for.

    :param registry: the address of a Consul that runs; "" to start one.
    :param program: the Consul program to start; "" for ``chassis dev``.
    :param acts: names of the acts to play.
    :param without: features to play without.
    :param rate: requests a second.
    :param quick: waits are cut to two fifths.
    :param keep: leave it running after the last act.
    """

    registry: str = ""
    program: str = ""
    acts: tuple[str, ...] = tuple(ACTS)
    without: frozenset[str] = frozenset()
    rate: float = 200.0
    quick: bool = False
    keep: bool = False


def play(options: Options, folder: Path) -> bool:
    """Play the story; whether every act passed.

    :param folder: where output, the receiver's file and the services' data go.
    :raises ProcessFailed: a process ended by itself.
    :raises BadInput: the registry given cannot be used.
    """
    terminal = Terminal()
    with processes(folder) as running:
        received = folder / "received.jsonl"
        collector = running.start("collector-1", "examples.shop.collector", str(received))
        registry = open_registry(running, options)
        with own_documents(registry):
            wait_for(collector.is_ready, READY_WITHIN)
            shop = Shop(running, registry, collector.address, folder, settings(options.without))
            terminal.say(open_shop(shop), f"registry {registry.address}, output in {folder}")
            load = running.start(
                "load-1", "examples.shop.load", "--registry", registry.address, "--rate", str(options.rate)
            )
            stage = Stage(
                terminal,
                running,
                shop,
                LoadFile(load.out),
                Received(received),
                rate=options.rate,
                pace=QUICK if options.quick else 1.0,
            )
            wait_for(load.is_ready, READY_WITHIN)
            for name in options.acts:
                ACTS[name](stage)
            if options.keep:
                keep(stage, collector)
            close_shop(stage, load, collector)
    return verdict(stage)


def open_registry(running: Processes, options: Options) -> Registry:
    """The registry the story plays on.

    :raises BadInput: the one given does not answer, or services of these names are in it.
    """
    if options.registry:
        registry = Registry(options.registry)
        try:
            there = [service for service in INSTANCES if registry.addresses(service)]
        except (requests.RequestException, ValueError) as error:
            raise BadInput(
                f"--consul: no Consul answers at {options.registry} ({type(error).__name__});"
                " start one there, or leave the option away"
            ) from None
        if there:
            raise BadInput(
                f"--consul: {options.registry} has instances of {', '.join(there)}; use another Consul"
            )
        return registry
    if options.program:
        return start_consul(running, options.program)
    agent = running.start("registry-1", "chassis.cli", "dev", "--port", "0")
    wait_for(agent.is_ready, READY_WITHIN)
    return Registry(agent.address)


def start_consul(running: Processes, program: str) -> Registry:
    """A blank Consul agent of our own, on free ports."""
    http, server, serf_lan, serf_wan = free_ports(4)
    ports = {
        "http": http,
        "server": server,
        "serf_lan": serf_lan,
        "serf_wan": serf_wan,
        "dns": -1,
        "grpc": -1,
    }
    configuration = running.folder / "consul.json"
    configuration.write_text(json.dumps({"ports": ports}))
    agent = running.start_program(
        "registry-1", program, "agent", "-dev", "-bind", "127.0.0.1", "-config-file", str(configuration)
    )
    registry = Registry(f"127.0.0.1:{http}")

    def leads() -> bool:
        if agent.status is not None:
            raise agent.failure(f"ended with status {agent.status} at its start")
        try:
            return registry.has_leader()
        except requests.RequestException:
            return False

    wait_for(leads, READY_WITHIN)
    return registry


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]


@contextmanager
def own_documents(registry: Registry) -> Iterator[None]:
    """Leave the registry as it was found: the document the story changes, and what killed instances left."""
    before = registry.read(CATALOG_SETTINGS)
    registry.delete(CATALOG_SETTINGS)
    try:
        yield
    finally:
        with suppress(requests.RequestException):
            if before is None:
                registry.delete(CATALOG_SETTINGS)
            else:
                registry.write(CATALOG_SETTINGS, before)
            registry.forget(INSTANCES)


def open_shop(shop: Shop) -> str:
    """Start everything at once, and wait until all of it is in rotation; says how it went."""
    began = time.monotonic()
    started = [shop.start(service) for service, number in INSTANCES.items() for _ in range(number)]
    wait_for(lambda: sum(map(shop.registered, started)) == len(started), READY_WITHIN)
    took = time.monotonic() - began
    return f"{len(started)} instances of {len(INSTANCES)} services ready in {took:.1f} s;"


def keep(stage: Stage, collector: Process) -> None:
    """Leave it running until Ctrl-C, and say where everything is."""
    stage.terminal.title("It goes on; Ctrl-C ends it")
    stage.terminal.say(f"   {'registry':16} http://{stage.shop.registry.address}")
    for service, instances in stage.shop.running.items():
        stage.terminal.say(f"   {service:16} {'  '.join(each.address for each in instances)}")
    stage.terminal.say(
        f"   {'collector':16} {collector.address}", f"   {'output':16} {stage.processes.folder}"
    )
    with suppress(KeyboardInterrupt):
        stage.until(lambda: False, math.inf)


def close_shop(stage: Stage, load: Process, collector: Process) -> None:
    """Stop everything, and count what the receiver has of what was accepted."""
    act = stage.begin("Stop")
    load.signal(signal.SIGTERM)
    instances = [each for service in reversed(INSTANCES) for each in list(stage.shop.running[service])]
    stage.until(lambda: load.status is not None, STOPPED_WITHIN)
    for each in instances:
        stage.shop.stop(each)
    ended = stage.until(lambda: all(each.status is not None for each in instances), STOPPED_WITHIN)
    statuses = {each.name: each.status for each in instances if each.status != 0}
    took = time.monotonic() - act.began
    stage.check(ended and not statuses, f"all ended in {took:.1f} s {statuses or ''}")
    collector.signal(signal.SIGTERM)
    stage.until(lambda: collector.status is not None, STOPPED_WITHIN)
    received = stage.received.counts()
    for signal_name in ("traces", "logs"):
        told = {each.name: accepted(each, signal_name) for each in stage.shop.stopped}
        differing = {
            name: f"accepted {number}, received {received[name][signal_name]}"
            for name, number in told.items()
            if number != received[name][signal_name]
        }
        total = sum(number or 0 for number in told.values())
        stage.check(
            not differing and total > 0,
            f"{signal_name}: {total} accepted by {len(told)} instances, all of them received {differing or ''}",
        )


def accepted(process: Process, signal_name: str) -> int | None:
    """How much telemetry a process said, as its last words, that it had accepted; None if it said nothing."""
    for line in reversed(process.log.read_text(errors="replace").splitlines()):
        if '"process.stopped"' in line:
            return int(json.loads(line)["fields"]["telemetry"][signal_name]["accepted"])
    return None


def verdict(stage: Stage) -> bool:
    """Say how each act went; whether all passed."""
    stage.terminal.title("Verdict")
    found_in_all = [
        {"act": act.title, "passed": act.passed, "busy": act.busy, "failures": act.failures}
        for act in stage.acts
    ]
    (stage.processes.folder / "verdict.json").write_text(json.dumps(found_in_all, indent=2))
    for act in stage.acts:
        found = "machine too busy" if act.busy else "; ".join(act.failures) or "passed"
        stage.terminal.verdict(act.passed, f"{act.title}: {found}")
    stage.terminal.say("")
    return all(act.passed for act in stage.acts)
