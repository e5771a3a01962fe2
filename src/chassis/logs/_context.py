"""Fields that every record within a block carries."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Any

bound: ContextVar[dict[str, Any]] = ContextVar("chassis_log_context")
"""The fields that hold here; never changed in place."""
NOTHING: dict[str, Any] = {}


class log_context:  # noqa: N801 - used as a statement's word: with log_context(order=7)
    """Add fields to every record logged inside a ``with`` block, whatever logs it.

    Holds for the code of the block and for tasks started in it. Inner blocks add to outer ones.

    :param fields: names and values; redacted as all fields are.
    """

    __slots__ = ("_fields", "_token")

    def __init__(self, **fields: Any) -> None:
        self._fields = fields
        self._token: Token[dict[str, Any]] | None = None

    def __enter__(self) -> None:
        self._token = bound.set({**bound.get(NOTHING), **self._fields})

    def __exit__(self, *error: object) -> None:
        if self._token is not None:
            bound.reset(self._token)
            self._token = None
