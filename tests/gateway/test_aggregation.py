"""One answer from several services, with a rule for the one that fails."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest

from chassis.core import CircuitOpen, DeadlineExceeded, UpstreamError, current_deadline
from chassis.core.request import request_id
from tests.auth.issuing import Provider
from tests.gateway.exchange import Body, Services, call, gateway
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio

HOME = {
    "path": "/home/{user}",
    "parts": {
        "catalog": {"service": "catalog", "path": "/items", "required": True, "timeout": "2s"},
        "advice": {
            "service": "recommendations",
            "path": "/for/{user}?n=3",
            "timeout": "50ms",
            "default": [1],
        },
    },
}


async def hang(request, seen):
    await asyncio.Event().wait()


async def home(catalog=b'{"a": 1.0}', recommendations=b"[2]", path="/home/ada", route=HOME, **options):
    services = Services(catalog=catalog, recommendations=recommendations)
    answer = await call(gateway(services, route), path, **options)
    return answer, services


async def test_parts_stand_side_by_side_under_their_names():
    """Byte for byte as their services wrote them; numbers are not read and written anew."""
    answer, services = await home()
    assert (answer.status, answer["content-type"]) == (200, "application/json")
    assert answer.body == b'{"catalog":{"a": 1.0},"advice":[2]}'
    assert answer["x-chassis-completed"] == "true"
    assert answer["content-length"] == str(len(answer.body))
    assert {(each.service, each.method, each.target) for each in services.seen} == {
        ("catalog", "GET", b"/items"), ("recommendations", "GET", b"/for/ada?n=3"),
    }  # fmt: skip
    assert answer.scope["chassis.route"] == "/home/{user}"


async def test_a_variable_cannot_leave_its_segment():
    """Its value is encoded again for the part's own path."""
    _, services = await home(path=b"/home/a%20b&c=%252e%252e")
    assert services.seen[1].target == b"/for/a%20b%26c%3D%252e%252e?n=3"


async def test_an_optional_part_that_hangs_is_replaced_in_time():
    """Its default, the header, and the reason."""
    began = asyncio.get_running_loop().time()
    answer, _ = await home(recommendations=hang)
    assert asyncio.get_running_loop().time() - began < 1.0
    assert (answer.status, answer["x-chassis-completed"]) == (200, "false")
    assert answer.json == {
        "catalog": {"a": 1.0},
        "advice": [1],
        "errors": [{"part": "advice", "status": 504, "reason": "recommendations did not answer in time"}],
    }


async def test_a_part_whose_body_hangs_is_replaced_in_time_too():
    """The timeout holds for the whole of it, and the body is closed."""
    bodies = []

    async def forever():
        yield b"["
        await asyncio.Event().wait()

    async def service(request, seen):
        bodies.append(Body(forever()))
        return httpx2.Response(200, stream=bodies[0])

    answer, _ = await home(recommendations=service)
    assert answer.json["errors"][0]["status"] == 504
    assert bodies[0].closed.is_set()


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (CircuitOpen("x", retry_after=3), 503),
        (DeadlineExceeded("x"), 504),
        (UpstreamError("x", service="x", failure="unreachable"), 503),
        (httpx2.Response(500, content=b"{}"), 502),
        (httpx2.Response(404, content=b"{}"), 502),
        (httpx2.Response(302, headers={"Location": "/x"}), 502),
        (b"<html>", 502),
        (b"", 502),
        (b"[NaN]", 502),
        (b"[1", 502),
        (b'{"a": 1}{"b": 2}', 502),
        (b"\xff\xfe[\x001\x00", 502),
        (b"[" * 200_000, 502),
        (b'"' + b"x" * 1024 * 1024 + b'"', 502),
        (httpx2.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx2.ByteStream(b"[]")), 502),
    ],
)
@pytest.mark.parametrize("required", [False, True])
async def test_every_failure_of_a_part_is_a_default_or_a_502_503_504(failure, status, required):
    """Optional: the answer stays 200. Required: it is the failure's status, and nothing of the others."""
    if not required:
        answer, _ = await home(recommendations=failure)
        assert (answer.status, answer.json["advice"], answer.json["errors"][0]["status"]) == (
            200,
            [1],
            status,
        )
    else:
        answer, _ = await home(catalog=failure)
        assert (answer.status, answer["content-type"]) == (status, "application/problem+json")
        assert "catalog" in answer.json["detail"]
        if isinstance(failure, CircuitOpen):
            assert answer["retry-after"] == "3"


async def test_row_31_parts_are_asked_for_uncompressed_and_never_decompressed():
    """A small body cannot be made to grow here."""
    _, services = await home()
    assert services.seen[0]["accept-encoding"] == "identity"


