# SPDX-License-Identifier: Apache-2.0
"""Who may do what: headers, users, address spaces, time windows and an external authorizer, as a user meets them."""
import datetime
import json
import os
import socket
import socketserver
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

import hermes
from hermes import curl


# --- an authorizer that speaks OPA's data API ----------------------------------------------------------------------------

class _Opa(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        self.server.asked.append((self.path, question))
        time.sleep(self.server.delay)
        status, document = self.server.judge(question)
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True


class _Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class Opa:
    """.judge(input) -> (status, document); .asked: what was asked."""

    def __init__(self, path=None):
        self.server = _Unix(str(path), _Opa) if path else _Tcp(("127.0.0.1", 0), _Opa)
        if path:
            os.chmod(path, 0o666)
        self.address = f"unix:{path}" if path else f"127.0.0.1:{self.server.server_address[1]}"
        self.server.asked, self.server.delay = [], 0.0
        self.server.judge = lambda question: (200, {"result": True})
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def asked(self):
        return self.server.asked

    def answers(self, *, result=None, document=None, status=200, delay=0.0, judge=None):
        document = {"result": result} if document is None else document
        self.server.judge = judge or (lambda question: (status, document))
        self.server.delay = delay

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(params=["tcp", "unix"])
def opa(request, tmp_path):
    server = Opa(tmp_path / "opa.sock" if request.param == "unix" else None)
    yield server
    server.stop()


@pytest.fixture
def proxy(node, odd):
    """proxy(**more): a node whose listener `apps` leads to the odd server; .at, and .port of further listeners by name."""
    def make(listeners=(), clusters=(), routes=None, workers=1, **more):
        ports = {"apps": hermes.free_port()}
        all_listeners = [{"name": "apps", "accept": "http"}, *listeners]
        for listener in all_listeners:
            port = ports.setdefault(listener["name"], hermes.free_port())
            listener["address"] = f"127.0.0.1:{port}"
        made = node("proxy", {
            "node": {"name": "proxy", "domain": "example.net", "tunnel_workers": workers},
            "listeners": all_listeners,
            "clusters": [{"name": "odd", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]}, *clusters],
            "routes": routes or [{"match": {}, "cluster": "odd"}], **more})
        made.ports, made.at = ports, f"127.0.0.1:{ports['apps']}"
        return made
    return make


def ask(n, path="/echo", *args, listener="apps", name="web", **options):
    return curl(f"http://{name}{path}", *args, proxy=f"127.0.0.1:{n.ports[listener]}", **options)


def headers_seen(answer):
    assert answer.status == 200, answer
    return [(k.lower(), v) for k, v in answer.json["headers"]]


def values(answer, name):
    return [v for k, v in headers_seen(answer) if k == name]



def authorized(opa, **more):
    return [{"name": "opa", "authorizer": {"address": opa.address, "path": "/v1/data/hermes/allow", "timeout": "2s", **more}}]


def test_authorizer_is_told_and_heard(proxy, opa):
    """A boolean; the request's attributes as input; a refusal names policy and authorizer."""
    n = proxy(policies=authorized(opa))
    answer = ask(n, "/echo/a?b=c", "-H", "Authorization: Bearer x", "-H", "x-two: 1", "-H", "x-two: 2")
    assert answer.status == 200, answer
    path, question = opa.asked[-1]
    assert path == "/v1/data/hermes/allow"
    assert (question["method"], question["authority"], question["path"], question["scheme"]) == \
        ("GET", "web", "/echo/a?b=c", "http"), question
    assert question["source"] == "127.0.0.1" and question["listener"] == "apps"
    assert question["headers"]["authorization"] == "Bearer x" and question["headers"]["x-two"] == "1, 2", question
    opa.answers(result=False)
    refused = ask(n)
    assert refused.status == 403, refused
    assert "http_request_denied" in refused.headers["proxy-status"] and "opa" in refused.headers["proxy-status"]


def test_authorizer_is_told_listed_headers_only(proxy, opa):
    n = proxy(policies=authorized(opa, headers=["x-token"]))
    assert ask(n, "/echo", "-H", "Authorization: secret", "-H", "x-token: t").status == 200
    assert opa.asked[-1][1]["headers"] == {"x-token": "t"}, opa.asked[-1]


