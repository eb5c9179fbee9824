# SPDX-License-Identifier: Apache-2.0
"""A domain's keys: a controller is made, machines enrol by token, certificates renew, revoked nodes are out at once."""
import json
import re
import socket
import ssl
import stat
import subprocess
import threading

import pytest

import hermes
from domains import Machine, online, run_admin


@pytest.fixture(scope="module")
def controller(session_tmp):
    folder = session_tmp / "enroll"
    folder.mkdir(mode=0o755)
    with Machine("c1", folder, extra={"control": {"report": "200ms"}}).init(hermes.free_port()) as c:
        yield c


def files(machine):
    return sorted(p.name for p in machine.folder.rglob("*") if p.name not in ("run", "state"))


def test_first_machine(controller):
    names = {p.name: stat.S_IMODE(p.stat().st_mode) for p in controller.keys.iterdir()}
    assert names.keys() == {"ca.key", "ca.crt", "domain.key", "domain.pub", "authorities.crt", "node.crt", "node.key"}
    assert set(names.values()) == {0o600}
    assert stat.S_IMODE(controller.keys.stat().st_mode) == 0o700
    text = subprocess.run(["openssl", "x509", "-in", controller.keys / "node.crt", "-noout", "-text"], capture_output=True,
                          text=True, check=True).stdout
    assert "URI:hermes://example.net/node/c1, DNS:c1, DNS:c1.example.net, DNS:controller.example.net" in text
    online(controller, "c1")           # by its own listener, like every node
    # a second time only by force
    done = run_admin("controller", "init", "--domain", "other.net", "--name", "x", "--address", "127.0.0.1:1",
                     *controller.places(), check=False)
    assert done.returncode == 1 and "already" in done.stderr
    assert {p.name for p in controller.keys.iterdir()} == names.keys()


def test_a_machine_joins(controller, tmp_path):
    with Machine("alice", tmp_path, extra={"control": {"report": "200ms"}}).enroll(controller) as alice:
        assert {p.name for p in alice.keys.iterdir()} == {"authorities.crt", "node.crt", "node.key"}
        assert "PRIVATE KEY" in (alice.keys / "node.key").read_text()
        online(controller, "alice")
        rows = {n["name"]: n for n in controller.admin("nodes", "list", json=True)["nodes"]}
        assert rows["alice"]["state"] == "online" and rows["c1"]["state"] == "online"
        assert "alice" in controller.admin("nodes", "list")
        # used up
        assert not controller.admin("controller", "token", "list", json=True)["tokens"]


def nothing_written(machine):
    assert not machine.config_file.exists()
    assert [p.name for p in machine.state.iterdir()] == []
    assert [p.name for p in machine.folder.iterdir() if p.name.startswith("hermes.yaml")] == []


def refused(machine, controller, token, *args, says, name=None):
    if name:
        machine.name = name
    done = machine.enroll(controller, *args, token=token, check=False, start=False)
    assert done.returncode == 1 and re.search(says, done.stderr), done.stderr
    nothing_written(machine)


def test_tokens_that_are_no_good(controller, tmp_path):
    bob = Machine("bob", tmp_path)
    token = controller.token("--node", "bob")
    kind, ident, secret, fingerprint = token.split(".")
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    refused(bob, controller, f"{kind}.{ident}.{wrong}.{fingerprint}", says="not valid")
    refused(bob, controller, f"{kind}.nothing.{secret}.{fingerprint}", says="not valid")
    refused(bob, controller, "hermes1.a.b", says="no token")
    refused(bob, controller, token, says="for another node", name="carol")
    refused(bob, controller, controller.token(), says="node of that name", name="c1")
    refused(bob, controller, controller.token("--node", "controller"), says="reserved", name="controller")
    expired = controller.token("--node", "bob", "--lifetime", "1s")
    hermes.wait_for(lambda: ident in controller.admin("controller", "token", "list") and
                    len(controller.admin("controller", "token", "list", json=True)["tokens"]) == 3, message="a token to expire")
    refused(bob, controller, expired, says="not valid", name="bob")
    controller.admin("controller", "token", "delete", ident)
    refused(bob, controller, token, says="not valid")
    # once only
    bob.enroll(controller, start=False)
    used = controller.token("--node", "dora")
    Machine("dora", tmp_path).enroll(controller, token=used, start=False)
    (tmp_path / "again").mkdir()
    refused(Machine("dora", tmp_path / "again"), controller, used, says="not valid")


