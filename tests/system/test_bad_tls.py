# SPDX-License-Identifier: Apache-2.0
"""Peers at an overlay listener that are not who they should be, or speak for whom they may not (ANCHORS.md section 3)."""
import socket
import ssl
import subprocess
from types import SimpleNamespace

import pytest

import hermes
from rawh2 import H2, Watch, client_tls, sanitizer_small_quarantine


@pytest.fixture(scope="module")
def other(session_tmp):
    """An authority that nobody believes."""
    return hermes.Certs(session_tmp / "other-authority", "Another authority")


@pytest.fixture(scope="module")
def target(session_tmp, certs, odd):
    ports = SimpleNamespace(overlay=hermes.free_port(), strict=hermes.free_port(), http=hermes.free_port())
    folder = session_tmp / "bad-tls"
    folder.mkdir()
    certs.node("revoked", out="tls-revoked")
    certs.revoke("tls-revoked")
    config = {
        "node": {"name": "ingress", "domain": "example.net", "tunnel_workers": 1},
        "identity": {**certs.identity("ingress"), "crl": str(certs.crl())},
        "listeners": [
            {"name": "from-nodes", "address": f"127.0.0.1:{ports.overlay}", "accept": "overlay"},
            {"name": "strict", "address": f"127.0.0.1:{ports.strict}", "accept": "overlay",
             "peers": [{"node": "alice", "users": ["alice"], "headers": ["x-role"]}]},
            {"name": "apps", "address": f"127.0.0.1:{ports.http}", "accept": "http"}],
        "overlay_headers": ["x-role", "x-secret"],
        "clusters": [{"name": "origin", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]}],
        "routes": [{"match": {}, "cluster": "origin"}],
    }
    node = hermes.Node("ingress", config, folder, env=sanitizer_small_quarantine())
    try:
        yield SimpleNamespace(node=node, **vars(ports))
        node.stop()
    finally:
        node.kill()


@pytest.fixture
def watch(target):
    with Watch(target.node, target.http, "http://origin/echo") as watch:
        yield watch


def refused(port, context):
    """No request is answered on such a connection. The alert, where there is one."""
    try:
        with H2(port, tls=context) as h2:
            answer = h2.get(1, authority="origin", path="/echo", timeout=5)
            assert answer is None and h2.closed, answer
            return "closed"
    except (ssl.SSLError, ConnectionError) as e:
        return str(e)


def test_a_node_is_served(target, certs):
    with H2(target.overlay, tls=client_tls(certs, certs.node("alice", out="tls-alice"))) as h2:
        assert h2.sock.version() == "TLSv1.3"
        assert h2.get(1, authority="origin", path="/echo") == 200


def test_no_certificate(target, watch, certs):
    refused(target.overlay, client_tls(certs))


def test_wrong_authority(target, watch, certs, other):
    refused(target.overlay, client_tls(certs, other.node("alice")))


def test_expired(target, watch, certs):
    refused(target.overlay, client_tls(certs, certs.expired("alice", out="tls-expired")))


def test_wrong_usage(target, watch, certs):
    refused(target.overlay, client_tls(certs, certs.wrong_usage("alice", out="tls-usage")))


def test_server_usage_is_not_a_nodes(target, watch, certs):
    """A server's certificate of the same authority names no node of ours."""
    refused(target.overlay, client_tls(certs, certs.server("www", "DNS:www.example.org", out="tls-www")))


def test_client_certificate_names_no_node(target, watch, certs):
    refused(target.overlay, client_tls(certs, certs.client("alice", out="tls-client")))


def test_revoked(target, watch, certs):
    refused(target.overlay, client_tls(certs, (certs.folder / "tls-revoked.crt", certs.folder / "tls-revoked.key")))


def test_other_domain(target, watch, certs):
    pair = certs.node("alice", "elsewhere.org", out="tls-elsewhere")
    refused(target.overlay, client_tls(certs, pair))


def test_node_that_is_not_listed(target, watch, certs):
    refused(target.strict, client_tls(certs, certs.node("bob", out="tls-bob")))


def test_tls_1_2(target, watch, certs):
    refused(target.overlay, client_tls(certs, certs.node("alice", out="tls-alice2"), maximum=ssl.TLSVersion.TLSv1_2))


