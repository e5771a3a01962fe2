from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_seconds
from chassis.discovery import is_host


@dataclass(frozen=True, kw_only=True)
class ConsulOptions:
    """How a Consul agent is reached.

    :param url: ``http://host:port`` or ``https://host:port`` of the agent's HTTP API.
    :param token: ACL token; sent in a header, never in a URL, and never shown.
    :param token_file: file holding the token, read again when Consul refuses the one in hand, or hides all
        instances of a service from it.
    :param auth: ``user:password`` for a proxy before the agent that asks for them; never shown.
    :param datacenter: the datacenter asked; "" for the agent's own.
    :param ca: file or folder of the certificates to trust, for https.
    :param certificate: file with the client's certificate chain, for mutual TLS.
    :param key: file with its private key; "" if it is in the same file.
    :param verify: whether the agent's certificate is verified.
    :param tls_server_name: name the certificate must bear; "" for the host in ``url``.
    :param connect_timeout: seconds to wait for a connection.
    :param timeout: seconds to wait for an answer, on top of the wait of a blocking query, and then for the
        rest of it: a large one has a second more for each 128 KiB that has come.
    :raises ConfigError: a value cannot be used.
    """

    url: str = "http://127.0.0.1:8500"
    token: str = field(default="", repr=False)
    token_file: str = ""
    auth: str = field(default="", repr=False)
    datacenter: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True
    tls_server_name: str = ""
    connect_timeout: Seconds = 1.0
    timeout: Seconds = 5.0

    def __post_init__(self) -> None:
        check_seconds("connect_timeout", self.connect_timeout)
        check_seconds("timeout", self.timeout)
        _check_url(self.url, "url", None)
        if self.token and self.token_file:
            raise ConfigError(
                "both token and token_file are given", setting="token", remedy="give one of the two"
            )
        if not self.token.isprintable() or not self.token.isascii():
            raise ConfigError(
                "the token holds characters no header can carry",
                setting="token",
                remedy="check for a newline",
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> ConsulOptions:
        """The options that Consul's own environment variables describe.

        ``CONSUL_HTTP_ADDR`` (with or without a scheme), ``CONSUL_HTTP_SSL``, ``CONSUL_HTTP_TOKEN``,
        ``CONSUL_HTTP_TOKEN_FILE``, ``CONSUL_HTTP_AUTH``, ``CONSUL_HTTP_SSL_VERIFY``, ``CONSUL_CACERT``, ``CONSUL_CAPATH``,
        ``CONSUL_CLIENT_CERT``, ``CONSUL_CLIENT_KEY``, ``CONSUL_TLS_SERVER_NAME``. As in Consul's own
        tools a token file wins over a token, and a scheme in the address over ``CONSUL_HTTP_SSL``.

        :param environment: in place of ``os.environ``.
        :raises ConfigError: a variable's value cannot be used.
        """
        environ = os.environ if environment is None else environment

        def get(name: str) -> str:
            return environ.get(name, "").strip()

        address = get("CONSUL_HTTP_ADDR") or "127.0.0.1:8500"
        if "://" not in address:
            tls = _boolean("CONSUL_HTTP_SSL", get("CONSUL_HTTP_SSL"), default=False)
            address = f"{'https' if tls else 'http'}://{address}"
        _check_url(address, "CONSUL_HTTP_ADDR", "the environment")
        token_file = get("CONSUL_HTTP_TOKEN_FILE")
        return cls(
            url=address.rstrip("/"),
            token="" if token_file else get("CONSUL_HTTP_TOKEN"),
            token_file=token_file,
            auth=get("CONSUL_HTTP_AUTH"),
            ca=get("CONSUL_CACERT") or get("CONSUL_CAPATH"),
            certificate=get("CONSUL_CLIENT_CERT"),
            key=get("CONSUL_CLIENT_KEY"),
            verify=_boolean("CONSUL_HTTP_SSL_VERIFY", get("CONSUL_HTTP_SSL_VERIFY"), default=True),
            tls_server_name=get("CONSUL_TLS_SERVER_NAME"),
        )


def _check_url(url: str, setting: str, origin: str | None) -> None:
    remedy = "write http://host:port or https://host:port"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(
            f"{url!r} cannot be parsed: {error}", setting=setting, origin=origin, remedy=remedy
        ) from error
    if parts.scheme == "unix":
        raise ConfigError(
            f"{url!r} is a unix socket, which is not supported", setting=setting, origin=origin, remedy=remedy
        )
    if parts.username or parts.password:
        # The address is shown in /health and logs, so it must hold no password, nor does this message.
        raise ConfigError(
            "the address holds a user name or password",
            setting=setting,
            origin=origin,
            remedy=f"{remedy}, and give the credential as token",
        )
    if parts.query or parts.fragment or any(each.isspace() for each in url):
        raise ConfigError(
            f"{url!r} holds more than an address", setting=setting, origin=origin, remedy=remedy
        )
    if parts.scheme not in ("http", "https") or not is_host(parts.hostname or "") or port == 0:
        raise ConfigError(
            f"{url!r} is not the address of an agent", setting=setting, origin=origin, remedy=remedy
        )


def _boolean(name: str, value: str, *, default: bool) -> bool:
    if not value:
        return default
    # The forms Go's strconv.ParseBool takes, which Consul's own tools use.
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ConfigError(
        f"{value!r} is neither true nor false",
        setting=name,
        origin="the environment",
        remedy="write true or false",
    )
