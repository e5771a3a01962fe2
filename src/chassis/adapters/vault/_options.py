from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_seconds
from chassis.core.secrets import Secret

_LOGIN_FILE = ".vault-token"


@dataclass(frozen=True, kw_only=True)
class VaultOptions:
    """How an OpenBao or Vault server is reached, and who we are there.

    Give a token, a file with one, or an AppRole (``role_id`` and its secret id).

    :param url: ``https://host:port`` of the server.
    :param token: a token given by somebody else: renewed if it can be, never revoked.
    :param token_file: file with a token, read again when the server no longer knows the one in hand.
    :param role_id: of an AppRole to log in with.
    :param secret_id: its secret id; None if the role needs none.
    :param secret_id_file: file with the secret id, read again at each login.
    :param approle_mount: where the AppRole method is mounted.
    :param namespace: the namespace asked; "" for the root's.
    :param ca: file or folder of the certificates to trust.
    :param certificate: file with the client's certificate chain, for mutual TLS.
    :param key: file with its private key; "" if it is in the same file.
    :param verify: whether the server's certificate is verified.
    :param tls_server_name: name the certificate must bear; "" for the host in ``url``.
    :param connect_timeout: seconds to wait for a connection.
    :param timeout: seconds to wait for an answer.
    :param poll: seconds between two reads of a secret in use, give or take a tenth.
    :raises ConfigError: a value cannot be used.
    """

    url: str = "https://127.0.0.1:8200"
    token: Secret | None = None
    token_file: str = ""
    role_id: str = ""
    secret_id: Secret | None = None
    secret_id_file: str = ""
    approle_mount: str = "approle"
    namespace: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True
    tls_server_name: str = ""
    connect_timeout: Seconds = 1.0
    timeout: Seconds = 5.0
    poll: Seconds = 30.0

    def __post_init__(self) -> None:
        check_seconds("connect_timeout", self.connect_timeout)
        check_seconds("timeout", self.timeout)
        check_seconds("poll", self.poll)
        _check_url(self.url)
        ways = [
            name
            for name, given in (
                ("token", self.token),
                ("token_file", self.token_file),
                ("role_id", self.role_id),
            )
            if given
        ]
        if len(ways) > 1:
            raise ConfigError(
                f"{' and '.join(ways)} are given", setting=ways[0], remedy="give one way to be known"
            )
        if (self.secret_id or self.secret_id_file) and not self.role_id:
            raise ConfigError("is not given", setting="role_id", remedy="give the role of the secret id")
        if self.secret_id and self.secret_id_file:
            raise ConfigError(
                "both secret_id and secret_id_file are given",
                setting="secret_id",
                remedy="give one of the two",
            )
        for name in ("token", "secret_id"):
            secret: Secret | None = getattr(self, name)
            if secret is not None and not (secret.reveal().isascii() and secret.reveal().isprintable()):
                raise ConfigError(
                    "holds characters no header can carry", setting=name, remedy="check for a newline"
                )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> VaultOptions:
        """The options that OpenBao's and Vault's own environment variables describe.

        ``BAO_ADDR``, ``BAO_TOKEN``, ``BAO_NAMESPACE``, ``BAO_CACERT``, ``BAO_CAPATH``,
        ``BAO_CLIENT_CERT``, ``BAO_CLIENT_KEY``, ``BAO_SKIP_VERIFY``, ``BAO_TLS_SERVER_NAME``, each
        with ``VAULT_`` in place of ``BAO_`` where that one is not set; beside them, in the same two
        forms, ``TOKEN_FILE``, ``ROLE_ID``, ``SECRET_ID`` and ``SECRET_ID_FILE``. An AppRole wins over
        a token, a token over a file, and ``~/.vault-token`` is the last resort, as in the servers'
        own tools.

        :param environment: in place of ``os.environ``.
        :raises ConfigError: a variable's value cannot be used.
        """
        environ = os.environ if environment is None else environment

        def get(name: str) -> str:
            return environ.get(f"BAO_{name}", "").strip() or environ.get(f"VAULT_{name}", "").strip()

        role_id = get("ROLE_ID")
        token = "" if role_id else get("TOKEN")
        token_file = "" if role_id or token else get("TOKEN_FILE") or _helper_file(environ)
        secret_id = get("SECRET_ID") if role_id else ""
        return cls(
            url=get("ADDR") or "https://127.0.0.1:8200",
            token=Secret(token) if token else None,
            token_file=token_file,
            role_id=role_id,
            secret_id=Secret(secret_id) if secret_id else None,
            secret_id_file=get("SECRET_ID_FILE") if role_id and not secret_id else "",
            namespace=get("NAMESPACE"),
            ca=get("CACERT") or get("CAPATH"),
            certificate=get("CLIENT_CERT"),
            key=get("CLIENT_KEY"),
            verify=not _boolean("SKIP_VERIFY", get("SKIP_VERIFY")),
            tls_server_name=get("TLS_SERVER_NAME"),
        )


def _helper_file(environ: Mapping[str, str]) -> str:
    """The file where ``bao login`` and ``vault login`` leave their token, if it is there."""
    home = environ.get("HOME", "")
    file = Path(home) / _LOGIN_FILE
    return str(file) if home and file.is_file() else ""


def _boolean(name: str, value: str) -> bool:
    # The forms Go's strconv.ParseBool takes, which the servers' own tools use.
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("", "0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ConfigError(
        f"{value!r} is neither true nor false",
        setting=f"BAO_{name} or VAULT_{name}",
        origin="environment",
        remedy="write true or false",
    )


def _check_url(url: str) -> None:
    remedy = "write https://host:port"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} cannot be parsed: {error}", setting="url", remedy=remedy) from error
    if parts.username or parts.password:
        # The address is shown in /health and logs, so it must hold no password, nor does this message.
        raise ConfigError("the address holds a user name or password", setting="url", remedy=remedy)
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f"{url!r} is not the address of a server", setting="url", remedy=remedy)
    if parts.query or parts.fragment or any(each.isspace() for each in url):
        raise ConfigError(f"{url!r} holds more than an address", setting="url", remedy=remedy)
