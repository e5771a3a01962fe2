"""Which tokens are believed, and which are not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chassis.auth import JWKS, AuthError, JWKSOptions, KeysUnavailable, TokenOptions, TokenVerifier
from chassis.core import ConfigError
from tests.auth.issuing import Provider, ec_key, jwk, rsa_key

pytestmark = pytest.mark.asyncio


@pytest.fixture
def provider():
    return Provider()


def wall_clock() -> float:
    return time.time_ns() / 1e9


def verifier(provider: Provider, *, wall=wall_clock, **options) -> TokenVerifier:
    keys = JWKS(provider.fetch, options=JWKSOptions(floor=0.0))
    return TokenVerifier(keys, TokenOptions(**{"audience": "shop"} | options), realm="users", wall=wall)


async def refused(provider: Provider, token: str, **options) -> AuthError:
    with pytest.raises(AuthError) as caught:
        await verifier(provider, **options).verify(token)
    assert token not in str(caught.value)
    return caught.value


def b64(value: dict | bytes) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_a_good_rs256_token_names_its_principal(provider):
    """Subject, claims, scheme and scopes."""
    principal = await verifier(provider).verify(provider.token(scope="read write"))
    assert (principal.subject, principal.scheme) == ("ada", "jwt")
    assert principal.scopes == {"read", "write"}
    assert principal.claims["iss"] == "https://identity"
    assert "identity" not in repr(principal)


async def test_a_good_es256_token_is_believed(provider):
    """Keys of both kinds may stand in one set."""
    provider.publish(ec_key(), "curve")
    token = provider.token(ec_key(), kid="curve", algorithm="ES256", scp=["a", 7])
    assert (await verifier(provider).verify(token)).scopes == {"a"}


async def test_a_token_for_another_audience_is_refused(provider):
    """The provider's tokens for another service are valid tokens too."""
    error = await refused(provider, provider.token(aud="warehouse"))
    assert error.why == "the token is not meant for this audience"
    assert 'realm="users", error="invalid_token"' in error.challenge
    await refused(provider, provider.token(without=("aud",)))
    assert await verifier(provider, audience=("warehouse", "shop")).verify(provider.token(aud=["x", "shop"]))


async def test_a_token_of_another_issuer_is_refused_where_one_is_asked_for(provider):
    """``issuer`` is checked only if it is set."""
    assert await verifier(provider, issuer="https://identity").verify(provider.token())
    assert (
        await refused(provider, provider.token(), issuer="https://x")
    ).why == "the token is from another issuer"


async def test_an_expired_token_is_refused_after_the_leeway(provider):
    """Also when it was believed before: a remembered verdict dies with its token."""
    now = wall_clock()
    wall = [now]
    it = verifier(provider, wall=lambda: wall[0], leeway=5.0)
    token = provider.token(exp=int(now) + 60)
    await it.verify(token)
    wall[0] = int(now) + 64
    await it.verify(token)
    wall[0] = int(now) + 65
    for _ in range(2):
        with pytest.raises(AuthError, match="has expired"):
            await it.verify(token)


async def test_a_token_is_refused_before_its_time(provider):
    """``nbf``, with the leeway."""
    now = time.time_ns() // 10**9
    token = provider.token(nbf=now + 60)
    assert (await refused(provider, token)).why == "the token is not valid yet"
    assert await verifier(provider, wall=lambda: now + 56).verify(token)


@pytest.mark.parametrize("exp", ["tomorrow", None, True, float("nan"), float("inf"), 10**400])
async def test_a_token_whose_expiry_is_no_instant_is_refused(provider, exp):
    """NaN would never expire."""
    await refused(provider, provider.token(exp=exp))


async def test_a_token_without_expiry_is_refused(provider):
    """It could never be got rid of."""
    assert (await refused(provider, provider.token(without=("exp",)))).why == "the token has no claim exp"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
async def test_row_38_alg_none_is_refused(provider, alg):
    """Whatever its spelling; with or without a signature."""
    head = b64({"alg": alg, "typ": "JWT", "kid": "first"})
    body = provider.token().split(".")[1]
    for signature in ("", b64(b"x")):
        await refused(provider, f"{head}.{body}.{signature}")


async def test_row_38_a_public_key_is_no_hmac_secret(provider):
    """RS/HS confusion: signed with the public key as a shared secret."""
    pem = (
        rsa_key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    signed = b64({"alg": "HS256", "kid": "first"}) + "." + provider.token().split(".")[1]
    token = signed + "." + b64(hmac.new(pem, signed.encode(), hashlib.sha256).digest())
    assert (await refused(provider, token)).why == "the token's algorithm is not accepted"


async def test_row_38_an_accepted_algorithm_must_fit_the_key(provider):
    """An ES256 token that names the RSA key's id is not verified with it."""
    provider.publish(ec_key(0, ec.SECP384R1), "long")
    token = provider.token(ec_key(), kid="first", algorithm="ES256")
    assert (await refused(provider, token)).why == "the token's key is not known"
    other = provider.token(rsa_key(), kid="first", algorithm="PS256")
    assert (await refused(provider, other)).why == "the token's algorithm is not accepted"


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "unknown", ""])
async def test_row_38_an_unknown_key_id_is_refused(provider, kid):
    """It is compared, and nothing else is done with it."""
    assert (await refused(provider, provider.token(kid=kid))).why == "the token's key is not known"


