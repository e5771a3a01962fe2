"""The agent as a process: its ready line, its end, and how its server treats odd clients."""

import asyncio
import http.client
import json
import signal
import socket
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from chassis.core.errors import ConfigError
from chassis.devagent import DevAgent, create_app, serve
from tests.support.ports import free_port
from tests.support.processes import ManagedProcess
from tests.support.waiting import eventually, wait_until

RUN = "from chassis.devagent import run; run(port=0)"


@pytest.fixture
def process():
    with ManagedProcess.python("-c", RUN, name="chassis-dev") as process:
        yield process


@pytest.fixture
def address(process):
    return urlsplit(process.wait_for_json("address")["address"])


@pytest.fixture(scope="module")
def server():
    """One agent for what leaves it unharmed."""
    with ManagedProcess.python("-c", RUN, name="chassis-dev") as process:
        yield urlsplit(process.wait_for_json("address")["address"])


def request(address, method, path, body=None, headers=None):
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=10)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()


def blocked(address, answers):
    thread = threading.Thread(
        target=lambda: answers.append(request(address, "GET", "/v1/kv/none?index=9999&wait=60s"))
    )
    thread.start()
    return thread


def test_the_ready_line_names_the_service_and_the_address(process):
    """One JSON line, printed when it listens: what a parent process waits for."""
    line = process.wait_for_json("address")
    assert line["service"] == "chassis-dev"
    assert request(urlsplit(line["address"]), "GET", "/v1/status/leader")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_queries_open(process, address, number):
    """Blocked queries are answered, idle connections closed; exit status 0 in less than a second."""
    answers = []
    threads = [blocked(address, answers) for _ in range(5)]
    with closing(http.client.HTTPConnection(address.hostname, address.port)) as idle:
        idle.request("GET", "/v1/status/leader")
        idle.getresponse().read()
        time.sleep(0.2)  # the queries have no way to say that they wait; late ones are refused
        began = time.monotonic()
        process.signal(number)
        assert process.wait(5) == 0
        assert time.monotonic() - began < 1
    for thread in threads:
        thread.join(5)
    assert [status for status, _ in answers] == [404] * 5
    assert process.tail() == process.output.splitlines()[0]  # nothing but the ready line


def test_a_port_in_use_is_one_error_that_says_what_to_do():
    """It names the setting, where its value came from, and the remedy."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            asyncio.run(serve(port=port, origin="--port"))
    assert caught.value.setting == "port"
    assert str(caught.value) == (
        f"port: 127.0.0.1:{port} is in use by another process (from --port); "
        "end that process, or choose another port (0 takes any free one)"
    )


def test_two_agents_never_share_a_port(process, address):
    """A second one fails, rather than taking every other request into a state of its own."""
    with pytest.raises(ConfigError, match="in use"):
        asyncio.run(serve(port=address.port))


@pytest.mark.parametrize(
    ("host", "port", "setting"),
    [("127.0.0.1", 70000, "port"), ("192.0.2.1", 0, "host"), ("no.such.invalid", 0, "host")],
)
def test_an_address_that_cannot_be_bound_is_a_config_error(host, port, setting):
    """So is a port that is none and a host that is not here."""
    with pytest.raises(ConfigError) as caught:
        asyncio.run(serve(host, port))
    assert caught.value.setting == setting
    assert caught.value.remedy


@pytest.mark.asyncio
async def test_served_within_a_program_it_stops_when_told():
    """serve() takes the state, a callback and an event, and leaves nothing behind."""
    agent, stop, addresses = DevAgent(), asyncio.Event(), []
    port = free_port()
    task = asyncio.create_task(serve(port=port, agent=agent, ready=addresses.append, stop=stop))
    await eventually(lambda: addresses, what="the ready callback")
    assert addresses == [f"http://127.0.0.1:{port}"]
    agent.put_key("k", b"from the program")
    status, body = await asyncio.to_thread(request, urlsplit(addresses[0]), "GET", "/v1/kv/k?raw")
    assert (status, body) == (200, b"from the program")
    stop.set()
    await asyncio.wait_for(task, 2)


@pytest.mark.asyncio
async def test_any_asgi_server_serves_the_application():
    """Uvicorn too; its lifespan's end lets blocked queries go."""
    import uvicorn

    app = create_app()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, what="uvicorn to start")
    host, port = server.servers[0].sockets[0].getsockname()
    address = urlsplit(f"http://{host}:{port}")
    assert await asyncio.to_thread(request, address, "PUT", "/v1/kv/k", b"v") == (200, b"true")
    waiting = asyncio.create_task(asyncio.to_thread(request, address, "GET", "/v1/kv/k?index=9999&wait=60s"))
    await asyncio.sleep(0.1)
    app.stop()
    assert (await asyncio.wait_for(waiting, 2))[0] == 200
    server.should_exit = True
    await asyncio.wait_for(task, 5)


# Odd clients


def test_a_connection_serves_one_request_after_another(server):
    """Keep-alive, and requests sent before the answers came."""
    with closing(socket.create_connection((server.hostname, server.port), timeout=5)) as client:
        client.sendall(b"PUT /v1/kv/p HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n1" * 3)
        client.sendall(b"GET /v1/kv/p?raw HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: client.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 200") == 4
    assert answers.endswith(b"\r\n\r\n1")


