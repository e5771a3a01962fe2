"""Requests passed through to one service, and the answers back."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from chassis.client import edge_error
from chassis.core import (
    CircuitOpen,
    Deadline,
    DeadlineExceeded,
    NoInstance,
    UpstreamError,
    current_deadline,
    deadline_scope,
)
from chassis.core.request import request_id
from chassis.gateway import UpstreamAborted
from tests.gateway.exchange import ANY, Body, Services, call, echo, gateway
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio


@pytest.fixture
def services():
    return Services(echo=echo)


def answering(status=200, headers=(), *chunks, error=None):
    """A service that answers with exactly this."""

    async def stream():
        for chunk in chunks:
            yield chunk
        if error is not None:
            raise error

    async def answer(request, seen):
        await request.aread()
        return httpx2.Response(status, headers=list(headers), stream=Body(stream()))

    return answer


async def test_a_request_goes_to_the_routes_service_without_the_stripped_prefix(services):
    """Method, path below the prefix, query."""
    app = gateway(services, {"path": "/catalog/{rest:path}", "service": "echo", "strip": "/catalog"})
    assert (
        await call(app, "/catalog/items/1?a=b", method="PUT", body=b"x", headers={"Content-Length": "1"})
    ).status == 200
    for path in ("/catalog", "/catalog/"):
        await call(app, path)
    assert [(each.method, each.target) for each in services.seen] == [
        ("PUT", b"/items/1?a=b"), ("GET", b"/"), ("GET", b"/"),
    ]  # fmt: skip


async def test_the_server_edge_is_told_the_routes_template(services):
    """Metrics and spans have one name per route, not one per path."""
    app = gateway(services, {"path": "/orders/{id}", "service": "echo"})
    assert (await call(app, "/orders/7")).scope["chassis.route"] == "/orders/{id}"
    assert "chassis.route" not in (await call(app, "/nothing")).scope


async def test_an_unknown_path_is_404_and_a_method_that_is_not_allowed_405(services):
    """Problem documents, with the request's id, and never a word of the inside."""
    app = gateway(services, {"path": "/a", "service": "echo", "methods": ["GET", "POST"]})
    token = request_id.set("req-1")
    try:
        answer = await call(app, "/b")
    finally:
        request_id.reset(token)
    assert answer.json == {
        "title": "Not Found", "status": 404, "detail": "there is nothing here", "request_id": "req-1",
    }  # fmt: skip
    answer = await call(app, "/a", method="DELETE")
    assert (answer.status, answer["allow"]) == (405, "GET, HEAD, POST")
    assert services.seen == []


async def test_row_15_headers_named_by_connection_do_not_pass(services):
    """And cannot take away what the gateway adds."""
    headers = [
        ("Connection", "close, X-Secret"), ("connection", "X-Forwarded-For , HOST"), ("X-Secret", "1"),
        ("Keep-Alive", "5"), ("Proxy-Connection", "x"), ("TE", "trailers"), ("Trailer", "X-T"), ("X-Kept", "2"),
        ("Proxy-Authorization", "Basic x"),
    ]  # fmt: skip
    await call(gateway(services, ANY), headers=headers)
    [seen] = services.seen
    for name in (
        "connection",
        "x-secret",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "proxy-authorization",
    ):
        assert seen[name] is None
    assert (seen["x-kept"], seen["x-forwarded-for"], seen["host"]) == ("2", "192.0.2.1", "echo")


