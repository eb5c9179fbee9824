# SPDX-License-Identifier: Apache-2.0
"""hermes-controller(7), BACKUP AND RESTORE: a controller from its keys alone, keys that are begun anew, machines that are enrolled again;
documents as changes of a version."""
import json
import os
import shutil
import signal

import pytest

import hermes
from domains import Machine, online, run_admin

QUICK = {"control": {"report": "200ms", "confirm": "30s"}}


def document(folder, level):
    file = folder / "domain.yaml"
    file.write_text(json.dumps({"domain": "example.net", "nodes": [{"name": "alice", "config": {"log": {"level": level}}}]}))
    return file


def level(node):
    return node.admin("config", "show", json=True)["config"]["log"]["level"]


def runs(controller, name):
    return (controller.node_state(name) or {}).get("runs") or {}


def test_from_the_keys_alone(tmp_path):
    """The machine and its store are lost: the node enters by itself, goes on with what it has, and takes what comes next."""
    port = hermes.free_port()
    with Machine("c1", tmp_path, extra=QUICK).init(port) as c:
        with Machine("alice", tmp_path, extra=QUICK).enroll(c) as alice:
            c.admin("controller", "document", "apply", document(tmp_path, "debug"), "--wait")
            hermes.wait_for(lambda: runs(c, "alice").get("version") == 1, 20, message="version 1 at alice")
            first = runs(c, "alice")["number"]
            c.stop()
            shutil.copytree(c.keys, tmp_path / "backup")
            (tmp_path / "new").mkdir()
            with Machine("c1", tmp_path / "new", extra=QUICK).init(port, "--keys-from", tmp_path / "backup") as again:
                online(again, "alice")
                assert again.node_state("alice")["enrolled"] and level(alice) == "debug"
                assert again.admin("controller", "status", json=True)["document"] is None
                again.admin("controller", "document", "apply", document(tmp_path, "warn"), "--wait")
                hermes.wait_for(lambda: level(alice) == "warn", 20, message="the document of the new store at alice")
                hermes.wait_for(lambda: runs(again, "alice").get("version") == 1, 20, message="reported")
                assert runs(again, "alice")["number"] > first and runs(again, "alice")["state"] == "accepted"
    # keys of another domain are not ours
    (tmp_path / "other").mkdir()
    bad = Machine("c1", tmp_path / "other")
    with pytest.raises(hermes.AdminError) as refused:
        run_admin("controller", "init", "--domain", "other.net", "--name", "c1", "--address", f"127.0.0.1:{port}", *bad.places(),
                  "--keys-from", tmp_path / "backup")
    assert refused.value.status == 1 and "example.net" in str(refused.value)
    assert not bad.config_file.exists() and not bad.keys.exists()


def test_by_force(tmp_path):
    """Keys of the domain that are begun anew, and every node enrolled again; what was before is believed by nobody."""
    port = hermes.free_port()
    with Machine("c1", tmp_path, extra=QUICK).init(port) as c:
        alice = Machine("alice", tmp_path, extra=QUICK).enroll(c, start=False)
        key = (alice.keys / "node.key").read_text()
        # not twice, unless it is wanted; and then by a token for just that name
        done = alice.enroll(c, token=c.token("--node", "alice"), check=False, start=False)
        assert done.returncode == 1 and "--force" in done.stderr
        assert (alice.keys / "node.key").read_text() == key
        done = alice.enroll(c, "--force", token=c.token(), check=False, start=False)
        assert done.returncode == 1 and "node of that name" in done.stderr
        assert (alice.keys / "node.key").read_text() == key
        alice.enroll(c, "--force", token=c.token("--node", "alice"))
        try:
            assert (alice.keys / "node.key").read_text() != key
            online(c, "alice")
            c.stop()
            c.init(port, "--force")
            assert c.node_state("alice")["state"] != "online"
            hermes.wait_for(lambda: not alice.admin("status", json=True)["control"]["connected"], 20, message="alice is out")
            assert alice.admin("status", "--check", "ready", json=True)["ready"]      # and runs on
            alice.stop()
            alice.enroll(c, "--force", token=c.token("--node", "alice"))
            online(c, "alice")
        finally:
            alice.stop()


def test_changes_of_a_version(tmp_path):
    """Two people who edit at once; what would change, and nothing does."""
    with Machine("c1", tmp_path, extra=QUICK).init(hermes.free_port()) as c:
        def apply(level_, *args, check=True):
            return c.admin("controller", "document", "apply", document(tmp_path, level_), *args, check=check)
        apply("debug")
        shown = apply("warn", "--dry-run")
        assert "alice" in shown and "warn" in shown
        versions = c.admin("controller", "history", json=True)["versions"]
        assert [v["version"] for v in versions] == [1]
        apply("warn", "--base", "1")
        done = apply("error", "--base", "1", check=False)
        assert done.returncode == 1 and not done.stdout and "2" in done.stderr
        assert "warn" in c.admin("controller", "document", "show")
        assert c.admin("controller", "document", "apply", "--base", check=False).returncode == 2
        done = c.admin("controller", "document", "show", "7", check=False)
        assert done.returncode == 1 and done.stderr
        done = c.admin("nodes", "scale", "alice", "many", check=False)
        assert done.returncode == 2
        done = c.admin("nodes", "show", "nobody", check=False)
        assert done.returncode == 1 and "no node of that name" in done.stderr


def test_killed_one_by_one(tmp_path):
    """kill -9 of each of a controller node's processes, at once followed by work that needs it."""
    with Machine("c1", tmp_path, extra=QUICK).init(hermes.free_port()) as c:
        with Machine("alice", tmp_path, extra=QUICK).enroll(c) as alice:
            online(c, "alice")
            for i, role in enumerate(("keeper", "controller", "config-sync", "policy", "router", "telemetry")):
                before = {w["name"]: w["pid"] for w in c.admin("workers", "list", json=True)["workers"]}
                token = c.token("--node", f"node-{i}")
                os.kill(before[role], signal.SIGKILL)
                if role == "keeper":           # who asks it while it is being replaced waits
                    Machine(f"node-{i}", tmp_path).enroll(c, token=token, start=False)
                hermes.wait_for(lambda: c.admin("status", "--check", "ready", check=False).returncode == 0 and
                                {w["name"]: w["pid"] for w in c.admin("workers", "list", json=True)["workers"]}[role] != before[role],
                                10, message=f"{role} replaced")
                wanted = ("debug", "warn")[i % 2]
                hermes.wait_for(lambda: c.admin("controller", "document", "apply", document(tmp_path, wanted), check=False)
                                .returncode == 0, 10, message="taken")
                hermes.wait_for(lambda: level(alice) == wanted, 20, message=f"{wanted} at alice after {role} was killed")
                after = {w["name"]: w["pid"] for w in c.admin("workers", "list", json=True)["workers"]}
                assert {n for n in before if before[n] != after[n]} == {role}
            state = hermes.wait_for(lambda: (n := c.node_state("alice")) and n["runs"]["version"] == n["wants"]["version"] and n, 20,
                                    message="all reported")
            assert state["runs"]["state"] == "accepted" and c.admin("controller", "status", json=True)["document"]["version"] == 6