def test_a_body_in_chunks_is_read(server):
    """A length need not be known before."""
    chunks = iter([b"ab", b"cd"])
    with closing(http.client.HTTPConnection(server.hostname, server.port, timeout=5)) as connection:
        connection.request(
            "PUT", "/v1/kv/chunks", chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
        )
        assert connection.getresponse().read() == b"true"
    assert request(server, "GET", "/v1/kv/chunks?raw") == (200, b"abcd")


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(server):
    """Expect: 100-continue, as curl sends it."""
    with closing(socket.create_connection((server.hostname, server.port), timeout=5)) as client:
        client.sendall(
            b"PUT /v1/kv/e HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n"
        )
        assert client.recv(1024).startswith(b"HTTP/1.1 100")
        client.sendall(b"1")
        assert client.recv(1024).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x00junk\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 100_000]
)
def test_what_is_no_http_is_refused_and_harms_nobody(server, junk):
    """400 (or 431) and the connection is closed; the next client is served."""
    with closing(socket.create_connection((server.hostname, server.port), timeout=5)) as client:
        client.sendall(junk)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 4")
    assert request(server, "GET", "/v1/status/leader")[0] == 200


def test_a_client_that_leaves_its_query_is_forgotten(process, address):
    """A hundred abandoned queries of a minute each hold nothing: the process's sockets go with them."""
    descriptors = Path(f"/proc/{process.pid}/fd")
    if not descriptors.is_dir():
        pytest.skip("this system does not list a process's descriptors")

    def count():
        return len(list(descriptors.iterdir()))

    before = count()
    clients = [socket.create_connection((address.hostname, address.port)) for _ in range(100)]
    for client in clients:
        client.sendall(b"GET /v1/kv/none?index=9999&wait=60s HTTP/1.1\r\nhost: a\r\n\r\n")
    wait_until(lambda: count() >= before + 100, what="the queries to arrive")
    for client in clients:
        client.close()
    wait_until(lambda: count() <= before, what="the sockets to be closed")
    assert process.running


@pytest.mark.parametrize("size", [600_000, 5_000_000])
def test_a_body_over_the_limit_gets_its_answer(server, size):
    """413 reaches a client that is still sending."""
    status, body = request(server, "PUT", "/v1/kv/big", b"x" * size)
    assert (status, b"too large" in body) == (413, True)


# What it lacks


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/session/create"),
        ("GET", "/v1/health/state/any"),
        ("GET", "/v1/health/checks/orders"),
        ("GET", "/v1/catalog/node/x"),
        ("GET", "/v1/agent/members"),
        ("PUT", "/v1/agent/check/register"),
        ("PUT", "/v1/agent/check/deregister/x"),
        ("GET", "/v1/acl/tokens"),
        ("PUT", "/v1/event/fire/x"),
        ("GET", "/v1/health/service/orders?filter=Service.Port==80"),
        ("GET", "/v1/health/service/orders?node-meta=a:b"),
        ("GET", "/v1/health/service/orders?near=elsewhere"),
        ("GET", "/v1/health/service/orders?cached"),
        ("GET", "/v1/catalog/services?ns=team"),
        ("GET", "/v1/agent/service/orders?hash=abc"),
        ("PUT", "/v1/kv/lock?acquire=session"),
        ("PUT", "/v1/kv/lock?release=session"),
    ],
)
def test_what_it_lacks_is_501_with_a_sentence(server, method, path):
    """Never an empty list or a plausible body: whoever needs more learns it at once."""
    status, body = request(server, method, path)
    assert status == 501
    assert body.decode().startswith("chassis dev does not have ")


@pytest.mark.parametrize(
    "body",
    [
        {"Name": "x", "Check": {"HTTP": "http://127.0.0.1/", "Interval": "10s"}},
        {"Name": "x", "Check": {"TCP": "127.0.0.1:80", "Interval": "10s"}},
        {"Name": "x", "Kind": "connect-proxy"},
        {"Name": "x", "Connect": {"SidecarService": {}}},
    ],
)
def test_a_registration_that_needs_more_is_501_and_not_registered(server, body):
    """A check that nobody would carry out must not look registered."""
    status, text = request(server, "PUT", "/v1/agent/service/register", json.dumps(body))
    assert (status, b"chassis dev does not have" in text) == (501, True)
    assert request(server, "GET", "/v1/health/service/x") == (200, b"[]")


@pytest.mark.parametrize(
    "operation",
    [
        {"Node": {"Verb": "get", "Node": {"Node": "x"}}},
        {"KV": {"Verb": "lock", "Key": "k", "Session": "s"}},
        {"KV": {"Verb": "check-session", "Key": "k"}},
    ],
)
def test_a_transaction_that_needs_more_is_501(server, operation):
    """Nodes, services and sessions in a transaction."""
    status, text = request(server, "PUT", "/v1/txn", json.dumps([operation]))
    assert (status, b"chassis dev does not have" in text) == (501, True)


def test_what_consul_does_not_know_either_is_404(server):
    """501 is for what a real agent would answer."""
    assert request(server, "GET", "/v1/nope")[0] == 404
    assert request(server, "GET", "/metrics")[0] == 404
    assert request(server, "GET", "/") == (200, b"Consul Agent")


def test_a_folder_without_its_slash_is_redirected(server):
    """As Go's router does."""
    with closing(http.client.HTTPConnection(server.hostname, server.port, timeout=5)) as connection:
        connection.request("GET", "/v1/kv?keys")
        response = connection.getresponse()
        assert (response.status, response.headers["location"]) == (301, "/v1/kv/?keys")


def test_options_and_wrong_methods_name_the_right_ones(server):
    """405 with Allow; OPTIONS answers it."""
    with closing(http.client.HTTPConnection(server.hostname, server.port, timeout=5)) as connection:
        for method, status in (("OPTIONS", 200), ("POST", 405)):
            connection.request(method, "/v1/kv/a")
            response = connection.getresponse()
            response.read()
            assert (response.status, response.headers["allow"]) == (status, "OPTIONS,GET,PUT,DELETE")
