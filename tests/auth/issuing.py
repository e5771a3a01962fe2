"""An identity provider on a table: real keys, real tokens, a key set that can rotate or be out of reach."""

from __future__ import annotations

import functools
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm


@functools.cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same key for the same number: drawing one takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@functools.cache
def ec_key(number: int = 0, curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


def jwk(key: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    named = {} if kid is None else {"kid": kid}
    public = algorithm.to_jwk(key.public_key(), as_dict=True)
    # PyJWT writes "use" and "key_ops" as it likes; the tests say what they mean.
    return {name: value for name, value in public.items() if name not in ("use", "key_ops")} | named | more


class Provider:
    """Signs tokens with its current key and publishes a key set.

    :ivar fetches: how often the key set was asked for.
    :ivar down: set it, and the key set cannot be fetched.
    """

    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = [jwk(rsa_key(), "first")]
        self.fetches = 0
        self.down: Exception | None = None

    def publish(self, key: Any, kid: str) -> None:
        self.published.append(jwk(key, kid))

    def withdraw(self, kid: str) -> None:
        self.published = [key for key in self.published if key.get("kid") != kid]

    @property
    def document(self) -> bytes:
        return json.dumps({"keys": self.published}).encode()

    async def fetch(self) -> bytes:
        self.fetches += 1
        if self.down is not None:
            raise self.down
        return self.document

    def token(
        self,
        key: Any = None,
        *,
        kid: str | None = "first",
        algorithm: str = "RS256",
        headers: dict[str, Any] | None = None,
        without: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        now = time.time_ns() // 10**9
        payload = {
            "sub": "ada",
            "aud": "shop",
            "iss": "https://identity",
            "iat": now,
            "exp": now + 600,
        } | claims
        for name in without:
            del payload[name]
        named = {} if kid is None else {"kid": kid}
        key = rsa_key() if key is None else key
        return jwt.encode(payload, key, algorithm=algorithm, headers=named | (headers or {}))
