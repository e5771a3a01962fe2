"""The shop's services, each for itself: with no registry, no collector and no settings but addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

from examples.shop.received import Received
from tests.support.ports import free_port
from tests.support.processes import ManagedProcess
from tests.support.waiting import wait_until

# For their time: each needs several processes.
pytestmark = pytest.mark.integration


def service(name: str, **env: str) -> ManagedProcess:
    env["CHASSIS_SERVER__DRAIN"] = "0"  # nobody else is to learn of its end
    return ManagedProcess.python(
        "-m", "chassis.cli", "run", f"examples.shop.switches:{name}", "--port", "0", name=name, env=env
    ).start()


def address(process: ManagedProcess) -> str:
    return process.wait_for_json("service", "address", timeout=30)["address"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ManagedProcess]]:
    """All but orders at once, then orders, which is told where the others are."""
    folder = tmp_path_factory.mktemp("shop")
    running = {name: service(name) for name in ("catalog", "payments", "recommendations")}
    running["identity"] = service("identity", IDENTITY_KEYS=str(folder))
    try:
        running["orders"] = service(
            "orders",
            ORDERS_JOURNAL=str(folder / "orders.db"),
            CHASSIS_SERVICES__CATALOG=address(running["catalog"]),
            CHASSIS_SERVICES__PAYMENTS=address(running["payments"]),
        )
        yield running
    finally:
        for process in running.values():
            process.stop()


def ask(process: ManagedProcess, method: str, path: str, **options: Any) -> httpx2.Response:
    return httpx2.request(method, address(process) + path, timeout=30, **options)


def test_catalog_has_items_and_no_others(shop: dict[str, ManagedProcess]) -> None:
    assert ask(shop["catalog"], "GET", "/items/tea").json() == {"item": "tea", "price": 4.0}
    assert len(ask(shop["catalog"], "GET", "/items").json()) == 4
    assert ask(shop["catalog"], "GET", "/items/coffee").status_code == 404


def test_recommendations_knows_everybody(shop: dict[str, ManagedProcess]) -> None:
    assert ask(shop["recommendations"], "GET", "/for/ann").json() == ["teapot", "honey"]
    assert ask(shop["recommendations"], "GET", "/for/eve").json() == ["tea"]


def test_payments_a_flask_service_reads_a_request_body_under_chassis_run(
    shop: dict[str, ManagedProcess],
) -> None:
    answer = ask(
        shop["payments"], "POST", "/charges", json={"total": 4.0}, headers={"Idempotency-Key": "order-1"}
    )
    assert (answer.status_code, answer.json()) == (201, {"charge": "order-1", "amount": 4.0})


def test_identity_publishes_every_key_before_it_signs_with_it(shop: dict[str, ManagedProcess]) -> None:
    """Whoever fetched the keys before a rotation can verify the tokens issued after it."""
    for _ in range(3):
        known = jwt.PyJWKSet.from_dict(ask(shop["identity"], "GET", "/.well-known/jwks.json").json())
        assert ask(shop["identity"], "POST", "/rotate").status_code == 204
        token = ask(shop["identity"], "POST", "/token", json={"user": "ann"}).json()["access_token"]
        key = known[jwt.get_unverified_header(token)["kid"]]
        assert jwt.decode(token, key, ["ES256"], audience="shop")["sub"] == "ann"


def test_identity_still_publishes_the_key_of_tokens_issued_before_a_rotation(
    shop: dict[str, ManagedProcess],
) -> None:
    token = ask(shop["identity"], "POST", "/token", json={"user": "ann"}).json()["access_token"]
    ask(shop["identity"], "POST", "/rotate")
    known = jwt.PyJWKSet.from_dict(ask(shop["identity"], "GET", "/.well-known/jwks.json").json())
    jwt.decode(token, known[jwt.get_unverified_header(token)["kid"]], ["ES256"], audience="shop")


def place(shop: dict[str, ManagedProcess], item: str = "teapot") -> httpx2.Response:
    return ask(shop["orders"], "POST", "/orders", json={"item": item})


def events(shop: dict[str, ManagedProcess], order: str, count: int, last: str = "0") -> list[tuple[str, str]]:
    """The ids and texts of the first events of an order's stream."""
    found: list[dict[str, str]] = [{}]
    url = f"{address(shop['orders'])}/orders/{order}/events"
    with httpx2.stream("GET", url, headers={"Last-Event-ID": last}, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            found[-1][name] = value
            if not line:
                if len(found) == count:
                    break
                found.append({})
    return [(each["id"], json.loads(each["data"])) for each in found]


def test_an_order_is_priced_charged_and_told_of_as_events(shop: dict[str, ManagedProcess]) -> None:
    answer = place(shop)
    assert answer.status_code == 201
    order = answer.json()
    assert (order["total"], order["state"]) == (32.0, "paid")
    (first, placed), (_, paid) = events(shop, order["order"], 2)
    assert (placed, paid) == ("placed", "paid")
    assert [text for _, text in events(shop, order["order"], 1, last=first)] == ["paid"]


def test_an_item_or_order_that_does_not_exist_is_404(shop: dict[str, ManagedProcess]) -> None:
    assert place(shop, "coffee").status_code == 404
    assert ask(shop["orders"], "GET", "/orders/none/events").status_code == 404


def test_while_payments_fails_orders_are_accepted_and_paid_for_later(shop: dict[str, ManagedProcess]) -> None:
    ask(shop["payments"], "POST", "/switch?mode=fail")
    order = place(shop).json()
    assert order["state"] == "payment pending"
    assert ask(shop["payments"], "GET", "/switch").json()["arrived"] > 0
    ask(shop["payments"], "POST", "/switch?mode=ok")
    assert [text for _, text in events(shop, order["order"], 3)] == ["placed", "payment pending", "paid"]


def test_what_a_service_says_it_accepted_is_what_the_receiver_has(tmp_path: Path) -> None:
    """The last words of a process are exact: every span and record it accepted was delivered."""
    file = tmp_path / "received.jsonl"
    with ManagedProcess.python("-m", "examples.shop.collector", str(file)) as collector:
        catalog = service(
            "catalog",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.wait_for_json("address")["address"],
            OTEL_RESOURCE_ATTRIBUTES="service.instance.id=catalog-1",
            CHASSIS_OTLP__LINGER="60s",  # or what nobody flushed is delivered all the same, in time
        )
        try:
            for _ in range(20):
                ask(catalog, "GET", "/items")
            assert catalog.terminate() == 0
        finally:
            catalog.stop()
        line = json.loads(next(each for each in catalog.output.splitlines() if '"process.stopped"' in each))
        told = line["fields"]["telemetry"]
        received = Received(file).counts()["catalog-1"]
    assert told["traces"]["accepted"] == received["traces"] == 20
    assert told["logs"]["accepted"] == received["logs"] >= 20


def test_orders_answers_when_nothing_it_needs_is_there() -> None:
    """With no infrastructure a service starts and serves; what it cannot do is refused with a reason."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    process = service("orders", CHASSIS_SERVICES__CATALOG=nowhere, CHASSIS_SERVICES__PAYMENTS=nowhere)
    try:
        wait_until(lambda: ask(process, "GET", "/readyz").status_code == 200, 30)
        refused = ask(process, "POST", "/orders", json={"item": "tea"})
        assert (refused.status_code, "catalog" in refused.json()["detail"]) == (503, True)
    finally:
        process.stop()