async def test_row_16_hop_by_hop_headers_of_an_answer_do_not_pass():
    """The fixed ones and those that Connection names."""
    headers = [("Connection", "X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "5"), ("Transfer-Encoding", "chunked"),
               ("Trailer", "X"), ("Server", "inside/1"), ("Date", "now"), ("X-Kept", "2"), ("Content-Length", "9")]  # fmt: skip
    answer = await call(gateway(Services(echo=answering(200, headers, b"ok")), ANY))
    assert answer.headers == [(b"x-kept", b"2")]
    assert answer.body == b"ok"


async def test_row_17_what_a_client_says_of_its_address_is_replaced(services):
    """Every header of this kind, whatever the spelling."""
    lies = ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix",
            "Forwarded", "X-Real-IP", "X-Client-IP", "X-Cluster-Client-IP", "True-Client-IP", "CF-Connecting-IP",
            "CF-IPCountry", "Fastly-Client-IP", "X-Original-URL", "X-Rewrite-URL"]  # fmt: skip
    await call(gateway(services, ANY), headers=[(name, "9.9.9.9") for name in lies])
    [seen] = services.seen
    assert not any(b"9.9.9.9" in value for _, value in seen.headers)
    assert (seen["x-forwarded-for"], seen["x-forwarded-host"], seen["x-forwarded-proto"]) == (
        "192.0.2.1", "shop.test", "https",
    )  # fmt: skip
    await call(gateway(services, ANY), client=None)
    assert services.seen[1]["x-forwarded-for"] is None


async def test_row_18_identity_headers_from_outside_are_stripped_in_every_spelling(services):
    """Servers fold ``_`` to ``-``; so headers with an underscore do not pass at all."""
    lies = ["X-Chassis-Identity", "x-chassis-attempt", "X-CHASSIS-Anything", "X_Chassis_Identity", "X-Chassis_Identity",
            "X_User_Id"]  # fmt: skip
    await call(gateway(services, ANY), headers=[(name, "root") for name in lies])
    assert not any(value == b"root" for _, value in services.seen[0].headers)


async def test_row_07_headers_that_appear_after_the_start_are_never_seen(services):
    """Uvicorn appends a chunked request's trailers to the very list that it gave."""

    async def app(scope, receive, send):
        async def trailing():
            scope["headers"].append((b"x-user", b"admin"))
            return await receive()

        await gateway(services, ANY)(scope, trailing, send)

    headers = {"Transfer-Encoding": "chunked"}
    answer = await call(app, method="POST", headers=headers, body=[b"a", b"b"])
    assert (b"x-user", b"admin") in answer.scope["headers"]
    assert services.seen[0]["x-user"] is None


async def test_the_request_id_is_the_server_edges_where_there_is_one(services):
    """The edge replaces an id that is none, and everything below must carry the same."""
    app = gateway(services, ANY)
    await call(app, headers={"X-Request-Id": "the client's"})
    token = request_id.set("the-edges")
    try:
        await call(app, headers={"X-Request-Id": "the client's"})
        await call(app)
    finally:
        request_id.reset(token)
    assert [each["x-request-id"] for each in services.seen] == ["the client's", "the-edges", "the-edges"]


async def test_a_server_that_says_that_the_client_left_ends_the_exchange(services):
    """ASGI 2.4: ``send`` raises OSError. It is not the upstream that broke off."""
    body = None

    async def chunks():
        while True:
            yield b"x"

    async def service(request, seen):
        nonlocal body
        body = Body(chunks())
        return httpx2.Response(200, stream=body)

    async def app(scope, receive, send):
        async def leaving(message):
            if message["type"] == "http.response.body":
                raise OSError
            await send(message)

        await gateway(Services(echo=service), ANY)(scope, receive, leaving)

    answer = await call(app, leave=asyncio.Event())
    assert (answer.status, answer.cut) == (200, None)
    assert body is not None
    assert body.closed.is_set()


async def test_row_19_to_25_the_bytes_that_were_matched_are_forwarded(services):
    """Escapes, repeats, odd queries: nothing is encoded, decoded or sorted on the way."""
    targets = [b"/a%2Db/%7e/c%20d;x=1", b"/%252e%252e/x", b"/a?a=%zz&a=1?2&&b=|{}\"<>^`\\", b"/[x]/{y}|\"<>^`",
               b"/a?../..//%2e"]  # fmt: skip
    for target in targets:
        assert (await call(gateway(services, ANY), target)).status == 200
    assert [each.target for each in services.seen] == targets
    await call(gateway(services, ANY), b"//evil.test//a")
    assert services.seen[-1].target == b"/evil.test/a"
    assert services.seen[-1]["host"] == "echo"


