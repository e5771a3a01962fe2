"""One datacenter of a service, apart from the others."""

from __future__ import annotations

from chassis.adapters.consul import ConsulDiscoveryOptions, ConsulOptions
from chassis.adapters.consul._datacenter_watch import DatacenterWatch
from chassis.core import Freshness, Instance, Snapshot
from chassis.discovery import Step


def test_case_33_a_datacenter_that_is_watched_no_more_does_not_expire() -> None:
    """It was left because the own one is whole again: that what is known of it is old is no trouble."""
    heard: list[Step] = []
    far = DatacenterWatch(
        ConsulOptions(),
        ConsulDiscoveryOptions(expire_after=10.0),
        service="catalog",
        datacenter="dc2",
        priority=1,
        heard=lambda watch, step: heard.append(step),
    )
    known = Instance(id="b", service="catalog", host="10.0.0.2", port=80, priority=1)
    far.begin(Snapshot(service="catalog", instances=(known,), freshness=Freshness.STALE, fetched_at=0.0))
    far.elapse(1_000.0)
    assert heard == []
