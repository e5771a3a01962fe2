"""The shop's load tells what became of each request, as its caller saw it, and retries nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import consul
import jwt
import pytest

from examples.shop.figures import LoadFile, Window
from tests.support.ports import free_port
from tests.support.processes import ManagedProcess
from tests.support.waiting import wait_until

# For their time.
pytestmark = pytest.mark.integration

RATE = 100
TOKEN = jwt.encode({"sub": "ann"}, "s" * 32, headers={"kid": "key-1"})


class Gateway(BaseHTTPRequestHandler):
    """Answers tea well, honey with 503, and cuts off in the middle of cups."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/token":
            self.answer({"access_token": TOKEN})
        else:
            self.answer({"order": "o-1", "state": "paid"})

    def do_GET(self) -> None:
        if self.path.endswith("/events"):
            self.events()
        elif self.path.startswith("/home"):
            self.answer({"catalog": [], "errors": [{"part": "advice"}]})
        elif self.path.endswith("honey"):
            self.answer({"detail": "no instance"}, 503)
        elif self.path.endswith("cups"):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b'{"item": ')
            self.close_connection = True
        else:
            self.answer({"item": self.path.rpartition("/")[2], "price": 4.0})

    def events(self) -> None:
        """One event, then a clean end; a reader that comes back with its last id gets a cut stream."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"f\r\nid: 7\ndata: 1\n\n\r\n")
        if self.headers["Last-Event-ID"] == "0":
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def answer(self, body: object, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def window() -> Iterator[Window]:
    """Some two seconds of load on a gateway that answers and, from the middle on, one that does not listen too."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with ManagedProcess.python("-m", "chassis.cli", "dev", "--port", "0") as agent:
        address = agent.wait_for_json("address")["address"].removeprefix("http://")
        host, port = address.split(":")
        registry = consul.Consul(host, int(port))
        registry.agent.service.register("gateway", "gateway-1", "127.0.0.1", server.server_address[1])
        with ManagedProcess.python(
            "-m", "examples.shop.load", "--registry", address, "--rate", str(RATE)
        ) as load:
            load.wait_for_json("address")
            figures = LoadFile(load.log)

            def told() -> float:
                figures.read()
                return figures.told_until

            begin = wait_until(told, 20, what="the first report")
            wait_until(lambda: told() > begin + 1, 20, what="a second of load")
            registry.agent.service.register("gateway", "gateway-2", "127.0.0.1", free_port())
            end = wait_until(lambda: told() > begin + 2 and told(), what="another second of load")
            # What was due before the end and not begun yet, as the load itself had to wait, is told now.
            wait_until(lambda: told() > end + 0.3, what="the last requests")
            assert load.terminate() == 0
        window = figures.window(begin, end)
        window.turns = figures.window(0, end).turns
        yield window
    server.shutdown()
    server.server_close()


def test_it_sends_at_its_rate_whatever_is_answered(window: Window) -> None:
    requests = [each for each in window.requests if each["kind"] != "token"]
    assert len(requests) == pytest.approx(RATE * window.seconds, rel=0.1)


def test_its_mix_is_85_catalog_10_orders_5_home(window: Window) -> None:
    kinds = window.count("kind")
    total = kinds["catalog"] + kinds["order"] + kinds["home"]
    assert kinds["catalog"] / total == pytest.approx(0.85, abs=0.03)
    assert kinds["order"] / total == pytest.approx(0.10, abs=0.03)
    assert kinds["home"] / total == pytest.approx(0.05, abs=0.03)


def test_an_error_answer_is_an_error_with_its_text(window: Window) -> None:
    assert any(each.startswith("503 ") and "no instance" in each for each in window.of("catalog").errors)


def test_a_cut_answer_is_cut_and_not_sent_again(window: Window) -> None:
    assert any(each.startswith("cut") for each in window.of("catalog").errors)


def test_a_gateway_that_does_not_listen_is_refused_and_no_other_is_asked(window: Window) -> None:
    refused = [each["at"] for each in window.requests if each.get("error") == "refused"]
    assert min(refused) > window.begin + 0.9
    since = window.since(min(refused))
    assert len(refused) == pytest.approx(len(since.requests) / 2, rel=0.2)


def test_answers_are_told_with_what_the_story_needs(window: Window) -> None:
    assert {each["price"] for each in window.requests if "price" in each} == {4.0}
    assert window.of("order").count("state").keys() == {"paid"}
    assert window.of("home").count("complete").keys() == {False}
    assert window.of("order").count("key").keys() == {"key-1"}


def test_a_stream_that_ends_cleanly_is_none_cut_and_it_reads_on_from_the_last_event(window: Window) -> None:
    first, second = [each for each in window.turns if each["turn"] == "ended"][:2]
    assert "error" not in first
    assert first["events"] == 1
    assert second["error"].startswith("cut")


def test_a_registry_that_is_no_address_is_one_message_and_status_2() -> None:
    with ManagedProcess.python("-m", "examples.shop.load", "--registry", "nowhere") as load:
        assert load.wait() == 2
        assert "write HOST:PORT" in load.output
        assert "Traceback" not in load.output
