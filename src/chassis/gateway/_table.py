"""The route table: which route a request takes. Immutable once built; pure.

A tree by segments, so that a thousand routes cost a request no more than ten. At each segment a
literal is tried before a variable, and a variable before ``{name:path}``. The path decides before
the method: a request whose most specific path does not allow its method gets 405 and never falls
through to a wider route, which may be guarded less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from chassis.core import ConfigError
from chassis.gateway._template import Template

RouteT = TypeVar("RouteT")


class Match(NamedTuple, Generic[RouteT]):
    """The route, and its variables' values, decoded once."""

    route: RouteT
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WrongMethod:
    """The path is known, the method is not allowed there.

    :param allowed: the methods that are.
    """

    allowed: tuple[str, ...]


@dataclass(slots=True)
class _Leaf(Generic[RouteT]):
    """The routes of one path on one host, by method; None stands for every method."""

    routes: dict[str | None, tuple[Template, RouteT]] = field(default_factory=dict)

    def add(self, template: Template, methods: tuple[str, ...], route: RouteT) -> None:
        for method in methods or (None,):
            other = self.routes.get(method)
            if other is not None:
                raise ConfigError(
                    f"{template.text!r} and {other[0].text!r} match the same requests",
                    setting="path",
                    remedy="remove one of them, or give them different methods or hosts",
                )
            self.routes[method] = (template, route)

    def choose(self, method: str) -> tuple[Template, RouteT] | None:
        found = self.routes.get(method)
        if found is None and method == "HEAD":
            # RFC 9110, 9.3.2: who answers GET answers HEAD.
            found = self.routes.get("GET")
        return found or self.routes.get(None)


@dataclass(slots=True)
class _Node(Generic[RouteT]):
    literals: dict[str, _Node[RouteT]] = field(default_factory=dict)
    variable: _Node[RouteT] | None = None
    here: _Leaf[RouteT] | None = None
    rest: _Leaf[RouteT] | None = None

    def add(self, template: Template, methods: tuple[str, ...], route: RouteT) -> None:
        node = self
        for segment in template.segments:
            if segment is not None:
                node = node.literals.setdefault(segment, _Node())
            else:
                node.variable = node.variable or _Node()
                node = node.variable
        if template.rest:
            node.rest = leaf = node.rest or _Leaf()
        else:
            node.here = leaf = node.here or _Leaf()
        leaf.add(template, methods, route)

    def find(
        self, segments: tuple[str, ...], depth: int, values: tuple[str, ...]
    ) -> tuple[_Leaf[RouteT], tuple[str, ...]] | None:
        """The most specific leaf for ``segments[depth:]``, and the values met on the way."""
        if depth == len(segments):
            if self.here is not None:
                return self.here, values
        else:
            segment = segments[depth]
            child = self.literals.get(segment)
            found = None if child is None else child.find(segments, depth + 1, values)
            # An empty segment is a trailing slash and no value.
            if found is None and self.variable is not None and segment:
                found = self.variable.find(segments, depth + 1, (*values, segment))
            if found is not None:
                return found
        if self.rest is not None:
            return self.rest, (*values, "/".join(segments[depth:]))
        return None


class RouteTable(Generic[RouteT]):
    """Routes by host, path and method."""

    def __init__(self) -> None:
        self._by_host: dict[str, _Node[RouteT]] = {}
        self._anywhere: _Node[RouteT] = _Node()

    def add(self, template: Template, *, host: str | None, methods: tuple[str, ...], route: RouteT) -> None:
        """Enter a route.

        :param host: lower case, without a port; None for any.
        :param methods: empty for all.
        :raises ConfigError: another route matches the same requests.
        """
        root = self._anywhere if host is None else self._by_host.setdefault(host, _Node())
        root.add(template, methods, route)

    def match(
        self, host: str | None, method: str, segments: tuple[str, ...]
    ) -> Match[RouteT] | WrongMethod | None:
        """The route for a request; None if no route has its path. Routes of its host come first."""
        found = None
        if host is not None and (root := self._by_host.get(host)) is not None:
            found = root.find(segments, 0, ())
        if found is None:
            found = self._anywhere.find(segments, 0, ())
        if found is None:
            return None
        leaf, values = found
        chosen = leaf.choose(method)
        if chosen is None:
            methods = {each for each in leaf.routes if each is not None}
            return WrongMethod(tuple(sorted(methods | ({"HEAD"} if "GET" in methods else set()))))
        template, route = chosen
        return Match(route, dict(zip(template.names, values, strict=True)))
