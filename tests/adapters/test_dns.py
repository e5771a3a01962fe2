"""Services as DNS knows them, from a small name server of our own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import dns.rcode
import pytest
import pytest_asyncio

from chassis.adapters.dns import DNSDiscovery, DNSOptions
from chassis.core import ConfigError, Freshness, Reason, Snapshot, Source, Subscription
from tests.support.name_server import NameServer
from tests.support.waiting import eventually


class Watching:
    def __init__(self, server: NameServer | None, service: str, **options: Any) -> None:
        if server is not None:
            options["nameservers"] = (server.address,)
        self.discovery = DNSDiscovery(DNSOptions(**{"timeout": 0.3, "refresh": 0.2, **options}))
        self.heard: list[Snapshot] = []
        self.subscription: Subscription = self.discovery.subscribe(service, self.heard.append)

    @property
    def urls(self) -> list[str]:
        return [each.url for each in self.heard[-1].instances]

    async def until(self, condition: Callable[[Snapshot], Any], what: str, timeout: float = 5.0) -> Snapshot:
        await eventually(lambda: self.heard and condition(self.heard[-1]), timeout, what)
        return self.heard[-1]

    async def first(self) -> Snapshot:
        return await self.until(lambda each: True, "the first snapshot")


@pytest.fixture
def server() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.close()


@pytest_asyncio.fixture
async def watch() -> AsyncIterator[Callable[..., Watching]]:
    made: list[Watching] = []

    def watch(*args: Any, **options: Any) -> Watching:
        made.append(Watching(*args, **options))
        return made[-1]

    yield watch
    for each in made:
        each.subscription.close()


@pytest.mark.asyncio
async def test_the_addresses_of_a_name_are_its_instances(server: NameServer, watch: Any) -> None:
    server.put("catalog", "A", "10.0.0.2", "10.0.0.1")
    server.put("catalog", "AAAA", "fd00::1")
    watching = watch(server, "catalog", port=8080)
    told = await watching.first()
    assert watching.urls == ["http://10.0.0.1:8080", "http://10.0.0.2:8080"]
    assert [each.id for each in told.instances] == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert (told.source, told.freshness, told.reason) == (Source.DNS, Freshness.FRESH, None)
    assert watching.discovery.describe()["catalog"]["source"] == "dns"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("scheme", "url"), [("http", "http://[fd00::1]:80"), ("https", "https://[fd00::1]:443")]
)
async def test_case_37_ipv6_counts_where_there_is_no_ipv4(
    server: NameServer, watch: Any, scheme: str, url: str
) -> None:
    server.put("catalog", "AAAA", "fd00::1")
    watching = watch(server, "catalog", scheme=scheme)
    await watching.first()
    assert watching.urls == [url]


@pytest.mark.asyncio
async def test_a_changed_record_is_seen_after_its_time_to_live_without_restart(
    server: NameServer, watch: Any
) -> None:
    server.put("catalog", "A", "10.0.0.1", ttl=1)
    watching = watch(server, "catalog")
    await watching.first()
    server.put("catalog", "A", "10.0.0.9", ttl=1)
    begun = time.monotonic()
    await watching.until(lambda each: watching.urls == ["http://10.0.0.9:80"], "the change")
    assert time.monotonic() - begun < 1.6


@pytest.mark.asyncio
async def test_a_record_is_not_asked_for_again_before_its_time_to_live_is_over(
    server: NameServer, watch: Any
) -> None:
    server.put("long", "A", "10.0.0.1", ttl=3600)
    server.put("none", "A", "10.0.0.1", ttl=0)
    await watch(server, "long").first()
    await watch(server, "none").first()
    await asyncio.sleep(1.3)
    assert server.asked.count(("long", "A")) == 1
    # A time to live of 0 is taken as a second: nobody is to be asked without pause.
    assert server.asked.count(("none", "A")) == 2


@pytest.mark.asyncio
async def test_srv_records_bear_port_weight_and_priority(server: NameServer, watch: Any) -> None:
    """The lowest priority is called first, whatever the numbers are."""
    server.put(
        "_http._tcp.catalog.example",
        "SRV",
        "10 5 8080 a.example.",
        "10 0 8081 b.example.",
        "20 9 8082 backup.example.",
    )
    server.put("a.example", "A", "10.0.0.1", "10.0.0.2")
    server.put("b.example", "AAAA", "fd00::1")
    server.put("backup.example", "A", "10.0.0.9")
    watching = watch(server, "catalog", records="srv", domain="example")
    told = await watching.first()
    assert [(each.id, each.weight, each.priority) for each in told.instances] == [
        ("10.0.0.1:8080", 5, 0),
        ("10.0.0.2:8080", 5, 0),
        ("10.0.0.9:8082", 9, 1),
        ("[fd00::1]:8081", 1, 0),
    ]


@pytest.mark.asyncio
async def test_a_headless_service_of_kubernetes_is_found_and_followed(server: NameServer, watch: Any) -> None:
    """By its named port, in its cluster's domain; a pod that goes takes its record with it."""
    domain = "default.svc.cluster.local"
    for pod in ("1", "2"):
        server.put(f"10-1-0-{pod}.catalog.{domain}", "A", f"10.1.0.{pod}")
    record = "_web._tcp.catalog." + domain
    pods = [f"0 50 9000 10-1-0-{pod}.catalog.{domain}." for pod in ("1", "2")]
    server.put(record, "SRV", *pods)
    watching = watch(server, "catalog", records="srv", port_name="web", domain=domain)
    await watching.first()
    assert watching.urls == ["http://10.1.0.1:9000", "http://10.1.0.2:9000"]
    server.put(record, "SRV", pods[1])
    await watching.until(lambda each: watching.urls == ["http://10.1.0.2:9000"], "the pod to go")


