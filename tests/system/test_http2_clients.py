# SPDX-License-Identifier: Apache-2.0
"""nghttp, h2load and python3-h2 against alice's http listener: HTTP/2 with prior knowledge and over TLS."""
import re
import shutil
import socket
import ssl
import subprocess

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

import hermes


@pytest.fixture(scope="module")
def front(session_tmp, certs, web, odd):
    """One node with a plain and a TLS listener; WEB leads to nginx, ODD to the odd server, all else where it names."""
    folder = session_tmp / "http2-clients"
    folder.mkdir()
    plain, tls = hermes.free_port(), hermes.free_port()
    crt, key = certs.server("front", "DNS:localhost", "IP:127.0.0.1")
    with hermes.Node("front", {
            "node": {"name": "front", "domain": "example.net"},
            "listeners": [{"name": "plain", "address": f"127.0.0.1:{plain}", "accept": "http"},
                          {"name": "tls", "address": f"127.0.0.1:{tls}", "accept": "http",
                           "tls": {"certificate": str(crt), "key": str(key)}}],
            "clusters": [{"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{web.port}"]},
                         {"name": "odd", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]},
                         {"name": "anywhere", "carry": "tcp", "endpoints": "target", "allow_targets": ["loopback"]}],
            "routes": [{"match": {"authority": ["WEB", "localhost", "127.0.0.1"], "method": ["GET", "HEAD", "POST"]},
                        "cluster": "web"},
                       {"match": {"authority": "ODD"}, "cluster": "odd"},
                       {"match": {}, "cluster": "anywhere"}]}, folder) as node:
        node.plain, node.tls = plain, tls
        yield node


def h2load(*args):
    done = subprocess.run(["h2load", *map(str, args)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not shutil.which("h2load"), reason="h2load is missing")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_h2load(front, scheme):
    port = front.plain if scheme == "http" else front.tls
    out = h2load("-n", 2000, "-c", 10, "-m", 20, f"{scheme}://127.0.0.1:{port}/")
    assert re.search(r"2000 succeeded, 0 failed, 0 errored, 0 timeout", out), out
    assert re.search(r"status codes: 2000 2xx", out), out


@pytest.mark.skipif(not shutil.which("h2load"), reason="h2load is missing")
def test_h2load_http1(front):
    out = h2load("--h1", "-n", 1000, "-c", 10, f"http://127.0.0.1:{front.plain}/")
    assert re.search(r"1000 succeeded, 0 failed", out), out


@pytest.mark.skipif(not shutil.which("nghttp"), reason="nghttp is missing")
def test_nghttp_body_and_big(front, web, tmp_path):
    done = subprocess.run(["nghttp", f"http://127.0.0.1:{front.plain}/"], capture_output=True, text=True, timeout=30)
    assert done.stdout == web.text, done
    body = tmp_path / "body"
    body.write_bytes(b"b" * 300000)
    done = subprocess.run(["nghttp", "-d", str(body), "-H", ":authority: ODD", f"http://127.0.0.1:{front.plain}/digest"],
                          capture_output=True, text=True, timeout=30)
    assert done.stdout.endswith(" 300000\n"), done


class Client:
    """python3-h2 over a plain socket, or TLS. It sends what it is told: its own checks know no CONNECT."""

    def __init__(self, port, ca=None):
        raw = socket.create_connection(("127.0.0.1", port), 10)
        if ca:
            context = ssl.create_default_context(cafile=str(ca))
            context.set_alpn_protocols(["h2"])
            raw = context.wrap_socket(raw, server_hostname="localhost")
            assert raw.selected_alpn_protocol() == "h2"
        self.socket = raw
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True,
                                                                              validate_outbound_headers=False))
        self.h2.initiate_connection()
        self.flush()
        self.events = []

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def request(self, fields, body=None, end=True):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields, end_stream=end and body is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    def until(self, wanted):
        """Reads until wanted(events so far) is true."""
        while not wanted(self.events):
            data = self.socket.recv(65536)
            if not data:
                raise AssertionError(f"the connection ended; events: {self.events}")
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.events.append(event)
            self.flush()

    def answer(self, stream):
        """(status, headers, body, trailers)"""
        kinds = (h2.events.StreamEnded, h2.events.StreamReset)
        self.until(lambda events: any(isinstance(e, kinds) and e.stream_id == stream for e in events))
        mine = [e for e in self.events if getattr(e, "stream_id", None) == stream]
        # NO_ERROR after a whole answer: the rest of the request is not wanted (RFC 9113 8.1)
        assert not any(isinstance(e, h2.events.StreamReset) and e.error_code != 0 for e in mine), mine
        head = next(dict(e.headers) for e in mine if isinstance(e, h2.events.ResponseReceived))
        trailers = next((dict(e.headers) for e in mine if isinstance(e, h2.events.TrailersReceived)), {})
        body = b"".join(e.data for e in mine if isinstance(e, h2.events.DataReceived))
        text = {_text(k): _text(v) for k, v in head.items()}
        return int(text[":status"]), text, body, {_text(k): _text(v) for k, v in trailers.items()}

    def close(self):
        self.socket.close()


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def get(path, authority="ODD", method="GET"):
    return [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path)]


