"""Calling other services: discovered, balanced, guarded, traced.

Run: CHASSIS_SERVICES__CATALOG=http://localhost:8001 CHASSIS_SERVICES__PAYMENTS=http://localhost:8002 \
     chassis run orders:app
"""

import httpx2
from fastapi import FastAPI

from chassis import Chassis, fallback, timeout

app = FastAPI()
chassis = Chassis("orders")
chassis.install(app)
catalog = chassis.client("catalog")
payments = chassis.client("payments", timeout=0.8, retries=2)


@app.get("/recommended/{user}")
@fallback({"items": []}, on=httpx2.HTTPError)
async def recommended(user: str) -> dict:
    return (await catalog.get("/recommended", params={"user": user})).json()


@app.post("/orders")
async def pay(order: dict) -> dict:
    with timeout(2.0):  # the whole call; what remains leaves as a header
        response = await payments.post("/charges", json=order, headers={"Idempotency-Key": order["id"]})
    call = response.extensions["chassis"]
    return {"charge": response.json(), "instance": call.instance.id, "attempts": call.attempts}
