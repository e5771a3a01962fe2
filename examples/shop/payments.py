"""Charges for orders: a Flask service, run and drained like the others."""

from flask import Flask, request

from chassis import Chassis

app = Flask("payments")
chassis = Chassis("payments")
chassis.install(app)


@app.post("/charges")
def charge():
    # The caller names the charge, so that asking twice charges once.
    order = request.get_json()
    return {"charge": request.headers["Idempotency-Key"], "amount": order["total"]}, 201