@pytest.mark.asyncio
async def test_a_target_without_an_address_is_no_instance(server: NameServer, watch: Any) -> None:
    server.put("_http._tcp.catalog", "SRV", "0 1 80 a.example.", "0 1 80 b.example.")
    server.put("b.example", "A", "10.0.0.2")
    watching = watch(server, "catalog", records="srv")
    await watching.first()
    assert watching.urls == ["http://10.0.0.2:80"]


@pytest.mark.asyncio
async def test_targets_that_lead_to_one_address_are_one_instance(server: NameServer, watch: Any) -> None:
    """The one that is to be called first counts."""
    server.put("_http._tcp.catalog", "SRV", "9 1 80 b.example.", "0 7 80 a.example.")
    for name in ("a.example", "b.example"):
        server.put(name, "A", "10.0.0.1")
    told = await watch(server, "catalog", records="srv").first()
    assert [(each.url, each.weight, each.priority) for each in told.instances] == [
        ("http://10.0.0.1:80", 7, 0)
    ]


@pytest.mark.asyncio
async def test_an_srv_target_of_a_dot_says_that_there_is_no_such_service(
    server: NameServer, watch: Any
) -> None:
    server.put("_https._tcp.catalog", "SRV", "0 0 443 .")
    told = await watch(server, "catalog", records="srv", scheme="https").first()
    assert told.instances == ()
    assert told.reason is Reason.NOT_REGISTERED


@pytest.mark.asyncio
@pytest.mark.parametrize("service", ["unknown", "known", "x" * 70, "a..b"])
@pytest.mark.parametrize("records", ["address", "srv"])
async def test_a_name_that_does_not_exist_or_has_no_address_is_a_service_without_instances(
    server: NameServer, watch: Any, service: str, records: str
) -> None:
    server.put("known", "TXT", "text")
    server.put("_http._tcp.known", "TXT", "text")
    told = await watch(server, service, records=records).first()
    assert (told.instances, told.reason, told.freshness) == ((), Reason.NOT_REGISTERED, Freshness.FRESH)


@pytest.mark.asyncio
async def test_a_name_that_comes_to_exist_is_found(server: NameServer, watch: Any) -> None:
    watching = watch(server, "late")
    await watching.first()
    server.put("late", "A", "10.0.0.1")
    await watching.until(lambda each: each.instances, "the address")


@pytest.mark.asyncio
async def test_a_name_that_ceases_to_exist_in_quiet_times_is_believed(server: NameServer, watch: Any) -> None:
    server.put("catalog", "A", "10.0.0.1")
    watching = watch(server, "catalog")
    await watching.first()
    server.records.clear()
    told = await watching.until(lambda each: not each.instances, "its end")
    assert told.reason is Reason.NOT_REGISTERED


