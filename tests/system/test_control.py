# SPDX-License-Identifier: Apache-2.0
"""A node and its controller: versions are pushed, believed or not, confirmed or rolled back; the node reports, and works on alone."""
import json
import os
import signal
import socket
import time
from types import SimpleNamespace

import pytest

import hermes
from fake_controller import FakeController
from hermes import wait_for


def front_config(port, certs, controller_port):
    """TLS and HTTP/2 before the fake controller, as the implied listener of a controller's node."""
    certificate, key = certs.server("controller", "DNS:controller.example.net")
    return {
        "node": {"name": "front", "domain": "example.net"},
        "identity": certs.identity("front"),
        "listeners": [{"name": "nodes", "address": f"127.0.0.1:{port}", "accept": "http",
                       "tls": {"certificate": str(certificate), "key": str(key), "authorities": [str(certs.ca)]}}],
        "clusters": [{"name": "fake", "carry": "h1", "endpoints": [f"127.0.0.1:{controller_port}"], "ejection": {"failures": 0}}],
        "routes": [{"match": {}, "cluster": "fake", "timeout": {"request": "0s"}}],
    }


def node_config(certs, front_port, key, **more):
    control = {"endpoints": [f"127.0.0.1:{front_port}"], "key": key, "confirm": "3s", "report": "1s"}
    return {"node": {"name": "alice", "domain": "example.net", "tunnel_workers": 1}, "identity": certs.identity("alice"), "control": control, **more}


@pytest.fixture
def domain(node, certs):
    with FakeController() as controller:
        front_port = hermes.free_port()
        front = node("front", front_config(front_port, certs, controller.port))
        alice = node("alice", node_config(certs, front_port, controller.public))
        controller.wait_report(lambda r: r["number"] == 0)
        yield SimpleNamespace(controller=controller, front=front, alice=alice, front_port=front_port)


def control(alice):
    return alice.admin("status", json=True)["control"]


def level(alice):
    return alice.admin("config", "show", json=True)["config"]["log"]["level"]


def listener(name):
    return {"listeners": [{"name": name, "address": f"127.0.0.1:{hermes.free_port()}", "accept": "http"}]}


def names(alice):
    return [one["name"] for one in alice.admin("listeners", "list", json=True)["listeners"]]


# Everything is refused, also config-sync's own way to the controller.
CUT_OFF = {"policies": [{"name": "nobody", "match": {}, "default": "deny"}]}


def confirmed(alice):
    return wait_for(lambda: control(alice)["pending"] is None and control(alice)["confirmed"], 15, message="confirmation")


def taken(domain, number):
    domain.controller.wait_report(lambda r: r["number"] == number and r["state"] == "accepted")


def test_version_is_pushed_and_confirmed(domain):
    alice, controller = domain.alice, domain.controller
    began = time.monotonic()
    version = controller.publish(5, listener("pushed"))
    report = controller.wait_report(lambda r: r["number"] == 5)
    print(f"in force and reported after {time.monotonic() - began:.3f} s")
    assert report["state"] == "accepted" and report["refused"] is None
    assert report["version"] == 5 and report["digest"] == version["digest"]
    assert "pushed" in names(alice)
    confirmed(alice)
    status = control(alice)
    assert status["connected"] and status["number"] == 5 and status["last"] == 5 and status["refused"] is None
    assert "controller reached" in alice.admin("status")
    # and the next; the same text under a higher number counts too
    controller.publish(6, listener("second"))
    taken(domain, 6)
    assert "second" in names(alice) and "pushed" not in names(alice)
    controller.publish(9, controller.version["text"])
    taken(domain, 9)
    assert controller.polls[-1] in (6, 9)


def test_reports_say_how_the_node_is(domain):
    report = domain.controller.wait_report(lambda r: r.get("ready") and r["clusters"] and r["traffic"]["flows"])
    assert report["hermes"] and report["uptime_seconds"] > 0 and report["generation"] >= 1
    assert {w["name"] for w in report["workers"]} >= {"tunnel-0", "router", "policy", "config-sync", "keeper"}
    assert all(w["state"] for w in report["workers"])
    clusters = {c["name"]: c["endpoints"] for c in report["clusters"]}
    assert clusters["hermes-control"][0]["address"] == f"127.0.0.1:{domain.front_port}"
    assert report["load"]["cpu_seconds"] > 0 and report["load"]["rss_bytes"] > 0
    assert report["probes"] == []


def test_bad_document_is_refused_and_reported(domain):
    alice, controller = domain.alice, domain.controller
    controller.publish(3, listener("good"))
    taken(domain, 3)
    controller.publish(4, "listeners: [{name: x, adress: 1}]\n")
    report = controller.wait_report(lambda r: r["state"] == "rejected")
    assert report["number"] == 3 and report["refused"]["number"] == 4
    assert any("adress" in e and "controller" in e for e in report["refused"]["errors"]), report["refused"]
    assert "good" in names(alice)
    assert control(alice)["refused"]["number"] == 4
    # not asked for again; a next one is taken
    assert wait_for(lambda: controller.polls[-1] == 4, message="poll with 4")
    controller.publish(5, listener("better"))
    taken(domain, 5)
    assert control(alice)["refused"] is None


