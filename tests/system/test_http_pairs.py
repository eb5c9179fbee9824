# SPDX-License-Identifier: Apache-2.0
"""Every kind of client with every kind of upstream, straight and over an encrypted overlay link: what HTTP promises survives
each pairing of legs."""
import hashlib
import itertools
import socket
import threading

import pytest

import hermes
from pairs import Cut, H1Client, H2Client, Upstream

BIG = 6_000_000
COUNTER = itertools.count(1)


def cluster(name, version, port):
    return {"name": name, "carry": version, "endpoints": [f"127.0.0.1:{port}"]}


def no_flow_left(node):
    flows = []
    try:
        hermes.wait_for(lambda: flows.append(node.admin("flows", "list", json=True)["flows"]) or not flows[-1])
    except AssertionError:
        raise AssertionError(f"{node.name} still carries {flows[-1]}") from None


@pytest.fixture(scope="module")
def world(session_tmp, certs):
    """Upstreams, the port of alice, and both nodes. Authorities: h1.direct, h2.direct, h1.overlay, h2.overlay (any port)."""
    folder = session_tmp / "pairs"
    folder.mkdir()
    upstreams = {version: Upstream(version) for version in ("h1", "h2")}
    port, link = hermes.free_port(), hermes.free_port()
    clusters = [cluster(f"up-{v}", v, u.port) for v, u in upstreams.items()]
    alice = hermes.alice_config(port, certs, link)
    alice["clusters"] += clusters
    alice["routes"] = [*({"match": {"authority": f"{v}.direct"}, "cluster": f"up-{v}"} for v in upstreams), *alice["routes"]]
    ingress = hermes.ingress_config(link, certs, clusters=clusters, routes=[
        {"match": {"authority": f"{v}.overlay"}, "cluster": f"up-{v}"} for v in upstreams])
    nodes = [hermes.Node("ingress", ingress, folder), hermes.Node("alice", alice, folder)]
    yield upstreams, port, nodes
    for node in reversed(nodes):
        no_flow_left(node)
    for node in reversed(nodes):
        node.stop()
    for upstream in upstreams.values():
        upstream.stop()


class Pair:
    def __init__(self, world, client, way, version):
        self.upstreams, self.port, self.nodes = world
        self.kind, self.way = client, way
        self.upstream = self.upstreams[version]
        self.authority = f"{version}.{way}"
        self.clients = []

    def client(self):
        made = {"h1": H1Client, "h2": H2Client}[self.kind](self.port)
        self.clients.append(made)
        return made

    def ask(self, handler, method="GET", **more):
        """Sets the upstream's handler and sends a request's head from a new client."""
        self.upstream.handler = handler
        return self.client().request(method, more.pop("authority", self.authority), **more)


@pytest.fixture(params=["h1", "h2"], ids=lambda v: f"up_{v}")
def version(request):
    return request.param


@pytest.fixture(params=["direct", "overlay"])
def way(request):
    return request.param


@pytest.fixture(params=["h1", "h2"], ids=lambda v: f"client_{v}")
def pair(request, way, version, world):
    made = Pair(world, request.param, way, version)
    while not made.upstream.said.empty():
        made.upstream.said.get()
    yield made
    for client in made.clients:
        client.close()
    for node in made.nodes:
        assert node.running()


def simple(exchange):
    exchange.read_all()
    exchange.head(200, [("x-up", "1")], body=5)
    exchange.data(b"hello")
    exchange.end()


def test_get(pair):
    call = pair.ask(simple, path="/a?b=c", headers=[("x-down", "2")]).response()
    assert (call.status, call.read_all(), call.get("x-up")) == (200, b"hello", "1")
    assert "hermes" in call.get("via")


def test_what_the_upstream_sees(pair):
    def handler(exchange):
        exchange.read_all()
        pair.upstream.said.put((exchange.method, exchange.authority, exchange.path, exchange.headers))
        exchange.head(204)
    call = pair.ask(handler, path="/p?q", headers=[("x-a", "1"), ("x-a", "2"), ("te", "trailers"), ("x-empty", "")]).response()
    assert call.status == 204 and call.read_all() == b""
    method, authority, path, headers = pair.upstream.told()
    assert (method, authority, path) == ("GET", pair.authority, "/p?q")
    assert [v for n, v in headers if n == "x-a"] == ["1", "2"]
    assert ("te", "trailers") in headers and ("x-empty", "") in headers
    assert len([v for n, v in headers if n == "via" for _ in v.split(",")]) == (1 if pair.way == "direct" else 2)
    forwarded = [v for n, v in headers if n == "forwarded"]
    assert len(forwarded) == 1 and "for=\"127.0.0.1:" in forwarded[0] and "proto=http" in forwarded[0]


