"""What it costs to know where 500 services are, beside asking for them all the time.

500 services of two instances each on one real agent, in one process: 48 are watched by blocking queries,
two more tell when anything changes, and the rest are asked of the agent's cache then. Requests are counted by the agent itself. Beside it:
py-consul, asked for every service once a second by as many threads as keep up; and blacksmith, which
asks Consul anew each time a client is made, keeps nothing, and does not look at health. Both are given
the same agent, one after the other.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

from benchmarks._consul import Bare, Heard, register, start_consul
from benchmarks.harness import Benchmark, BenchmarkError, Case, bytes_each, main
from chassis.adapters.consul import ConsulAPI, ConsulDiscovery, ConsulDiscoveryOptions, ConsulOptions
from chassis.adapters.consul._instances import parse_instances
from chassis.background import background
from chassis.core import EventBus, Snapshot, Source
from chassis.discovery import LastKnownGood
from chassis.loadbalancing import BalancingOptions, EndpointSet
from tests.support.servers import ConsulServer

BLOCKING = 50
PAGE = os.sysconf("SC_PAGE_SIZE")


def name(number: int) -> str:
    return f"service-{number:03}"


def resident() -> float:
    """Megabytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def connections(port: int) -> int:
    """How many TCP connections this process's side has open to ``port``."""
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(each[2].endswith(f":{port:04X}") and each[3] == "01" for each in fields)


def asked(bare: Bare) -> float:
    """Health queries a second, as the agent counted them in its last whole interval of ten seconds."""
    metrics, _ = bare.ask("GET", "/v1/agent/metrics")
    counted = [each for each in metrics["Samples"] if ".http.GET.v1.health.service" in each["Name"]]
    return sum(each["Count"] for each in counted) / 10.0


class AtRest:
    """Requests and processor time of a while in which nothing changes."""

    def __init__(self, bench: Benchmark, bare: Bare) -> None:
        if bench.quick:
            sleep(1.0)
        else:
            sleep(12.0)  # what it took to begin shall be out of the agent's interval
        begun, worked = perf_counter(), process_time()
        sleep(1.0 if bench.quick else 10.0)
        self.busy = (process_time() - worked) / (perf_counter() - begun)
        self.requests = asked(bare)


def latency(bare: Bare, heard: Heard, number: int, weights: range) -> float:
    """Milliseconds from a change of a service until it is heard of; the median."""
    took = []
    for weight in weights:
        # Not in step with whoever asks once a second.
        sleep(random.uniform(1.1, 2.1))
        begun = perf_counter()
        register(bare, name(number), weight=weight)
        took.append(1e3 * (heard.wait((name(number), weight)) - begun))
    return statistics.median(took)


def ours(bench: Benchmark, server: ConsulServer, bare: Bare, services: int, changes: int) -> None:
    """500 services through this package."""
    heard = Heard()
    before = resident()
    options = ConsulDiscoveryOptions(max_watches=BLOCKING, wait=2.0 if bench.quick else 30.0)
    discovery = ConsulDiscovery(ConsulAPI(ConsulOptions(url=server.url)), options)

    def listen(snapshot: Snapshot) -> None:
        for each in snapshot.instances:
            heard.hear((snapshot.service, each.weight))

    begun = perf_counter()
    subscriptions = [discovery.subscribe(name(number), listen) for number in range(services)]
    for number in range(services):
        heard.wait((name(number), 1))
    bench.figure("chassis: until all services are known", perf_counter() - begun, "s")
    rest = AtRest(bench, bare)
    bench.figure("chassis: connections", connections(server.port) - 1, "", note="one more is the benchmark's")
    bench.figure(
        "chassis: memory of 500 services", resident() - before, "MB", note="resident, HTTP client included"
    )
    bench.figure("chassis: requests at rest", rest.requests, "/s", note="counted by the agent")
    bench.figure("chassis: processor at rest", 100 * rest.busy, "% of one")
    modes = {service: told["mode"] for service, told in discovery.describe().items()}
    blocking = sorted(service for service, mode in modes.items() if mode == "blocking")
    polled = sorted(set(modes) - set(blocking))
    bench.figure("chassis: blocking queries", len(blocking), "", note=f"of {len(modes)} services")
    for kind, those in (("watched", blocking), ("polled", polled)):
        if those:
            number = int(those[0].removeprefix("service-"))
            took = latency(bare, heard, number, range(2, 2 + changes))
            bench.figure(f"chassis: a change of a {kind} service", took, "ms", note=f"median of {changes}")
    for each in subscriptions:
        each.close()
    background.start(discovery.aclose, name="close").result(30)
    while (
        connections(server.port) > 1
    ):  # queries under way are not abandoned; the next one's turn is after them
        sleep(0.1)


