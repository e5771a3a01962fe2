from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from chassis.core.errors import ConfigError
from chassis.core.options import Seconds

if TYPE_CHECKING:
    import httpx2


def plain_client(
    base_url: str,
    *,
    timeout: Seconds = 5.0,
    connect_timeout: Seconds = 1.0,
    verify: ssl.SSLContext | bool = True,
    headers: Mapping[str, str] | None = None,
    max_connections: int = 20,
    keepalive: Seconds = 60.0,
) -> httpx2.AsyncClient:
    """An httpx client for one host, bound to the event loop that uses it first.

    Proxies and credentials from the environment are left aside (``trust_env=False``): these hosts
    are the process's own neighbours. Redirects are not followed, and no cookie is kept.

    :param base_url: ``http://host:port`` or ``https://host:port``, with or without a path.
    :param timeout: seconds to wait for each read, write and for a free connection.
    :param connect_timeout: seconds to wait for a connection.
    :param verify: the TLS context; True for the shared default one, False to verify nothing.
    :param headers: sent with every request.
    :param max_connections: how many requests may be under way at once.
    :param keepalive: seconds an idle connection is kept.
    """
    import http.cookiejar

    import httpx2

    if verify is False:
        context = _unverified()
    elif verify is not True:
        context = verify
    elif base_url.startswith("https:"):
        context = ssl_context()
    else:
        # Loading a trust store costs tens of milliseconds that plain HTTP need not pay. This
        # context trusts nobody, so an https URL given to this client by mistake fails closed.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx2.AsyncClient(
        base_url=base_url,
        timeout=httpx2.Timeout(timeout, connect=connect_timeout),
        verify=context,
        headers=headers,
        limits=httpx2.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=keepalive,
        ),
        trust_env=False,
        # What stands between may set cookies without end, and each would be sent from then on.
        cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
    )


def ssl_context(
    *, ca: str | None = None, certificate: str | None = None, key: str | None = None, verify: bool = True
) -> ssl.SSLContext:
    """The TLS context for these files; without any, the one default context all clients share.

    :param ca: file or folder of the certificates to trust; None for the system's trust store.
    :param certificate: file with the client's own certificate chain, for mutual TLS.
    :param key: file with its private key; None if it is in the same file.
    :param verify: False accepts any server, which is for trials only.
    :raises ConfigError: a file cannot be read, or holds something else.
    """
    if ca is None and certificate is None:
        return _default() if verify else _unverified()
    if not verify:
        context = _fresh_unverified()
    elif ca is None:
        context = ssl.create_default_context()
    else:
        try:
            if Path(ca).is_dir():
                context = ssl.create_default_context(capath=ca)
            else:
                context = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{ca!r} cannot be used: {error}", setting="ca", remedy="name a PEM file or a folder of them"
            ) from error
    if certificate is not None:
        try:
            # The empty password keeps OpenSSL from asking for one at the terminal.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{certificate!r} with key {key!r} cannot be used: {error}",
                setting="certificate",
                remedy="name a PEM file with the certificate and one with its unencrypted key",
            ) from error
    return context


@functools.cache
def _default() -> ssl.SSLContext:
    import httpx2

    return httpx2.create_ssl_context()


@functools.cache
def _unverified() -> ssl.SSLContext:
    return _fresh_unverified()


def _fresh_unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