async def test_the_first_required_failure_cancels_the_other_parts():
    """Nobody will read them."""
    cancelled = asyncio.Event()

    async def slow(request, seen):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    both = {**HOME, "parts": {**HOME["parts"], "advice": {**HOME["parts"]["advice"], "timeout": "5s"}}}
    answer, _ = await home(catalog=httpx2.ConnectError("x"), recommendations=slow, route=both)
    assert answer.status == 502
    assert cancelled.is_set()


async def test_a_client_that_leaves_cancels_all_parts():
    """And nothing is answered."""
    asked, ended, leave = [], [], asyncio.Event()

    async def slow(request, seen):
        asked.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    parts = {name: {**part, "timeout": "5s"} for name, part in HOME["parts"].items()}
    running = asyncio.create_task(
        home(catalog=slow, recommendations=slow, route={**HOME, "parts": parts}, leave=leave)
    )
    await eventually(lambda: len(asked) == 2)
    leave.set()
    answer, _ = await asyncio.wait_for(running, 5)
    assert (answer.status, answer.cut, len(ended)) == (0, None, 2)


async def test_each_part_runs_under_its_own_deadline():
    """So that the client of the service sees it pass, and its breaker too."""
    remaining = {}

    async def look(request, seen):
        deadline = current_deadline()
        assert deadline is not None
        remaining[seen.service] = deadline.remaining()
        return httpx2.Response(200, content=b"1")

    await home(catalog=look, recommendations=look)
    assert 1.5 < remaining["catalog"] <= 2.0
    assert 0 < remaining["recommendations"] <= 0.05


async def test_the_parts_run_at_the_same_time():
    """Each waits for the other to have begun."""
    barrier = asyncio.Barrier(2)

    async def meet(request, seen):
        await barrier.wait()
        return httpx2.Response(200, content=b"1")

    route = {**HOME, "parts": {name: {**part, "timeout": "5s"} for name, part in HOME["parts"].items()}}
    answer, _ = await home(catalog=meet, recommendations=meet, route=route)
    assert answer["x-chassis-completed"] == "true"


async def test_head_is_answered_without_a_body_and_other_methods_are_not():
    """An aggregate only reads."""
    answer, _ = await home(method="HEAD")
    assert (answer.status, answer.body, answer["content-length"]) == (200, b"", "35")
    answer, services = await home(method="POST")
    assert (answer.status, answer["allow"], services.seen) == (405, "GET, HEAD", [])


async def test_a_part_is_a_request_of_the_gateways_own():
    """Of the caller's headers only a few pass; credentials where the route says so."""
    headers = {"Accept": "text/html", "Accept-Language": "de", "Range": "bytes=0-1", "If-None-Match": "x",
               "Cookie": "a=1", "Authorization": "Bearer x", "X-Request-Id": "r", "X-Chassis-Identity": "root"}  # fmt: skip
    _, services = await home(headers=headers)
    seen = services.seen[0]
    for name in ("range", "if-none-match", "cookie", "authorization", "x-chassis-identity"):
        assert seen[name] is None
    assert (seen["accept"], seen["accept-language"], seen["x-request-id"]) == ("application/json", "de", "r")
    assert (seen["host"], seen["x-forwarded-for"], seen["x-forwarded-host"]) == (
        "catalog",
        "192.0.2.1",
        "shop.test",
    )
    _, services = await home(headers=headers, route={**HOME, "forward_credentials": True})
    assert (services.seen[0]["cookie"], services.seen[0]["authorization"]) == ("a=1", "Bearer x")


async def test_parts_carry_the_request_id_of_the_server_edge():
    """One id through the whole tree of calls."""
    token = request_id.set("the-edges")
    try:
        _, services = await home(headers={"X-Request-Id": "the client's"})
    finally:
        request_id.reset(token)
    assert {each["x-request-id"] for each in services.seen} == {"the-edges"}


async def test_an_aggregate_can_be_guarded():
    """No part is asked for somebody who is not let in."""
    provider = Provider()
    services = Services(catalog=b"1", recommendations=b"2", identity=provider.document)
    auth = {"users": {"jwks": "http://identity/keys", "audience": "shop"}}
    app = gateway(services, {**HOME, "auth": "users"}, auth=auth)
    assert (await call(app, "/home/ada")).status == 401
    assert services.seen == []
    headers = {"Authorization": f"Bearer {provider.token()}"}
    assert (await call(app, "/home/ada", headers=headers)).json == {"catalog": 1, "advice": 2}


async def test_a_bug_in_a_part_goes_to_the_server_edge():
    """It is not an answer of the service."""
    answer, _ = await home(recommendations=ZeroDivisionError())
    assert (answer.status, isinstance(answer.cut, ExceptionGroup)) == (0, True)


async def test_names_and_defaults_are_written_as_json():
    """Whatever characters they hold."""
    route = {"path": "/x", "parts": {'q"é': {"service": "catalog", "path": "/", "default": {"a": None}}}}
    answer, _ = await home(catalog=httpx2.ConnectError("x"), path="/x", route=route)
    assert json.loads(answer.body)['q"é'] == {"a": None}
