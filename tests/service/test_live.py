"""What changes while a service runs is seen without a restart: in real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.processes import ManagedProcess
from tests.support.servers import BaoServer
from tests.support.waiting import at_best, wait_until

APP = """
from fastapi import FastAPI
from pydantic import BaseModel
from chassis import Chassis, Secret

class Settings(BaseModel):
    price: float = 1.0
    api_key: Secret = Secret("none")

app = FastAPI()
chassis = Chassis("live")
chassis.install(app)
settings = chassis.settings(Settings)

@app.get("/seen")
async def seen():
    return {"price": settings.price, "key_length": len(settings.api_key.reveal()),
            "ends": settings.api_key.reveal()[-1:]}
"""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "live.py").write_text(APP)
    with ExitStack() as stack:

        def start(**environment: str) -> str:
            process = stack.enter_context(
                ManagedProcess.python(
                    *("-m", "chassis.cli", "run", "live:app", "--port", "0"),
                    cwd=tmp_path,
                    env={"CHASSIS_SERVER__DRAIN": "0", **environment},
                )
            )
            return str(process.wait_for_json("service", "address")["address"])

        yield start


def seen(address: str) -> dict[str, Any]:
    return dict(httpx2.get(f"{address}/seen").json())


def test_a_value_changed_in_the_key_value_store_is_seen_within_a_second(serve: Any) -> None:
    with ManagedProcess.python("-m", "chassis.cli", "dev", "--port", "0") as registry:
        url = registry.wait_for_json("address")["address"]
        httpx2.put(f"{url}/v1/kv/config/live/data", content=b"price = 2.0")
        address = serve(CONSUL_HTTP_ADDR=url)
        assert seen(address)["price"] == 2.0
        prices = iter((4.0, 5.0, 6.0))

        def change(price: float) -> float:
            httpx2.put(f"{url}/v1/kv/config/live/data", content=f"price = {price}".encode())
            began = time.monotonic()
            wait_until(lambda: seen(address)["price"] == price, 10, "the change")
            return time.monotonic() - began

        at_best(lambda: change(next(prices)), 1.0, "the change")
        change(3.0)
        httpx2.put(f"{url}/v1/kv/config/live/data", content=b'price = "cheap"')
        wait_until(
            lambda: any(each["bad"] for each in _sources(address).values()), 5, "the bad change to be refused"
        )
        assert seen(address)["price"] == 3.0
        wait_until(lambda: _check(address, "configuration") == "warn", 5, "the check to tell of it")
        # Consul has done what it was asked, and the registration may have been confirmed only now.
        wait_until(lambda: _check(address, "consul") == "pass", 5, "its own check to be well")


def test_a_secret_rotated_in_a_file_is_seen(serve: Any, tmp_path: Path) -> None:
    secret = tmp_path / "api_key"
    secret.write_text("first1")
    address = serve(LIVE_API_KEY_FILE=str(secret))
    assert seen(address)["ends"] == "1"
    secret.write_text("second2")
    wait_until(lambda: seen(address)["ends"] == "2", 5, "the rotation")
    assert "second2" not in httpx2.get(f"{address}/health").text


def test_a_secret_rotated_in_the_store_is_seen(serve: Any, bao_server: BaoServer) -> None:
    write(bao_server, "first1")
    address = serve(
        BAO_ADDR=bao_server.url,
        BAO_TOKEN=bao_server.token,
        LIVE_API_KEY="vault:secret/live#api_key",
        CHASSIS_SECRETS_POLL="200ms",
    )
    assert seen(address)["ends"] == "1"
    write(bao_server, "second2")
    wait_until(lambda: seen(address)["ends"] == "2", 5, "the rotation")


@pytest.mark.integration  # for its time
def test_case_15_a_registry_that_is_down_delays_no_start_and_is_registered_with_when_it_comes(
    serve: Any,
) -> None:
    """It is retried in the background, and /health shows it."""
    from tests.support.ports import free_port

    port = free_port()
    address = serve(CONSUL_HTTP_ADDR=f"127.0.0.1:{port}")
    wait_until(
        lambda: _check(address, "consul") == "warn" or _check(address, "consul") == "fail", 10, "the check"
    )
    assert httpx2.get(f"{address}/readyz").status_code == 200
    with ManagedProcess.python("-m", "chassis.cli", "dev", "--port", str(port)) as registry:
        registry.wait_for_json("address")
        wait_until(
            lambda: httpx2.get(f"http://127.0.0.1:{port}/v1/health/service/live?passing=1").json(),
            20,
            "the service",
        )
        wait_until(lambda: _check(address, "consul") == "pass", 30, "the check to pass")


def write(server: BaoServer, value: str) -> None:
    httpx2.post(
        f"{server.url}/v1/secret/data/live",
        headers={"X-Vault-Token": server.token},
        json={"data": {"api_key": value}},
    ).raise_for_status()


def _sources(address: str) -> dict[str, Any]:
    return dict(httpx2.get(f"{address}/health").json()["configuration"]["sources"])


def _check(address: str, name: str) -> str:
    return str(httpx2.get(f"{address}/health").json()["checks"].get(name, {}).get("status"))