def test_many_requests_on_one_connection(pair):
    pair.upstream.handler = simple
    client = pair.client()
    for _ in range(20):
        call = client.request("POST", pair.authority, body=3)
        call.data(b"abc")
        call.end()
        assert call.response().status == 200 and call.read_all() == b"hello"


def test_bodiless_post(pair):
    def handler(exchange):
        pair.upstream.said.put((exchange.read_all(), exchange.get("content-length"), exchange.version))
        exchange.head(200, body=0)
        exchange.end()
    call = pair.ask(handler, "POST").response()
    assert call.status == 200 and call.read_all() == b""
    body, length, version = pair.upstream.told()
    assert body == b"" and (length == "0" or version == "h2")


def test_echo_while_the_request_goes_on(pair):
    def handler(exchange):
        exchange.head(200, body="stream")
        while (data := exchange.read()):
            exchange.data(data)
        exchange.end()
    call = pair.ask(handler, "POST", body="stream").response()
    for i in range(5):
        call.data(b"part %d;" % i)
        got = b""
        while len(got) < 7:
            got += call.read()
        assert got == b"part %d;" % i
    call.end()
    assert call.read_all() == b""


@pytest.mark.parametrize("framing", ["stream", BIG])
def test_large_bodies(pair, framing):
    blob = hashlib.sha256(b"x").digest() * (BIG // 32)

    def handler(exchange):
        body = exchange.read_all()
        pair.upstream.said.put(hashlib.sha256(body).hexdigest())
        exchange.head(200, body=framing)
        exchange.data(body)
        exchange.end()
    call = pair.ask(handler, "PUT", body=framing)
    call.data(blob)
    call.end()
    assert call.response().status == 200
    assert pair.upstream.told() == hashlib.sha256(blob).hexdigest()
    assert call.read_all() == blob
    assert call.get("content-length") == (None if framing == "stream" else str(BIG))


def test_slow_reader_holds_the_sender_back(pair):
    """The upstream cannot send much more than buffers hold while nobody reads."""
    sent = []

    def handler(exchange):
        exchange.read_all()
        exchange.head(200, body="stream")
        try:
            while len(sent) < 2000:
                exchange.data(b"x" * 65536)
                sent.append(1)
        except (Cut, OSError, TimeoutError):
            pass
    call = pair.ask(handler).response()
    call.read()
    level = []
    hermes.wait_for(lambda: level.append(len(sent)) or len(level) > 10 and level[-1] == level[-10], timeout=15,
                    message="the sender to stall")
    assert len(sent) < 1000
    call.close()


def test_trailers_both_ways(pair):
    def handler(exchange):
        exchange.read_all()
        pair.upstream.said.put(exchange.trailers)
        exchange.head(200, [("trailer", "x-sum")], body="stream")
        exchange.data(b"body")
        exchange.end([("x-sum", "abc"), ("x-more", "1")])
    call = pair.ask(handler, "POST", body="stream", headers=[("te", "trailers")])
    call.data(b"up")
    call.end([("x-up", "1")])
    assert call.response().read_all() == b"body"
    assert pair.upstream.told() == [("x-up", "1")]
    assert call.trailers == [("x-sum", "abc"), ("x-more", "1")]


def test_early_hints(pair):
    def handler(exchange):
        exchange.read_all()
        exchange.info(103, [("link", "</a>")])
        exchange.info(103, [("link", "</b>")])
        simple(exchange)
    call = pair.ask(handler).response()
    assert [(s, dict(h)["link"]) for s, h in call.infos] == [(103, "</a>"), (103, "</b>")]
    assert call.read_all() == b"hello"


def test_expect_continue(pair):
    def handler(exchange):
        assert exchange.get("expect") == "100-continue"
        exchange.info(100)
        assert exchange.read_all() == b"data"
        exchange.head(201, body=0)
        exchange.end()
    call = pair.ask(handler, "PUT", body=4, headers=[("expect", "100-continue")]).response(informational=True)
    assert call.infos[0][0] == 100
    call.data(b"data")
    call.end()
    assert call.response().status == 201


def test_expect_refused(pair):
    def handler(exchange):
        exchange.head(417, body=2)
        exchange.data(b"no")
        exchange.end()
    call = pair.ask(handler, "PUT", body=4, headers=[("expect", "100-continue")]).response()
    assert call.status == 417 and not call.infos and call.read_all() == b"no"


def test_head_keeps_the_length(pair):
    def handler(exchange):
        assert exchange.method == "HEAD"
        exchange.head(200, [("content-length", "1000")] if exchange.version == "h2" else (), body=None if
                      exchange.version == "h2" else 1000)
    call = pair.ask(handler, "HEAD").response()
    assert (call.status, call.get("content-length"), call.read_all()) == (200, "1000", b"")


@pytest.mark.parametrize("status", [204, 304, 205])
def test_no_content(pair, status):
    def handler(exchange):
        exchange.read_all()
        exchange.head(status, [("etag", '"x"')])
    call = pair.ask(handler).response()
    assert (call.status, call.get("etag"), call.read_all()) == (status, '"x"', b"")
    if status == 204:
        assert call.get("content-length") is None and call.get("transfer-encoding") is None


@pytest.mark.parametrize("status", [301, 401, 403, 404, 500, 503])
def test_an_upstreams_error_is_its_own(pair, status):
    def handler(exchange):
        exchange.read_all()
        exchange.head(status, [("x-why", "mine")], body=4)
        exchange.data(b"mine")
        exchange.end()
    call = pair.ask(handler).response()
    assert (call.status, call.get("x-why"), call.read_all()) == (status, "mine", b"mine")
    assert "error=" not in (call.get("proxy-status") or "")


def test_cookies(pair):
    def handler(exchange):
        exchange.read_all()
        pair.upstream.said.put("; ".join(v for n, v in exchange.headers if n == "cookie"))
        exchange.head(200, [("set-cookie", "a=1"), ("set-cookie", "b=2")])
    cookies = [("cookie", "a=1"), ("cookie", "b=2")] if pair.kind == "h2" else [("cookie", "a=1; b=2")]
    call = pair.ask(handler, headers=cookies).response()
    assert pair.upstream.told() == "a=1; b=2"
    assert [v for n, v in call.headers if n == "set-cookie"] == ["a=1", "b=2"]


# --- tunnels -----------------------------------------------------------------------------------------------------------------

def echo_tunnel(exchange):
    exchange.head(200)
    while (data := exchange.read()):
        exchange.data(data)
    exchange.data(b"bye")
    exchange.end()


@pytest.mark.parametrize("protocol", [None, "websocket"])
def test_tunnel_with_half_close(pair, protocol):
    port = "" if protocol else ":3306"
    call = pair.ask(echo_tunnel, "CONNECT", authority=pair.authority + port, protocol=protocol).response()
    assert call.status == 200
    for i in range(10):
        call.data(b"ping %d" % i)
        got = b""
        while len(got) < 6:
            got += call.read()
        assert got == b"ping %d" % i
    call.end()
    assert call.read_all() == b"bye"


@pytest.mark.parametrize("protocol", [None, "websocket"])
def test_tunnel_that_the_upstream_finishes_first(pair, protocol):
    def handler(exchange):
        exchange.head(200)
        exchange.data(b"first")
        exchange.end()
        pair.upstream.said.put(exchange.read_all())
    port = "" if protocol else ":3306"
    call = pair.ask(handler, "CONNECT", authority=pair.authority + port, protocol=protocol).response()
    assert call.read_all() == b"first"
    call.data(b"still here")
    call.end()
    assert pair.upstream.told() == b"still here"


@pytest.mark.parametrize("protocol", [None, "websocket"])
def test_tunnel_carries_much(pair, protocol):
    blob = bytes(range(256)) * (BIG // 256)

    def handler(exchange):
        exchange.head(200)
        exchange.data(blob)
        pair.upstream.said.put(exchange.read_all() == blob)
        exchange.end()
    port = "" if protocol else ":3306"
    call = pair.ask(handler, "CONNECT", authority=pair.authority + port, protocol=protocol).response()
    got = b""
    while len(got) < len(blob):
        piece = call.read()
        assert piece
        got += piece
    assert got == blob
    call.data(blob)
    call.end()
    assert pair.upstream.told()
    assert call.read_all() == b""


@pytest.mark.parametrize("protocol", [None, "websocket"])
def test_tunnel_refused(pair, protocol):
    def handler(exchange):
        exchange.head(403, [("x-why", "mine")], body=2)
        exchange.data(b"no")
        exchange.end()
    port = "" if protocol else ":3306"
    call = pair.ask(handler, "CONNECT", authority=pair.authority + port, protocol=protocol).response()
    assert (call.status, call.get("x-why"), call.read_all()) == (403, "mine", b"no")


@pytest.mark.parametrize("protocol", [None, "websocket"])
def test_tunnel_reset_reaches_the_client(pair, protocol):
    def handler(exchange):
        exchange.head(200)
        exchange.data(b"x")
        exchange.read()
        exchange.reset()
    port = "" if protocol else ":3306"
    call = pair.ask(handler, "CONNECT", authority=pair.authority + port, protocol=protocol).response()
    assert call.read() == b"x"
    call.data(b"y")
    with pytest.raises((Cut, ConnectionError)):
        while call.read():
            pass
        raise AssertionError("an orderly end")


# --- what goes wrong ---------------------------------------------------------------------------------------------------------

def test_response_cut_in_its_body(pair):
    def handler(exchange):
        exchange.read_all()
        exchange.head(200, body="stream")
        exchange.data(b"x" * 1000)
        seen.wait(20)
        exchange.reset()
    seen = threading.Event()
    call = pair.ask(handler).response()
    assert call.read()
    seen.set()
    with pytest.raises((Cut, ConnectionError)):
        while call.read():
            pass
        raise AssertionError("an orderly end")


def test_response_cut_at_once(pair):
    """Whether the head still gets through or not: never a response that looks whole and is not."""
    def handler(exchange):
        exchange.read_all()
        exchange.head(200, body="stream")
        exchange.data(b"x" * 1000)
        exchange.reset()
    call = pair.ask(handler)
    try:
        call.response()
        call.read_all()
        assert call.status == 502 and "error=" in call.get("proxy-status")
    except (Cut, ConnectionError):
        pass


def test_no_response_at_all(pair):
    def handler(exchange):
        exchange.read_all()
        exchange.reset()
    call = pair.ask(handler, "POST", body=1)
    call.data(b"x")
    call.end()
    assert call.response().status == 502
    assert "error=" in call.get("proxy-status")
    assert b"hermes:" in call.read_all()


def test_early_response(pair):
    def handler(exchange):
        exchange.read()
        exchange.head(413, body=2)
        exchange.data(b"no")
        exchange.end()
        pair.upstream.said.put("answered")
    call = pair.ask(handler, "POST", body=10_000_000)
    call.data(b"x" * 1000)
    assert pair.upstream.told() == "answered"
    call.response()
    assert call.status == 413 and call.read_all() == b"no"


def test_client_that_goes_away_is_felt_by_the_upstream(pair):
    def handler(exchange):
        exchange.head(200, body="stream")
        try:
            while True:
                exchange.data(b"x" * 10000)
        except (Cut, OSError) as error:
            pair.upstream.said.put(repr(error))
    call = pair.ask(handler).response()
    call.read()
    call.reset()
    assert pair.upstream.told()


def test_client_that_breaks_off_its_body(pair):
    def handler(exchange):
        try:
            exchange.read()
            pair.upstream.said.put("begun")
            exchange.read_all()
            pair.upstream.said.put("complete")
        except (Cut, OSError) as error:
            pair.upstream.said.put(repr(error))
    call = pair.ask(handler, "POST", body=100)
    call.data(b"x" * 10)
    assert pair.upstream.told() == "begun"
    call.reset()
    assert pair.upstream.told() != "complete"


def test_dead_idle_connection_is_no_ones_trouble(pair):
    """The upstream closes after each answer without saying so: the next request finds a dead connection."""
    def handler(exchange):
        simple(exchange)
        if exchange.version == "h1":
            exchange.sock.shutdown(socket.SHUT_RDWR)
        else:
            exchange.connection.sock.shutdown(socket.SHUT_RDWR)
    pair.upstream.handler = handler
    client = pair.client()
    for _ in range(10):
        call = client.request("GET", pair.authority).response()
        assert call.status == 200 and call.read_all() == b"hello"


def test_until_close(pair, version):
    if version != "h1":
        pytest.skip("HTTP/1.1 only")

    def handler(exchange):
        exchange.read_all()
        exchange.head(200, body="close")
        exchange.data(b"x" * 100_000)
        exchange.end()
    call = pair.ask(handler).response()
    assert call.read_all() == b"x" * 100_000
