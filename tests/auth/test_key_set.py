"""What a JWKS document is reduced to."""

from __future__ import annotations

import contextlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from chassis.auth._keyset import parse_key_set
from tests.auth.issuing import ec_key, jwk, rsa_key


def parse(*keys):
    return parse_key_set(json.dumps({"keys": keys}))


def refused(member) -> str:
    """Why this member is passed over."""
    with pytest.raises(ValueError, match="no usable key; key 0: ") as caught:
        parse(member)
    return str(caught.value)


def test_the_algorithms_follow_from_the_kind_of_key():
    """RSA keys take the RSA family, a curve its own algorithm."""
    assert {"RS256", "PS256", "RS512"} <= parse(jwk(rsa_key(), "a"))[0].algorithms
    assert parse(jwk(ec_key(), "a"))[0].algorithms == {"ES256"}
    assert parse(jwk(ec_key(0, ec.SECP384R1), "a"))[0].algorithms == {"ES384"}


def test_an_alg_in_the_key_narrows_it_to_that_one():
    """RFC 7517, 4.4."""
    assert parse(jwk(rsa_key(), "a", alg="RS256"))[0].algorithms == {"RS256"}
    assert "alg HS256" in refused(jwk(rsa_key(), "a", alg="HS256"))


def test_symmetric_keys_are_never_taken():
    """A key set is public; a secret in it is none, and would open the door to RS/HS confusion."""
    assert "'oct'" in refused({"kty": "oct", "kid": "a", "k": "c2VjcmV0"})


def test_private_keys_are_never_taken():
    """Whoever reads the document could sign."""
    private = json.loads(RSAAlgorithm.to_jwk(rsa_key()))
    assert "private" in refused(private | {"use": "sig", "key_ops": ["verify"]})


def test_weak_rsa_keys_are_never_taken():
    """RFC 7518, 3.3: 2048 bits or more."""
    assert "1024 bits" in refused(jwk(rsa_key(0, 1024), "a"))


@pytest.mark.parametrize("more", [{"use": "enc"}, {"key_ops": ["encrypt"]}])
def test_keys_for_encryption_are_passed_over(more):
    """Only signature keys verify signatures."""
    assert "not for signatures" in refused(jwk(rsa_key(), "a", **more))


@pytest.mark.parametrize(
    "member",
    [None, [], "key", {}, {"kty": []}, {"kty": "EC", "crv": []}, {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
     {"kty": "RSA", "n": 5, "e": "AQAB"}, {"kty": "RSA", "n": "!!", "e": "AQAB"}, {"kty": "EC", "crv": "P-256"},
     {"kty": "RSA", "key_ops": 5}, {"kty": "RSA", "alg": []}],
)  # fmt: skip
def test_one_strange_key_takes_no_other_away(member):
    """RFC 7517, 5: unknown kinds are ignored."""
    keys = parse(member, jwk(ec_key(), "good"))
    assert [key.kid for key in keys] == ["good"]
    refused(member)


def test_a_key_id_that_is_no_string_is_passed_over():
    """It could never match a token's."""
    assert "kid" in refused(jwk(ec_key(), None) | {"kid": 7})


@pytest.mark.parametrize(
    "document", ["", "{", "[]", "{}", '{"keys": {}}', '{"keys": 5}', "[" * 100_000, b"\xff\xfe"]
)
def test_what_is_no_key_set_is_a_value_error(document):
    """The message says what is expected."""
    with pytest.raises(ValueError, match="not JSON|no key set"):
        parse_key_set(document)


def test_an_empty_key_set_is_refused():
    """A provider that has lost its keys must not take ours away."""
    with pytest.raises(ValueError, match="no usable key"):
        parse_key_set('{"keys": []}')


def test_the_same_key_has_the_same_fingerprint_and_another_has_another():
    """Verdicts and rotation rest on it."""
    one, again = parse(jwk(rsa_key(), "a"))[0], parse(jwk(rsa_key(), "a", use="sig"))[0]
    assert one.fingerprint == again.fingerprint
    others = [jwk(rsa_key(), "b"), jwk(rsa_key(1), "a"), jwk(rsa_key(), "a", alg="RS256")]
    assert len({one.fingerprint, *(parse(other)[0].fingerprint for other in others)}) == 4


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["RSA", "EC", "sig", "P-256"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["keys", "kty", "kid", "n", "e", "crv", "x", "y", "alg", "use", "key_ops"]), inner
        )
    ),
    max_leaves=12,
)


@given(document=json_values)
def test_no_document_gets_anything_but_keys_or_a_value_error(document):
    """Whatever the provider answers."""
    with contextlib.suppress(ValueError):
        assert parse_key_set(json.dumps(document))