async def test_row_28_an_upgrade_never_passes(services):
    """h2c would be a tunnel past every guard."""
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
    assert (await call(gateway(services, ANY), headers=headers)).status == 200
    assert services.seen[0]["upgrade"] is services.seen[0]["http2-settings"] is None


async def test_row_29_expect_is_answered_here_and_not_forwarded(services):
    """The server sends 100 when the body is first read, which is after the request was let in."""
    headers = {"Expect": "100-continue", "Content-Length": "1"}
    assert (await call(gateway(services, ANY), method="POST", headers=headers, body=b"x")).status == 200
    assert services.seen[0]["expect"] is None


async def test_row_30_a_body_is_forwarded_whole_whatever_the_method(services):
    """Length and body always agree."""
    app = gateway(services, ANY)
    await call(app, headers={"Content-Length": "4"}, body=b"body")
    await call(app)
    await call(app, method="POST", headers={"Content-Length": "0"})
    await call(app, method="POST", headers={"Transfer-Encoding": "chunked"}, body=[b"bo", b"", b"dy"])
    await call(app, method="POST", headers={"Content-Length": "4"}, body=[b"bo", b"dy"])
    assert [(each.body, each["content-length"], each["transfer-encoding"]) for each in services.seen] == [
        (b"body", "4", None),
        (b"", None, None),
        (b"", "0", None),
        (b"body", None, "chunked"),
        (b"body", "4", None),
    ]


async def test_a_small_body_can_be_sent_again_and_a_large_one_is_streamed(services):
    """What was read whole survives a refused connection; what is large is never held."""
    kinds = []

    async def look(request, seen):
        kinds.append(type(request.stream).__name__)
        return await echo(request, seen)

    services.services["echo"] = look
    app = gateway(services, ANY)
    await call(app, method="POST", headers={"Content-Length": "2"}, body=[b"a", b"b"])
    await call(app, method="POST", headers={"Content-Length": "70000"}, body=[b"a" * 35_000, b"b" * 35_000])
    await call(app)
    assert kinds == ["ByteStream", "Stream", "ByteStream"]
    assert (services.seen[1]["content-length"], len(services.seen[1].body)) == ("70000", 70_000)


async def test_a_body_is_passed_on_as_it_comes():
    """The service has the first chunk before the client has sent the second."""
    passed, second = asyncio.Event(), asyncio.Event()

    async def service(request, seen):
        chunks = [chunk async for chunk in watched(request.stream)]
        return httpx2.Response(200, content=b"|".join(chunks))

    async def watched(stream):
        async for chunk in stream:
            passed.set()
            yield chunk

    async def app(scope, receive, send):
        count = 0

        async def slow():
            nonlocal count
            count += 1
            if count == 2:
                await second.wait()
            return await receive()

        await gateway(Services(echo=service), ANY)(scope, slow, send)

    headers = {"Transfer-Encoding": "chunked"}
    running = asyncio.create_task(call(app, method="POST", headers=headers, body=[b"one", b"two"]))
    await asyncio.wait_for(passed.wait(), 5)
    second.set()
    assert (await running).body == b"one|two"


async def test_a_declared_body_above_the_limit_is_refused_before_it_is_read(services):
    """413, the connection closed, the service never asked."""
    app = gateway(services, ANY | {"max_body": 10})
    answer = await call(app, method="POST", headers={"Content-Length": "11"}, body=b"x" * 11)
    assert (answer.status, answer["connection"]) == (413, "close")
    assert services.seen == []
    assert (await call(app, method="POST", headers={"Content-Length": "10"}, body=b"x" * 10)).status == 200