async def test_row_38_a_token_does_not_choose_its_own_key(provider):
    """``jku``, ``x5u`` and ``jwk`` are ignored: nothing is fetched from there."""
    attacker = rsa_key(1)
    headers = {"jku": "http://evil.test/keys", "x5u": "http://evil.test/cert", "jwk": jwk(attacker, "first")}
    token = provider.token(attacker, headers=headers)
    assert (await refused(provider, token)).why == "the token's signature does not match"
    assert await verifier(provider).verify(provider.token(headers=headers))


async def test_row_38_an_unknown_critical_header_is_refused(provider):
    """RFC 7515, 4.1.11."""
    await refused(provider, provider.token(headers={"crit": ["exotic"], "exotic": 1}))


async def test_a_changed_token_is_refused(provider):
    """One claim changed, and every single part missing."""
    head, body, signature = provider.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "==")) | {"sub": "root"}
    assert (await refused(provider, f"{head}.{b64(claims)}.{signature}")).why.endswith("does not match")


@pytest.mark.parametrize(
    "token", ["x", "..", "a.b", "a.b.c.d", "é.é.é", "\ud800", "." * 1000, "a" * 20_000, b64(b"[" * 10_000) + ".a.b"]
)  # fmt: skip
async def test_what_is_no_token_is_refused(provider, token):
    """An AuthError, never another exception."""
    with pytest.raises(AuthError, match="malformed"):
        await verifier(provider).verify(token)


async def test_claims_of_odd_types_name_nobody_more_than_they_should(provider):
    """A ``sub`` that is no string is malformed; none at all names nobody."""
    await refused(provider, provider.token(sub=7))
    principal = await verifier(provider).verify(provider.token(without=("sub",), scope=7))
    assert (principal.subject, principal.scopes) == ("", frozenset())


async def test_a_verified_token_is_not_verified_again(provider):
    """The second time costs a hash: the very same verdict comes back."""
    it = verifier(provider)
    token = provider.token()
    assert await it.verify(token) is await it.verify(token)


async def test_a_token_of_a_withdrawn_key_is_refused_although_it_was_believed_before(provider):
    """Withdrawing a key takes its tokens away at the next fetch."""
    it = verifier(provider)
    token = provider.token()
    await it.verify(token)
    provider.published = [jwk(rsa_key(1), "second")]
    await it.verify(provider.token(rsa_key(1), kid="second"))
    with pytest.raises(AuthError, match="key is not known"):
        await it.verify(token)


async def test_no_more_verdicts_are_remembered_than_asked_for(provider):
    """The oldest goes first."""
    it = verifier(provider, cache_size=2)
    tokens = [provider.token(jti=str(number)) for number in range(3)]
    first = [await it.verify(token) for token in tokens]
    assert await it.verify(tokens[2]) is first[2]
    assert await it.verify(tokens[1]) is first[1]
    assert await it.verify(tokens[0]) is not first[0]


async def test_a_provider_that_is_down_is_no_reason_to_refuse(provider):
    """The caller gets another type of error."""
    provider.down = OSError()
    with pytest.raises(KeysUnavailable):
        await verifier(provider).verify(provider.token())


async def test_a_challenge_without_a_token_names_no_error(provider):
    """RFC 6750, 3.1: a request without credentials has made no mistake yet."""
    assert verifier(provider).challenge() == 'Bearer realm="users"'


@pytest.mark.parametrize(
    "options",
    [{"audience": ""}, {"audience": ()}, {"audience": ("a", "")}, {"algorithms": ("none",)}, {"algorithms": ("HS256",)},
     {"algorithms": ()}, {"leeway": -1}, {"cache_size": 0}, {"issuer": ""}],
)  # fmt: skip
async def test_token_options_that_would_weaken_the_check_are_refused(options):
    """At construction, with a remedy."""
    with pytest.raises(ConfigError) as caught:
        TokenOptions(**{"audience": "shop"} | options)
    assert caught.value.remedy
    assert caught.value.setting == next(iter(options))


@pytest.mark.parametrize(
    "options",
    [{"refresh": 0}, {"floor": -1}, {"unknown_burst": 0}, {"unknown_refill": 0}, {"fetch_timeout": 0}],
)  # fmt: skip
async def test_jwks_options_are_checked(options):
    """At construction."""
    with pytest.raises(ConfigError):
        JWKSOptions(**options)


async def test_pyjwt_decides_about_the_signature(provider):
    """What we believe, an independent call of the library believes too."""
    token = provider.token()
    principal = await verifier(provider).verify(token)
    assert (
        jwt.decode(token, rsa_key().public_key(), algorithms=["RS256"], audience="shop") == principal.claims
    )
