# SPDX-License-Identifier: Apache-2.0
"""Clusters with `endpoints: target`: which addresses may be dialled, names and their resolution, and who may ask."""
import os
import socket
import subprocess
import time

import pytest

import hermes
from backends import Backend, NameServer
from hermes import curl, wait_for


@pytest.fixture(scope="module")
def backend():
    with Backend(5) as made:
        yield made


def config(port, *clusters, **more):
    return {"node": {"name": "proxy", "domain": "example.net", "tunnel_workers": 1},
            "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"}],
            "clusters": list(clusters), "routes": [{"match": {}, "cluster": clusters[0]["name"]}], **more}


def target(**more):
    return {"name": "anywhere", "carry": "tcp", "endpoints": "target", **more}


@pytest.fixture(scope="module")
def guarded(session_tmp):
    """A node that reaches public addresses only."""
    port = hermes.free_port()
    folder = session_tmp / "guarded"
    folder.mkdir()
    with hermes.Node("proxy", config(port, target(connect_timeout="2s")), folder) as n:
        n.at = f"127.0.0.1:{port}"
        yield n


REFUSED = [
    "127.0.0.1", "127.1.2.3", "localhost", "LOCALHOST", "localhost.", "foo.localhost", "0.0.0.0", "10.0.0.1", "172.16.0.1",
    "192.168.1.1", "100.64.0.1", "169.254.1.1", "169.254.169.254", "224.0.0.1", "255.255.255.255", "192.0.2.1",
    "198.18.0.1", "[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[0:0:0:0:0:ffff:a00:1]", "[2002:7f00:1::]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::a00:1]", "[2001:0:7f00:1::]", "[2001:db8::1]"]

# Spellings that some resolver takes for an address: no name, no address.
ODD = ["2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1", "127.0.1", "127.0.0.1.", "127.0.0.01", "017700000001",
       "[fe80::1%25eth0]", "[::ffff:0x7f.0.0.1]", "127.0.0.1%00.example.com", "a..b", "127。0。0。1"]


def send(at, request):
    """The status line and headers that a raw request is answered with."""
    host, port = at.split(":")
    with socket.create_connection((host, int(port)), 10) as s:
        s.sendall(request)
        s.settimeout(10)
        data = b""
        while b"\r\n\r\n" not in data:
            piece = s.recv(4096)
            if not piece:
                break
            data += piece
    return int(data.split()[1]), data.decode(errors="replace").lower()


@pytest.mark.parametrize("host", REFUSED)
def test_refused_addresses(guarded, backend, host):
    before = backend.asked
    for request in (f"CONNECT {host}:{backend.port} HTTP/1.1\r\nHost: {host}:{backend.port}\r\n\r\n",
                    f"GET http://{host}:{backend.port}/who HTTP/1.1\r\nHost: {host}:{backend.port}\r\n\r\n"):
        status, head = send(guarded.at, request.encode())
        assert status == 403 and "destination_ip_prohibited" in head, (request, status, head)
    assert backend.asked == before


@pytest.mark.parametrize("host", ODD)
def test_odd_spellings(guarded, backend, host):
    before = backend.asked
    for request in (f"CONNECT {host}:{backend.port} HTTP/1.1\r\nHost: {host}:{backend.port}\r\n\r\n",
                    f"GET http://{host}:{backend.port}/who HTTP/1.1\r\nHost: {host}:{backend.port}\r\n\r\n"):
        status, head = send(guarded.at, request.encode())
        assert status in (400, 403), (request, status, head)
    assert backend.asked == before


@pytest.mark.parametrize("url", ["http://2130706433:{}/who", "http://0x7f.1:{}/who", "http://[::ffff:127.0.0.1]:{}/who",
                                 "http://127.0.0.1:{}/who", "http://localhost.:{}/who"])
def test_refused_by_curl(guarded, backend, url):
    answer = curl(url.format(backend.port), proxy=guarded.at)
    assert answer.status in (400, 403), answer


@pytest.mark.parametrize("port", ["0", "65536", "99999999999", "", "x", "-1", "+80", "80x"])
def test_ports(guarded, port):
    status, head = send(guarded.at, f"CONNECT example.com:{port} HTTP/1.1\r\nHost: example.com\r\n\r\n".encode())
    assert status == 400, (status, head)


def test_allowed_and_denied(node, backend):
    port = hermes.free_port()
    n = node("proxy", config(port, target(allow_targets=["loopback"], deny_targets=["127.0.0.2/32"])))
    at = f"127.0.0.1:{port}"
    assert curl(f"http://127.0.0.1:{backend.port}/who", proxy=at).text == "5\n"
    assert curl(f"http://localhost:{backend.port}/who", "-p", proxy=at).text == "5\n"
    answer = curl(f"http://127.0.0.2:{backend.port}/who", proxy=at)
    assert answer.status == 403 and "deny_targets" in answer.headers["proxy-status"], answer
    assert curl(f"http://10.0.0.1:{backend.port}/who", proxy=at).status == 403
    # what was allowed when it was pooled is not when the configuration says otherwise
    n.reload(config(port, target()))
    assert curl(f"http://127.0.0.1:{backend.port}/who", proxy=at).status == 403