def test_authorizers_headers_steer_routes(proxy, opa, odd, tmp_path):
    """{allowed, headers}: what it adds reaches the routes and the next hop; what the client says itself does not."""
    n = proxy(policies=authorized(opa), overlay_headers=["x-role"],
              clusters=[{"name": "gone", "carry": "h1", "endpoints": [f"127.0.0.1:{hermes.free_port()}"]}],
              routes=[{"match": {"headers": {"x-role": "admin"}}, "cluster": "odd", "add_headers": {"x-way": "admin"}},
                      {"match": {}, "cluster": "gone"}])
    opa.answers(judge=lambda q: (200, {"result": {"allowed": True, "headers": {"X-Role": "admin"} if q["path"] == "/echo"
                                                  else {}}}))
    answer = ask(n, "/echo", "-H", "x-role: nobody")
    assert values(answer, "x-role") == ["admin"] and values(answer, "x-way") == ["admin"]
    assert ask(n, "/status/200", "-H", "x-role: admin").status == 502
    opa.answers(result={"allowed": False})
    assert ask(n).status == 403
    explained = n.admin("route", "explain", "http://web/echo", check=False)
    assert explained.returncode in (0, 1) and "opa" in explained.stdout, explained


@pytest.mark.parametrize("how", ["status", "no json", "no result", "wrong type", "late", "absent"])
@pytest.mark.parametrize("fail", ["closed", "open"])
def test_authorizer_that_fails(proxy, tmp_path, how, fail):
    opa = Opa()
    try:
        n = proxy(policies=authorized(opa, fail=fail, timeout="300ms"))
        assert ask(n).status == 200
        if how == "absent":
            opa.stop()
        opa.answers(**{"status": {"status": 500, "result": True}, "no json": {"document": b"<html>"},
                       "no result": {"document": {}}, "wrong type": {"result": 7}, "late": {"result": True, "delay": 1.5},
                       "absent": {}}[how])
        answer = ask(n, "/echo?again")
        if fail == "open" and how not in ("no result",):
            assert answer.status == 200, answer
        elif fail == "closed":
            assert answer.status == 403 and "opa" in answer.headers["proxy-status"], answer
        else:
            assert answer.status in (200, 403), answer
    finally:
        opa.stop()


def test_authorizer_comes_back_and_answers_are_kept(proxy, opa, tmp_path):
    """It is dialled again after it was away; with cache, one answer serves the same question for its time."""
    n = proxy(policies=authorized(opa, cache="1h", headers=["x-a"]))
    for _ in range(5):
        assert ask(n, "/echo", "-H", "x-a: 1").status == 200
    assert len(opa.asked) == 1
    assert ask(n, "/echo", "-H", "x-a: 2").status == 200
    assert len(opa.asked) == 2


# --- time ----------------------------------------------------------------------------------------------------------------

def test_time_windows(proxy):
    """One that is open now by a zone's clock, one that is closed, and one past midnight."""
    now = datetime.datetime.now(datetime.timezone.utc)
    day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]

    def around(zone_hours, minutes_before, minutes_after):
        local = now + datetime.timedelta(hours=zone_hours)
        start, end = local - datetime.timedelta(minutes=minutes_before), local + datetime.timedelta(minutes=minutes_after)
        return f"{day[start.weekday()]} {start:%H:%M}-{end:%H:%M}"
    def rule(name, window):
        return {"name": name, "match": {"authority": name}, "rules": [{"allow": {"time": window}}]}
    yesterday = day[(now.weekday() - 1) % 7]
    n = proxy(policies=[rule("open", around(5.5, 60, 60) + " Asia/Kolkata"), rule("closed", around(0, 180, -60) + " UTC"),
                        rule("other-day", f"{day[(now.weekday() + 3) % 7]} 00:00-23:59 UTC"),
                        rule("list", [f"{yesterday} 00:00-00:01 UTC", around(0, 60, 60) + " UTC"])])
    assert ask(n, name="open").status == 200
    assert ask(n, name="list").status == 200
    for name in ("closed", "other-day"):
        answer = ask(n, name=name)
        assert answer.status == 403 and name in answer.headers["proxy-status"], answer


# --- headers -------------------------------------------------------------------------------------------------------------

