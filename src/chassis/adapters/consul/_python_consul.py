from __future__ import annotations

from typing import Any

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._options import ConsulOptions


def from_python_consul(client: Any) -> ConsulAPI:
    """An API with the address, token, datacenter and certificates of a python-consul client.

    :param client: a ``consul.Consul`` of py-consul or python-consul, of any flavour. Nothing is
        asked of it but its settings, so it stays the caller's own.
    :raises TypeError: it is something else.
    :raises ConfigError: its settings cannot be used.
    """
    try:
        http = client.http
        host, port, scheme, verify, cert = http.host, http.port, http.scheme, http.verify, http.cert
        token, datacenter = client.token, client.dc
    except AttributeError as error:
        raise TypeError(f"{type(client).__name__} is no python-consul client: {error}") from error
    certificate, key = cert if isinstance(cert, tuple) else (cert, "")
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return ConsulAPI(
        ConsulOptions(
            url=f"{scheme}://{host}:{port}",
            token=token or "",
            datacenter=datacenter or "",
            ca=verify if isinstance(verify, str) else "",
            verify=bool(verify),
            certificate=certificate or "",
            key=key or "",
        )
    )
