# SPDX-License-Identifier: Apache-2.0
"""identity.revoked: a node that is no longer believed is out at once, as a client and as a server; and certificates that changed are
shown to whoever connects from then on, while what is there goes on."""
import shutil
import socket
import subprocess

import pytest

import hermes
from hermes import free_port, wait_for
from rawh2 import ACK, H2, PING, client_tls, frame
from servers import TcpEcho


def connect(port, target):
    """A CONNECT tunnel through a forward proxy, or the status of the refusal."""
    s = socket.create_connection(("127.0.0.1", port), 10)
    s.settimeout(10)
    s.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = s.recv(4096)
        if not piece:
            break
        head += piece
    status = int(head.split()[1]) if head else 0
    return s if status == 200 else status


def echoes(s, data=b"hello"):
    try:
        s.sendall(data)
        return s.recv(len(data)) == data
    except OSError:
        return False


def ended(s):
    try:
        return s.recv(1) == b""
    except OSError as e:
        return not isinstance(e, TimeoutError)


@pytest.fixture
def pair(node, certs):
    """alice behind whom programs are, the ingress, and an echo."""
    overlay, apps = free_port(), free_port()
    with TcpEcho() as echo:
        ingress_config = hermes.ingress_config(overlay, certs)
        alice_config = hermes.alice_config(apps, certs, overlay)
        alice_config["node"]["resume_timeout"] = "1s"      # what its own programs wait for it to come back
        ingress = node("ingress", ingress_config)
        alice = node("alice", alice_config)
        yield alice, alice_config, ingress, ingress_config, apps, echo


def revoke(node, config, *names):
    node.reload({**config, "identity": {**config["identity"], "revoked": list(names)}})


def test_a_client(pair):
    alice, _, ingress, config, apps, echo = pair
    target = f"127.0.0.1:{echo.port}"
    tunnel = connect(apps, target)
    assert echoes(tunnel)
    revoke(ingress, config, "bob")
    assert echoes(tunnel)                           # somebody else
    revoke(ingress, config, "bob", "alice")
    wait_for(lambda: not echo.open_count(), 2, message="nothing to wait for alice")
    assert ended(tunnel)
    ingress.wait_log("peer refused.*peer=alice.*reason=revoked")
    assert connect(apps, target) in (502, 503)
    assert not [f for f in ingress.admin("flows", "list", json=True)["flows"] if f["state"] == "PARKED"]
    ingress.reload(config)                          # believed again
    assert echoes(wait_for(lambda: (s := connect(apps, target)) not in (502, 503) and s, message="alice to be let in"))


def test_a_server(pair):
    alice, config, ingress, _, apps, echo = pair
    target = f"127.0.0.1:{echo.port}"
    tunnel = connect(apps, target)
    assert echoes(tunnel)
    revoke(alice, config, "ingress")
    assert connect(apps, target) in (502, 503)
    assert ended(tunnel)
    alice.wait_log("peer refused.*cluster=ingress.*peer=ingress.*reason=revoked")
    answer = hermes.curl(f"http://{target}/", proxy=f"127.0.0.1:{apps}")
    assert answer.status == 502 and "certificate" in answer.headers["proxy-status"], answer


def serial(certificate):
    out = subprocess.run(["openssl", "x509", "-noout", "-serial", *(["-inform", "der"] if isinstance(certificate, bytes) else
                          ["-in", certificate])], input=certificate if isinstance(certificate, bytes) else None,
                         capture_output=True, check=True).stdout
    return out.decode().strip()


def test_a_new_certificate(node, certs, tmp_path):
    """The file changes: new connections show it, both ways; those that are there go on."""
    overlay, apps, behind = free_port(), free_port(), TcpEcho()
    own, key = tmp_path / "alice.crt", tmp_path / "alice.key"
    config = hermes.alice_config(apps, certs, overlay)
    first, second = certs.node("alice", out="alice-1"), certs.node("alice", out="alice-2")
    for source, to in zip(first, (own, key)):
        shutil.copy(source, to)
    config["identity"] = {"certificate": str(own), "key": str(key), "authorities": [str(certs.ca)]}
    mine = free_port()
    config["listeners"].append({"name": "from-nodes", "address": f"127.0.0.1:{mine}", "accept": "overlay"})
    node("ingress", hermes.ingress_config(overlay, certs))
    alice = node("alice", config)
    tls = client_tls(certs, certs.node("bob"))
    with H2(mine, tls) as old:
        assert serial(old.sock.getpeercert(True)) == serial(first[0])
        tunnel = connect(apps, f"127.0.0.1:{behind.port}")
        assert echoes(tunnel)
        for source, to in zip(second, (own, key)):
            shutil.copy(source, to)
        alice.reload()
        with H2(mine, tls) as new:
            assert serial(new.sock.getpeercert(True)) == serial(second[0])
        assert old.send(frame(PING, 0, 0, b"12345678"))
        assert old.wait(lambda h: [f for f in h.of(PING) if f[1] & ACK])
        assert echoes(tunnel)
    behind.stop()


def test_hermes_peer_is_nobodys_to_say(node):
    """Requests from outside do not carry the header by which the controller knows nodes."""
    class Seen(TcpEcho):
        def _serve(self, client):
            self.request = client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            client.close()

    apps = free_port()
    with Seen() as server:
        node("n", {"node": {"name": "n"},
                   "listeners": [{"name": "apps", "address": f"127.0.0.1:{apps}", "accept": "http", "trust_headers": True}],
                   "clusters": [{"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{server.port}"]}],
                   "routes": [{"cluster": "web"}]})
        answer = hermes.curl("http://x/", "-H", "Hermes-Peer: mallory", "-H", "X-Other: 1", proxy=f"127.0.0.1:{apps}")
        assert answer.status == 200
        assert b"x-other" in server.request.lower() and b"hermes-peer" not in server.request.lower()
