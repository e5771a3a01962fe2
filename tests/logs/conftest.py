from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def fresh_server_loggers() -> Iterator[None]:
    """The loggers of uvicorn as in a new process: a test elsewhere may have run a server in this one."""
    kept = []
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        kept.append((logger, logger.handlers, logger.level, logger.propagate, logger.disabled))
        logger.handlers, logger.propagate, logger.disabled = [], True, False
        logger.setLevel(logging.NOTSET)
    yield
    for logger, handlers, level, propagate, disabled in kept:
        logger.handlers, logger.propagate, logger.disabled = handlers, propagate, disabled
        logger.setLevel(level)
