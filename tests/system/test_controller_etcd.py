# SPDX-License-Identifier: Apache-2.0
"""Two controllers on one etcd of three members: members and controllers die, and the domain goes on."""
import json

import pytest

import etcd
import hermes
from domains import Machine, online

REPORT = {"control": {"report": "300ms"}}


class Domain:
    def __init__(self, folder, cluster):
        self.folder, self.cluster, self.number = folder, cluster, 0
        ports = [hermes.free_port() for _ in range(2)]
        self.controllers, self.nodes = [], []
        for i, name in enumerate(("c1", "c2")):
            keys = ["--keys-from", self.controllers[0].keys] if i else []
            self.controllers.append(Machine(name, folder, extra=REPORT).init(
                ports[i], "--etcd", ",".join(cluster.endpoints), "--also", f"127.0.0.1:{ports[1 - i]}", *keys))
        self.c1, self.c2 = self.controllers

    def enroll(self):
        for name, controller in (("alice", self.c1), ("bob", self.c2), ("carol", self.c1)):
            self.nodes.append(Machine(name, self.folder, extra=REPORT).enroll(controller))
        for name in ("alice", "bob", "carol"):
            for c in self.controllers:
                online(c, name)

    def document(self, **more):
        """A version that differs from the last: each has its own listener."""
        self.number += 1
        ports = {n.name: hermes.free_port() for n in self.nodes}
        file = self.folder / f"domain-{self.number}.yaml"
        file.write_text(json.dumps({"domain": "example.net", "nodes": [
            {"name": n, "config": {"listeners": [{"name": f"apps{self.number}", "address": f"127.0.0.1:{p}", "accept": "http"}]}}
            for n, p in ports.items()], **more}))
        return file, ports

    def apply(self, controller, check=True, **more):
        file, ports = self.document(**more)
        return controller.admin("controller", "document", "apply", file, json=True, check=check), ports

    def stop(self):
        faults = []
        for machine in [*self.nodes, *self.controllers[::-1]]:
            print(f"--- log of {machine.name}\n{machine.log()[-8000:]}")
            try:
                machine.stop()
            except AssertionError as e:
                faults.append(str(e))
        assert not faults, "\n".join(faults)


@pytest.fixture(scope="module")
def cluster(session_tmp):
    folder = session_tmp / "etcd"
    folder.mkdir(mode=0o755)
    with etcd.Cluster(folder) as c:
        yield c


@pytest.fixture(scope="module")
def domain(session_tmp, cluster):
    folder = session_tmp / "etcd-domain"
    folder.mkdir(mode=0o755)
    d = Domain(folder, cluster)
    try:
        d.enroll()
        yield d
    finally:
        d.stop()


def rollout(controller):
    done = controller.admin("controller", "rollout", "show", json=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def reached(controller, state, timeout=30):
    return hermes.wait_for(lambda: rollout(controller).get("state") == state, timeout, message=f"rollout {state}")


def leaders(domain):
    return [c for c in domain.controllers if c.running() and c.admin("controller", "status", json=True).get("leads")]


def test_one_state(domain):
    c1, c2 = domain.controllers
    done, ports = domain.apply(c1)
    assert done["version"] == 1
    for port in ports.values():
        hermes.wait_port(port)
    reached(c1, "done")
    reached(c2, "done")
    done, ports = domain.apply(c2)
    assert done["version"] == 2
    for port in ports.values():
        hermes.wait_port(port)
    assert [v["version"] for v in c1.admin("controller", "history", json=True)["versions"]] == \
           [v["version"] for v in c2.admin("controller", "history", json=True)["versions"]]
    reached(c1, "done")
    assert len(leaders(domain)) == 1
    # a token of the one is good at the other, and good once
    token = c1.token("--node", "dora")
    assert any(t["node"] == "dora" for t in c2.admin("controller", "token", "list", json=True)["tokens"])
    folder = domain.folder / "dora"
    folder.mkdir(mode=0o755)
    Machine("dora", folder).enroll(c2, token=token, start=False)
    assert not c1.admin("controller", "token", "list", json=True)["tokens"]


def test_a_member_dies(domain):
    """The one that leads; a document is taken all the same, and it comes back into the cluster."""
    cluster = domain.cluster
    dead = hermes.wait_for(lambda: cluster.leader() is not None and [cluster.leader()], 20, message="a leader of etcd")[0]
    cluster.kill(dead)
    done, ports = domain.apply(domain.c1)
    assert done["version"] == 3
    for port in ports.values():
        hermes.wait_port(port)
    reached(domain.c2, "done")
    cluster.start(dead)
    hermes.wait_for(lambda: cluster.healthy(dead), 20, message="the member back")
    # and now one that controllers may have gone to
    other = (dead + 1) % 3
    cluster.kill(other)
    done, ports = domain.apply(domain.c2)
    for port in ports.values():
        hermes.wait_port(port)
    cluster.start(other)
    hermes.wait_for(lambda: cluster.healthy(other), 20, message="the other member back")
    reached(domain.c1, "done")


def test_all_members_away(domain):
    """Reading goes on, what would be written is refused and says why; nodes stay as they are."""
    cluster, c1 = domain.cluster, domain.c1
    for i in range(3):
        cluster.kill(i)
    assert {n["name"] for n in c1.admin("nodes", "list", json=True)["nodes"]} >= {"alice", "bob", "carol"}
    done, ports = domain.apply(c1, check=False)
    assert done.returncode == 1 and "cluster store can be reached" in done.stderr
    assert c1.admin("controller", "history", json=True)["versions"][0]["version"] == 4
    hermes.wait_for(lambda: not leaders(domain), 20, message="nobody to lead")
    assert "etcd away" in c1.log()
    for i in range(3):
        cluster.start(i)
    hermes.wait_for(lambda: all(cluster.healthy(i) for i in range(3)), 30, message="etcd back")

    def applied():
        again, ports = domain.apply(c1, check=False)
        return again.returncode == 0 and ports
    for port in hermes.wait_for(applied, 30, message="a document taken again").values():
        hermes.wait_port(port)
    for name in ("alice", "bob", "carol"):
        online(c1, name)


def test_a_controller_dies_in_a_rollout(domain):
    """Killed, with everything it runs, after the canary: the other finishes, and nodes find it."""
    first = hermes.wait_for(lambda: leaders(domain), 20, message="a controller that leads")[0]
    other = domain.c2 if first is domain.c1 else domain.c1
    reached(other, "done")
    done, ports = domain.apply(first, rollout={"canary": ["alice"], "steps": ["50%", "100%"], "wait": "3s"})
    hermes.wait_port(ports["alice"])
    assert rollout(other)["state"] not in ("done", "stopped")
    pids = [p for group in first.pids().values() for p in group]
    first.kill()
    hermes.wait_for(lambda: not any(hermes.Path(f"/proc/{p}").exists() for p in pids), 20, message="its workers gone")
    hermes.wait_for(lambda: leaders(domain) == [other], 30, message="the other to lead")
    for port in ports.values():
        hermes.wait_port(port, timeout=40)
    reached(other, "done", 40)
    for name in ("alice", "bob", "carol"):
        hermes.wait_for(lambda n=name: other.node_state(n)["runs"]["version"] == done["version"], 20,
                        message=f"{name} to say so to the other")
    first.start()
    hermes.wait_for(lambda: first.admin("controller", "status", json=True, check=False).returncode == 0, 20,
                    message="the first one back")
    assert first.node_state("bob")["wants"]["version"] == done["version"]
