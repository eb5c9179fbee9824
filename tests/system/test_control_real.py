# SPDX-License-Identifier: Apache-2.0
"""A node under a real controller: pushed, confirmed, cut off and back, the controller killed; what the controller knows of it."""
import json
import os
import signal
import time

import pytest

import hermes
from domains import Machine, online
from hermes import wait_for

QUICK = {"control": {"report": "200ms", "confirm": "3s"}}


@pytest.fixture
def domain(tmp_path):
    with Machine("c1", tmp_path, extra=QUICK).init(hermes.free_port()) as controller:
        with Machine("alice", tmp_path, extra=QUICK).enroll(controller) as alice:
            online(controller, "alice")
            online(controller, "c1")
            yield controller, alice


def document(**alice):
    return {"domain": "example.net", "nodes": [{"name": "c1"}, {"name": "alice", "config": alice}]}


def apply(controller, tmp_path, doc):
    path = tmp_path / "document.yaml"
    path.write_text(json.dumps(doc))
    return controller.admin("controller", "document", "apply", path, json=True)


def listener(name):
    return [{"name": name, "address": f"127.0.0.1:{hermes.free_port()}", "accept": "http"}]


def names(alice):
    return [one["name"] for one in alice.admin("listeners", "list", json=True)["listeners"]]


def control(alice):
    return alice.admin("status", json=True)["control"]


def test_pushed_confirmed_and_known(domain, tmp_path):
    controller, alice = domain
    began = time.monotonic()
    apply(controller, tmp_path, document(listeners=listener("pushed")))
    wait_for(lambda: "pushed" in names(alice), 10, message="the new listener")
    print(f"in force after {time.monotonic() - began:.3f} s")
    wait_for(lambda: control(alice)["pending"] is None and control(alice)["number"], 15, message="confirmation")
    state = wait_for(lambda: (s := controller.node_state("alice")) and s["runs"]["number"] == control(alice)["number"] and s, 10,
                     message="the report")
    assert state["runs"]["state"] == "accepted"
    # a bad one: its reason comes back
    done = controller.admin("controller", "document", "check", "-", check=False,
                            stdin=json.dumps(document(listeners=[{"name": "x", "address": "nonsense", "accept": "http"}])))
    assert done.returncode == 1


def test_cut_off_comes_back_by_itself(domain, tmp_path):
    controller, alice = domain
    apply(controller, tmp_path, document(listeners=listener("before")))
    wait_for(lambda: "before" in names(alice) and control(alice)["pending"] is None, 20, message="a good version confirmed")
    good = control(alice)["number"]
    apply(controller, tmp_path, document(listeners=listener("evil"), policies=[{"name": "nobody", "match": {}, "default": "deny"}]))
    wait_for(lambda: "evil" in names(alice), 10, message="the bad version in force")
    wait_for(lambda: "before" in names(alice), 20, message="the good one again")
    state = wait_for(lambda: (s := controller.node_state("alice")) and s["runs"]["state"] == "rolled back" and s, 15,
                     message="told to the controller")
    assert state["runs"]["number"] == good
    assert control(alice)["refused"]["state"] == "rolled back"
    apply(controller, tmp_path, document(listeners=listener("after")))
    wait_for(lambda: "after" in names(alice), 15, message="the next version")


def test_controller_killed_and_back(domain, tmp_path):
    controller, alice = domain
    apply(controller, tmp_path, document(listeners=listener("kept")))
    wait_for(lambda: "kept" in names(alice) and control(alice)["pending"] is None, 20, message="confirmation")
    for _ in range(2):
        os.kill(controller.pids()["controller"][0], signal.SIGKILL)
        wait_for(lambda: "controller" in controller.pids(), 10, message="a new one")
    apply_again = wait_for(lambda: _try(lambda: apply(controller, tmp_path, document(listeners=listener("next")))), 15,
                           message="the controller to take a document")
    assert apply_again
    wait_for(lambda: "next" in names(alice), 20, message="the next version")
    # the whole node of the controller
    controller.stop()
    wait_for(lambda: not control(alice)["connected"], 20, message="away")
    assert "next" in names(alice)
    controller.start()
    wait_for(lambda: control(alice)["connected"], 30, message="back")
    online(controller, "alice")


def _try(what):
    try:
        return what()
    except hermes.AdminError:
        return None
