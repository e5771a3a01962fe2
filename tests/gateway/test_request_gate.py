"""What is refused before anything is matched, whatever the server let through."""

from __future__ import annotations

import pytest

from tests.gateway.exchange import ANY, Services, call, echo, gateway

pytestmark = pytest.mark.asyncio


@pytest.fixture
def services():
    return Services(echo=echo)


async def refused(services, status: int, *args, **options) -> str:
    """The request is answered with ``status``, and no service sees it."""
    answer = await call(gateway(services, ANY), *args, **options)
    assert answer.status == status, answer.body
    assert services.seen == []
    assert answer["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.cut is None
    return answer.json["detail"]


async def test_row_01_content_length_and_transfer_encoding_together_are_refused(services):
    """Never both on the way in, so never both on the way out."""
    headers = [("Content-Length", "6"), ("Transfer-Encoding", "chunked")]
    assert "both" in await refused(services, 400, method="POST", headers=headers)


@pytest.mark.parametrize("lengths", [["3", "3"], ["3", "4"]])
async def test_row_02_two_content_lengths_are_refused(services, lengths):
    """Equal ones too."""
    await refused(services, 400, method="POST", headers=[("Content-Length", each) for each in lengths])


@pytest.mark.parametrize("length", ["3, 3", "+3", "-1", "0x3", "3 ", "", "1_0", "३", "\xb2"])
async def test_row_03_a_content_length_that_is_no_plain_number_is_refused(services, length):
    """Digits, and nothing else."""
    headers = {"Content-Length": length.encode().decode("latin-1")}
    await refused(services, 400, method="POST", headers=headers)


@pytest.mark.parametrize(
    "codings", [["xchunked"], ["chunked, identity"], ["gzip, chunked"], ["chunked", "chunked"], ["identity"], [""], ["\x0bchunked\x00"[:8] + "x"]]
)  # fmt: skip
async def test_row_04_a_transfer_encoding_that_is_not_chunked_is_refused(services, codings):
    """Nothing is sent upstream."""
    headers = [("Transfer-Encoding", each) for each in codings]
    assert "Transfer-Encoding" in await refused(services, 400, method="POST", headers=headers)


@pytest.mark.parametrize("version", ["1.0", "2"])
async def test_row_05_transfer_encoding_outside_of_http_1_1_is_refused(services, version):
    """HTTP/1.0 servers frame such a request differently, HTTP/2 knows none."""
    await refused(
        services, 400, method="POST", headers={"Transfer-Encoding": "chunked"}, http_version=version
    )


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b"])
async def test_row_09_a_line_break_or_nul_in_a_value_is_refused(services, value):
    """It would be a header of its own further on."""
    await refused(services, 400, headers={"X-Note": value})


async def test_row_12_a_request_without_host_or_with_two_is_refused(services):
    """RFC 9112, 3.2; HTTP/1.0 and HTTP/2 may come without."""
    await refused(services, 400, headers={"host": ""})
    await refused(services, 400, headers=[("Host", "a.test"), ("Host", "a.test")])
    for version in ("1.0", "2"):
        answer = await call(gateway(services, ANY), headers={"host": ""}, http_version=version)
        assert answer.status == 200
    assert services.seen[0]["x-forwarded-host"] is None


@pytest.mark.parametrize(
    "host", ["ex.test/../x@evil", "a b", "a,b", "user@shop.test", "shop.test:port", "shop.test:", "sh%6fp", "é", "[zz]", "a:1:2", "/"]
)  # fmt: skip
async def test_row_13_a_host_that_is_none_is_refused(services, host):
    """It goes into X-Forwarded-Host, and decides the route."""
    await refused(services, 400, headers={"Host": host})


@pytest.mark.parametrize(
    ("host", "found"),
    [("admin.test", True), ("ADMIN.Test:8443", True), ("admin.test.", True), ("admin.test.evil", False), ("x.test", False)],
)  # fmt: skip
async def test_row_13_a_routes_host_is_matched_without_case_and_port(services, host, found):
    """For any number of routes."""
    app = gateway(services, {"path": "/a", "service": "echo", "host": "admin.test"})
    assert (await call(app, "/a", headers={"Host": host})).status == (200 if found else 404)


@pytest.mark.parametrize("target", [b"http://evil.test/a", b"*", b"evil.test:443"])
async def test_row_14_a_target_in_another_form_is_refused(services, target):
    """Servers that pass it on as a path get 400, never 500."""
    await refused(services, 400, target)


async def test_row_26_long_targets_and_large_heads_are_refused(services):
    """414 above 8 KiB of path and query, 431 above 100 fields or 32 KiB."""
    assert "8192" in await refused(services, 414, "/" + "a" * 8192)
    await refused(services, 414, "/a?" + "b" * 8191)
    assert "100" in await refused(services, 431, headers=[(f"X-{n}", "v") for n in range(100)])
    assert "32768" in await refused(services, 431, headers={"X-Large": "v" * 32768})
    assert (await call(gateway(services, ANY), "/" + "a" * 8191)).status == 200
    assert (await call(gateway(services, ANY), headers=[(f"X-{n}", "v") for n in range(99)])).status == 200


async def test_row_26_the_limits_are_options(services):
    """Each of them."""
    small = gateway(services, ANY, max_url=10, max_headers=3, max_header_bytes=40)
    assert (await call(small, "/" + "a" * 10)).status == 414
    assert (await call(small, headers={"A": "1", "B": "2", "C": "3"})).status == 431
    assert (await call(small, headers={"A": "1" * 40})).status == 431
    assert (await call(small, headers={"A": "1"})).status == 200


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
async def test_row_27_connect_and_trace_are_never_allowed(services, method):
    """Whatever the routes say."""
    await refused(services, 405, method=method)


@pytest.mark.parametrize("method", ["BREW", "get", "PROPFIND", "GET /x", ""])
async def test_row_27_an_unknown_method_is_501_unless_a_route_names_it(services, method):
    """Methods are known by name."""
    await refused(services, 501, method=method)
    dav = gateway(services, {"path": "/a", "service": "echo", "methods": ["PROPFIND"]})
    if method == "PROPFIND":
        assert (await call(dav, "/a", method=method)).status == 200


async def test_a_path_with_more_than_one_reading_is_refused(services):
    """Rows 19 to 24 at the door; the machine has tests of its own."""
    for path in (b"/pub/../a", b"/%2e%2e/a", b"/a%2fb", b"/a\\b", "/é".encode(), b"/a%0d%0ab", b"/a?b c"):
        await refused(services, 400, path)


async def test_a_server_that_gives_no_raw_path_is_served_too(services):
    """The decoded path is encoded again, so both views stay the same."""

    def only_decoded(path):
        async def app(scope, receive, send):
            without = {key: value for key, value in scope.items() if key != "raw_path"}
            await gateway(services, ANY)({**without, "path": path}, receive, send)

        return app

    answer = await call(only_decoded("/caf\u00e9/a b"))
    assert (answer.status, services.seen[0].target) == (200, b"/caf%C3%A9/a%20b")
    assert (await call(only_decoded("/a\\b"))).status == 400


async def test_a_mounted_gateway_sees_the_path_below_its_mount(services):
    """As an application of another one, under ``root_path``."""
    app = gateway(services, {"path": "/a", "service": "echo"}, {"path": "/", "service": "echo"})
    assert (await call(app, "/gw/a", root_path="/gw")).status == 200
    assert (await call(app, "/gw", root_path="/gw")).status == 200
    assert [each.target for each in services.seen] == [b"/a", b"/"]
    assert (await call(app, "/other/a", root_path="/gw")).status == 404
    assert (await call(app, "/gwx", root_path="/gw")).status == 404


async def test_scopes_that_are_not_http(services):
    """Lifespan completes at once, a websocket is refused before it opens, anything else is an error."""
    app = gateway(services, ANY)
    sent = []

    async def send(message):
        sent.append(message)

    async def receive(messages=iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])):  # noqa: B008
        return next(messages)

    await app({"type": "lifespan"}, receive, send)
    assert [each["type"] for each in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    sent.clear()

    async def connect():
        return {"type": "websocket.connect"}

    await app({"type": "websocket"}, connect, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
    with pytest.raises(ValueError, match="carrier-pigeon"):
        await app({"type": "carrier-pigeon"}, connect, send)