async def test_a_body_that_grows_above_the_limit_is_cut_off(services):
    """Chunked: 413, and the service's call is cancelled, which counts against nobody."""
    ends = []

    async def service(request, seen):
        try:
            return await echo(request, seen)
        except BaseException as error:
            ends.append(type(error))
            raise

    app = gateway(Services(echo=service), ANY, max_body=10)
    headers = {"Transfer-Encoding": "chunked"}
    answer = await call(app, method="POST", headers=headers, body=[b"x" * 6, b"x" * 6, b"x"])
    assert (answer.status, answer.cut) == (413, None)
    assert ends == [asyncio.CancelledError]
    whole = await call(app, method="POST", headers=headers, body=[b"x" * 11])
    assert whole.status == 413
    # The default is ten megabytes.
    many = await call(gateway(services, ANY), method="POST", headers=headers, body=[b"x" * 1024 * 1024] * 11)
    assert many.status == 413


async def test_row_37_set_cookie_fields_stay_separate():
    """Folded into one they are broken."""
    headers = [("Set-Cookie", "a=1; Expires=Thu, 01 Jan 2026 00:00:00 GMT"), ("Set-Cookie", "b=2")]
    answer = await call(gateway(Services(echo=answering(200, headers)), ANY))
    assert [value for name, value in answer.headers if name == b"set-cookie"] == [
        b"a=1; Expires=Thu, 01 Jan 2026 00:00:00 GMT", b"b=2",
    ]  # fmt: skip


async def test_row_39_credentials_pass_only_where_the_route_says_so(services):
    """Authorization, Cookie, and every header that carries an API key anywhere in the gateway."""
    keys = {"partners": {"api_keys": {"acme": "sha256:" + "0" * 64}, "header": "X-Partner-Key"}}
    sent = {"Authorization": "Bearer x", "Cookie": "a=1", "X-Partner-Key": "k"}
    await call(gateway(services, ANY, auth=keys), headers=sent)
    await call(gateway(services, ANY | {"forward_credentials": True}, auth=keys), headers=sent)
    without, with_ = services.seen
    for name, value in sent.items():
        assert without[name.lower()] is None
        assert with_[name.lower()] == value


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
async def test_row_40_method_overrides_do_not_pass(services, name):
    """The method that was let in is the method that is served."""
    await call(gateway(services, ANY), headers={name: "DELETE"})
    assert services.seen[0][name.lower()] is None


@pytest.mark.parametrize("bad", ["a\r\nSet-Cookie: x=1", "a\nb", "a\0b"])
async def test_row_42_an_answer_whose_headers_would_split_it_is_502(bad):
    """Nothing of it is passed on."""
    answer = await call(gateway(Services(echo=answering(200, [("X-A", bad)], b"body")), ANY))
    assert answer.status == 502
    assert answer["x-a"] is None


async def test_row_44_head_204_and_304_have_no_body_and_keep_their_framing():
    """Content-Length stays where it tells the length of what GET would give."""
    headers = [("Content-Length", "5"), ("ETag", "x")]
    app = gateway(Services(echo=answering(200, headers, b"hello")), ANY)
    head = await call(app, method="HEAD")
    assert (head.status, head.body, head["content-length"]) == (200, b"", "5")
    for status, length in ((204, None), (304, "5")):
        answer = await call(gateway(Services(echo=answering(status, headers, b"hello")), ANY))
        assert (answer.status, answer.body, answer["content-length"], answer["etag"]) == (
            status,
            b"",
            length,
            "x",
        )


async def test_a_compressed_answer_passes_as_it_came():
    """The gateway never decompresses what it forwards."""
    body = b"\x1f\x8b not really gzip"
    answer = await call(gateway(Services(echo=answering(200, [("Content-Encoding", "gzip")], body)), ANY))
    assert (answer.body, answer["content-encoding"]) == (body, "gzip")


async def test_row_35_the_location_of_an_answer_is_made_public():
    """With the prefix that was stripped; the instance that answered is not shown."""
    app = gateway(
        Services(echo=answering(302, [("Location", "/items/2")])),
        {"path": "/catalog/{rest:path}", "service": "echo", "strip": "/catalog"},
    )
    assert (await call(app, "/catalog/items/1"))["location"] == "/catalog/items/2"