def test_headers_of_listener_policy_and_route(proxy):
    """Added, overwritten, removed at each of them; the overlay's own never from outside, but where the listener trusts."""
    n = proxy(
        listeners=[{"name": "adds", "accept": "http", "add_headers": {"x-own": "listener", "x-over": "listener"},
                    "remove_headers": ["x-gone"]},
                   {"name": "trusting", "accept": "http", "trust_headers": True}],
        policies=[{"name": "p", "rules": [{"allow": {"headers": {"x-key": {"prefix": "k"}}},
                                           "add_headers": {"x-policy": "yes", "x-over": "policy"}},
                                          {"allow": {}}]}],
        routes=[{"match": {"headers": {"x-policy": "yes"}}, "cluster": "odd", "add_headers": {"x-route": "policy"},
                 "remove_headers": ["x-secret"]},
                {"match": {"headers": {"x-own": {"present": True}}}, "cluster": "odd", "add_headers": {"x-route": "own"}},
                {"match": {"headers": {"x-not": {"absent": True}}}, "cluster": "odd", "add_headers": {"x-route": "absent"}}])
    lies = ["-H", "x-own: liar", "-H", "x-policy: yes", "-H", "x-over: liar"]
    plain = ask(n, "/echo", *lies, "-H", "x-secret: s")
    assert values(plain, "x-own") == values(plain, "x-policy") == values(plain, "x-over") == []
    assert values(plain, "x-route") == ["absent"] and values(plain, "x-secret") == ["s"]
    added = ask(n, "/echo", *lies, "-H", "x-gone: g", listener="adds")
    assert values(added, "x-own") == ["listener"] and values(added, "x-over") == ["listener"]
    assert values(added, "x-gone") == [] and values(added, "x-route") == ["own"]
    both = ask(n, "/echo", *lies, "-H", "x-key: k1", "-H", "x-secret: s", listener="adds")
    assert values(both, "x-over") == ["policy"] and values(both, "x-route") == ["policy"] and values(both, "x-secret") == []
    trusted = ask(n, "/echo", "-H", "x-own: told", "-H", "x-policy: yes", listener="trusting")
    assert values(trusted, "x-own") == ["told"] and values(trusted, "x-route") == ["policy"]
    assert ask(n, "/echo", "-H", "x-not: here").status == 404


def test_trailers_cannot_say_what_headers_cannot(proxy):
    """RFC 9110 6.5.1: a server may merge them into the head."""
    n = proxy(overlay_headers=["x-own"])
    with socket.create_connection(("127.0.0.1", n.ports["apps"]), 20) as s:
        s.sendall(b"POST http://web/echo HTTP/1.1\r\nHost: web\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                  b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nUser: root\r\nX-Own: liar\r\n\r\n")
        got = b""
        while (data := s.recv(65536)):
            got += data
    seen = json.loads(got[got.index(b"{"):got.rindex(b"}") + 1])
    assert seen["body"] == "hi" and [t.lower() for t in seen["trailers"]] == ["x-sum: 1"], seen


def test_headers_and_users_between_nodes(node, certs, odd):
    """What alice's policy adds, ingress can match; what alice's client says, it cannot."""
    apps, overlay = hermes.free_port(), hermes.free_port()
    inner = hermes.ingress_config(
        overlay, certs, clusters=[{"name": "odd", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]}],
        routes=[{"match": {"headers": {"x-secure": "admin"}, "user": "alice"}, "cluster": "odd"}])
    inner["listeners"][0]["peers"] = [{"node": "alice", "users": ["alice"], "headers": ["x-secure"]}]
    node("ingress", inner)
    node("alice", hermes.alice_config(apps, certs, overlay, policies=[
        {"name": "video", "match": {"authority": "VIDEO"}, "rules": [
            {"allow": {"headers": {"token": "admin"}}, "add_headers": {"x-secure": "admin"}}, {"allow": {}}]}]))
    at = f"127.0.0.1:{apps}"
    answer = curl("http://VIDEO/echo", "-H", "token: admin", proxy=at)
    assert values(answer, "x-secure") == ["admin"] and values(answer, "user") == ["alice"]
    via = values(answer, "via")
    assert "alice.example.net" in str(via) and "ingress.example.net" in str(via)
    assert 'for="127.0.0.1:' in values(answer, "forwarded")[0] and len(values(answer, "forwarded")) == 1
    refused = curl("http://VIDEO/echo", "-H", "x-secure: admin", proxy=at)
    assert refused.status == 404 and "ingress" in refused.headers["proxy-status"], refused


# --- users ---------------------------------------------------------------------------------------------------------------

