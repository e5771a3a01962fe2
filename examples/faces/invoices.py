"""Flask: the same machines behind a sync face, and settings of its own.

Run: INVOICES_CURRENCY=EUR chassis run invoices:app
"""

from flask import Flask
from pydantic import BaseModel

from chassis import Chassis, Secret


class InvoiceSettings(BaseModel):
    currency: str = "USD"
    api_key: Secret = Secret("none")


app = Flask(__name__)
chassis = Chassis("invoices")
chassis.install(app)
orders = chassis.sync_client("orders")
settings = chassis.settings(InvoiceSettings)  # typed, live, with origins; secrets rotate


@app.get("/invoices/<number>")
def invoice(number: str) -> dict:
    order = orders.get(f"/orders/{number}").json()
    return {"order": order, "currency": settings.currency}
