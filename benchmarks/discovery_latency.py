"""How soon a change in Consul reaches the balancer, beside how soon Consul itself tells of it.

One idle agent, one service of three instances. For each change the same moment is the start of both:
the registration with another weight is about to be sent. A bare client in a thread of its own waits for
it with a blocking query; beside it the watch of this package parses, compares, and gives the balancer its
new snapshot. Both have to get through the same interpreter, so the bare one is no quicker than it can be.
"""

from __future__ import annotations

import statistics
from time import perf_counter, sleep

from benchmarks._consul import Bare, BareWatch, Heard, register, start_consul
from benchmarks.harness import Benchmark, main
from chassis.adapters.consul import ConsulAPI, ConsulDiscovery, ConsulOptions
from chassis.background import background
from chassis.core import EventBus, Snapshot
from chassis.loadbalancing import BalancingOptions, EndpointSet

SERVICE = "measured"
APART = 1.1  # a second and a bit, or the watch would limit itself


def build(bench: Benchmark) -> None:
    """Measure, and set the target: 20 ms above what Consul itself takes."""
    changes = 3 if bench.quick else 100
    server = start_consul()
    bench.versions["consul"] = server.version
    try:
        bare = Bare(server)
        for number in range(3):
            register(bare, SERVICE, number)
        consul, ours = Heard(), Heard()
        watch = BareWatch(server, SERVICE, consul.hear)
        endpoints: EndpointSet[None] = EndpointSet(
            SERVICE,
            BalancingOptions(),
            create=lambda instance: None,
            dispose=lambda state: None,
            bus=EventBus(),
        )

        def update(snapshot: Snapshot) -> None:
            endpoints.update(snapshot)
            for each in snapshot.instances:
                ours.hear(each.weight)

        discovery = ConsulDiscovery(ConsulAPI(ConsulOptions(url=server.url)))
        subscription = discovery.subscribe(SERVICE, update)
        ours.wait(1)
        consul.wait(1)
        took: dict[str, list[float]] = {"consul": [], "ours": [], "added": []}
        for weight in range(2, 2 + changes):
            sleep(APART)
            begun = perf_counter()
            register(bare, SERVICE, weight=weight)
            told, known = consul.wait(weight), ours.wait(weight)
            took["consul"].append(1e3 * (told - begun))
            took["ours"].append(1e3 * (known - begun))
            took["added"].append(1e3 * (known - told))
        watch.stop()
        subscription.close()
        background.start(discovery.aclose, name="close").result(5)
        bare.close()
    finally:
        server.close()
    note = f"median of {changes} changes"
    slowest = sorted(took["ours"])[int(0.95 * (changes - 1))]
    bench.figure(
        "a change until a bare client has read it", statistics.median(took["consul"]), "ms", note=note
    )
    bench.figure("a change until the balancer has it", statistics.median(took["ours"]), "ms", note=note)
    bench.figure("a change until the balancer has it, 95th percentile", slowest, "ms", note=note)
    bench.figure("added to what Consul takes", statistics.median(took["added"]), "ms", note=note)
    bench.target("added to what Consul takes", at_most=20)


if __name__ == "__main__":
    main("discovery_latency", build)
