from __future__ import annotations

import hashlib
import hmac
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chassis.auth._errors import AuthError
from chassis.auth._principal import Principal
from chassis.core import ConfigError

_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def hash_api_key(key: str) -> str:
    """What to write into the configuration for ``key``: ``sha256:`` and 64 hexadecimal digits.

    Plain SHA-256 is enough for keys that were drawn at random (``secrets.token_urlsafe(32)``); a
    key that a person thought up can be guessed from its hash.
    """
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


class APIKeys:
    """API keys by consumer, known here only by their hashes.

    :param keys: consumer to hash, or to several hashes while one replaces the other; see
        :func:`hash_api_key`.
    :param header: the header that carries the key.
    :raises ConfigError: a value is no hash, or two consumers share a key.
    """

    def __init__(
        self,
        keys: Mapping[str, str | list[str] | tuple[str, ...]],
        *,
        header: str = "X-API-Key",
        realm: str = "api",
    ) -> None:
        self.header = header
        self.realm = realm
        self._consumers: list[tuple[bytes, Principal]] = []
        seen: dict[str, str] = {}
        for consumer, hashes in keys.items():
            principal = Principal(subject=consumer, scheme="api-key")
            for each in hashes if isinstance(hashes, list | tuple) else [hashes]:
                if not _HASH.fullmatch(str(each)):
                    # The value is not shown: it may be the key itself.
                    raise ConfigError(
                        "a value is no hash of a key",
                        setting=f"api_keys.{consumer}",
                        remedy='write "sha256:" and the key\'s SHA-256 in lower-case hexadecimal '
                        '(printf %s "$KEY" | sha256sum), never the key itself',
                    )
                if each in seen:
                    raise ConfigError(
                        f"{consumer!r} and {seen[each]!r} have the same key",
                        setting=f"api_keys.{consumer}",
                        remedy="give each consumer a key of its own",
                    )
                seen[each] = consumer
                self._consumers.append((bytes.fromhex(each.removeprefix("sha256:")), principal))
        if not self._consumers:
            raise ConfigError(
                "no key is given", setting="api_keys", remedy="give at least one consumer a key"
            )

    @classmethod
    def from_file(cls, path: str | Path, *, header: str = "X-API-Key", realm: str = "api") -> APIKeys:
        """Keys from a TOML file of lines ``consumer = "sha256:..."``, or with a list of hashes.

        :raises ConfigError: it cannot be read or used.
        """
        file = Path(path)
        try:
            keys: dict[str, Any] = tomllib.loads(file.read_text())
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not TOML"
            raise ConfigError(
                f"the file {str(file)!r} cannot be used: {why}",
                setting="api_keys_file",
                remedy='name a readable TOML file with lines like acme = "sha256:..."',
            ) from None
        try:
            return cls(keys, header=header, realm=realm)
        except ConfigError as error:
            raise ConfigError(
                error.message, setting=error.setting, origin=str(file), remedy=error.remedy
            ) from None

    def verify(self, key: str) -> Principal:
        """The consumer whose key this is.

        Every hash is compared, in constant time: how long it takes tells nothing of the keys. Some
        0.2 µs each.

        :raises AuthError: it is nobody's.
        """
        digest = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
        found = None
        for known, principal in self._consumers:
            if hmac.compare_digest(known, digest):
                found = principal
        if found is None:
            raise AuthError("the API key is not known", challenge=self.challenge())
        return found

    def challenge(self, why: str | None = None) -> str:
        """The ``WWW-Authenticate`` value of a 401."""
        return f'APIKey realm="{self.realm}", header="{self.header}"'
