"""Guarded functions as endpoints and dependencies of FastAPI, which reads their signatures."""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel

from chassis.breaker import CircuitBreaker, KeyedBreakers
from chassis.core.pipeline import Pipeline


class Order(BaseModel):
    amount: int


def customer() -> str:
    return "ada"


@pytest.mark.asyncio
async def test_trap_30_fastapi_injects_into_guarded_functions(make: Any) -> None:
    """Path, body and dependencies arrive in every kind, with annotations that are text, as here."""
    app, breaker = FastAPI(), make()
    kinds: dict[str, Any] = {
        "breaker": breaker,
        "keyed": KeyedBreakers("shops", key=lambda **call: call["shop"], register=False),
        "pipeline": Pipeline(CircuitBreaker("inner", register=False)),
    }
    for name, policy in kinds.items():

        @app.post(f"/{name}/sync/{{shop}}")
        @policy
        def endpoint(shop: str, order: Order, who: Annotated[str, Depends(customer)]) -> list[Any]:
            return [shop, order.amount, who]

        @app.post(f"/{name}/async/{{shop}}")
        @policy
        async def aendpoint(shop: str, order: Order, who: Annotated[str, Depends(customer)]) -> list[Any]:
            return [shop, order.amount, who]

    @breaker
    def session(shop: str) -> Generator[str, None, None]:
        yield f"session of {shop}"

    @app.get("/session/{shop}")
    async def uses(value: str = Depends(session)) -> str:
        return value

    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
        for name in kinds:
            for colour in ("sync", "async"):
                answer = await client.post(f"/{name}/{colour}/books", json={"amount": 3})
                assert answer.json() == ["books", 3, "ada"]
        assert (await client.get("/session/books")).json() == "session of books"
        assert (await client.post("/breaker/async/books", json={})).status_code == 422
    assert breaker.describe()["calls"] == 3
