"""What the shop sells. The price level is a live setting: change it, and the next answer has it."""

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from chassis import Chassis

PRICES = {"tea": 4.0, "honey": 8.0, "teapot": 32.0, "cups": 16.0}


class CatalogSettings(BaseModel):
    price_multiplier: float = 1.0


app = FastAPI()
chassis = Chassis("catalog")
chassis.install(app)
settings = chassis.settings(CatalogSettings)


def item(name: str) -> dict[str, object]:
    return {"item": name, "price": PRICES[name] * settings.price_multiplier}


@app.get("/items")
async def items():
    return [item(name) for name in PRICES]


@app.get("/items/{name}")
async def one_item(name: str):
    if name not in PRICES:
        raise HTTPException(404, f"the shop has no {name}")
    return item(name)
