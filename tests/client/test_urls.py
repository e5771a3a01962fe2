"""What a URL means here: a service by its name; redirects; names that TLS is verified for."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from chassis.client import ClientOptions, async_client
from chassis.core import ConfigError, Instance, NoInstance
from chassis.discovery import MemoryDiscovery
from tests.client.calling import Caller, catalog
from tests.client.scripted import ScriptedServer, answer
from tests.support.certificates import Authority
from tests.support.scripted_agent import Answer, Asked, ScriptedAgent

Serve = Callable[..., ScriptedServer]
Calling = Callable[..., Caller]


def moved(target: str) -> Any:
    return answer(302, headers={"Location": target})


def test_case_44_a_redirect_by_the_services_own_name_is_followed(serve: Serve, calling: Calling) -> None:
    """The Host header is the service's name, so what a framework redirects to is the service again."""
    server = serve(script=[moved("http://catalog/items/")])
    response = calling(catalog(server)).get("/items", follow_redirects=True)
    assert (response.status_code, str(response.url)) == (200, "http://catalog/items/")
    assert [request.target for request in server.received] == ["/items", "/items/"]


def test_case_44_a_redirect_to_another_service_goes_to_that_service(serve: Serve, calling: Calling) -> None:
    server, other = serve(moved("http://orders/7")), serve(answer(body=b"order 7"))
    discovery = catalog(server)
    discovery.put(Instance(id="orders-0", service="orders", host="127.0.0.1", port=other.port))
    caller = calling(discovery)
    caller.upstreams.upstream("orders")
    response = caller.get("/", follow_redirects=True, headers={"Authorization": "Bearer mine"})
    assert response.text == "order 7"
    assert response.extensions["chassis"].service == "orders"
    # Another host is another origin: the caller's credentials stay behind.
    assert "authorization" not in other.received[0].headers


@pytest.mark.parametrize(
    "target",
    [
        "http://localhost:{port}/",
        "http://127.0.0.1:{port}/",
        "http://127.0.0.1/",
        "http://[::1]/",
        "ftp://catalog/",
        "http://a b/",
    ],
)
def test_case_44_a_redirect_to_an_address_is_refused_before_anything_is_sent(
    serve: Serve, calling: Calling, target: str
) -> None:
    """It would leave discovery and every guard behind."""
    server, outside = serve(), serve()
    server.behaviour = moved(target.format(port=outside.port))
    caller = calling(catalog(server))
    errors = (caller.http.module.UnsupportedProtocol, caller.http.module.RemoteProtocolError)
    with pytest.raises(errors, match="is no service|Invalid URL"):
        caller.get("/", follow_redirects=True)
    assert outside.received == []


@pytest.mark.parametrize("told", [True, False])
def test_case_44_a_redirect_to_a_service_this_program_does_not_call_is_refused(
    serve: Serve, calling: Calling, told: bool
) -> None:
    """Or whoever is called chose what this program looks up, watches and calls: a new name each time."""
    server, other = serve(), serve()
    discovery = catalog(server)
    discovery.put(Instance(id="orders-0", service="orders", host="127.0.0.1", port=other.port))
    caller = calling(discovery)
    before = caller.registry.items()
    for name in ("orders", "169-254.example", "n1", "n2"):
        server.behaviour = moved(f"http://{name}/")
        with pytest.raises(
            caller.http.module.UnsupportedProtocol, match=f"catalog redirects to {name}, which"
        ):
            if told:
                caller.get("/", follow_redirects=True)
            else:
                # Followed by hand it is a redirect, too.
                request = caller.get("/").next_request
                sent = caller.client.send(request)
                if caller.asynchronous:
                    caller.wait(sent)
        assert not caller.upstreams.calls(name)
    assert caller.registry.items() == before
    assert other.received == []


def test_case_44_the_program_itself_may_name_any_service(serve: Serve, calling: Calling) -> None:
    """Also where it has no client of it; from then on it calls it, and a redirect may lead there."""
    server, other = serve(moved("http://orders/7")), serve()
    discovery = catalog(server)
    discovery.put(Instance(id="orders-0", service="orders", host="127.0.0.1", port=other.port))
    caller = calling(discovery)
    assert caller.get("http://ORDERS/1").status_code == 200
    assert caller.get("/", follow_redirects=True).status_code == 200
    assert [request.target for request in other.received] == ["/1", "/7"]
    with pytest.raises(NoInstance, match=r"nowhere\.example.*nothing is registered"):
        caller.get("http://nowhere.example/")


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────


class Certified(ScriptedAgent):
    """A TLS server that keeps the names it is asked for."""

    def __init__(
        self, authority: Authority, name: str, *names: x509.GeneralName, mutual: bool = False
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue(name, *names))
        if mutual:
            context.load_verify_locations(authority.file)
            context.verify_mode = ssl.CERT_REQUIRED
        self.names: list[str | None] = []
        context.sni_callback = lambda _, name, __: self.names.append(name)
        super().__init__(self.reply, tls=context)

    @staticmethod
    def reply(asked: Asked) -> Answer:
        return Answer(asked.headers["host"])

    def as_instance(self, number: int = 0, scheme: str = "https") -> Instance:
        port = int(self.url.rpartition(":")[2])
        return Instance(id=f"catalog-{number}", service="catalog", host="127.0.0.1", port=port, scheme=scheme)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def named(authority: Authority) -> Iterator[Certified]:
    """Its certificate is for the service's name."""
    with Certified(authority, "catalog", x509.DNSName("catalog")) as server:
        yield server