@pytest.mark.parametrize("protocols", [["http/1.1"], ["h3"], ["x" * 200], None])
def test_wrong_alpn(target, watch, certs, protocols):
    context = client_tls(certs, certs.node("alice", out="tls-alice3"))
    if protocols:
        context.set_alpn_protocols(protocols)
    with socket.create_connection(("127.0.0.1", target.overlay), 10) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="ingress.example.net") as s:
                s.settimeout(5)
                s.sendall(b"GET /echo HTTP/1.1\r\nHost: origin\r\n\r\n")
                assert b"200" not in s.recv(1000)
        except (ssl.SSLError, ConnectionError):
            pass


def test_plain_http_on_a_tls_listener(target, watch):
    with socket.create_connection(("127.0.0.1", target.overlay), 10) as s:
        s.settimeout(5)
        s.sendall(b"GET /echo HTTP/1.1\r\nHost: origin\r\n\r\n")
        try:
            assert b"200" not in s.recv(1000)
        except ConnectionError:
            pass


def seen_headers(odd, before):
    assert len(odd.seen) == before + 1
    return [(n.lower(), v) for n, v in odd.seen[-1][2]]


def test_peer_speaks_for_another_user(target, watch, certs, odd):
    """alice's node may speak for alice, and say x-role; neither for bob nor x-secret."""
    context = client_tls(certs, certs.node("alice", out="tls-alice4"))
    with H2(target.strict, tls=context) as h2:
        h2.send(h2.headers(1, ("user", "alice"), ("x-role", "r"), ("x-secret", "s"), authority="origin", path="/echo?mine"))
        assert h2.answer(1) == 200
        mine = [s for s in odd.seen if s[1] == "/echo?mine"][-1]
        names = {n.lower(): v for n, v in mine[2]}
        assert names.get("user") == "alice" and names.get("x-role") == "r" and "x-secret" not in names
        h2.send(h2.headers(3, ("user", "bob"), authority="origin", path="/echo?others"))
        answer = h2.answer(3)
        others = [s for s in odd.seen if s[1] == "/echo?others"]
        assert answer == 403 or (others and "bob" not in str(others[-1][2])), (answer, others)


def test_early_data_is_not_taken(target, watch, certs, tmp_path):
    """0-RTT could be replayed: a CONNECT in it must not open anything. We offer none."""
    crt, key = certs.node("alice", out="tls-alice5")
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    line = ["openssl", "s_client", "-connect", f"127.0.0.1:{target.overlay}", "-tls1_3", "-alpn", "h2", "-cert", str(crt),
            "-key", str(key), "-CAfile", str(certs.ca), "-servername", "ingress.example.net"]
    first = subprocess.run([*line, "-sess_out", str(session)], input="", capture_output=True, text=True, errors="replace", timeout=20)
    assert "Verify return code: 0" in first.stdout, first.stdout + first.stderr
    assert "Max Early Data: 0" in first.stdout or "Max Early Data" not in first.stdout, first.stdout
    if session.exists():
        again = subprocess.run([*line, "-sess_in", str(session), "-early_data", str(early)], input="", capture_output=True,
                               text=True, errors="replace", timeout=20)
        assert "Early data was accepted" not in again.stdout, again.stdout


def test_chain_of_100_certificates(target, watch, certs, tmp_path):
    """More than any verifier should walk: refused without much work."""
    make_chain(tmp_path, certs, 100)
    refused(target.overlay, client_tls(certs, (tmp_path / "chain.pem", tmp_path / "leaf.key")))


def make_chain(folder, certs, length):
    """An intermediate below an intermediate ..., from the authority that is believed down to a node's certificate."""
    def openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "leaf.key")
    (folder / "ca.ext").write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n")
    (folder / "leaf.ext").write_text("subjectAltName=URI:hermes://example.net/node/alice,DNS:alice.example.net\n"
                                     "extendedKeyUsage=serverAuth,clientAuth\n")
    above, key, made = certs.ca, certs.folder / "ca.key", []
    for i in range(length):
        last = i == length - 1
        request, certificate = folder / "request", folder / f"{i}.crt"
        openssl("req", "-new", "-key", folder / "leaf.key", "-subj", f"/CN=chain{i}", "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", above, "-CAkey", key, "-set_serial", 1000 + i, "-days", 5,
                "-extfile", folder / ("leaf.ext" if last else "ca.ext"), "-out", certificate)
        above, key = certificate, folder / "leaf.key"
        made.insert(0, certificate)
    (folder / "chain.pem").write_text("".join(c.read_text() for c in made))


def test_many_handshakes_that_stop_half_way(target, watch):
    """A hundred ClientHellos cut short, all open at once."""
    sockets = []
    try:
        for _ in range(100):
            s = socket.create_connection(("127.0.0.1", target.overlay), 10)
            s.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40))
            sockets.append(s)
    finally:
        for s in sockets:
            s.close()
