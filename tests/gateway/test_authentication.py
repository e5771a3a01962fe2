"""Who is let in, and what the others are told."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx2
import pytest

from chassis.auth import hash_api_key
from tests.auth.issuing import Provider, ec_key, jwk, rsa_key
from tests.gateway.exchange import Services, call, echo, gateway
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio

USERS = {"jwks": "http://identity/.well-known/jwks.json", "audience": "shop", "floor": 0}
PARTNERS = {"api_keys": {"acme": [hash_api_key("k1"), hash_api_key("k2")]}}
ROUTE = {"path": "/a", "service": "echo", "auth": "users"}


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def services(provider):
    async def identity(request, seen):
        return httpx2.Response(200, content=await provider.fetch())

    return Services(echo=echo, identity=identity)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_good_token_is_let_in_and_checked_against_the_providers_keys(services, provider):
    """Which are fetched through the services, by name, once."""
    app = gateway(services, ROUTE, auth={"users": USERS})
    for _ in range(3):
        assert (await call(app, "/a", headers=bearer(provider.token()))).status == 200
    assert [each.service for each in services.seen] == ["identity", "echo", "echo", "echo"]
    assert (services.seen[0].target, services.seen[0]["host"]) == (b"/.well-known/jwks.json", "identity")


async def test_es256_is_accepted_beside_rs256(services, provider):
    """The two of the default."""
    provider.publish(ec_key(), "curve")
    app = gateway(services, ROUTE, auth={"users": USERS})
    token = provider.token(ec_key(), kid="curve", algorithm="ES256")
    assert (await call(app, "/a", headers=bearer(token))).status == 200


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"aud": "warehouse"}, "audience"),
        ({"exp": 1}, "expired"),
        ({"kid": "unknown"}, "key is not known"),
        ({"key": rsa_key(1)}, "signature"),
        ({"algorithm": "PS256"}, "algorithm"),
    ],
)
async def test_a_wrong_token_is_401_and_the_service_never_sees_it(services, provider, wrong, why):
    """With a challenge that says why, and nothing more."""
    app = gateway(services, ROUTE, auth={"users": USERS})
    answer = await call(app, "/a", headers=bearer(provider.token(**wrong)))
    assert answer.status == 401
    assert why in answer.json["detail"]
    assert answer["www-authenticate"].startswith('Bearer realm="users", error="invalid_token"')
    assert [each.service for each in services.seen] == ["identity"] * len(services.seen)


async def test_alg_none_is_refused(services, provider):
    """Unsigned is not signed."""
    app = gateway(services, ROUTE, auth={"users": USERS})
    token = "eyJhbGciOiJub25lIiwia2lkIjoiZmlyc3QifQ." + provider.token().split(".")[1] + "."
    assert (await call(app, "/a", headers=bearer(token))).status == 401


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Basic dTpw"}, {"Authorization": ""}, {"X-API-Key": "k1"}, {"Authorization": "Bearerx"},
     {"Connection": "authorization", "Authorization": "Bearer x"}],
)  # fmt: skip
async def test_without_a_token_the_answer_asks_for_one(services, headers):
    """401 with a plain challenge, or one that names the error of what was sent."""
    answer = await call(gateway(services, ROUTE, auth={"users": USERS}), "/a", headers=headers)
    assert answer.status == 401
    assert answer["www-authenticate"].startswith('Bearer realm="users"')
    assert not any(each.service == "echo" for each in services.seen)


async def test_two_authorization_headers_are_refused(services, provider):
    """Which one counts would be luck."""
    token = ("Authorization", f"Bearer {provider.token()}")
    answer = await call(gateway(services, ROUTE, auth={"users": USERS}), "/a", headers=[token, token])
    assert (answer.status, answer.json["detail"]) == (401, "the request has several Authorization headers")


async def test_the_scheme_is_matched_without_case(services, provider):
    """RFC 9110, 11.1."""
    headers = {"Authorization": f"bearer  {provider.token()}"}
    assert (await call(gateway(services, ROUTE, auth={"users": USERS}), "/a", headers=headers)).status == 200


async def test_no_401_while_keys_rotate(services, provider):
    """Published, used at once, the old one withdrawn: under load, and sooner after a fetch than the next may be."""
    app = gateway(services, ROUTE, auth={"users": {**USERS, "floor": "100ms"}})
    key, kid, statuses, rotated = rsa_key(), "first", [], False

    async def load():
        while not rotated:
            statuses.append((await call(app, "/a", headers=bearer(provider.token(key, kid=kid)))).status)
            await asyncio.sleep(0.001)

    running = asyncio.gather(load(), load())
    for number in (1, 2, 3):
        await eventually(lambda fetches=number: provider.fetches == fetches)
        provider.published = [jwk(key, kid), jwk(rsa_key(number), f"kid-{number}")]
        key, kid = rsa_key(number), f"kid-{number}"
    await eventually(lambda: provider.fetches == 4)
    rotated = True
    await running
    assert set(statuses) == {200}


async def test_a_provider_that_is_down_is_503_and_the_last_good_keys_go_on(services, provider):
    """It says when to come back."""
    app = gateway(services, ROUTE, auth={"users": USERS})
    services.services["identity"] = httpx2.ConnectError("refused")
    answer = await call(app, "/a", headers=bearer(provider.token()))
    assert (answer.status, answer["retry-after"]) == (503, "1")
    other = gateway(Services(echo=echo, identity=provider.document), ROUTE, auth={"users": USERS})
    assert (await call(other, "/a", headers=bearer(provider.token()))).status == 200


@pytest.mark.parametrize("answer", [httpx2.Response(500), b"<html>", b"x" * (1024 * 1024 + 1)])
async def test_a_provider_that_answers_nonsense_is_as_good_as_down(services, provider, answer):
    """Neither its status nor its size is trusted."""
    services.services["identity"] = answer
    app = gateway(services, ROUTE, auth={"users": USERS})
    assert (await call(app, "/a", headers=bearer(provider.token()))).status == 503


async def test_keys_may_be_fetched_from_a_url(services, provider):
    """A host with a port or a dot, or https, is no service name: it is asked directly."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(provider.document)))
            self.end_headers()
            self.wfile.write(provider.document)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/keys"
        app = gateway(services, ROUTE, auth={"users": {**USERS, "jwks": url}})
        answer = await call(app, "/a", headers=bearer(provider.token()))
        thread.join(5)
    assert answer.status == 200
    assert [each.service for each in services.seen] == ["echo"]


