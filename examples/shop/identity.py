"""Issues tokens, and publishes the keys that verify them: each key well before the first token it signs."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from fastapi import Body, FastAPI
from pydantic import BaseModel, Field

from chassis import Chassis


class IdentitySettings(BaseModel):
    keys: Path = Field(default_factory=lambda: Path(mkdtemp()))  # shared by all instances
    audience: str = "shop"
    lifetime: int = 60  # seconds a token is good for


app = FastAPI()
chassis = Chassis("identity")
chassis.install(app)
settings = chassis.settings(IdentitySettings)
load = lru_cache(lambda file: load_pem_private_key(file.read_bytes(), password=None))


def published() -> list[Path]:
    """The files of the previous key, the one that signs, and the next one."""
    while len(files := sorted(settings.keys.glob("*.pem"))) < 2:
        rotate()
    return files[-3:]


@app.post("/rotate", status_code=204)
def rotate() -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    new = settings.keys / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}.new"
    new.write_bytes(pem)
    new.rename(new.with_suffix(".pem"))  # whole, or not there


@app.get("/.well-known/jwks.json")
def jwks():
    keys = {file.stem: load(file).public_key() for file in published()}
    return {
        "keys": [
            {**jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True), "kid": kid} for kid, key in keys.items()
        ]
    }


@app.post("/token")
def token(user: str = Body(embed=True)):
    file = published()[-2]
    now = datetime.now(UTC)
    expires = now + timedelta(seconds=settings.lifetime)
    claims = {"sub": user, "aud": settings.audience, "iat": now, "exp": expires}
    signed = jwt.encode(claims, load(file), "ES256", {"kid": file.stem})
    return {"access_token": signed, "token_type": "Bearer", "expires_in": settings.lifetime}