def test_users_by_certificate_password_and_header(proxy, certs):
    """In this order; wrong proof is 407, and no proof where one is required."""
    crypted = subprocess.run(["openssl", "passwd", "-6", "secret"], capture_output=True, text=True, check=True).stdout.strip()
    crt, key = certs.server("front", "DNS:localhost", "IP:127.0.0.1")
    mine = certs.client("carol")
    n = proxy(users=[{"name": "bob", "password": crypted}],
              listeners=[{"name": "named", "accept": "http", "add_headers": {"user": "dave"}},
                         {"name": "strict", "accept": "http", "require_user": True},
                         {"name": "tls", "accept": "http", "tls": {"certificate": str(crt), "key": str(key),
                                                                  "authorities": [str(certs.ca)]}}],
              routes=[{"match": {"user": u}, "cluster": "odd", "add_headers": {"x-known-as": u}} for u in ("bob", "carol", "dave")]
              + [{"match": {}, "cluster": "odd"}])
    assert values(ask(n, listener="named"), "x-known-as") == ["dave"]
    assert values(ask(n, "/echo", "-U", "bob:secret", listener="named"), "x-known-as") == ["bob"]
    assert values(ask(n, "/echo", "-H", "user: bob"), "x-known-as") == []
    wrong = ask(n, "/echo", "-U", "bob:guess", listener="named")
    assert wrong.status == 407 and "basic" in wrong.headers["proxy-authenticate"].lower(), wrong
    assert ask(n, listener="strict").status == 407
    good = ask(n, "/echo", "-U", "bob:secret", listener="strict")
    assert values(good, "x-known-as") == ["bob"] and values(good, "proxy-authorization") == []
    tls = ["--proxy-cacert", certs.ca]
    proved = curl("http://web/echo", *tls, "--proxy-cert", mine[0], "--proxy-key", mine[1],
                  proxy=f"https://127.0.0.1:{n.ports['tls']}")
    assert values(proved, "x-known-as") == ["carol"], proved
    assert values(curl("http://web/echo", *tls, proxy=f"https://127.0.0.1:{n.ports['tls']}"), "x-known-as") == []


def test_socks_user(proxy):
    crypted = subprocess.run(["openssl", "passwd", "-6", "secret"], capture_output=True, text=True, check=True).stdout.strip()
    n = proxy(users=[{"name": "bob", "password": crypted}],
              listeners=[{"name": "socks", "accept": "socks5"}, {"name": "strict", "accept": "socks5", "require_user": True}],
              clusters=[{"name": "wire", "carry": "tcp", "endpoints": "target", "allow_targets": ["loopback"]}],
              routes=[{"match": {"user": "bob"}, "cluster": "wire"}])
    target = n.config_file and json.loads(n.config_file.read_text())["clusters"][0]["endpoints"][0]
    def through(listener, user):
        return curl(f"http://{target}/echo", proxy=f"socks5h://{user}127.0.0.1:{n.ports[listener]}")
    assert through("socks", "bob:secret@").status == 200
    assert through("strict", "bob:secret@").status == 200
    assert through("socks", "").exit == 97 and through("strict", "").exit == 97
    assert through("socks", "bob:guess@").exit == 97


# --- address spaces --------------------------------------------------------------------------------------------------------

def test_spaces_by_name_and_prefix(proxy, odd):
    """The same name and the same address lead two users elsewhere; the longest prefix wins; `*` for the rest."""
    def way(name):
        return {"cluster": "odd", "add_headers": {"x-way": name}}
    n = proxy(
        listeners=[{"name": u, "accept": "http", "add_headers": {"user": u}} for u in ("alice", "bob", "carol")],
        address_spaces=[
            {"name": "gold", "users": ["alice"], "names": {"VIDEO": way("gold")},
             "prefixes": {"10.0.0.0/8": way("gold ten"), "10.1.0.0/16": way("gold ten one"), "10.1.2.3/32": way("gold host"),
                          "2001:db8::/32": way("gold six")}},
            {"name": "silver", "users": ["bob"], "names": {"Video": way("silver")}, "prefixes": {"10.1.2.3": way("silver host")}},
            {"name": "rest", "users": ["*"], "names": {"video": way("rest")}}],
        routes=[{"match": {}, "cluster": "odd", "add_headers": {"x-way": "route"}}])
    def way_of(user, name):
        return values(ask(n, listener=user, name=name), "x-way")[0]
    assert [way_of(u, "video:81") for u in ("alice", "bob", "carol", "apps")] == ["gold", "silver", "rest", "rest"]
    assert [way_of(u, "10.1.2.3") for u in ("alice", "bob", "carol")] == ["gold host", "silver host", "route"]
    assert [way_of("alice", a) for a in ("10.1.9.9", "10.9.9.9", "[2001:db8::1]:8080", "11.0.0.1")] == \
        ["gold ten one", "gold ten", "gold six", "route"]


def test_every_policy_that_matches_is_asked(proxy):
    n = proxy(policies=[{"name": "first", "match": {"authority": "a.example"}, "default": "allow"},
                        {"name": "second", "match": {"authority": "*.example", "path": "/echo"}, "default": "allow",
                         "rules": [{"deny": {"method": "POST"}}]},
                        {"name": "third", "match": {"source": ["10.0.0.0/8"]}, "default": "deny"}])
    assert ask(n, name="a.example").status == 200
    answer = ask(n, "/echo", "-d", "x", name="a.example")
    assert answer.status == 403 and "second" in answer.headers["proxy-status"], answer
    assert ask(n, "/digest", "-d", "x", name="a.example").status == 200
    explained = n.admin("policy", "explain", "--method", "POST", "http://a.example/echo", json=True, check=False)
    assert "second" in explained.stdout, explained