async def test_an_api_key_is_let_in_and_never_passed_on(services):
    """Any of the consumer's keys."""
    app = gateway(services, ROUTE | {"auth": "partners"}, auth={"partners": PARTNERS})
    for key in ("k1", "k2"):
        assert (await call(app, "/a", headers={"X-API-Key": key})).status == 200
    assert services.seen[0]["x-api-key"] is None
    for headers in ({"X-API-Key": "k3"}, {}, [("X-API-Key", "k1"), ("X-API-Key", "k1")], {"X_API_Key": "k1"}):
        answer = await call(app, "/a", headers=headers)
        assert answer.status == 401
        assert answer["www-authenticate"] == 'APIKey realm="partners", header="X-API-Key"'


async def test_any_of_several_ways_lets_in(services, provider):
    """The kind that was sent decides; without one, all are named."""
    app = gateway(
        services, ROUTE | {"auth": ["users", "partners"]}, auth={"users": USERS, "partners": PARTNERS}
    )
    assert (await call(app, "/a", headers={"X-API-Key": "k1"})).status == 200
    assert (await call(app, "/a", headers=bearer(provider.token()))).status == 200
    wrong_and_right = {**bearer("x.y.z"), "X-API-Key": "k1"}
    assert (await call(app, "/a", headers=wrong_and_right)).status == 401
    challenges = [value for name, value in (await call(app, "/a")).headers if name == b"www-authenticate"]
    assert len(challenges) == 2


async def test_scopes_are_all_asked_for(services, provider):
    """403, with what would be needed (RFC 6750, 3.1)."""
    auth = {"users": USERS, "partners": PARTNERS}
    route = ROUTE | {"auth": ["users", "partners"], "scopes": ["orders:read", "orders:write"]}
    app = gateway(services, route, auth=auth)
    good = bearer(provider.token(scope="orders:write orders:read x"))
    assert (await call(app, "/a", headers=good)).status == 200
    answer = await call(app, "/a", headers=bearer(provider.token(scope="orders:read")))
    assert answer.status == 403
    assert answer["www-authenticate"] == 'Bearer error="insufficient_scope", scope="orders:read orders:write"'
    answer = await call(app, "/a", headers={"X-API-Key": "k1"})
    assert (answer.status, answer["www-authenticate"]) == (403, None)


async def test_a_request_is_let_in_before_its_body_is_read(services):
    """Nothing is uploaded by somebody who may not."""
    read = []

    async def app(scope, receive, send):
        async def reading():
            read.append(1)
            return await receive()

        await gateway(services, ROUTE, auth={"users": USERS})(scope, reading, send)

    assert (
        await call(app, "/a", method="POST", headers={"Content-Length": "5"}, body=b"hello")
    ).status == 401
    assert read == []


async def test_row_20_no_spelling_of_a_guarded_path_goes_round_the_guard(services):
    """A wide open route beside a guarded one."""
    app = gateway(
        services,
        {"path": "/admin/{rest:path}", "service": "echo", "auth": "users"},
        {"path": "/{rest:path}", "service": "echo"},
        auth={"users": USERS},
    )
    spellings = [b"/admin", b"/admin/", b"/admin/x", b"//admin/x", b"/%61dmin/x", b"/admin//x", b"/pub/../admin/x",
                 b"/pub/%2e%2e/admin/x", b"/pub/..;/admin/x", b"/./admin/x", b"/pub\\..\\admin", b"/%2fadmin/x"]  # fmt: skip
    for spelling in spellings:
        assert (await call(app, spelling)).status in (400, 401), spelling
    assert not any(each.service == "echo" for each in services.seen)
    assert (await call(app, "/pub")).status == 200
