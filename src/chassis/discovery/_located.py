"""Services whose addresses somebody wrote down: what may be written, and under which name it is found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from chassis.core.errors import ConfigError
from chassis.core.instances import Instance, Status
from chassis.discovery._addresses import parse_urls

_FIELDS = ("url", "id", "zone", "datacenter", "priority", "tags", "meta", "weight", "status")


class Located:
    """Instances by service, as they were written down.

    Names are matched as written first, then without regard to case and with ``_`` for ``-``, so
    that an environment variable can name any service: ``ORDER_HISTORY`` is ``order-history``.

    :param services: per service its instances: addresses separated by commas, or a list of addresses
        and of tables with ``url`` and any of ``id``, ``zone``, ``datacenter``, ``priority``, ``tags``,
        ``meta``, ``weight``, ``status``.
    :param origin: where they were written, for errors.
    :raises ConfigError: one cannot be used, or two names are one.
    """

    def __init__(self, services: Mapping[str, Any], *, origin: str | None = None) -> None:
        self._instances = {
            service: _parse_all(service, written, origin) for service, written in services.items()
        }
        self._names: dict[str, str] = {}
        for service in services:
            other = self._names.setdefault(_folded(service), service)
            if other != service:
                raise ConfigError(
                    f"{other!r} and {service!r} name one service",
                    setting="services",
                    origin=origin,
                    remedy="write them as one",
                )

    @property
    def services(self) -> tuple[str, ...]:
        """The names, as written."""
        return tuple(self._instances)

    def of(self, service: str) -> tuple[Instance, ...]:
        """The instances of a service, which bear the name that is asked for; none if it is unknown."""
        found = self._instances.get(service)
        if found is None:
            found = self._instances.get(self._names.get(_folded(service), service), ())
        return tuple(replace(each, service=service) for each in found)


def _folded(service: str) -> str:
    return service.lower().replace("_", "-")


def _parse_all(service: str, written: Any, origin: str | None) -> tuple[Instance, ...]:
    setting = f"services.{service}"
    if isinstance(written, str):
        return parse_urls(service, written, origin=origin)
    if isinstance(written, Mapping) or not isinstance(written, Iterable):
        raise _error(f"{written!r} is no list", setting, origin, "write a list of addresses or tables")
    found: dict[str, Instance] = {}
    for number, each in enumerate(written):
        instance = _parse(service, each, f"{setting}[{number}]", origin)
        if instance.address in found:
            raise _error(f"{instance.address} is listed twice", setting, origin, "remove one")
        found[instance.address] = instance
    return tuple(sorted(found.values(), key=lambda instance: instance.key))


def _parse(service: str, written: Any, setting: str, origin: str | None) -> Instance:
    if isinstance(written, str):
        (instance,) = parse_urls(service, [written], setting=setting, origin=origin)
        return instance
    if not isinstance(written, Mapping):
        raise _error(f"{written!r} is no address", setting, origin, "write an address, or a table with url")
    unknown = sorted(set(written) - set(_FIELDS))
    if unknown:
        remedy = f"an instance has {', '.join(_FIELDS)}"
        raise _error(f"there is no {', '.join(map(repr, unknown))}", setting, origin, remedy)
    if not isinstance(written.get("url"), str):
        raise _error("the instance has no url", setting, origin, "write http://host:port")
    (instance,) = parse_urls(service, [written["url"]], setting=f"{setting}.url", origin=origin)
    return replace(instance, **_attributes(written, setting, origin))


def _attributes(written: Mapping[str, Any], setting: str, origin: str | None) -> dict[str, Any]:
    """What is said of an instance beside its address."""

    def wrong(name: str, remedy: str) -> ConfigError:
        return _error(f"{written[name]!r} cannot be used", f"{setting}.{name}", origin, remedy)

    given: dict[str, Any] = {}
    for name in ("id", "zone", "datacenter"):
        if name in written:
            if not isinstance(written[name], str) or (name == "id" and not written[name].strip()):
                raise wrong(name, "write a text")
            given[name] = written[name]
    for name, least in (("priority", 0), ("weight", 1)):
        if name in written:
            value = written[name]
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise wrong(name, f"write a whole number, at least {least}")
            given[name] = value
    if "tags" in written:
        tags = written["tags"]
        if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
            raise wrong("tags", "write a list of texts")
        given["tags"] = tuple(tags)
    if "meta" in written:
        meta = written["meta"]
        if not isinstance(meta, Mapping) or not all(isinstance(text, str) for text in meta.values()):
            raise wrong("meta", "write a table of texts")
        given["meta"] = dict(meta)
    if "status" in written:
        try:
            given["status"] = Status(written["status"])
        except ValueError:
            raise wrong("status", f"write {', '.join(each.value for each in Status)}") from None
    return given


def _error(problem: str, setting: str, origin: str | None, remedy: str) -> ConfigError:
    return ConfigError(problem, setting=setting, origin=origin, remedy=remedy)
