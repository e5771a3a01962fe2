from fastapi import FastAPI

from chassis import Chassis

app = FastAPI()
chassis = Chassis("hello")
chassis.install(app)


@app.get("/hello")
async def hello() -> dict[str, str]:
    return {"hello": "world"}
