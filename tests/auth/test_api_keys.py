"""API keys, known by their hashes."""

from __future__ import annotations

import hashlib

import pytest

from chassis.auth import APIKeys, AuthError, hash_api_key
from chassis.core import ConfigError


def test_a_known_key_names_its_consumer():
    """Subject is the consumer; there are no claims."""
    keys = APIKeys({"acme": hash_api_key("k1"), "zeta": hash_api_key("k2")})
    principal = keys.verify("k2")
    assert (principal.subject, principal.scheme, principal.scopes) == ("zeta", "api-key", frozenset())
    assert keys.verify("k1").subject == "acme"


def test_a_consumer_may_have_several_keys_while_one_replaces_the_other():
    """Rotation without an interruption."""
    keys = APIKeys({"acme": [hash_api_key("old"), hash_api_key("new")]})
    assert keys.verify("old").subject == keys.verify("new").subject == "acme"


@pytest.mark.parametrize("key", ["", "k", "k1 ", "K1", "é", "\ud800", hash_api_key("k1")])
def test_an_unknown_key_is_refused(key):
    """The hash itself is no key, and the refusal does not repeat what was sent."""
    with pytest.raises(AuthError) as caught:
        APIKeys({"acme": hash_api_key("k1")}, realm="partners", header="X-Key").verify(key)
    assert caught.value.challenge == 'APIKey realm="partners", header="X-Key"'
    assert caught.value.why == "the API key is not known"


def test_the_hash_is_what_sha256sum_prints():
    """So that it can be made without Python."""
    assert hash_api_key("secret") == "sha256:" + hashlib.sha256(b"secret").hexdigest()


@pytest.mark.parametrize(
    "value", ["plain-key", "sha256:short", "md5:" + "0" * 64, 5, None, [5], "sha256:" + "A" * 64, {}]
)
def test_a_value_that_is_no_hash_is_refused_without_showing_it(value):
    """It may be the key itself."""
    with pytest.raises(ConfigError) as caught:
        APIKeys({"acme": value})
    assert "plain-key" not in str(caught.value)
    assert caught.value.setting == "api_keys.acme"
    assert caught.value.remedy


def test_two_consumers_cannot_share_a_key():
    """Nobody could tell who calls."""
    with pytest.raises(ConfigError, match="same key"):
        APIKeys({"acme": hash_api_key("k"), "zeta": hash_api_key("k")})


def test_no_keys_at_all_are_refused():
    """A guard that lets nobody in is a mistake."""
    with pytest.raises(ConfigError):
        APIKeys({})


def test_keys_may_come_from_a_file(tmp_path):
    """TOML: consumer and hash."""
    file = tmp_path / "keys.toml"
    file.write_text(f'acme = "{hash_api_key("k1")}"\nzeta = ["{hash_api_key("k2")}"]\n')
    assert APIKeys.from_file(file).verify("k2").subject == "zeta"


@pytest.mark.parametrize("content", [None, "not toml", 'acme = "plain"', ""])
def test_a_key_file_that_cannot_be_used_names_itself(tmp_path, content):
    """Setting, origin, remedy."""
    file = tmp_path / "keys.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        APIKeys.from_file(file)
    assert "keys.toml" in str(caught.value)
    assert "plain" not in str(caught.value)
    assert caught.value.remedy
