"""A JSON Web Key Set (RFC 7517), reduced to what may verify a signature here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_BY_CURVE: dict[Any, frozenset[str]] = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_LEAST_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class Key:
    """One public key.

    :param kid: its id, "" if it has none.
    :param algorithms: the signature algorithms it may be used with. Fixed by the key, never by a
        token: that is what stops an RSA key from being used as an HMAC secret.
    :param fingerprint: of the key material and id; equal for the same key in a later document.
    :param material: the key as PyJWT takes it.
    """

    kid: str
    algorithms: frozenset[str]
    fingerprint: str
    material: Any = field(compare=False, repr=False)


def parse_key_set(document: bytes | str) -> tuple[Key, ...]:
    """The usable keys of a JWKS document.

    Keys that are not for signatures, of unknown kinds, malformed, symmetric, private or weak are
    passed over, as RFC 7517 section 5 asks: one strange key must not take the others away.

    :raises ValueError: it is no JWKS, or holds no usable key; the message names the reasons.
    """
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from None
    members = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(members, list):
        raise ValueError('it is no key set: a JSON object with a list "keys" is expected')  # noqa: TRY004 - documented
    keys: dict[str, Key] = {}
    reasons: list[str] = []
    for number, member in enumerate(members):
        try:
            key = _key(member)
        except (ValueError, TypeError) as reason:  # TypeError: a member holds something unhashable
            reasons.append(f"key {number}: {reason}")
        else:
            keys[key.fingerprint] = key
    if not keys:
        raise ValueError("it holds no usable key" + "".join(f"; {each}" for each in reasons[:3]))
    return tuple(keys.values())


def _key(member: Any) -> Key:
    if not isinstance(member, Mapping):
        raise TypeError("it is no object")
    kind = member.get("kty")
    if kind not in _PUBLIC:
        raise ValueError(f"its kind {kind!r} is not RSA, EC or OKP")
    if "d" in member:
        raise ValueError("it is a private key, which whoever reads this document can sign with")
    if member.get("use", "sig") != "sig" or "verify" not in member.get("key_ops", ["verify"]):
        raise ValueError("it is not for signatures")
    algorithms = _RSA if kind == "RSA" else _BY_CURVE.get((kind, member.get("crv")), frozenset[str]())
    if "alg" in member:
        algorithms &= {member["alg"]}
    if not algorithms:
        raise ValueError(
            f"no supported algorithm fits kind {kind}, curve {member.get('crv')}, alg {member.get('alg')}"
        )
    kid = member.get("kid", "")
    if not isinstance(kid, str):
        raise TypeError("its kid is no string")
    public = {"kty": kind, **{name: member.get(name) for name in _PUBLIC[kind]}}
    try:
        material = PyJWK(public, algorithm=min(algorithms)).key
    except (PyJWTError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"its numbers are no key ({type(error).__name__})") from None
    if kind == "RSA" and material.key_size < _LEAST_RSA_BITS:
        raise ValueError(f"an RSA key of {material.key_size} bits is too weak")
    text = json.dumps([kid, sorted(algorithms), public], sort_keys=True)
    return Key(kid, algorithms, hashlib.sha256(text.encode()).hexdigest(), material)