# --- names -------------------------------------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a resolv.conf of its own")


@pytest.fixture
def named(node, tmp_path):
    """named(server, *clusters, options=""): a node whose /etc/resolv.conf names the test's server; .at."""
    def make(server, *clusters, options="timeout:1 attempts:1"):
        resolv = tmp_path / "resolv.conf"
        resolv.write_text(f"nameserver [127.0.0.1]:{server.port}\noptions {options}\n" if server else "# none\n")

        def wrap(command):
            script = f'mount --bind {resolv} /etc/resolv.conf && exec "$@"'
            return ["unshare", "-m", "sh", "-c", script, "sh", *command]
        port = hermes.free_port()
        n = node("proxy", config(port, *clusters), wrap=wrap)
        n.at, n.resolv = f"127.0.0.1:{port}", resolv
        return n
    return make


@pytest.fixture
def dns():
    with NameServer() as server:
        yield server


@needs_root
def test_names_are_resolved_and_checked(named, dns, backend):
    dns.records = {"inside.test": ["127.0.0.1"], "metadata.test": ["169.254.169.254"], "mapped.test": ["::ffff:127.0.0.1"],
                   "mixed.test": ["10.0.0.1", "::1", "127.0.0.1"]}
    n = named(dns, target())
    for name in dns.records:
        answer = curl(f"http://{name}:{backend.port}/who", proxy=n.at)
        assert answer.status == 403 and "destination_ip_prohibited" in answer.headers["proxy-status"], (name, answer)
    assert "169.254.169.254" in curl("http://metadata.test/", proxy=n.at).headers["proxy-status"]
    n.reload(config(int(n.at.split(":")[1]), target(allow_targets=["loopback"])))
    # one address of several is allowed: that one is dialled
    assert curl(f"http://mixed.test:{backend.port}/who", proxy=n.at).text == "5\n"


@needs_root
def test_rebinding(named, dns, backend):
    """The address that was checked is the one that is dialled, and each answer is checked anew."""
    dns.ttl = 0
    dns.records = {"rebind.test": ["192.0.2.1"]}
    n = named(dns, target(allow_targets=["192.0.2.0/24"], connect_timeout="300ms", ttl_min="1s", ttl_max="1s"))
    assert curl(f"http://rebind.test:{backend.port}/who", proxy=n.at).status in (502, 504)
    dns.records = {"rebind.test": ["127.0.0.1"]}
    wait_for(lambda: curl(f"http://rebind.test:{backend.port}/who", proxy=n.at).status == 403, message="the new address refused")


@needs_root
def test_dns_errors(named, dns):
    n = named(dns, target())
    answer = curl("http://none.test/", proxy=n.at)
    assert answer.status == 502 and "dns_error" in answer.headers["proxy-status"], answer
    dns.rcode = 2
    answer = curl("http://broken.test/", proxy=n.at)
    assert answer.status == 502 and "dns_error" in answer.headers["proxy-status"], answer
    dns.rcode, dns.silent = 0, True
    answer = curl("http://silent.test/", proxy=n.at)
    assert answer.status == 504 and "dns_timeout" in answer.headers["proxy-status"], answer
    # the same for CONNECT: no 2xx before the name has resolved
    answer = curl("https://silent.test/", proxy=n.at)
    assert answer.status == 504, answer


@needs_root
def test_no_name_server(named):
    n = named(None, target())
    answer = curl("http://www.test/", proxy=n.at)
    assert answer.status == 502 and "no name server is known" in answer.headers["proxy-status"], answer


@needs_root
def test_large_answers_come_by_tcp(named, dns, backend):
    dns.truncate = True
    dns.records = {"large.test": ["127.0.0.1"]}
    n = named(dns, target(allow_targets=["loopback"]))
    assert curl(f"http://large.test:{backend.port}/who", proxy=n.at).text == "5\n"
    assert "tcp" in {way for name, kind, way in dns.asked}


@needs_root
def test_named_endpoints_follow_their_name(named, dns):
    from servers import Odd
    dns.ttl = 1
    with Odd(address="127.0.0.1") as first, Odd(address="127.0.0.2", port=first.port) as second:
        dns.records = {"web.test": ["127.0.0.1"]}
        n = named(dns, {"name": "web", "carry": "h1", "endpoints": [f"web.test:{first.port}"], "idle_timeout": "500ms",
                        "ttl_min": "1s", "ttl_max": "1s"})
        assert curl("http://x/", proxy=n.at).status == 200 and len(first.seen) == 1
        dns.records = {"web.test": ["127.0.0.2"]}

        def moved():
            assert curl("http://x/", proxy=n.at).status == 200
            return second.seen
        wait_for(moved, every=0.7, message="the new address")
        # the name is lost: what it last was is used on, also by new connections
        dns.rcode = 2
        second.seen.clear()
        for _ in range(3):
            assert curl("http://x/", proxy=n.at).status == 200
            time.sleep(1.7)        # longer than the TTL and than a connection may be idle
        assert len(second.seen) == 3


