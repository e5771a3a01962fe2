from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from chassis.core.errors import ConfigError
from chassis.core.instances import Instance

_FOUR_NUMBERS = re.compile(r"\d+\.\d+\.\d+\.\d+", re.ASCII)


def is_host(host: str) -> bool:
    """Whether requests can be sent to ``host``: a name or an IP address, IPv6 without brackets.

    What is no address (``999.1.1.1``, ``10.0.0.1:80``) no client takes, and not as an instance's failure
    after which it would try another.
    """
    if not host or not host.isprintable() or any(each.isspace() or each in "/@?#\\" for each in host):
        return False
    try:
        if ":" in host:
            IPv6Address(host)
        elif _FOUR_NUMBERS.fullmatch(host):
            socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return False
    return True


def parse_urls(
    service: str, urls: str | Iterable[str], *, setting: str | None = None, origin: str | None = None
) -> tuple[Instance, ...]:
    """The instances a list of addresses names, e.g. ``"http://a:8001,http://b:8001"``.

    :param urls: separated by commas, or already apart; scheme and host, the port if it is not the
        scheme's own.
    :param setting: what the list is called where it was written, for the error.
    :param origin: where it was written, for the error.
    :raises ConfigError: an address cannot be used; it is named.
    """
    setting = setting or f"services.{service}"
    texts = urls.split(",") if isinstance(urls, str) else list(urls)
    found: dict[str, Instance] = {}
    for text in texts:
        instance = _parse(service, text.strip(), setting, origin)
        if instance.address in found:
            raise ConfigError(
                f"{instance.address} is listed twice", setting=setting, origin=origin, remedy="remove one"
            )
        found[instance.address] = instance
    return tuple(sorted(found.values(), key=lambda each: each.key))


def _parse(service: str, text: str, setting: str, origin: str | None) -> Instance:
    def error(problem: str, remedy: str = "write http://host:port or https://host:port") -> ConfigError:
        return ConfigError(problem, setting=setting, origin=origin, remedy=remedy)

    if not text:
        raise error("an address is empty", "write http://host:port, separated by commas")
    if "://" not in text:
        raise error(f"{text!r} has no scheme", f"write http://{text} or https://{text}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as problem:
        raise error(f"{text!r} cannot be parsed: {problem}") from problem
    if parts.username is not None or parts.password is not None:
        # Not shown: it may be a secret.
        raise error("an address holds a user name or password", "send credentials in a header instead")
    if parts.scheme not in ("http", "https"):
        raise error(f"{text!r} has the scheme {parts.scheme!r}")
    if not parts.hostname or not is_host(parts.hostname):
        raise error(f"{text!r} has no usable host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise error(f"{text!r} holds more than an address", "put the path into the requests")
    if port == 0:
        raise error(f"{text!r} has port 0")
    host, port = parts.hostname, port or (443 if parts.scheme == "https" else 80)
    address = Instance(id="", service=service, host=host, port=port).address
    return Instance(id=address, service=service, host=host, port=port, scheme=parts.scheme)
