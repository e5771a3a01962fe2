"""What one inbound request hands down to everything it causes."""

from __future__ import annotations

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("chassis_request_id", default=None)
"""The id of the request being served here, or None outside one; logs carry it, clients forward it."""
