"""Secrets: values that do not show themselves, found by reference, followed as they rotate.

A :class:`SecretStore` resolves references such as ``file:/run/secrets/db`` through a resolver per
kind of store, keeps the last good value whatever happens to the store, and sees rotations.
"""

from chassis.core.secrets import Secret, SecretError, SecretVersion
from chassis.secrets._events import SecretLost, SecretRestored, SecretRotated
from chassis.secrets._files import FileSecrets
from chassis.secrets._session import Due, TokenSession
from chassis.secrets._store import LiveSecret, SecretStore

__all__ = [
    "Due",
    "FileSecrets",
    "LiveSecret",
    "Secret",
    "SecretError",
    "SecretLost",
    "SecretRestored",
    "SecretRotated",
    "SecretStore",
    "SecretVersion",
    "TokenSession",
]
