from __future__ import annotations

import re
from dataclasses import dataclass

from chassis.core import ConfigError
from chassis.core.options import Seconds, check_count, check_seconds
from chassis.retries import HedgeOptions

_PLACEHOLDERS = ("{service}", "{host}")
_SERVER_NAME = re.compile(r"[A-Za-z0-9._:-]+")


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """How a client calls one service.

    :param timeout: seconds one attempt may take until the answer's headers are there.
    :param retries: further attempts that may be sent after the first.
    :param deadline: seconds the whole call may take until the answer's headers are there, when
        the caller has set no deadline of its own.
    :param retry_after_max: seconds, at most, that a call waits because an answer says so
        (``Retry-After``); who is told to wait longer gets that answer.
    :param idle_timeout: seconds between two chunks of the answer's body.
    :param connect_timeout: seconds to establish a connection.
    :param connect_failures: an instance's breaker opens after this many attempts in a row that could
        not connect to it, whatever its own ``consecutive_failures`` is. Who sets that one to None
        leaves answers to the rates; an instance that takes no connection gives none. None here, too,
        leaves both to the breaker's options.
    :param keepalive: seconds an idle connection is kept for another call. Less than the servers keep it
        (gunicorn 2 s, uvicorn 5 s), or a call may be sent as its connection is given up, and fail if it
        may not be sent again.
    :param max_connections: connections per instance; a call that finds none free waits for one
        within its attempt's time.
    :param max_in_flight: calls to the service at once, further ones are refused (``BulkheadFull``);
        None for no limit.
    :param discovery_timeout: seconds the very first call waits for discovery to answer.
    :param hash_header: name of the request header whose value is the key of balancing by hash, where
        the caller gives none with ``extensions={"chassis": {"key": ...}}``; "" for none.
    :param hedge: when an attempt that is slow gets a second one beside it, at another instance. None
        (or its ``extra`` 0) for never. In async clients only: a thread cannot be cancelled.
    :param server_name: the name an ``https`` instance must prove to have, and is asked for (SNI);
        ``{service}`` stands for the service's name, ``{host}`` for the instance's address.
    :param ca: file or folder of the certificates to trust; None for the system's trust store.
    :param certificate: file with the client's own certificate chain, for mutual TLS.
    :param key: file with its private key; None if it is in the same file.
    :raises ConfigError: a value is impossible.
    """

    timeout: Seconds = 3.0
    retries: int = 2
    deadline: Seconds = 10.0
    retry_after_max: Seconds = 60.0
    idle_timeout: Seconds = 60.0
    connect_timeout: Seconds = 1.0
    connect_failures: int | None = 3
    keepalive: Seconds = 1.5
    max_connections: int = 100
    max_in_flight: int | None = None
    discovery_timeout: Seconds = 2.0
    hash_header: str = ""
    hedge: HedgeOptions | None = None
    server_name: str = "{service}"
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    @property
    def hedges(self) -> bool:
        """Whether anything is hedged."""
        return self.hedge is not None and self.hedge.extra > 0

    def __post_init__(self) -> None:
        for field in (
            "timeout",
            "deadline",
            "retry_after_max",
            "idle_timeout",
            "connect_timeout",
            "keepalive",
            "discovery_timeout",
        ):
            check_seconds(field, getattr(self, field))
        check_count("retries", self.retries, least=0)
        check_count("max_connections", self.max_connections)
        if self.connect_failures is not None:
            check_count("connect_failures", self.connect_failures)
        if self.max_in_flight is not None:
            check_count("max_in_flight", self.max_in_flight)
        if self.hedge is not None and not isinstance(self.hedge, HedgeOptions):
            raise ConfigError(
                f"{self.hedge!r} is no HedgeOptions", setting="hedge", remedy="give HedgeOptions()"
            )
        name = self.server_name
        for placeholder in _PLACEHOLDERS:
            name = name.replace(placeholder, "x")
        if not _SERVER_NAME.fullmatch(name):
            raise ConfigError(
                f"{self.server_name!r} is no host name",
                setting="server_name",
                remedy='write a host name; "{service}" and "{host}" stand for what their names say',
            )
        if self.key is not None and self.certificate is None:
            raise ConfigError(
                "a key without a certificate proves nothing",
                setting="key",
                remedy="name the certificate too",
            )
