# SPDX-License-Identifier: Apache-2.0
"""What a change of configuration does to flows that live: those now denied end, the others stay."""
import copy
import socket
import subprocess

import pytest

import hermes
import servers
from hermes import wait_for


@pytest.fixture
def echo():
    with servers.TcpEcho() as server:
        yield server


@pytest.fixture
def second():
    with servers.TcpEcho() as server:
        yield server


def open_tunnel(port, authority, *fields):
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.settimeout(10)
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *fields, "", ""]
    sock.sendall("\r\n".join(lines).encode())
    got = b""
    while b"\r\n\r\n" not in got:
        got += (data := sock.recv(4096))
        assert data, got
    assert got.startswith(b"HTTP/1.1 200"), got
    return sock


def lives(sock):
    sock.sendall(b"still here?")
    got = b""
    while len(got) < 11:
        try:
            data = sock.recv(100)
        except ConnectionResetError:
            return False
        if not data:
            return False
        got += data
    return got == b"still here?"


def over(sock):
    """It ends without being asked."""
    try:
        return sock.recv(100) == b""
    except ConnectionResetError:
        return True


def config(port, echo, log, **more):
    return {"node": {"name": "one", "domain": "example.net", "tunnel_workers": 1, "drain_timeout": "1s"},
            "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http", "add_headers": {"via-app": "yes"}}],
            "clusters": [{"name": "echo", "carry": "tcp", "endpoints": [f"127.0.0.1:{echo.port}"]}],
            "routes": [{"match": {}, "cluster": "echo"}],
            "telemetry": {"access_log": [{"to": str(log), "format": "text"}]}, **more}


def flows(node):
    return node.admin("flows", "list", json=True)["flows"]


def test_flows_that_are_denied_now_end(node, echo, tmp_path):
    """By authority, by header, and by what a listener adds; all others stay, over several changes."""
    port = hermes.free_port()
    first = config(port, echo, tmp_path / "access.log")
    n = node("one", first)
    good = open_tunnel(port, "GOOD:1")
    bad = open_tunnel(port, "BAD:1")
    marked = open_tunnel(port, "GOOD:1", "mark: x")
    assert lives(good) and lives(bad) and lives(marked)
    n.reload({**first, "policies": [
        {"name": "bad", "match": {"authority": "BAD"}},
        {"name": "marked", "match": {"headers": {"mark": "x"}}, "default": "deny"}]})
    assert over(bad) and over(marked)
    assert lives(good)
    wait_for(lambda: len(flows(n)) == 1, message="two flows gone")
    assert wait_for(lambda: (tmp_path / "access.log").read_text().count("http_request_denied") == 2 or None)
    n.reload({**first, "policies": [{"name": "any", "match": {"headers": {"via-app": "no"}}}]})
    assert lives(good)
    generation = n.admin("status", json=True)["configuration"]["generation"]
    wait_for(lambda: flows(n)[0]["generation"] == generation, message="decided by the new generation")
    n.reload({**first, "policies": [{"name": "any", "match": {"headers": {"via-app": "yes"}}}]})
    assert over(good)


