"""What else a user may like. Nobody depends on it: a page without it is still a page."""

from fastapi import FastAPI

from chassis import Chassis

FAVOURITES = {"ann": ["teapot", "honey"], "bob": ["tea"]}

app = FastAPI()
chassis = Chassis("recommendations")
chassis.install(app)


@app.get("/for/{user}")
async def recommended(user: str):
    return FAVOURITES.get(user, ["tea"])
