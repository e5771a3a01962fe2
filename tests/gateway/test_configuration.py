"""gateway.toml: what it may say, and what is said about what it may not."""

from __future__ import annotations

import asyncio
import json

import pytest

from chassis.auth import hash_api_key
from chassis.core import ConfigError
from chassis.gateway import Gateway, GatewayOptions, RouteRow, check
from tests.auth.issuing import Provider
from tests.gateway.exchange import Services, call, echo

FACE = """\
[auth.users]
jwks = "http://identity/.well-known/jwks.json"
audience = "shop"
[[routes]]
path = "/catalog/{rest:path}"
service = "catalog"
strip = "/catalog"
[[routes]]
path = "/home/{user}"
auth = "users"
parts.catalog = { service = "catalog", path = "/items", required = true }
parts.advice = { service = "recommendations", path = "/for/{user}", timeout = "200ms", default = [] }
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "gateway.toml"


def test_a_gateway_is_twelve_lines(file):
    """The file of the documentation, as it stands there."""
    file.write_text(FACE)
    assert len([line for line in FACE.splitlines() if line.strip()]) <= 12
    assert check(file) == (
        RouteRow(path="/catalog/{rest:path}", host="*", methods="*", target="catalog", auth="-"),
        RouteRow(
            path="/home/{user}", host="*", methods="GET", target="catalog + recommendations?", auth="users"
        ),
    )
    assert str(check(file)).splitlines() == [
        "PATH                  HOST  METHODS  SERVICES                    AUTH",
        "/catalog/{rest:path}  *     *        catalog                     -",
        "/home/{user}          *     GET      catalog + recommendations?  users",
    ]
    options = Gateway(file, Services()).options
    advice = options.routes[1].parts["advice"]
    assert (advice.timeout, advice.default, advice.required) == (0.2, [], False)
    assert options.auth["users"].audience == "shop"


def test_it_takes_a_path_tables_or_options(file):
    """Three ways to say the same."""
    file.write_text('[[routes]]\npath = "/a"\nservice = "b"\n')
    tables = {"routes": [{"path": "/a", "service": "b"}]}
    options = Gateway(tables, Services()).options
    assert isinstance(options, GatewayOptions)
    assert check(file) == check(str(file)) == check(tables) == check(options)


def test_every_setting_has_its_place():
    """A route that says all a route can say."""
    everything = {
        "routes": [
            {"path": "/a/b", "host": "a.test", "methods": ["GET", "POST"], "service": "s", "strip": "/a",
             "auth": ["k"], "scopes": ["r"], "forward_credentials": True, "max_body": 5},
            {"path": "/a/{x}", "service": "s", "auth": "t, k"},
        ],
        "auth": {
            "t": {"jwks": "https://id.test/keys", "audience": ["a", "b"], "issuer": "i", "algorithms": ["ES256"],
                  "leeway": "2s", "refresh": "1m"},
            "k": {"api_keys": {"acme": hash_api_key("k")}, "header": "X-K"},
        },
        "max_body": 1, "max_url": 2, "max_headers": 3, "max_header_bytes": 4,
    }  # fmt: skip
    rows = check(everything)
    assert rows[0] == RouteRow(path="/a/b", host="a.test", methods="GET, POST", target="s", auth="k")
    assert rows[1].auth == "t, k"
    options = Gateway(everything, Services()).options
    token = options.auth["t"]
    assert (token.leeway, token.refresh, token.audience, token.algorithms) == (
        2.0,
        60.0,
        ("a", "b"),
        ("ES256",),
    )


def problem(file, text: str) -> str:
    """What is said about this file; always with its name and a remedy."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        check(file)
    message = str(caught.value)
    assert "gateway.toml" in message
    assert getattr(caught.value, "errors", None) or caught.value.remedy
    return message