def py_consul(bench: Benchmark, server: ConsulServer, bare: Bare, services: int, changes: int) -> None:
    """500 services asked for once a second: the loop that its users write."""
    consul = bench.peer("consul", "py-consul")
    if consul is None:
        return
    heard, stopping = Heard(), threading.Event()
    local = threading.local()

    def ask(number: int) -> None:
        if not hasattr(local, "client"):
            local.client = consul.Consul(host="127.0.0.1", port=server.port)
        _, entries = local.client.health.service(name(number))
        for each in entries:
            heard.hear((name(number), each["Service"]["Weights"]["Passing"]))

    def loop() -> None:
        with ThreadPoolExecutor(16) as pool:
            while not stopping.is_set():
                begun = perf_counter()
                list(pool.map(ask, range(services)))
                sleep(max(0.0, begun + 1.0 - perf_counter()))

    thread = threading.Thread(target=loop, daemon=True)
    begun = perf_counter()
    thread.start()
    heard.wait((name(services - 1), 1))
    bench.figure("py-consul: until all services are known", perf_counter() - begun, "s")
    rest = AtRest(bench, bare)
    bench.figure("py-consul: connections", connections(server.port) - 1, "")
    bench.figure("py-consul: requests at rest", rest.requests, "/s", note="500/s is what was asked for")
    bench.figure("py-consul: processor at rest", 100 * rest.busy, "% of one")
    took = latency(bare, heard, services - 1, range(1_000, 1_000 + changes))
    bench.figure("py-consul: a change", took, "ms", note=f"median of {changes}")
    stopping.set()
    thread.join()


def blacksmith(bench: Benchmark, server: ConsulServer, lookups: int) -> None:
    """What a look-up adds to each client that is made; nothing is known in between."""
    module = bench.peer("blacksmith")
    if module is None:
        return

    async def look() -> list[float]:
        discovery = module.AsyncConsulDiscovery(f"{server.url}/v1")
        took = []
        for number in range(lookups):
            begun = perf_counter()
            await discovery.get_endpoint(name(number % 10), None)
            took.append(1e3 * (perf_counter() - begun))
        return took

    bench.figure(
        "blacksmith: one look-up", statistics.median(asyncio.run(look())), "ms", note="made for each client"
    )


def swap(bench: Benchmark) -> None:
    """What a snapshot of a thousand instances costs the thread that takes it."""
    entries: list[Any] = [
        {
            "Node": {"Node": "n", "Address": "10.0.0.1", "Datacenter": "dc1", "Meta": {}},
            "Service": {
                "ID": f"measured:{number:04}",
                "Service": "measured",
                "Address": "10.0.0.1",
                "Port": 1024 + number,
                "Tags": ["blue"],
                "Meta": {"version": "2"},
                "Weights": {"Passing": 1, "Warning": 1},
            },
            "Checks": [{"CheckID": "c", "Status": "passing", "Output": "ready"}],
        }
        for number in range(1_000)
    ]
    bodies = [json.dumps(entries).encode(), json.dumps(entries[1:]).encode()]
    turns = itertools.count()
    machine = LastKnownGood("measured")
    endpoints: EndpointSet[None] = EndpointSet(
        "measured",
        BalancingOptions(),
        create=lambda instance: None,
        dispose=lambda state: None,
        bus=EventBus(),
    )

    def parse(n: int) -> int:
        found: Any = None
        for number in range(n):
            found = json.loads(bodies[number % 2])
        return 0 if found is None else 1

    def take(n: int) -> int:
        step = None
        for _ in range(n):
            number = next(turns)
            instances = parse_instances(json.loads(bodies[number % 2])).instances
            step = machine.answered(instances, now=float(number), woke=True)
            endpoints.update(step.snapshot)
        if step is None or step.snapshot.source is not Source.LIVE or not step.changed:
            raise BenchmarkError("nothing was swapped")
        return 1

    bench.case(Case("json.loads of 1,000 instances", parse, expected=1))
    bench.case(
        Case(
            "an answer of 1,000 instances until the balancer has it",
            take,
            expected=1,
            baseline="json.loads of 1,000 instances",
            note="parsed, compared, one instance fewer or more each time",
        )
    )
    bench.figure(
        "chassis: memory of an instance",
        bytes_each(lambda number: parse_instances(json.loads(json.dumps([entries[number % 1_000]]))), 500),
        "bytes",
        note="as discovery keeps it",
    )


def build(bench: Benchmark) -> None:
    """One process after the other on one agent, then the swap alone."""
    services, changes, lookups = (60, 1, 20) if bench.quick else (500, 10, 300)
    server = start_consul()
    bench.versions["consul"] = server.version
    try:
        bare = Bare(server)
        for number in range(services):
            for instance in range(2):
                register(bare, name(number), instance)
        ours(bench, server, bare, services, changes)
        py_consul(bench, server, bare, services, changes)
        blacksmith(bench, server, lookups)
        bare.close()
    finally:
        server.close()
    swap(bench)


if __name__ == "__main__":
    main("discovery_scale", build)
