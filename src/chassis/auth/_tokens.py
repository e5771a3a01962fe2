from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jwt
from jwt.exceptions import (
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    InvalidTokenError,
    MissingRequiredClaimError,
)

from chassis.auth._errors import AuthError
from chassis.auth._jwks import JWKS
from chassis.auth._keyset import Key
from chassis.auth._options import TokenOptions
from chassis.auth._principal import Principal
from chassis.core import Clock

_LONGEST_TOKEN = 16 * 1024
_LATEST = 1e12
# Time is judged here and not by PyJWT, against the clock that also ends a remembered verdict.
_CHECKS: Any = {"require": ["exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False}


class _Verdict(NamedTuple):
    principal: Principal
    key: Key
    not_before: float
    expires: float


class TokenVerifier:
    """Verifies JWTs (RFC 7519) against a provider's key set.

    A verdict is remembered under the hash of the whole token until the token expires or its key
    leaves the set. The header's ``jku``, ``x5u``, ``jwk`` and ``x5c`` are ignored: a token does not
    choose its own key.

    :param keys: the provider's keys.
    :param realm: names the protected space in challenges, e.g. ``users``.
    :param wall: seconds since the epoch; a token's times are wall times by definition.
    """

    def __init__(
        self,
        keys: JWKS,
        options: TokenOptions,
        *,
        realm: str = "api",
        wall: Clock = time.time,  # noqa: TID251 - `exp` and `nbf` are instants on the wall clock (RFC 7519, 4.1.4)
    ) -> None:
        self.keys = keys
        self.options = options
        self.realm = realm
        self._wall = wall
        self._verdicts: dict[bytes, _Verdict] = {}

    async def verify(self, token: str) -> Principal:
        """Who ``token`` says is calling.

        :raises AuthError: the token proves nothing; 401.
        :raises KeysUnavailable: it cannot be judged now; 503.
        """
        await self.keys.freshen()
        if len(token) > _LONGEST_TOKEN or not token.isascii():
            raise self.refusal("the token is malformed")
        digest = hashlib.sha256(token.encode()).digest()
        verdict = self._verdicts.get(digest)
        if verdict is None or not self.keys.holds(verdict.key):
            verdict = await self._judge(token)
            self._remember(digest, verdict)
        self._check_times(verdict)
        return verdict.principal

    def challenge(self, why: str | None = None) -> str:
        """The ``WWW-Authenticate`` value of a 401 (RFC 6750, 3).

        :param why: the refusal; None if no token was sent, which is no error yet.
        """
        realm = f'Bearer realm="{self.realm}"'
        return realm if why is None else f'{realm}, error="invalid_token", error_description="{why}"'

    def refusal(self, why: str) -> AuthError:
        """The error for a token refused because of ``why``."""
        return AuthError(why, challenge=self.challenge(why))

    async def _judge(self, token: str) -> _Verdict:
        try:
            header = jwt.get_unverified_header(token)
        except (InvalidTokenError, RecursionError):
            raise self.refusal("the token is malformed") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self.options.algorithms:
            raise self.refusal("the token's algorithm is not accepted")
        key = await self.keys.find(kid, algorithm)
        if key is None:
            raise self.refusal("the token's key is not known")
        claims = self._claims(token, key, algorithm)
        principal = Principal(
            subject=claims.get("sub", ""), scheme="jwt", claims=claims, scopes=_scopes(claims)
        )
        not_before = self._instant(claims, "nbf") if "nbf" in claims else float("-inf")
        return _Verdict(principal, key, not_before, self._instant(claims, "exp"))

    def _claims(self, token: str, key: Key, algorithm: str) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key.material,
                # From the token, but only after it was found among those accepted and fit for this key.
                algorithms=[algorithm],
                audience=self.options.audience,
                issuer=self.options.issuer,
                options=_CHECKS,
            )
        except InvalidSignatureError:
            raise self.refusal("the token's signature does not match") from None
        except InvalidAudienceError:
            raise self.refusal("the token is not meant for this audience") from None
        except InvalidIssuerError:
            raise self.refusal("the token is from another issuer") from None
        except MissingRequiredClaimError as error:
            raise self.refusal(f"the token has no claim {error.claim}") from None
        except InvalidTokenError:
            raise self.refusal("the token is malformed") from None

    def _instant(self, claims: Mapping[str, Any], name: str) -> float:
        value = claims[name]
        # Finite and small: NaN would never expire, and JSON knows integers that no float holds.
        if isinstance(value, bool) or not isinstance(value, int | float) or not -_LATEST < value < _LATEST:
            raise self.refusal(f"the token's claim {name} is no instant")
        return float(value)

    def _check_times(self, verdict: _Verdict) -> None:
        now, leeway = self._wall(), self.options.leeway
        if now >= verdict.expires + leeway:
            raise self.refusal("the token has expired")
        if now < verdict.not_before - leeway:
            raise self.refusal("the token is not valid yet")

    def _remember(self, digest: bytes, verdict: _Verdict) -> None:
        if len(self._verdicts) >= self.options.cache_size:
            # Oldest first: dictionaries keep their order, and tokens of one provider expire in it.
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[digest] = verdict


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    value = claims.get("scope", claims.get("scp", ""))
    if isinstance(value, str):
        return frozenset(value.split())
    return (
        frozenset(each for each in value if isinstance(each, str)) if isinstance(value, list) else frozenset()
    )