ROUTE = '[[routes]]\npath = "/a"\nservice = "b"\n'
HOME = '[[routes]]\npath = "/home/{user}"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ["routes", "required"]),
        ("routes = []", ["routes", "there is no route"]),
        ("not toml", ["not TOML"]),
        ("\xff", ["not TOML"]),
        (ROUTE + 'servise = "x"', ["routes.0.servise", "did you mean service?"]),
        (ROUTE + 'strip = "/b"', ["routes.0.strip", "no beginning"]),
        (ROUTE + 'strip = "/"', ["routes.0.strip"]),
        (ROUTE + 'auth = "users"', ["routes.0.auth", "no [auth.users]", "known are: none"]),
        (ROUTE + 'scopes = ["r"]', ["routes.0.scopes"]),
        (ROUTE + 'methods = ["get"]', ["routes.0.methods", "'get'"]),
        (ROUTE + 'methods = ["TRACE"]', ["routes.0.methods"]),
        (ROUTE + 'host = "A.test:80"', ["routes.0.host"]),
        (ROUTE + "max_body = -1", ["routes.0.max_body"]),
        (ROUTE + 'max_body = "many"', ["routes.0.max_body"]),
        (ROUTE + ROUTE, ["routes.1.path", "match the same requests"]),
        ("max_url = 0\n" + ROUTE, ["max_url"]),
        ("max_header = 5\n" + ROUTE, ["max_header", "did you mean max_headers?"]),
        ('[[routes]]\npath = "a"\nservice = "b"', ["routes.0.path", "slash"]),
        ('[[routes]]\nservice = "b"', ["routes.0.path", "required"]),
        ('[[routes]]\npath = "/a"', ["routes.0.service", "either a service or parts"]),
        (ROUTE + 'parts.x = { service = "c", path = "/" }', ["routes.0.service", "either"]),
        (
            HOME + 'parts.advice = { service = "c", path = "/for/{usr}" }',
            ["routes.0.parts.advice.path", "{usr}", "{user}"],
        ),
        (
            HOME + 'parts.advice = { service = "c", path = "/", timout = 1 }',
            ["routes.0.parts.advice.timout", "timeout"],
        ),
        (
            HOME + 'parts.advice = { service = "c", path = "/", timeout = "soon" }',
            ["routes.0.parts.advice.timeout"],
        ),
        (
            HOME + 'parts.advice = { service = "c", path = "/", timeout = 0 }',
            ["routes.0.parts.advice.timeout"],
        ),
        (HOME + 'parts.a = { service = "c", path = "/", required = true, default = 1 }', ["parts.a.default"]),
        (HOME + 'parts.a = { service = "c", path = "/", default = 2026-01-01 }', ["parts.a.default", "JSON"]),
        (HOME + 'parts.a = { service = "c", path = "/", default = nan }', ["parts.a.default", "JSON"]),
        (HOME + 'parts.errors = { service = "c", path = "/" }', ["parts.errors", "taken"]),
        (HOME + 'methods = ["POST"]\nparts.a = { service = "c", path = "/" }', ["routes.0.methods"]),
        (HOME + 'strip = "/home"\nparts.a = { service = "c", path = "/" }', ["routes.0.strip"]),
        (HOME + 'max_body = 5\nparts.a = { service = "c", path = "/" }', ["routes.0.max_body"]),
        (ROUTE + "[auth.users]\n", ["auth.users", "jwks"]),
        (ROUTE + 'auth = "x"', ["auth"]),
        ("auth = 5\n" + ROUTE, ["auth", "table"]),
        (ROUTE + '[auth."a b"]\njwks = "http://i/"\naudience = "x"', ["auth", "'a b'"]),
        (ROUTE + '[auth.users]\njwks = "http://identity/k"', ["auth.users.audience", "required"]),
        (ROUTE + '[auth.users]\njwks = "identity"\naudience = "x"', ["auth.users.jwks", "no place"]),
        (ROUTE + '[auth.users]\njwks = "http://u@identity/"\naudience = "x"', ["auth.users.jwks"]),
        (ROUTE + '[auth.users]\njwks = "http://i/"\naudience = ""', ["auth.users.audience"]),
        (
            ROUTE + '[auth.users]\njwks = "http://i/"\naudience = "x"\nalgorithms = ["none"]',
            ["auth.users.algorithms"],
        ),
        (ROUTE + '[auth.users]\njwks = "http://i/"\naudience = "x"\nleeway = -1', ["auth.users.leeway"]),
        (ROUTE + '[auth.users]\njwks = "http://i/"\naudience = "x"\nrefresh = 0', ["auth.users.refresh"]),
        (
            ROUTE + '[auth.users]\njwks = "http://i/"\naudience = "x"\nheader = "X"',
            ["auth.users.header", "no such"],
        ),
        (ROUTE + '[auth.p]\napi_keys = { acme = "k" }\nissuer = "x"', ["auth.p.issuer", "no such"]),
        (ROUTE + '[auth.p]\napi_keys = { acme = "plain" }', ["auth.p.api_keys.acme", "hash"]),
        (ROUTE + "[auth.p]\napi_keys = {}", ["auth.p.api_keys"]),
        (ROUTE + '[auth.p]\napi_keys_file = "nowhere"', ["auth.p.api_keys_file", "nowhere"]),
        (ROUTE + f'[auth.p]\napi_keys = {{ a = "{hash_api_key("k")}" }}\nheader = "X Y"', ["auth.p.header"]),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_its_file_and_a_remedy(file, text, says):
    """One message, from which the file can be mended."""
    message = problem(file, text)
    for each in says:
        assert each in message, message
    assert "plain" not in message


