# SPDX-License-Identifier: Apache-2.0
"""The controller's interface: by curl on its socket as an operator, and over the network as a node and as nobody."""
import json
import os
import signal
import subprocess
import time

import pytest

import hermes
from domains import Machine, online

REPORT = {"control": {"report": "200ms"}}


@pytest.fixture(scope="module")
def domain(session_tmp):
    """A controller and alice; and a certificate of bob's, who does not run."""
    folder = session_tmp / "controller"
    folder.mkdir(mode=0o755)
    with Machine("c1", folder, extra=REPORT).init(hermes.free_port()) as c:
        with Machine("alice", folder, extra=REPORT).enroll(c) as alice:
            bob = Machine("bob", folder).enroll(c, start=False)
            online(c, "alice")
            yield c, alice, bob


def curl(*args, timeout=30):
    """(status, body as text)"""
    done = subprocess.run(["curl", "-s", "-m", str(timeout), "-w", "\n%{http_code}", *map(str, args)], capture_output=True, text=True,
                          timeout=timeout + 5)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def operate(controller, path, *args):
    return curl("--unix-socket", controller.folder / "run/controller.sock", f"http://controller{path}", *args)


def visit(controller, node, path, *args, timeout=30):
    """Over the network, with a node's certificate, or without one."""
    who = ["--cert", node.keys / "node.crt", "--key", node.keys / "node.key"] if node else []
    return curl("--http2", "--cacert", controller.keys / "ca.crt", "--connect-to", f"::127.0.0.1:{controller.port}", *who,
                f"https://controller.example.net{path}", *args, timeout=timeout)


def code(answer):
    return json.loads(answer[1])["error"]["code"]


def test_operator(domain):
    c, *_ = domain
    status, body = operate(c, "/v1/nodes")
    assert status == 200 and {n["name"] for n in json.loads(body)["nodes"]} >= {"c1", "alice", "bob"}
    assert operate(c, "/v1/nodes/alice")[0] == 200
    answer = operate(c, "/v1/nodes/nobody")
    assert answer[0] == 404 and code(answer) == "not-found"
    assert operate(c, "/v1/nodes", "-X", "PATCH")[0] == 405
    answer = operate(c, "/v1/tokens", "-d", "{")
    assert answer[0] == 400 and code(answer) == "bad-json"
    # from a mere file descriptor to the socket nobody becomes a node
    assert operate(c, "/v1/config", "-H", "hermes-peer: alice")[0] == 403


def test_large_bodies(domain, tmp_path):
    c, alice, _ = domain
    big = tmp_path / "big"
    with open(big, "wb") as f:
        f.truncate(17 << 20)
    answer = operate(c, "/v1/document", "-T", big, "-H", "Content-Type: application/yaml")
    assert answer[0] == 413 and code(answer) == "too-large"
    with open(big, "wb") as f:
        f.truncate(2 << 20)
    # over the network: refused before it has come, which curl may take for a broken stream
    assert visit(c, alice, "/v1/report", "--data-binary", f"@{big}")[0] in (413, 0)
    assert c.node_state("alice")["state"] == "online"
    assert operate(c, "/v1/nodes")[0] == 200


def test_over_the_network(domain):
    c, alice, bob = domain
    assert visit(c, None, "/v1/authorities")[0] == 200
    for path in ("/v1/nodes", "/v1/config", "/v1/status", "/metrics", "/v1/document"):
        assert visit(c, None, path)[0] == 403, path
    for path in ("/v1/nodes", "/v1/nodes/alice/config", "/v1/document", "/v1/tokens", "/metrics"):
        assert visit(c, alice, path)[0] == 403, path
    assert visit(c, None, "/v1/config", "-H", "hermes-peer: alice")[0] == 403
    assert visit(c, bob, "/v1/config", "-H", "hermes-peer: alice")[0] in (200, 204)      # bob's, as his certificate says
    assert visit(c, bob, "/v1/report", "-d", "{}")[0] == 400
    assert visit(c, bob, "/v1/report", "-d", '{"number": 0, "state": "accepted"}')[0] == 200
    assert c.node_state("bob")["runs"]["number"] == 0


def test_own_configuration_at_once(domain, tmp_path):
    """A long poll is answered when there is something new for this node, and with this node's."""
    c, alice, bob = domain
    waiting = subprocess.Popen(["curl", "-s", "-m", "30", "--http2", "--cacert", c.keys / "ca.crt", "--connect-to",
                                f"::127.0.0.1:{c.port}", "--cert", bob.keys / "node.crt", "--key", bob.keys / "node.key",
                                "https://controller.example.net/v1/config?have=0&wait=25"], stdout=subprocess.PIPE, text=True)
    hermes.wait_for(lambda: "hermes_controller_polls 0" not in operate(c, "/metrics")[1], message="a poll that waits")
    time.sleep(0.5)
    assert waiting.poll() is None
    file = tmp_path / "domain.yaml"
    file.write_text(json.dumps({"domain": "example.net", "nodes": [
        {"name": "bob", "config": {"log": {"level": "debug"}}}, {"name": "alice", "config": {"log": {"level": "info"}}}]}))
    c.admin("controller", "document", "apply", file)
    out, _ = waiting.communicate(timeout=30)
    config = json.loads(out)
    assert config["node"] == "bob" and "debug" in config["text"] and config["signature"] and config["domain"] == "example.net"
    assert visit(c, bob, f"/v1/config?have={config['number']}&wait=1")[0] == 204


def test_revoked_polls_end(domain):
    c, _, bob = domain
    number = json.loads(visit(c, bob, "/v1/config?have=0")[1])["number"]
    began = time.monotonic()
    waiting = subprocess.Popen(["curl", "-s", "-m", "30", "-w", "%{http_code}", "-o", "/dev/null", "--http2", "--cacert",
                                c.keys / "ca.crt", "--connect-to", f"::127.0.0.1:{c.port}", "--cert", bob.keys / "node.crt", "--key",
                                bob.keys / "node.key", f"https://controller.example.net/v1/config?have={number}&wait=25"],
                               stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    c.admin("nodes", "revoke", "bob")
    out, _ = waiting.communicate(timeout=30)
    assert out != "200" and time.monotonic() - began < 20
    assert c.node_state("bob")["state"] == "revoked"
    assert visit(c, bob, "/v1/config?have=0")[0] != 200


def test_metrics(domain):
    c, *_ = domain
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
    status, text = operate(c, "/metrics")
    assert status == 200
    families = {f.name: f for f in text_string_to_metric_families(text + "\n" if not text.endswith("\n") else text)}
    states = {s.labels["state"]: s.value for s in families["hermes_controller_nodes"].samples}
    assert states["online"] >= 2 and states["revoked"] == 1
    assert families["hermes_controller_accepted_seconds"].type == "histogram"


def test_restart_keeps_everything(domain):
    """kill -9 of the worker: it comes back with the document, the nodes and the tokens."""
    c, *_ = domain
    token = c.token("--node", "later")
    before = c.admin("controller", "history", json=True)["versions"][0]
    for _ in range(3):
        pid = c.pids()["controller"][0]
        os.kill(pid, signal.SIGKILL)
        hermes.wait_for(lambda p=pid: c.pids().get("controller", [p]) != [p], 20, message="another controller")
        hermes.wait_for(lambda: operate(c, "/v1/nodes")[0] == 200, 20, message="the controller to answer")
    assert c.admin("controller", "history", json=True)["versions"][0] == before
    assert [t["id"] for t in c.admin("controller", "token", "list", json=True)["tokens"]] == [token.split(".")[1]]
    assert c.node_state("bob")["state"] == "revoked"
    online(c, "alice")
