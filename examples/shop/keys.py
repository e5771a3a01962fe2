"""Signing keys in a folder that outlives the process and that all instances share."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm


class Keys:
    """The newest key is published and does not sign yet; the one before it signs; the one before that did.

    :param folder: gives the folder; asked when the keys are first used.
    """

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder

    def add(self) -> None:
        """Publish a new key; the one published last signs from now on."""
        key = generate_private_key(SECP256R1())
        new = self._folder() / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}.new"
        new.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        new.rename(new.with_suffix(".pem"))  # whole, or not there

    def signing(self) -> tuple[str, EllipticCurvePrivateKey]:
        """The id of the key that signs, and the key."""
        file = self._published()[-2]
        return file.stem, _load(file)

    def jwks(self) -> dict[str, Any]:
        """All published keys as a JSON Web Key Set (RFC 7517)."""
        keys = {file.stem: _load(file).public_key() for file in self._published()}
        return {"keys": [{**ECAlgorithm.to_jwk(key, as_dict=True), "kid": kid} for kid, key in keys.items()]}

    def _published(self) -> list[Path]:
        while len(files := sorted(self._folder().glob("*.pem"))) < 2:
            self.add()
        return files[-3:]


@lru_cache
def _load(file: Path) -> Any:
    return load_pem_private_key(file.read_bytes(), password=None)
