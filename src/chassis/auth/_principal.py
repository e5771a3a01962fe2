from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling, as far as it was proven.

    :param subject: the token's ``sub``, or the API key's consumer; "" if the token names nobody.
    :param scheme: how it was proven: ``jwt`` or ``api-key``.
    :param claims: the verified token's claims; empty for an API key.
    :param scopes: what the caller may do, from the claims ``scope`` (RFC 8693) or ``scp``.
    """

    subject: str
    scheme: str
    # Left out of repr: claims are personal data, and principals end up in logs.
    claims: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)
    scopes: frozenset[str] = frozenset()
