"""Who is calling: JWTs from a rotating key set, and API keys.

A credential is turned into a :class:`Principal`, or refused with an :class:`AuthError` whose text may
be shown to the caller. Keys of a provider are fetched by a function that is handed in, so this package
speaks no HTTP.
"""

from chassis.auth._api_keys import APIKeys, hash_api_key
from chassis.auth._errors import AuthError, KeysUnavailable
from chassis.auth._events import KeysChanged, KeysFetchFailed
from chassis.auth._jwks import JWKS
from chassis.auth._keyset import Key
from chassis.auth._options import JWKSOptions, TokenOptions
from chassis.auth._principal import Principal
from chassis.auth._tokens import TokenVerifier

__all__ = [
    "JWKS",
    "APIKeys",
    "AuthError",
    "JWKSOptions",
    "Key",
    "KeysChanged",
    "KeysFetchFailed",
    "KeysUnavailable",
    "Principal",
    "TokenOptions",
    "TokenVerifier",
    "hash_api_key",
]
