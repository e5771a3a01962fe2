"""Issues tokens, and publishes the keys that verify them: each key well before the first token it signs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp

import jwt
from fastapi import Body, FastAPI
from pydantic import BaseModel, Field

from chassis import Chassis
from examples.shop.keys import Keys


class IdentitySettings(BaseModel):
    keys: Path = Field(default_factory=lambda: Path(mkdtemp()))  # a folder that all instances share
    audience: str = "shop"
    lifetime: int = 60  # seconds a token is good for


app = FastAPI()
chassis = Chassis("identity")
chassis.install(app)
settings = chassis.settings(IdentitySettings)
keys = Keys(lambda: settings.keys)


@app.get("/.well-known/jwks.json")
def jwks():
    return keys.jwks()


@app.post("/token")
def token(user: str = Body(embed=True)):
    key_id, key = keys.signing()
    now = datetime.now(UTC)
    expires = now + timedelta(seconds=settings.lifetime)
    claims = {"sub": user, "aud": settings.audience, "iat": now, "exp": expires}
    signed = jwt.encode(claims, key, "ES256", {"kid": key_id})
    return {"access_token": signed, "token_type": "Bearer", "expires_in": settings.lifetime}


@app.post("/rotate", status_code=204)
def rotate() -> None:
    keys.add()