def test_a_request_under_way_is_denied_too(node, odd, tmp_path):
    """A response that streams is cut, one that has not begun is answered 403."""
    port = hermes.free_port()
    first = config(port, odd, tmp_path / "access.log")
    first["clusters"] = [{"name": "echo", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]}]
    n = node("one", first)

    def start(path):
        return subprocess.Popen(["curl", "-sS", "-i", "-N", "--max-time", "60", "-x", f"127.0.0.1:{port}", f"http://web{path}"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    streaming, waiting = start("/slow?ms=0&gap=500&n=60"), start("/slow?ms=30000")
    try:
        wait_for(lambda: sorted(f["state"] for f in flows(n)) == ["STREAMING", "WAITING"], message="both under way")
        n.reload({**first, "policies": [{"name": "closed"}]})
        out, _ = waiting.communicate(timeout=20)
        assert b" 403 " in out and b"http_request_denied" in out and b"closed" in out, out
        out, error = streaming.communicate(timeout=20)
        assert streaming.returncode in (18, 56), (out, error)    # transfer closed with data remaining, or reset
    finally:
        streaming.kill(), waiting.kill()


@pytest.mark.parametrize("move", [False, True])
def test_byte_flows_stay_unless_the_route_moves_them(node, echo, second, tmp_path, move):
    port = hermes.free_port()
    first = config(port, echo, tmp_path / "access.log")
    n = node("one", first)
    flow = open_tunnel(port, "X:1")
    assert lives(flow)
    other = copy.deepcopy(first)
    other["clusters"].append({"name": "second", "carry": "tcp", "endpoints": [f"127.0.0.1:{second.port}"]})
    other["routes"] = [{"match": {}, "cluster": "second", "move": move}]
    n.reload(other)
    if move:
        assert over(flow)
        again = open_tunnel(port, "X:1")
        assert lives(again) and second.open_count() == 1
    else:
        assert lives(flow) and second.open_count() == 0
        n.reload({**other, "routes": []})       # no way at all is no denial
        assert lives(flow)


def test_endpoint_that_left_the_cluster_moves(node, echo, second, tmp_path):
    port = hermes.free_port()
    first = config(port, echo, tmp_path / "access.log", routes=[{"match": {}, "cluster": "echo", "move": True}])
    n = node("one", first)
    flow = open_tunnel(port, "X:1")
    both = copy.deepcopy(first)
    both["clusters"][0]["endpoints"].append(f"127.0.0.1:{second.port}")
    n.reload(both)
    assert lives(flow)
    both["clusters"][0]["endpoints"].pop(0)
    n.reload(both)
    assert over(flow)


def test_users_and_peers_that_are_taken_away(node, certs, echo, tmp_path):
    """A password that is gone, and a node that may no longer speak for a user, or connect at all: on the same living link."""
    apps, overlay = hermes.free_port(), hermes.free_port()
    crypted = subprocess.run(["openssl", "passwd", "-6", "secret"], capture_output=True, text=True, check=True).stdout.strip()
    inner = hermes.ingress_config(overlay, certs)
    inner["listeners"][0]["peers"] = [{"node": "alice"}]
    ingress = node("ingress", inner)
    outer = hermes.alice_config(apps, certs, overlay, users=[{"name": "bob", "password": crypted},
                                                            {"name": "carol", "password": crypted}])
    del outer["listeners"][0]["add_headers"]
    alice = node("alice", outer)
    target = f"127.0.0.1:{echo.port}"
    import base64
    basic = {name: "Proxy-Authorization: Basic " + base64.b64encode(f"{name}:secret".encode()).decode()
             for name in ("bob", "carol")}
    bob, carol, nobody = (open_tunnel(apps, target, basic["bob"]), open_tunnel(apps, target, basic["carol"]),
                          open_tunnel(apps, target))
    alice.reload({**outer, "users": outer["users"][1:]})
    assert over(bob) and lives(carol) and lives(nobody)
    inner["listeners"][0]["peers"] = [{"node": "alice", "users": ["dave"]}]
    ingress.reload(inner)
    assert over(carol) and lives(nobody)
    refused = hermes.curl(f"http://{target}/", "-U", "carol:secret", proxy=f"127.0.0.1:{apps}")
    assert refused.status == 403, refused
    inner["listeners"][0]["peers"] = [{"node": "somebody-else"}]
    ingress.reload(inner)
    assert over(nobody)
    assert hermes.curl(f"http://{target}/", proxy=f"127.0.0.1:{apps}").status in (403, 502)


def test_many_flows_are_decided_anew(node, echo, tmp_path):
    """More than one batch; the even ones are denied."""
    port = hermes.free_port()
    first = config(port, echo, tmp_path / "access.log")
    n = node("one", first)
    socks = [open_tunnel(port, f"{'even' if i % 2 == 0 else 'odd'}:{i + 1}") for i in range(600)]
    n.reload({**first, "policies": [{"name": "even", "match": {"authority": "EVEN"}}]})
    for i, sock in enumerate(socks):
        assert over(sock) if i % 2 == 0 else lives(sock)
    for sock in socks:
        sock.close()