def test_what_a_worker_refuses_is_tried_once_more(domain):
    alice, controller = domain.alice, domain.controller
    with socket.create_server(("127.0.0.1", 0)) as taken_port:
        doc = {"listeners": [{"name": "taken", "address": f"127.0.0.1:{taken_port.getsockname()[1]}", "accept": "http"}]}
        controller.publish(1, doc)
        report = controller.wait_report(lambda r: r["state"] == "rejected")
        assert report["refused"]["number"] == 1 and "another program" in report["refused"]["errors"][0]
    assert alice.log().count("it is tried once more") == 1
    controller.publish(2, doc)
    taken(domain, 2)


def test_only_what_the_domain_signed_for_us_is_believed(domain):
    alice, controller = domain.alice, domain.controller
    stranger = FakeController()
    stranger.stop()
    controller.publish(7, listener("good"))
    taken(domain, 7)
    good = controller.version
    other = controller.make(8, listener("evil"))
    bad = {
        "older": controller.make(6, listener("evil")),
        "replayed": good,
        "altered": {**other, "text": json.dumps(listener("evil"))},
        "signed": controller.make(8, listener("evil"), key=stranger.key),
        "foreign": controller.make(8, listener("evil"), domain="example.org"),
        "another node": controller.make(8, listener("evil"), node="bob"),
        "malformed": {"number": 8},
    }
    for what, version in bad.items():
        controller.offer(version, always=True)
        word = {"another node": "foreign"}.get(what, what)
        report = controller.wait_report(lambda r, w=word: r["refused"] and any(w in e for e in r["refused"]["errors"]), 40)
        assert report["state"] == "rejected" and report["number"] == 7, what
        controller.offer(None)
    assert "not believed" in alice.log()
    assert "good" in names(alice) and "evil" not in names(alice)
    controller.publish(8, listener("next"))
    taken_ = controller.wait_report(lambda r: r["number"] == 8, 40)
    assert taken_["state"] == "accepted"


@pytest.mark.seconds(180)
def test_works_on_without_a_controller(domain, node):
    alice, controller = domain.alice, domain.controller
    controller.publish(2, listener("kept"))
    taken(domain, 2)
    confirmed(alice)
    told = alice.log_file.read_text().count("controller away")
    controller.stop()
    wait_for(lambda: not control(alice)["connected"], 20, message="controller away")
    status = control(alice)
    assert status["reason"] and status["pending"] is None
    assert "controller away" in alice.admin("status")
    # a change of the operator's own does not wait for it, and is not taken back
    config = json.loads(alice.config_file.read_text())
    config["log"] = {"level": "debug"}
    alice.reload(config)
    time.sleep(5)          # longer than confirm
    assert level(alice) == "debug" and "kept" in names(alice)
    assert alice.log_file.read_text().count("controller away") == told + 1      # and not each second
    assert control(alice)["pending"]["rolls_back"] is False
    # also after a restart, out of the store
    alice.stop()
    alice.start()
    assert "kept" in names(alice) and level(alice) == "debug"
    controller.start()
    wait_for(lambda: control(alice)["connected"], 30, message="controller back")
    confirmed(alice)
    controller.publish(3, listener("next"))
    taken(domain, 3)


def test_cut_off_is_rolled_back(domain):
    alice, controller = domain.alice, domain.controller
    controller.publish(10, listener("before"))
    taken(domain, 10)
    good = confirmed(alice)
    controller.publish(11, {**listener("evil"), **CUT_OFF})
    wait_for(lambda: "evil" in names(alice), message="the bad version in force")
    assert control(alice)["pending"]["rolls_back"] is True
    report = controller.wait_report(lambda r: r["state"] == "rolled back", 30)
    assert report["number"] == 10 and report["refused"]["number"] == 11
    assert "before" in names(alice) and "evil" not in names(alice)
    assert "is rolled back" in alice.log()
    wait_for(lambda: control(alice)["confirmed"] > good, 15, message="confirmed again")
    # the number is never taken again, also after a restart
    alice.stop()
    alice.start()
    wait_for(lambda: controller.polls[-1] == 11, 15, message="poll with 11")
    assert "before" in names(alice)
    controller.publish(12, listener("after"))
    taken(domain, 12)


