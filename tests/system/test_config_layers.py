# SPDX-License-Identifier: Apache-2.0
"""The node's own document over its controller's: what holds, what is shown, what outlives changes, restarts and the controller."""
import hashlib
import json
from types import SimpleNamespace

import pytest

import hermes
from fake_controller import FakeController
from hermes import curl, free_port, wait_for
from test_admin import ask
from test_control import front_config


@pytest.fixture
def domain(node, certs):
    with FakeController() as controller:
        front, port = free_port(), free_port()
        node_of_controller = node("front", front_config(front, certs, controller.port))

        def own(**more):
            config = {"node": {"name": "alice", "domain": "example.net", "tunnel_workers": 1}, "identity": certs.identity("alice"),
                      "control": {"endpoints": [f"127.0.0.1:{front}"], "key": controller.public, "report": "500ms"},
                      "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"}], **more}
            return json.loads(json.dumps(config))
        alice = node("alice", own())
        yield SimpleNamespace(controller=controller, front=node_of_controller, alice=alice, own=own,
                              get=lambda: curl("http://SERVICE/", proxy=f"127.0.0.1:{port}").status)


def way(port):
    """What the controller sends."""
    return {"node": {"name": "somebody", "max_hops": 7},
            "clusters": [{"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{port}"], "max_connections": 9}],
            "routes": [{"name": "service", "match": {"authority": "SERVICE"}, "cluster": "web"}]}


def in_force(alice):
    return next(v for v in ask(alice, "config", "history")["versions"] if v["state"] == "in force")


def taken(domain, number):
    wait_for(lambda: in_force(domain.alice)["controller"] == number, 20, message=f"the controller's {number} in force")


def config_of(alice):
    return ask(alice, "config", "show")["config"]


def test_both_layers(domain, web):
    alice, controller = domain.alice, domain.controller
    assert "hermes-control" in [one["name"] for one in ask(alice, "listeners", "list")["listeners"]]
    assert domain.get() == 404
    controller.publish(5, way(web.port))
    taken(domain, 5)
    assert domain.get() == 200
    wait_for(lambda: in_force(alice)["confirmed"], 20, message="confirmed")
    assert in_force(alice)["source"] == "controller" and in_force(alice)["controller_author"] == "root"
    document = ask(alice, "config", "show", "--controller")
    assert document["controller_digest"] == hashlib.sha256(document["document"].encode()).hexdigest() != document["digest"]
    # where each value came from
    shown = ask(alice, "config", "show", "--origin")
    origins = {o["key"]: (o["value"], o["origin"]) for o in shown["origins"]}
    assert origins["node.name"] == ("alice", "local")
    assert origins["node.max_hops"] == (7, "controller 5")
    assert origins["clusters[web].carry"] == ("h1", "controller 5")
    assert origins["clusters[web].balance"] == ("round_robin", "default")
    lines = alice.admin("config", "show", "--origin").splitlines()
    assert "  max_hops: 7  # controller 5" in lines and "  name: alice  # local" in lines
    assert json.loads(alice.admin("config", "show", "--local"))["control"]["key"] == controller.public
    assert json.loads(alice.admin("config", "show", "--controller")) == way(web.port)
    assert "the controller's part" in alice.admin("config", "diff", "1")
    # the own document wins, key by key and member by member, with the controller's under it
    mine = domain.own(clusters=[{"name": "web", "carry": "h1", "endpoints": ["127.0.0.1:1"]}])
    mine["node"]["max_hops"] = 3
    alice.reload(mine)
    config = config_of(alice)
    cluster = next(c for c in config["clusters"] if c["name"] == "web")
    assert config["node"]["max_hops"] == 3 and cluster["endpoints"][0]["address"] == "127.0.0.1:1"
    assert cluster["max_connections"] == 9                 # which only the controller's says
    assert [r["name"] for r in config["routes"]] == ["hermes-control", "service"]
    assert in_force(alice)["source"] == "file" and in_force(alice)["controller"] == 5
    assert domain.get() >= 500


def test_what_does_not_go_together(domain, web):
    alice, controller = domain.alice, domain.controller
    controller.publish(5, way(web.port))
    taken(domain, 5)
    refused = alice.reload(domain.own(clusters=[{"name": "web", "carry": "tcp", "tls": {}}]), check=False)
    assert refused.returncode == 1 and "hermes.yaml:" in refused.stderr + refused.stdout
    controller.publish(6, "\nroutes: [{name: r, cluster: nowhere}]\n")
    report = controller.wait_report(lambda r: r["refused"] and r["refused"]["number"] == 6)
    assert any("controller 6:2:" in e and "nowhere" in e for e in report["refused"]["errors"]), report
    assert in_force(alice)["controller"] == 5 and domain.get() == 200
    # at start: the file was changed, and does not fit; what was in force stays, loudly
    alice.stop()
    alice.write(domain.own(routes=[{"name": "service", "cluster": "gone"}]))
    alice.start()
    assert domain.get() == 200 and in_force(alice)["controller"] == 5
    assert "gone" in alice.log() and "configuration file refused" in alice.log()


def test_without_the_controller(domain, web):
    alice, controller = domain.alice, domain.controller
    controller.publish(5, way(web.port))
    taken(domain, 5)
    wait_for(lambda: in_force(alice)["confirmed"], 20, message="confirmed")
    both = in_force(alice)["version"]
    controller.stop()
    domain.front.stop()
    alice.stop()
    alice.start()                                          # from the store
    assert domain.get() == 200 and in_force(alice)["controller"] == 5
    changed = domain.own(log={"level": "debug"})
    alice.reload(changed)                                  # own changes go on
    assert domain.get() == 200 and in_force(alice)["controller"] == 5
    assert config_of(alice)["log"]["level"] == "debug"
    # a document without control is a configuration by itself
    del changed["control"]
    alice.reload(changed)
    assert in_force(alice)["controller"] is None and domain.get() == 404
    assert "hermes-control" not in [one["name"] for one in ask(alice, "listeners", "list")["listeners"]]
    # a rollback brings back both
    alice.admin("config", "rollback", both)
    assert in_force(alice)["controller"] == 5 and domain.get() == 200
    assert config_of(alice)["log"]["level"] == "info"


def test_only_its_own(node, certs):
    """Without a controller a document is what it was; there is nothing else to show."""
    config = hermes.alice_config(free_port(), certs, free_port())
    alice = node("alice", config)
    assert json.loads(alice.admin("config", "show", "--local"))["node"]["name"] == "alice"
    done = alice.admin("config", "show", "--controller", check=False)
    assert done.returncode == 1 and "has no part from a controller" in done.stderr
    both = alice.admin("config", "show", "--controller", "--local", check=False)
    assert both.returncode and "exclude each other" in both.stderr
    assert "# controller" not in alice.admin("config", "show", "--origin")
    assert in_force(alice)["controller"] is None and in_force(alice)["confirmed"] is None
    config["listeners"].append({"name": "hermes-x", "address": f"127.0.0.1:{free_port()}", "accept": "http"})
    refused = alice.reload(config, check=False)
    assert refused.returncode == 1 and "reserved" in refused.stderr + refused.stdout