async def test_row_34_redirects_of_an_upstream_are_not_followed(services):
    """They are the client's to follow."""
    services.services["echo"] = answering(307, [("Location", "http://169.254.169.254/")])
    answer = await call(gateway(services, ANY))
    assert (answer.status, answer["location"]) == (307, "http://169.254.169.254/")
    assert len(services.seen) == 1


async def test_an_event_stream_passes_event_by_event():
    """The first event is with the client before the second is made."""
    second = asyncio.Event()
    got: list[bytes] = []

    async def events():
        yield b"data: 1\n\n"
        await second.wait()
        yield b"data: 2\n\n"

    async def service(request, seen):
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Body(events()))

    async def app(scope, receive, send):
        async def listen(message):
            got.append(message.get("body", b""))
            await send(message)

        await gateway(Services(echo=service), ANY)(scope, receive, listen)

    running = asyncio.create_task(call(app))
    await eventually(lambda: b"data: 1\n\n" in got)
    second.set()
    assert (await running).body == b"data: 1\n\ndata: 2\n\n"


async def test_a_slow_client_slows_the_upstream_down():
    """No chunk is read before the one before it was taken."""
    made, take = [], asyncio.Semaphore(0)

    async def chunks():
        for number in range(5):
            made.append(number)
            yield b"x"

    async def service(request, seen):
        return httpx2.Response(200, stream=Body(chunks()))

    async def app(scope, receive, send):
        async def slow(message):
            if message["type"] == "http.response.body":
                await take.acquire()
            await send(message)

        await gateway(Services(echo=service), ANY)(scope, receive, slow)

    running = asyncio.create_task(call(app))
    await eventually(lambda: made == [0])
    for _ in range(20):
        await asyncio.sleep(0)
    assert made == [0]
    for _ in range(6):
        take.release()
    assert (await running).body == b"xxxxx"


@pytest.mark.parametrize(
    "error", [httpx2.RemoteProtocolError("cut"), httpx2.ReadError("cut"), httpx2.ReadTimeout("idle"), DeadlineExceeded("x"), ConnectionResetError()]
)  # fmt: skip
async def test_row_33_an_answer_that_breaks_off_never_ends_clean(error):
    """The server sees an error, and cuts the client's connection."""
    answer = await call(gateway(Services(echo=answering(200, [], b"half", error=error)), ANY))
    assert (answer.status, answer.body) == (200, b"half")
    assert isinstance(answer.cut, UpstreamAborted)


def failed(error):
    """The error as the client raises it."""
    return edge_error(error, httpx2.Request("GET", "http://echo/"))


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (NoInstance("echo", reason="none"), 503, "1"),
        (CircuitOpen("echo", retry_after=4.2), 503, "5"),
        (failed(httpx2.PoolTimeout("full")), 503, "1"),
        (DeadlineExceeded("late"), 504, None),
        (failed(httpx2.ReadTimeout("late")), 504, None),
        (TimeoutError(), 504, None),
        (failed(httpx2.ConnectTimeout("late")), 503, "1"),
        (failed(httpx2.ConnectError("refused at 10.0.0.7:80")), 503, "1"),
        (failed(httpx2.RemoteProtocolError("bad")), 502, None),
        (ConnectionRefusedError("10.0.0.7"), 502, None),
    ],
)
async def test_a_failed_call_is_answered_by_its_kind(error, status, retry_after):
    """502, 503 with Retry-After, 504; the text names the service and nothing of the inside."""
    answer = await call(gateway(Services(echo=error), ANY))
    assert (answer.status, answer["retry-after"], answer.cut) == (status, retry_after, None)
    assert answer["x-chassis-no-retry"] == ("1" if isinstance(error, UpstreamError) else None)
    assert "echo" in answer.json["detail"]
    assert b"10.0.0.7" not in answer.body
    assert b"Traceback" not in answer.body


async def test_an_errors_double_nature_at_the_http_edge_changes_nothing():
    """The client's CircuitOpen is httpx2's ConnectError too: it is a 503 still."""

    class Both(CircuitOpen, httpx2.ConnectError):
        pass

    error = Both.__new__(Both)
    error.retry_after = 2.0
    error.name = "echo"
    answer = await call(gateway(Services(echo=error), ANY))
    assert (answer.status, answer["retry-after"]) == (503, "2")