def test_operators_change_that_cuts_off_is_rolled_back(domain):
    alice, controller = domain.alice, domain.controller
    confirmed(alice)
    config = json.loads(alice.config_file.read_text())
    alice.reload({**config, **CUT_OFF})
    wait_for(lambda: "is rolled back" in alice.log(), 20, message="rollback")
    wait_for(lambda: control(alice)["connected"] and control(alice)["pending"] is None, 20, message="reached again")
    assert alice.admin("config", "show", json=True)["config"].get("policies", []) == []
    told = alice.admin("status", json=True)["configuration"]
    assert told["stale"] and "rolled back" in told["stale_reason"]
    alice.reload(config)
    assert not alice.admin("status", json=True)["configuration"]["stale"]


@pytest.mark.parametrize("victim", ["config-sync", "hermesd"])
def test_rollback_survives_a_kill(domain, victim):
    alice, controller = domain.alice, domain.controller
    controller.publish(10, listener("before"))
    taken(domain, 10)
    confirmed(alice)
    controller.publish(11, {**listener("evil"), **CUT_OFF})
    wait_for(lambda: "evil" in names(alice), message="the bad version in force")
    if victim == "hermesd":
        alice.kill()
        alice.start()
    else:
        os.kill(alice.pids()["config-sync"][0], signal.SIGKILL)
    report = controller.wait_report(lambda r: r["state"] == "rolled back", 40)
    assert report["refused"]["number"] == 11 and report["number"] == 10
    assert "before" in names(alice)


def test_goes_on_by_another_controller(node, certs):
    with FakeController() as controller:
        ports = [hermes.free_port() for _ in range(3)]        # nobody listens at the third
        fronts = [node("front" + str(i), front_config(port, certs, controller.port)) for i, port in enumerate(ports[:2])]
        config = node_config(certs, ports[0], controller.public)
        config["control"]["endpoints"] = [f"127.0.0.1:{port}" for port in ports]
        alice = node("alice", config)
        controller.publish(1, listener("first"))
        taken(SimpleNamespace(controller=controller), 1)
        for number, front in enumerate(fronts, 2):
            front.kill()
            front.process = None
            controller.publish(number, listener(f"number-{number}"))
            taken(SimpleNamespace(controller=controller), number)
            assert f"number-{number}" in names(alice)
            front.start()


def test_replacements_of_the_node_go_on(domain):
    alice, controller = domain.alice, domain.controller
    for number, words in enumerate((["workers", "restart", "config-sync"], ["workers", "restart", "all"], ["restart"]), 1):
        alice.admin(*words, timeout=100)
        controller.publish(number, listener(f"number-{number}"))
        taken(domain, number)
        assert f"number-{number}" in names(alice)
    confirmed(alice)
    assert "is rolled back" not in alice.log()


def test_first_version_needs_nothing_to_go_back_to(node, certs):
    """Never confirmed: nothing is rolled back, it goes on trying."""
    with FakeController() as controller:
        front_port = hermes.free_port()
        alice = node("alice", node_config(certs, front_port, controller.public))
        wait_for(lambda: "no controller yet" in alice.log(), 15, message="complaint")
        assert control(alice)["pending"]["rolls_back"] is False and control(alice)["confirmed"] == 0
        node("front", front_config(front_port, certs, controller.port))
        controller.publish(1, listener("first"))
        controller.wait_report(lambda r: r["number"] == 1, 30)
        confirmed(alice)


def test_probes_are_measured_and_reported(domain, node, certs):
    far_port, silent = hermes.free_port(), hermes.free_port()
    node("bob", {"node": {"name": "bob", "domain": "example.net"}, "identity": certs.identity("bob"),
                 "listeners": [{"name": "nodes", "address": f"127.0.0.1:{far_port}", "accept": "overlay"}]})
    probes = [{"name": "to-bob", "cluster": "bob", "interval": "100ms"},
              {"name": "beyond", "cluster": "bob", "target": "video:80", "interval": "100ms"},
              {"name": "nobody", "cluster": "nobody", "interval": "100ms"}]
    clusters = [{"name": name, "carry": "h2", "tls": {"server_name": "bob.example.net"}, "endpoints": [f"127.0.0.1:{port}"]}
                for name, port in (("bob", far_port), ("nobody", silent))]
    domain.controller.publish(1, {"clusters": clusters, "probes": probes})
    report = domain.controller.wait_report(lambda r: len(r.get("probes", [])) == 3 and all(p["sent"] > 5 for p in r["probes"]))
    by_name = {p["name"]: p for p in report["probes"]}
    good = by_name["to-bob"]
    assert good["cluster"] == "bob" and 0 < good["rtt_us"] <= good["rtt_max_us"] < 5e6 and good["lost"] < good["sent"]
    assert good["age_ms"] < 3000
    # bob has no route for it: a way that leads nowhere is no way
    assert by_name["beyond"]["lost"] == by_name["beyond"]["sent"] and by_name["beyond"]["target"] == "video:80"
    assert by_name["nobody"]["lost"] == by_name["nobody"]["sent"] and by_name["nobody"]["rtt_us"] == 0
    table = domain.alice.admin("probes", "list")
    assert "to-bob" in table and " ms" in table