def test_another_authority(controller, tmp_path):
    token = controller.token("--node", "eve")
    *rest, fingerprint = token.split(".")
    other = ".".join([*rest, ("A" if fingerprint[0] != "A" else "B") + fingerprint[1:]])
    eve = Machine("eve", tmp_path)
    refused(eve, controller, other, says="fingerprint.*nothing was sent")
    assert any(t["id"] == rest[1] and "failed" not in t for t in controller.admin("controller", "token", "list", json=True)["tokens"])


class Between(threading.Thread):
    """A server that shows the domain's authority beside its own, and answers by a certificate of its own."""

    def __init__(self, folder, authority, port):
        super().__init__(daemon=True)
        certs = hermes.Certs(folder, "Hermes example.net")
        certificate, key = certs.server("controller", "DNS:controller.example.net")
        self.text = certs.ca.read_text() + authority.read_text()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.socket = socket.create_server(("127.0.0.1", port))
        self.requests = []
        self.start()

    def run(self):
        while True:
            try:
                plain, _ = self.socket.accept()
                with self.context.wrap_socket(plain, server_side=True) as tls:
                    self.requests.append(tls.recv(65536))
                    body = self.text.encode()
                    tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
            except ssl.SSLError:
                continue
            except OSError:
                return


def test_somebody_in_between(controller, tmp_path):
    between = Between(tmp_path / "tls", controller.keys / "ca.crt", hermes.free_port())
    frank, token = Machine("frank", tmp_path), controller.token("--node", "frank")
    port, controller.port = controller.port, between.socket.getsockname()[1]
    try:
        refused(frank, controller, token, says="certificate|SSL")
    finally:
        controller.port = port
        between.socket.close()
    assert len(between.requests) == 1 and token.split(".")[2].encode() not in between.requests[0]


def test_all_or_nothing(controller, tmp_path):
    grace = Machine("grace", tmp_path)
    token = controller.token("--node", "grace")
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = run_admin("enroll", f"https://127.0.0.1:{controller.port}", "--token", token, "--node", "grace", "--config",
                     blocked / "hermes.yaml", "--state-dir", grace.state, check=False)
    assert done.returncode == 1
    nothing_written(grace)
    grace.enroll(controller, token=token, start=False)       # the token was not spent on it
    # beside what the file says already; which is kept
    hugo = Machine("hugo", tmp_path)
    hugo.write("node: {name: other}\nlisteners:\n  - {name: apps, address: '127.0.0.1:1', accept: http}\n")
    run_admin("enroll", f"https://127.0.0.1:{controller.port}", "--token", controller.token(), "--node", "hugo", *hugo.places())
    assert re.search(r"name: .?hugo", hugo.config_file.read_text()) and "apps" in hugo.config_file.read_text()
    assert "name: other" in next(hugo.folder.glob("hermes.yaml.before-*")).read_text()


def serial(certificate):
    der = certificate if isinstance(certificate, bytes) else ssl.PEM_cert_to_DER_cert(certificate.read_text())
    return subprocess.run(["openssl", "x509", "-inform", "der", "-noout", "-serial"], input=der, capture_output=True,
                          check=True).stdout.decode().strip().removeprefix("serial=").lower()


def tls_of(machine):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(machine.keys / "authorities.crt")
    context.load_cert_chain(machine.keys / "node.crt", machine.keys / "node.key")
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def shown(port, machine):
    """The serial that whoever connects to an overlay listener is shown; the asker is the machine itself."""
    with socket.create_connection(("127.0.0.1", port), 10) as plain, tls_of(machine).wrap_socket(plain) as tls:
        return serial(tls.getpeercert(True))


def let_in(port, machine):
    """Whether the controller talks to a machine with its certificate. (With TLS 1.3 a client hears of a refusal when it reads.)"""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as plain, tls_of(machine).wrap_socket(plain) as tls:
            tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            return len(tls.recv(1)) == 1
    except OSError:
        return False


def test_certificates_renew(controller, tmp_path):
    port = hermes.free_port()
    extra = {"control": {"report": "200ms"},
             "listeners": [{"name": "from-nodes", "address": f"127.0.0.1:{port}", "accept": "overlay"}]}
    with Machine("ivan", tmp_path, extra=extra).enroll(controller) as ivan:
        online(controller, "ivan")
        before, key = serial(ivan.keys / "node.crt"), (ivan.keys / "node.key").read_text()
        assert shown(port, ivan) == before == controller.node_state("ivan")["serial"]
        pids = ivan.pids()
        controller.admin("nodes", "renew", "ivan")
        after = hermes.wait_for(lambda: (s := serial(ivan.keys / "node.crt")) != before and s, 20, message="a new certificate")
        assert (ivan.keys / "node.key").read_text() != key            # with a key of its own
        assert controller.node_state("ivan")["serial"] == after
        hermes.wait_for(lambda: shown(port, ivan) == after, 10, message="the new certificate in use")
        seen = controller.node_state("ivan")["seen"]
        hermes.wait_for(lambda: controller.node_state("ivan")["seen"] > seen, 10, message="reports with the new certificate")
        assert ivan.pids() == pids                                    # nobody was replaced for it
        assert [p.name for p in ivan.keys.iterdir() if p.name.startswith(".")] == []


