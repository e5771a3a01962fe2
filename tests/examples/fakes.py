"""Services the faces call."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Header

catalog = FastAPI()
orders = FastAPI()


@catalog.post("/charges")
async def charge(order: dict[str, Any], idempotency_key: str = Header()) -> dict[str, Any]:
    return {"charged": order["id"], "key": idempotency_key}


@orders.get("/orders/{number}")
async def order(number: str) -> dict[str, str]:
    return {"number": number}