@pytest.mark.asyncio
@pytest.mark.parametrize("trouble", ["servfail", "silence"])
async def test_name_servers_in_trouble_take_no_instance_away(
    server: NameServer, watch: Any, trouble: str
) -> None:
    server.put("catalog", "A", "10.0.0.1")
    watching = watch(server, "catalog")
    await watching.first()
    if trouble == "silence":
        server.silent = True
    else:
        server.rcode = dns.rcode.SERVFAIL
    await watching.until(lambda each: each.freshness is Freshness.STALE, "staleness")
    assert watching.urls == ["http://10.0.0.1:80"]
    server.silent, server.rcode = False, dns.rcode.NXDOMAIN
    asked = len(server.asked)
    await eventually(lambda: len(server.asked) >= asked + 4, what="two lookups, of both types each")
    assert watching.urls == ["http://10.0.0.1:80"], (
        "a server that has just come back is not believed to know nothing"
    )
    if trouble == "servfail":
        # Unless no caller can connect to any of them: then the one that denies the name is probably right.
        watching.subscription.doubt()
        await watching.until(lambda each: not each.instances, "the emptiness to be believed", 2.0)
    server.rcode = None
    await watching.until(lambda each: each.freshness is Freshness.FRESH and each.instances, "freshness")


@pytest.mark.asyncio
async def test_name_servers_that_never_answered_are_told_of(server: NameServer, watch: Any) -> None:
    server.silent = True
    told = await watch(server, "catalog").first()
    assert told.reason is Reason.REGISTRY_DOWN


@pytest.mark.asyncio
async def test_a_name_of_the_hosts_file_is_known_too(watch: Any) -> None:
    watching = watch(None, "localhost", port=8001)
    await watching.until(lambda each: each.instances, "the address", 10)
    assert watching.urls == ["http://127.0.0.1:8001"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"records": "MX"}, "records: 'MX' is not known; give address or srv"),
        ({"scheme": "ftp"}, "scheme: 'ftp' is not known"),
        ({"port": 0}, "port: 0 is not a port"),
        ({"port": True}, "port: True is not a port"),
        ({"port": "80"}, "port: '80' is not a port"),
        ({"refresh": 0}, "refresh: 0 is not a duration"),
        ({"timeout": -1}, "timeout: -1 is not a duration"),
        (
            {"nameservers": ("dns.example",)},
            "nameservers: 'dns.example' is no name server; give IP addresses",
        ),
        ({"nameservers": ("10.0.0.1:port",)}, "nameservers: '10.0.0.1:port' is no name server"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DNSOptions(**options)
    assert str(caught.value).startswith(message)


def test_name_servers_may_be_of_either_family_with_or_without_a_port() -> None:
    from chassis.adapters.dns import _nameserver

    assert [_nameserver(each) for each in ("10.0.0.1", "10.0.0.1:54", "fd00::1", "[fd00::1]:54")] == [
        ("10.0.0.1", 53),
        ("10.0.0.1", 54),
        ("fd00::1", 53),
        ("fd00::1", 54),
    ]


WITHOUT = """
import sys, threading
sys.modules["dns"] = None
from chassis.adapters.dns import DNSDiscovery, DNSOptions
for options in (DNSOptions(records="srv"), DNSOptions(nameservers=("10.0.0.1",))):
    try: DNSDiscovery(options)
    except ImportError as error: print(error)
heard = threading.Event()
def listener(snapshot):
    print([each.url for each in snapshot.instances], snapshot.reason)
    heard.set()
for name in ("localhost", "x" * 70):
    heard.clear()
    DNSDiscovery(DNSOptions(port=81)).subscribe(name, listener)
    assert heard.wait(10)
"""


def test_without_dnspython_the_systems_resolver_serves_and_the_extra_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    needs = "SRV records and nameservers need dnspython: pip install 'chassis-kit[dns]'"
    assert done.stdout.splitlines() == [
        needs,
        needs,
        "['http://127.0.0.1:81'] None",
        "[] Reason.NOT_REGISTERED",
    ]


def test_importing_the_adapter_does_not_import_dnspython() -> None:
    program = "import sys, chassis.adapters.dns; print('dns' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
