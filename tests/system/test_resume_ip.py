# SPDX-License-Identifier: Apache-2.0
"""IP tunnels go on when what is under them breaks: ping at 100 packets a second through TUN devices notices nothing."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hermes
from hermes import wait_for

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netlab"))
import netlab                                                            # noqa: E402

pytestmark = pytest.mark.skipif(not netlab.available(), reason="needs root and network namespaces")


class Ping:
    def __init__(self, ns, address, count, every=0.01):
        self.process = subprocess.Popen(ns.wrap(["ping", "-i", str(every), "-c", str(count), "-W", "10", address]),
                                        stdout=subprocess.PIPE, text=True)

    def result(self):
        """(sent, received, doubled)"""
        out = self.process.communicate(timeout=120)[0]
        sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", out).groups())
        return sent, received, out.count("(DUP!)")


def reset_connections(ns, port, seconds=0.2):
    """What leaves for the port is answered by a reset."""
    ns.run("nft", f"add table inet cut; add chain inet cut out {{ type filter hook output priority 0; }}; "
           f"add rule inet cut out tcp dport {port} reject with tcp reset")
    time.sleep(seconds)
    ns.run("nft", "delete table inet cut")


@pytest.fixture
def tunnel(certs, tmp_path):
    """A user's node with a TUN device, the far end with another: each in its own namespace."""
    with netlab.Lab() as lab:
        user, server = lab.namespace("user"), lab.namespace("server")
        lab.link(user, "10.9.0.1/24", server, "10.9.0.2/24")
        netlab.ip("-n", server.name, "address", "add", "10.0.0.1/32", "dev", "lo")
        far = {
            "node": {"name": "ingress", "domain": "example.net", "tunnel_workers": 2},
            "identity": certs.identity("ingress"),
            "listeners": [{"name": "from-nodes", "address": "10.9.0.2:8443", "accept": "overlay"}],
            "tunnels": [{"name": "hermes0", "addresses": ["10.8.0.1/24"]}],
            "clusters": [{"name": "here", "carry": "ip", "device": "hermes0", "pool": ["10.8.0.0/24"],
                          "advertise": ["10.0.0.1/32"]}],
            "routes": [{"match": {"method": "CONNECT-IP"}, "cluster": "here"}],
        }
        near = {
            "node": {"name": "alice", "domain": "example.net", "tunnel_workers": 2, "datagram_age": "30s"},
            "identity": certs.identity("alice"),
            "tunnels": [{"name": "hermes0", "addresses": "assigned",
                         "networks": [{"prefix": "10.0.0.1/32", "add_headers": {"user": "alice"}}]}],
            "clusters": [{"name": "ingress", "carry": "h2", "tls": {"server_name": "ingress.example.net"},
                          "endpoints": ["10.9.0.2:8443"]}],
            "routes": [{"match": {}, "cluster": "ingress"}],
        }
        with hermes.Node("ingress", far, tmp_path, wrap=server.wrap) as far_node, \
                hermes.Node("alice", near, tmp_path, wrap=user.wrap) as near_node:
            def answers():
                return subprocess.run(user.wrap(["ping", "-c1", "-W1", "10.0.0.1"]), capture_output=True).returncode == 0
            wait_for(answers, 20, message="the first answer to ping")
            yield user, near_node, far_node, answers


def test_resets_lose_no_packet(tunnel):
    user, near, far, _ = tunnel
    ping = Ping(user, "10.0.0.1", 500)
    for _ in range(4):
        time.sleep(0.5)
        reset_connections(user, 8443)
    assert ping.result() == (500, 500, 0)
    assert far.log().count("tunnel joined") >= 4
    assert near.log().count("tunnel resumed") >= 4


def test_tunnels_do_not_idle_out(tunnel):
    """An IP tunnel is a link: it stays, and its address with it, however long nothing passes."""
    _, near, far, answers = tunnel

    def flows(node):
        return sorted((f["id"], f["state"]) for f in node.admin("flows", "list", json=True)["flows"])
    for node in (near, far):
        config = json.loads(node.config_file.read_text())
        config["routes"][0]["timeout"] = {"idle": "500ms"}
        node.reload(config)
    assert answers()
    before = flows(near), flows(far)
    assert before[0] and before[1]
    time.sleep(2)
    assert (flows(near), flows(far)) == before
    assert answers()


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_that_dies_is_replaced(tunnel, which):
    """The one of the two owns the device, the other one may have the connection; then it asks for a new link."""
    user, near, far, answers = tunnel
    far.expect_bad_words = True
    before = sorted(far.pids()["tunnel"])
    os.kill(before[which], signal.SIGKILL)
    wait_for(lambda: len(far.pids().get("tunnel", [])) == 2 and sorted(far.pids()["tunnel"]) != before,
             message="a new worker")
    wait_for(answers, 30, message="ping to be answered again")
    reset_connections(user, 8443)
    wait_for(answers, 30, message="ping to be answered over a new connection")


@pytest.mark.parametrize("which", ["far", "near"])
def test_workers_are_replaced(tunnel, which):
    """Orderly: what the device gives while it changes hands waits in its queue, and the tunnel goes on at the next worker."""
    user, near, far, answers = tunnel
    node = far if which == "far" else near
    ping = Ping(user, "10.0.0.1", 800)
    for name in ("tunnel-0", "tunnel-1", "tunnel-0"):
        before = node.log().count("flows taken over")
        node.admin("workers", "restart", name)
        wait_for(lambda: node.log().count("flows taken over") > before, 20, message="the new worker")
        time.sleep(1)
    assert ping.result() == (800, 800, 0)
    for n in (near, far):
        assert "tunnel lost" not in n.log() and "not taken over" not in n.log() and "not handed over" not in n.log()


def test_workers_of_both_ends_are_replaced_at_once(tunnel):
    user, near, far, answers = tunnel
    ping = Ping(user, "10.0.0.1", 800)
    for _ in range(2):
        for name in ("tunnel-0", "tunnel-1"):
            for node in (near, far):
                node.admin("workers", "restart", name)
        time.sleep(2)
    assert ping.result() == (800, 800, 0)
    addresses = [c["assigned"] for d in far.admin("tunnels", "list", json=True)["tunnels"] for c in d["clients"]]
    assert addresses and all(addresses)
