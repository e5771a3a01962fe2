"""Which route a request takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core import ConfigError
from chassis.gateway._path import canonical_path
from chassis.gateway._table import Match, RouteTable, WrongMethod
from chassis.gateway._template import parse_template


def table(*routes: str) -> RouteTable[str]:
    """Routes written as ``[METHOD,...] [host]/path``."""
    it: RouteTable[str] = RouteTable()
    for text in routes:
        methods, _, place = text.rpartition(" ")
        host, slash, path = place.partition("/")
        it.add(
            parse_template(slash + path),
            host=host or None,
            methods=tuple(filter(None, methods.split(","))),
            route=text,
        )
    return it


def find(it: RouteTable[str], request: str):
    """The answer to ``[METHOD] [host]/path``: a route's text, allowed methods, or None."""
    method, _, place = request.rpartition(" ")
    host, slash, path = place.partition("/")
    found = it.match(host or None, method or "GET", canonical_path((slash + path).encode()).segments)
    if isinstance(found, Match):
        return found.route
    return found.allowed if isinstance(found, WrongMethod) else None


@pytest.mark.parametrize(
    ("request_", "route"),
    [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", None),
        ("/a/b", "/a/b"),
        ("/a/c", "/a/{x}"),
        ("/a/c/d", "/a/{x}/{y}"),
        ("/a/b/d", "/a/b/{rest:path}"),
        ("/a/b/d/e", "/a/b/{rest:path}"),
        ("/a/c/d/e", None),
        ("/a/b/", "/a/b/{rest:path}"),
        ("/A", None),
        ("/ab", None),
    ],
)
def test_the_most_specific_route_wins_whatever_the_order(request_, route):
    """At each segment: literal, variable, rest."""
    routes = ["/a/b/{rest:path}", "/a/{x}/{y}", "/a/{x}", "/a/b", "/a", "/"]
    for order in (routes, routes[::-1]):
        assert find(table(*order), request_) == route


def test_a_wider_route_serves_what_a_narrower_one_does_not_reach():
    """The search steps back out of a branch that ends nowhere."""
    it = table("/a/b/c", "/a/{x}/d", "/{rest:path}")
    assert find(it, "/a/b/c") == "/a/b/c"
    assert find(it, "/a/b/d") == "/a/{x}/d"
    assert find(it, "/a/b/e") == "/{rest:path}"
    assert find(it, "/") == "/{rest:path}"


def test_a_rest_takes_the_bare_prefix_too():
    """A guard on ``/admin/{rest:path}`` guards ``/admin``."""
    it = table("/admin/{rest:path}", "/{rest:path}")
    for path in ("/admin", "/admin/", "/admin/x/y"):
        assert find(it, path) == "/admin/{rest:path}"
    assert find(it, "/adminx") == "/{rest:path}"


def test_values_are_those_of_the_route_that_won():
    """Also after stepping back out of another."""
    it = table("/{a}/x/{b}", "/{c}/{d}/y", "/f/{name}/{rest:path}")

    def values(path):
        match = it.match(None, "GET", canonical_path(path).segments)
        assert isinstance(match, Match)
        return dict(match.values)

    assert values(b"/1/x/2") == {"a": "1", "b": "2"}
    assert values(b"/1/2/y") == {"c": "1", "d": "2"}
    assert values(b"/f/n%20m/a/b/") == {"name": "n m", "rest": "a/b/"}
    assert values(b"/f/n") == {"name": "n", "rest": ""}


def test_a_variable_takes_no_empty_segment():
    """``/home/`` is no user's home."""
    assert find(table("/home/{user}"), "/home/") is None


def test_the_path_decides_before_the_method():
    """A method that the narrow route does not allow never falls through to a wider, less guarded one."""
    it = table("GET /admin/x", "POST,PUT /admin/x", "/{rest:path}")
    assert find(it, "GET /admin/x") == "GET /admin/x"
    assert find(it, "PUT /admin/x") == "POST,PUT /admin/x"
    assert find(it, "DELETE /admin/x") == ("GET", "HEAD", "POST", "PUT")
    assert find(it, "DELETE /admin/y") == "/{rest:path}"
    assert find(table("POST /a"), "GET /a") == ("POST",)


def test_who_takes_get_takes_head_unless_head_has_a_route_of_its_own():
    """RFC 9110, 9.3.2."""
    assert find(table("GET /a"), "HEAD /a") == "GET /a"
    assert find(table("GET /a", "HEAD /a"), "HEAD /a") == "HEAD /a"
    assert find(table("GET /a", "/a"), "HEAD /a") == "GET /a"
    assert find(table("POST /a"), "HEAD /a") == ("POST",)


def test_a_route_for_one_method_wins_over_one_for_all():
    """At the same path."""
    it = table("/a", "POST /a")
    assert find(it, "POST /a") == "POST /a"
    assert find(it, "GET /a") == "/a"


def test_routes_of_the_requests_host_come_first():
    """Then those for any host."""
    it = table("admin.test/{rest:path}", "/a", "GET shop.test/a")
    assert find(it, "admin.test/a") == "admin.test/{rest:path}"
    assert find(it, "other.test/a") == "/a"
    assert find(it, "/a") == "/a"
    assert find(it, "shop.test/a") == "GET shop.test/a"
    assert find(it, "POST shop.test/a") == ("GET", "HEAD")
    assert find(it, "shop.test/b") is None


@pytest.mark.parametrize(
    "routes",
    [("/a", "/a"), ("/{x}", "/{y}"), ("GET,POST /a", "POST /a"), ("/{a:path}", "/{b:path}"), ("h/a", "h/a")],
)
def test_two_routes_for_the_same_requests_are_a_config_error(routes):
    """Which one wins would be luck."""
    with pytest.raises(ConfigError, match="match the same requests") as caught:
        table(*routes)
    assert caught.value.setting == "path"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "routes", [("GET /a", "POST /a"), ("/a", "h/a"), ("/a", "GET /a"), ("/{x}", "/{x:path}")]
)
def test_routes_that_differ_in_method_host_or_shape_live_side_by_side(routes):
    """They are told apart by every request."""
    table(*routes)


segment = st.sampled_from(["a", "b", "{x}"])
routes = st.lists(
    st.tuples(st.lists(segment, max_size=3), st.booleans()).map(
        lambda each: "/" + "/".join(
            [*(part.replace("x", f"x{n}") for n, part in enumerate(each[0])), *(["{rest:path}"] if each[1] else [])]
        )
    ),
    max_size=8,
    unique=True,
)  # fmt: skip
paths = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(routes=routes, path=paths)
def test_the_table_agrees_with_a_plain_search(routes, path):
    """A model of a few lines: all that match, the most specific first."""

    def rank(route: str):
        parts = route[1:].split("/")
        wanted = path[1:].split("/")
        rank = []
        for number, part in enumerate(parts):
            if part == "{rest:path}":
                return [*rank, 2]
            if number >= len(wanted) or (
                part != wanted[number] and not (part.startswith("{") and wanted[number])
            ):
                return None
            rank.append(int(part.startswith("{")))
        return [*rank, -1] if len(parts) == len(wanted) else None

    ranked = sorted((found, route) for route in routes if (found := rank(route)) is not None)
    assert find(table(*routes), path) == (ranked[0][1] if ranked else None)