@pytest.fixture(params=["plain", "tls"])
def client(request, front, certs):
    one = Client(front.plain) if request.param == "plain" else Client(front.tls, certs.ca)
    yield one
    one.close()


def test_get(client):
    status, _, body, _ = client.answer(client.request(get("/")))
    assert (status, body) == (200, b"odd\n")


def test_trailers(client):
    status, _, body, trailers = client.answer(client.request(get("/trailers")))
    assert (status, body) == (200, b"with trailers\n")
    assert trailers == {"x-checksum": "abc", "x-last": "1"}


def test_informational_answers(client):
    stream = client.request(get("/1xx"))
    assert client.answer(stream)[0] == 200
    hints = [e for e in client.events if isinstance(e, h2.events.InformationalResponseReceived)]
    assert len(hints) == 2 and all((":status", "103") in [(_text(k), _text(v)) for k, v in e.headers] for e in hints)


def test_many_at_once_answer_in_any_order(client):
    slow = client.request(get("/slow?ms=500&n=1"))
    quick = [client.request(get("/echo/%d" % i)) for i in range(20)]
    for stream in quick:
        assert client.answer(stream)[0] == 200
    assert client.answer(slow)[0] == 200


def test_post_without_length(client):
    fields = get("/digest", method="POST")
    stream = client.request(fields, b"abc", end=False)
    client.h2.send_data(stream, b"def", end_stream=True)
    client.flush()
    status, _, body, _ = client.answer(stream)
    assert status == 200 and body.endswith(b" 6\n"), body


def test_connect_and_half_close(client, pair):
    stream = client.request([(":method", "CONNECT"), (":authority", f"127.0.0.1:{pair.echo.port}")], end=False)
    client.until(lambda events: any(isinstance(e, h2.events.ResponseReceived) for e in events))
    client.h2.send_data(stream, b"hello", end_stream=True)
    client.flush()
    status, _, body, _ = client.answer(stream)
    assert (status, body) == (200, b"hello")


def test_connect_refused_says_why(client):
    port = hermes.free_port()
    stream = client.request([(":method", "CONNECT"), (":authority", f"127.0.0.1:{port}")], end=False)
    status, head, _, _ = client.answer(stream)
    assert status in (502, 503) and "connection_refused" in head["proxy-status"], head


def test_server_reset_becomes_an_error(client):
    status, head, _, _ = client.answer(client.request(get("/reset-first")))
    assert status == 502 and "proxy-status" in head, head


def test_malformed_request_ends_its_stream_only(client):
    bad = client.request([(":method", "GET"), (":scheme", "http"), (":authority", "ODD"), (":path", "/"),
                          ("connection", "close")])
    client.until(lambda events: any(getattr(e, "stream_id", None) == bad for e in events))
    assert client.answer(client.request(get("/")))[0] == 200
