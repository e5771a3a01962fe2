"""Takes orders, charges for them, and tells how each one goes as an event stream."""

import asyncio
from collections.abc import AsyncIterable
from typing import Annotated
from uuid import uuid4

import httpx2
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel

from chassis import Chassis, fallback, timeout
from examples.shop.journal import PENDING, Journal


class OrdersSettings(BaseModel):
    journal: str = ":memory:"  # a file that all instances share


class Wanted(BaseModel):
    item: str


app = FastAPI()
chassis = Chassis("orders")
chassis.install(app)
settings = chassis.settings(OrdersSettings)
catalog = chassis.client("catalog")
payments = chassis.client("payments", timeout=0.8)
journal = Journal(lambda: settings.journal)


@fallback(PENDING, on=httpx2.HTTPError)
async def charge(order: str, total: float) -> str:
    named = {"Idempotency-Key": order}
    (await payments.post("/charges", json={"total": total}, headers=named)).raise_for_status()
    return "paid"


@app.post("/orders", status_code=201)
async def place(wanted: Wanted):
    with timeout(2.0):
        found = await catalog.get(f"/items/{wanted.item}")
        if found.status_code == 404:
            raise HTTPException(404, f"the shop has no {wanted.item}")
        order, total = uuid4().hex, found.raise_for_status().json()["price"]
        journal.append(order, "placed", total)
        state = await charge(order, total)
    journal.append(order, state, total)
    return {"order": order, "total": total, "state": state}


@chassis.task(every=1.0)
async def settle() -> None:
    for order, total in journal.pending():
        if await charge(order, total) == PENDING:
            break  # payments is not back yet
        journal.append(order, "paid", total)


async def known(order: str) -> str:
    if not list(journal.after(0, order)):
        raise HTTPException(404, f"there is no order {order}")
    return order


@app.get("/orders/{order}/events", response_class=EventSourceResponse)
async def events(
    order: Annotated[str, Depends(known)], last_event_id: Annotated[int, Header()] = 0
) -> AsyncIterable[ServerSentEvent]:
    seen = last_event_id
    while True:
        for number, event in journal.after(seen, order):
            yield ServerSentEvent(id=str(number), event="order", data=event)
            seen = number
        await asyncio.sleep(0.2)