@pytest.mark.parametrize(
    "name",
    [
        "169.254.169.254",
        "a.b",
        "..",
        "user@host",
        "Catalog",
        "a b",
        "",
        "-a",
        "a:80",
        "{svc}",
        "a" * 64,
        "a/b",
    ],
)
def test_row_34_a_service_is_a_plain_name(file, name):
    """No address, no port, no variable: a request never chooses where it goes."""
    assert "service" in problem(file, f'[[routes]]\npath = "/a/{{svc}}"\nservice = "{name}"\n')
    problem(file, f'[[routes]]\npath = "/a/{{svc}}"\nparts.x = {{ service = "{name}", path = "/" }}\n')


def test_row_41_configuration_is_data(file):
    """Nothing in it is evaluated, and there is no way to change it over the network."""
    for expression in ("${env}", "#{T(java.lang.Runtime)}", "{user.__class__}", "{0}", "{user!r}"):
        problem(file, HOME + f'parts.a = {{ service = "c", path = "/{expression}" }}')


def test_a_file_that_is_not_there_is_named(tmp_path):
    """With the reason."""
    with pytest.raises(ConfigError, match=r"nothing\.toml") as caught:
        check(tmp_path / "nothing.toml")
    assert "No such file" in str(caught.value)


def test_files_count_from_the_gateways_own(file, monkeypatch, tmp_path):
    """Wherever the process was started."""
    monkeypatch.chdir("/")
    (tmp_path / "keys.json").write_bytes(Provider().document)
    (tmp_path / "partners.toml").write_text(f'acme = "{hash_api_key("k")}"')
    file.write_text(
        ROUTE
        + '[auth.users]\njwks = "file:keys.json"\naudience = "x"\n[auth.p]\napi_keys_file = "partners.toml"'
    )
    check(file)


@pytest.mark.parametrize("content", [None, "{", json.dumps({"keys": []})])
def test_a_jwks_file_that_cannot_be_used_is_named(file, tmp_path, content):
    """Setting, origin and remedy."""
    if content is not None:
        (tmp_path / "keys.json").write_text(content)
    message = problem(file, ROUTE + '[auth.users]\njwks = "file:keys.json"\naudience = "x"')
    assert "auth.users.jwks" in message
    assert "keys.json" in message


def test_checking_a_gateway_asks_nobody(file):
    """Neither the provider nor a service."""
    file.write_text(FACE)
    check(file)
    services = Services()
    Gateway(file, services)
    assert services.seen == []


def test_an_option_in_code_is_checked_as_in_a_file():
    """The same dataclasses."""
    with pytest.raises(ConfigError, match="no route"):
        GatewayOptions(routes=())


def test_the_longest_way_to_a_service_is_the_table():
    """A gateway made of tables serves."""
    app = Gateway({"routes": [{"path": "/a", "service": "echo"}]}, Services(echo=echo))
    assert asyncio.run(call(app, "/a")).status == 200
