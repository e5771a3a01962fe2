"""The helpers themselves: a test that waits wrongly or loses a process's last words proves nothing."""

import asyncio
import json
import signal
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.ports import free_port
from tests.support.processes import ManagedProcess, ProcessFailed
from tests.support.servers import BaoServer, ConsulServer
from tests.support.waiting import at_best, at_best_async, eventually, wait_until

READY = "import json, time; print(json.dumps({'service': 'x', 'address': 'a'})); time.sleep(60)"


def test_an_example_may_take_as_long_as_a_busy_machine_needs():
    """In each test by Hypothesis, and in a run of its file alone."""
    assert settings().deadline is None


def test_wait_until_returns_what_became_true():
    """The condition's own value is handed back, and its errors count as not yet."""
    turns = iter([lambda: 1 / 0, lambda: None, lambda: "found"])
    assert wait_until(lambda: next(turns)()) == "found"


def test_wait_until_names_what_it_waited_for():
    """A failure says what was missing and what was last seen."""
    with pytest.raises(AssertionError, match=r"waited 0.05 s for the moon; the condition last gave 0"):
        wait_until(lambda: 0, 0.05, "the moon")


@pytest.mark.asyncio
async def test_eventually_cuts_a_condition_that_hangs():
    """The limit holds though the condition never answers."""
    started = time.monotonic()
    with pytest.raises(AssertionError, match="TimeoutError"):
        await eventually(lambda: asyncio.sleep(30), 0.05, "an answer")
    assert time.monotonic() - started < 5


def test_what_is_quick_at_the_second_try_is_quick():
    """And what is slow each time is told with all its times."""
    times = iter([3.0, 0.1, 9.0])
    at_best(lambda: next(times), 1.0)
    assert next(times) == 9.0
    with pytest.raises(AssertionError, match=r"the wake is to take less than 1 s; it took 1.000, 2.000 s"):
        at_best(iter([1.0, 2.0, 0.1]).__next__, 1.0, "the wake", tries=2)


@pytest.mark.asyncio
async def test_what_is_quick_at_the_second_try_is_quick_in_a_loop_too():
    """The same, awaited."""
    times = iter([3.0, 0.1])

    async def measure():
        return next(times)

    await at_best_async(measure, 1.0)
    times = iter([1.0, 2.0])
    with pytest.raises(AssertionError, match=r"took 1.000, 2.000 s"):
        await at_best_async(measure, 1.0, tries=2)


def test_free_ports_differ():
    """Two servers of one test never get one port."""
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50


def test_a_process_tells_when_it_is_ready_and_ends_by_signal():
    """The ready line is decoded, and a signal goes to the process's own pid."""
    with ManagedProcess.python("-c", READY) as process:
        assert process.wait_for_json("address") == {"service": "x", "address": "a"}
        assert process.terminate() == -signal.SIGTERM
    assert not process.log.exists()


def test_a_process_that_ends_early_shows_its_output():
    """The failure carries the last words, so nobody has to reproduce it to read them."""
    with (
        ManagedProcess.python("-c", "import sys; sys.exit('no such setting')") as process,
        pytest.raises(ProcessFailed, match=r"ended with status 1 before .*\n.*\nno such setting"),
    ):
        process.wait_for_line("ready")


SPINNING = """
import threading
def count():
    while True:
        pass
for _ in range(3):
    threading.Thread(target=count).start()
print("ready")
"""


def test_a_paused_process_stands_still_at_once():
    """All of its threads, also those that were at work."""
    with ManagedProcess.python("-c", SPINNING) as process:
        process.wait_for_line("ready")
        for _ in range(5):
            process.pause()
            stats = [each.read_text() for each in Path(f"/proc/{process.pid}/task").glob("*/stat")]
            assert [each.rpartition(")")[2].split()[0] for each in stats] == ["T"] * 4
            process.resume()


def test_a_paused_process_is_ended_too():
    """Leaving the context ends a stopped process: nothing outlives a test."""
    with ManagedProcess([sys.executable, "-u", "-c", READY]) as process:
        process.wait_for_json()
        process.pause()
    assert process.returncode == -signal.SIGTERM


def test_output_is_that_of_the_latest_start(tmp_path):
    """After a restart, the ready line of the life before is not taken for the new one."""
    process = ManagedProcess.python("-c", "import os; print(os.getpid())", log=tmp_path / "log")
    for _ in range(2):
        process.start()
        assert process.wait_for_line(str(process.pid)) == str(process.pid)
        assert process.wait() == 0


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as response:
        return json.loads(response.read())


def put(url, body=b"", **headers):
    request = urllib.request.Request(url, body, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=5) as response:
        return response.status


def test_a_consul_server_restarts_blank_on_the_same_port(own_consul_server: ConsulServer):
    """What a test of a lost registry needs: same address, nothing remembered."""
    url = own_consul_server.url
    put(f"{url}/v1/kv/here", b"1")
    assert own_consul_server.process.running
    own_consul_server.stop()
    own_consul_server.start()
    assert own_consul_server.url == url
    assert get(f"{url}/v1/kv/?keys") == []


def test_a_paused_consul_server_answers_after_it_resumes(own_consul_server: ConsulServer):
    """A frozen agent keeps its port and says nothing."""
    own_consul_server.pause()
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(f"{own_consul_server.url}/v1/status/leader", timeout=0.3)
    own_consul_server.resume()
    assert wait_until(lambda: get(f"{own_consul_server.url}/v1/status/leader"))


def test_a_bao_server_takes_its_root_token(bao_server: BaoServer):
    """KV version 2 at secret/ is written and read with the fixture's token."""
    token = {"X-Vault-Token": bao_server.token}
    put(f"{bao_server.url}/v1/secret/data/one", b'{"data": {"a": "b"}}', **token)
    assert get(f"{bao_server.url}/v1/secret/data/one", **token)["data"]["data"] == {"a": "b"}