def test_revoked_at_once(controller, tmp_path):
    with Machine("judy", tmp_path, extra={"control": {"report": "200ms"}}).enroll(controller) as judy:
        online(controller, "judy")
        document = "domain: example.net\nnodes: [{name: c1}, {name: judy}]\nrollout: {wait: 0s}\n"
        controller.admin("controller", "document", "apply", "-", "--wait", "--at-once", stdin=document)
        controller.admin("nodes", "revoke", "judy")
        assert controller.node_state("judy")["state"] == "revoked"
        judy.wait_log("controller away.*(403|revoked|closed|refused)", 20)
        controller.wait_log("peer refused.*peer=judy.*reason=revoked", 20)     # told to every node, the controller's own too
        # a new machine can have the name; the old one's certificate is still no good
        (tmp_path / "new").mkdir()
        with Machine("judy", tmp_path / "new", extra={"control": {"report": "200ms"}}).enroll(controller) as new:
            online(controller, "judy")
            assert controller.node_state("judy")["serial"] == serial(new.keys / "node.crt")
            port = controller.port
            assert shown(port, new) == serial(controller.keys / "node.crt")
            hermes.wait_for(lambda: not let_in(port, judy), message="the old certificate to be refused")
            assert let_in(port, new)


def test_a_running_node_joins(controller, tmp_path):
    """Enrolled while it runs with a configuration of its own: a reload is enough, and what it served it serves."""
    kate, apps = Machine("kate", tmp_path), hermes.free_port()
    kate.write({"node": {"name": "node"}, "listeners": [{"name": "apps", "address": f"127.0.0.1:{apps}", "accept": "http"}],
                "clusters": [{"name": "web", "carry": "h1", "endpoints": "target", "allow_targets": ["loopback"]}],
                "routes": [{"cluster": "web"}]})
    kate.start()
    try:
        assert "keeper" not in kate.pids()
        kate.enroll(controller, start=False)
        kate.admin("reload")
        online(controller, "kate")
        assert kate.admin("status", json=True)["node"] == "kate" and "keeper" in kate.pids()
        assert "apps" in kate.admin("listeners", "list")
    finally:
        kate.stop()


def test_operators_over_the_network(controller, tmp_path):
    with Machine("lara", tmp_path).enroll(controller, start=False) as lara:
        way = ["--url", f"https://127.0.0.1:{controller.port}", "--cert", lara.keys / "node.crt", "--key", lara.keys / "node.key",
               "--ca", lara.keys / "authorities.crt"]
        done = run_admin("nodes", "list", *way, check=False)
        assert done.returncode == 1 and "only operators" in done.stderr
        before = controller.config_file.read_text()
        controller.config_file.write_text(before.replace("\ncontroller:\n", "\ncontroller:\n  operators: [lara]\n"))
        controller.admin("reload")
        assert "lara" in run_admin("nodes", "list", *way).stdout
        watch = subprocess.Popen([controller.build / "bin/hermes-admin", "--json", "nodes", "watch", "--interval", "100ms",
                                  *map(str, way)], stdout=subprocess.PIPE, text=True)
        for _ in range(2):
            assert json.loads(watch.stdout.readline())["nodes"]
        watch.kill()
        watch.wait()
        controller.admin("nodes", "revoke", "lara")
        assert run_admin("nodes", "list", *way, check=False).returncode == 1


def test_links_among_the_keys(controller, tmp_path):
    """The folder is the workers': what one of them could link there, hermesd does not read for them."""
    with Machine("mike", tmp_path).enroll(controller) as mike:
        secret = tmp_path / "secret"
        secret.write_text((mike.keys / "authorities.crt").read_text())
        (mike.keys / "authorities.crt").unlink()
        (mike.keys / "authorities.crt").symlink_to(secret)
        done = mike.reload(check=False)
        assert done.returncode == 1 and "symbolic links" in done.stderr, done
        (mike.keys / "authorities.crt").unlink()
        secret.rename(mike.keys / "authorities.crt")
        mike.reload()