@pytest.fixture(scope="module")
def qualified(authority: Authority) -> Iterator[Certified]:
    """Its certificate is for the service's name in Consul's domain."""
    with Certified(authority, "qualified", x509.DNSName("catalog.service.consul")) as server:
        yield server


@pytest.fixture(scope="module")
def addressed(authority: Authority) -> Iterator[Certified]:
    """Its certificate is for its own address."""
    with Certified(authority, "addressed", x509.IPAddress(ip_address("127.0.0.1"))) as server:
        yield server


def registered(*instances: Instance) -> MemoryDiscovery:
    discovery = MemoryDiscovery()
    for instance in instances:
        discovery.put(instance)
    return discovery


def test_case_45_an_instance_must_prove_the_services_name_and_is_asked_for_it(
    named: Certified, authority: Authority, calling: Calling
) -> None:
    """As RFC 9110 (section 4.3.4) has it for the URL's host; which address it has, only discovery says."""
    caller = calling(registered(named.as_instance()), ClientOptions(ca=authority.file))
    response = caller.get("/")
    assert response.text == "catalog"  # the Host header
    assert named.names[-1] == "catalog"


def test_case_45_another_name_is_refused_and_the_request_never_sent(
    qualified: Certified, authority: Authority, calling: Calling
) -> None:
    caller = calling(registered(qualified.as_instance()), ClientOptions(ca=authority.file, retries=0))
    with pytest.raises(caller.http.module.ConnectError, match="certificate verify failed"):
        caller.get("/")
    assert qualified.asked == []


def test_case_45_the_name_can_be_set_with_the_services_in_it(
    qualified: Certified, authority: Authority, calling: Calling
) -> None:
    options = ClientOptions(ca=authority.file, server_name="{service}.service.consul")
    response = calling(registered(qualified.as_instance()), options).get("/")
    assert response.text == "catalog"  # the Host header stays logical
    assert qualified.names[-1] == "catalog.service.consul"
    qualified.asked.clear()


def test_case_45_instances_may_prove_their_own_addresses(
    addressed: Certified, authority: Authority, calling: Calling
) -> None:
    options = ClientOptions(ca=authority.file, server_name="{host}")
    assert calling(registered(addressed.as_instance()), options).get("/").text == "catalog"


def test_an_authority_nobody_named_is_not_trusted(named: Certified, calling: Calling) -> None:
    caller = calling(registered(named.as_instance()), ClientOptions(retries=0))
    with pytest.raises(caller.http.module.ConnectError, match="certificate verify failed"):
        caller.get("/")


def test_the_client_shows_its_own_certificate_where_it_is_asked_for(
    authority: Authority, calling: Calling
) -> None:
    certificate, key = authority.issue("orders")
    with Certified(authority, "mutual", x509.DNSName("catalog"), mutual=True) as server:
        options = ClientOptions(ca=authority.file, certificate=certificate, key=key)
        assert calling(registered(server.as_instance()), options).get("/").status_code == 200


def test_https_in_the_url_is_never_sent_in_plain(
    serve: Serve, named: Certified, authority: Authority, calling: Calling
) -> None:
    """Also where the registry knows nothing of TLS: then it is tried, and fails rather than to leak."""
    plain = serve()
    instance = Instance(id="plain", service="catalog", host="127.0.0.1", port=plain.port)
    caller = calling(registered(instance), ClientOptions(ca=authority.file, retries=0))
    with pytest.raises(caller.http.module.HTTPError):
        caller.get("https://catalog/")
    assert plain.received == []
    assert caller.get("http://catalog/").status_code == 200
    caller = calling(registered(named.as_instance(scheme="http")), ClientOptions(ca=authority.file))
    assert caller.get("https://catalog/").status_code == 200


def test_a_file_that_cannot_be_used_is_told_of_and_costs_no_breaker(
    named: Certified, calling: Calling, tmp_path: Path
) -> None:
    caller = calling(registered(named.as_instance()), ClientOptions(ca=str(tmp_path / "missing.pem")))
    with pytest.raises(ConfigError, match=r"missing\.pem' cannot be used"):
        caller.get("/")
    assert caller.in_flight() == 0
    assert caller.breaker().describe()["calls"] == 0


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("server_name", {"server_name": ""}),
        ("server_name", {"server_name": "{name}.example"}),
        ("server_name", {"server_name": "two words"}),
        ("key", {"key": "key.pem"}),
        ("retry_after_max", {"retry_after_max": 0}),
        ("hedge", {"hedge": True}),
    ],
)
def test_options_that_cannot_be_used_are_refused_where_they_are_given(
    field: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as refused:
        ClientOptions(**options)
    assert refused.value.setting == field
    assert refused.value.remedy


def test_a_service_name_that_no_url_can_hold_is_refused() -> None:
    from chassis.client import ServiceUpstreams
    from chassis.core import PolicyRegistry

    upstreams = ServiceUpstreams(MemoryDiscovery, registry=PolicyRegistry())
    with pytest.raises(ConfigError, match="no service name"):
        upstreams.upstream("a b")
    async_client(upstreams, "Catalog")  # compared as host names are