async def test_a_bug_is_not_dressed_up_as_a_bad_gateway():
    """It goes to the server edge, which answers 500 and logs it."""
    answer = await call(gateway(Services(echo=ZeroDivisionError()), ANY))
    assert (answer.status, type(answer.cut)) == (0, ZeroDivisionError)


async def test_a_client_that_leaves_before_the_answer_ends_the_upstreams_call():
    """Nobody waits for it any more; nothing is answered, nothing raised."""
    leave, cancelled, asked = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def service(request, seen):
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    running = asyncio.create_task(call(gateway(Services(echo=service), ANY), leave=leave))
    await asyncio.wait_for(asked.wait(), 5)
    leave.set()
    answer = await asyncio.wait_for(running, 5)
    assert (answer.status, answer.cut) == (0, None)
    assert cancelled.is_set()


async def test_a_client_that_leaves_during_the_answer_closes_the_upstreams_body():
    """Even when the upstream is silent just then: servers do not tell unless they are asked."""
    leave, body = asyncio.Event(), None

    async def silent():
        yield b"first"
        await asyncio.Event().wait()

    async def service(request, seen):
        nonlocal body
        body = Body(silent())
        return httpx2.Response(200, stream=body)

    running = asyncio.create_task(call(gateway(Services(echo=service), ANY), leave=leave))
    await eventually(lambda: body is not None)
    leave.set()
    answer = await asyncio.wait_for(running, 5)
    assert (answer.body, answer.cut) == (b"first", None)
    assert body is not None
    assert body.closed.is_set()


@pytest.mark.parametrize("chunks", [[b"a", b"b"], [b"a"]])
async def test_a_client_that_leaves_while_it_uploads_ends_the_upstreams_call(chunks):
    """A cancellation, so that no breaker counts it against the instance."""
    ends = []

    async def service(request, seen):
        try:
            return await echo(request, seen)
        except BaseException as error:
            ends.append(type(error))
            raise

    async def app(scope, receive, send):
        async def leaving():
            message = await receive()
            if message["type"] == "http.request" and not message["more_body"]:
                return {"type": "http.disconnect"}
            return message

        await gateway(Services(echo=service), ANY)(scope, leaving, send)

    headers = {"Transfer-Encoding": "chunked"}
    answer = await call(app, method="POST", headers=headers, body=chunks, leave=asyncio.Event())
    assert (answer.status, answer.cut) == (0, None)
    assert ends == ([asyncio.CancelledError] if len(chunks) > 1 else [])


async def test_an_answer_that_begins_before_the_upload_ended_is_passed_on():
    """The service has decided; the rest of the body is let go."""
    leave = asyncio.Event()

    async def service(request, seen):
        await anext(aiter(request.stream))
        return httpx2.Response(422, content=b"enough")

    headers = {"Transfer-Encoding": "chunked"}
    answer = await call(
        gateway(Services(echo=service), ANY), method="POST", headers=headers, body=[b"a"] * 5, leave=leave
    )
    assert (answer.status, answer.body) == (422, b"enough")


async def test_a_deadline_the_client_did_not_set_does_not_cut_a_body():
    """The server edge gives every request one; event streams outlive it. The client's own one holds."""
    seen_deadlines = []

    async def service(request, seen):
        seen_deadlines.append(current_deadline())
        return httpx2.Response(200)

    app = gateway(Services(echo=service), ANY)
    with deadline_scope(Deadline.after(5)) as deadline:
        await call(app)
        await call(app, headers={"X-Chassis-Deadline-Ms": "5000"})
    assert seen_deadlines == [None, deadline]


async def test_upstreams_are_found_on_a_chassis_too(services):
    """Whatever has ``.upstreams`` will do."""

    class ChassisLike:
        upstreams = services

    assert (await call(gateway(ChassisLike(), ANY))).status == 200