@needs_root
def test_pooled_connections_follow_their_name(named, dns, certs):
    """A connection to an address that the name has no more takes nothing new, though it is never idle for long."""
    from servers import Odd
    with Odd(address="127.0.0.1") as first, Odd(address="127.0.0.2", port=first.port) as second:
        dns.records = {"web.test": ["127.0.0.1"]}
        n = named(dns, {"name": "web", "carry": "h1", "endpoints": [f"web.test:{first.port}"], "ttl_min": "1s", "ttl_max": "1s"})
        assert curl("http://x/", proxy=n.at).status == 200 and first.seen
        dns.records = {"web.test": ["127.0.0.2"]}

        def moved():
            assert curl("http://x/", proxy=n.at).status == 200
            return second.seen
        wait_for(moved, every=0.1, message="the new address")


def test_tls_to_targets(node, web, certs):
    """With tls, targets are spoken to in TLS, and must bear the name that was asked for."""
    port = hermes.free_port()
    n = node("proxy", config(port, target(allow_targets=["loopback"], carry="h1",
                                          tls={"authorities": [str(certs.ca)], "identity": False})))
    at = f"127.0.0.1:{port}"
    answer = curl(f"http://localhost:{web.tls_port}/", proxy=at)
    assert answer.status == 200 and answer.text == web.text, answer
    answer = curl(f"http://127.0.0.1:{web.tls_port}/", proxy=at)
    assert answer.status == 200, answer
    answer = curl(f"http://other.localhost:{web.tls_port}/", proxy=at)
    assert answer.status == 502 and "tls_certificate_error" in answer.headers["proxy-status"], answer


# --- who asks ----------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def crypted():
    done = subprocess.run(["openssl", "passwd", "-6", "wonder:land"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def private(node, crypted):
    http, socks = hermes.free_port(), hermes.free_port()
    document = config(http, target(allow_targets=["loopback"]), users=[{"name": "alice", "password": crypted}])
    document["listeners"] = [
        {"name": "apps", "address": f"127.0.0.1:{http}", "accept": "http", "require_user": True},
        {"name": "socks", "address": f"127.0.0.1:{socks}", "accept": "socks5", "require_user": True}]
    document["routes"] = [{"match": {"user": "alice"}, "cluster": "anywhere"}]
    n = node("proxy", document)
    n.http, n.socks = f"127.0.0.1:{http}", f"127.0.0.1:{socks}"
    return n


def test_proxy_authorization(private, backend):
    url = f"http://127.0.0.1:{backend.port}/who"
    answer = curl(url, proxy=private.http)
    assert answer.status == 407 and answer.headers["proxy-authenticate"].lower().startswith("basic"), answer
    for wrong in ("alice:wonderland", "alice:", "bob:wonder:land", "alice:wonder:lan", ":wonder:land"):
        answer = curl(url, "--proxy-user", wrong, proxy=private.http)
        assert answer.status == 407, (wrong, answer)
    for _ in range(3):       # hashed once, then known
        answer = curl(url, "--proxy-user", "alice:wonder:land", proxy=private.http)
        assert answer.status == 200 and answer.text == "5\n", answer
    answer = curl(url, "-p", "--proxy-user", "alice:wonder:land", proxy=private.http)
    assert answer.status == 200, answer
    for header in ("Basic", "Basic ***", "Bearer abc", "Basic YWxpY2U="):
        answer = curl(url, "--proxy-header", f"Proxy-Authorization: {header}", proxy=private.http)
        assert answer.status == 407, (header, answer)


def test_credentials_go_no_further(private):
    from servers import Odd
    with Odd() as odd:
        answer = curl(f"http://127.0.0.1:{odd.port}/echo", "--proxy-user", "alice:wonder:land", proxy=private.http)
        assert answer.status == 200, answer
        assert "proxy-authorization" not in {name.lower() for name, _ in answer.json["headers"]}


def test_socks_users(private, backend):
    url = f"http://127.0.0.1:{backend.port}/who"
    for scheme in ("socks5", "socks5h"):
        answer = curl(url, proxy=f"{scheme}://alice:wonder%3Aland@{private.socks}")
        assert answer.status == 200 and answer.text == "5\n", answer
    for wrong in ("alice:wonderland@", "bob:wonder%3Aland@", ""):
        answer = curl(url, proxy=f"socks5h://{wrong}{private.socks}")
        assert answer.exit == 97 and answer.status == 0, (wrong, answer)
