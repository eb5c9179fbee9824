# SPDX-License-Identifier: Apache-2.0
"""make bench BENCH=kill: kill -9 of any process of a node at any moment, while configurations are applied and requests run.

    kill.py           BENCH_KILLS=1000 (QUICK=1: 100)     BENCH_SEED=1

After every kill the node must be ready again, and its configuration in force must be whole and at least as new as the last
apply that was answered as done. An apply is always under way; a third of the kills hit the store's writer, 40 % hermesd, with
which all others die; it is started again, as systemd would. A fifth as many kills more on a controller's node, where documents of
the domain are applied: none that was acknowledged is lost, the newest is whole, and the node comes to run it."""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import lab

KILLS = int(os.environ.get("BENCH_KILLS", 100 if os.environ.get("QUICK") not in (None, "", "0") else 1000))
SEED = int(os.environ.get("BENCH_SEED", 1))


class Victim:
    writer = ("config-sync",)

    def __init__(self, folder):
        import hermes
        self.hermes, self.port = hermes, hermes.free_port()
        self.node = hermes.Node("victim", self.document(0), folder, build=lab.BUILD)
        self.number, self.acknowledged, self.stop, self.faults = 0, 0, False, []

    def document(self, number):
        return {"node": {"name": "victim", "domain": "example.net", "tunnel_workers": 1, "drain_timeout": "1s"},
                "listeners": [{"name": "apps", "address": f"127.0.0.1:{self.port}", "accept": "http",
                               "add_headers": {"x-number": str(number)}}],
                "clusters": [{"name": "nowhere", "carry": "tcp", "endpoints": ["127.0.0.1:1"]}],
                "routes": [{"match": {"authority": f"host{i}"}, "cluster": "nowhere"} for i in range(200)]}

    def apply_all(self):
        while not self.stop:
            self.number += 1
            number = self.number
            done = self.node.admin("config", "apply", "-", stdin=json.dumps(self.document(number)), check=False, timeout=60)
            if done.returncode == 0:
                self.acknowledged = number

    def pids(self, kind):
        """(name, pid) of hermesd, of the store's writer or of the other workers."""
        if kind == "hermesd":
            return [("hermesd", self.node.process.pid)]
        done = self.node.admin("workers", "list", json=True, check=False)
        try:
            workers = [(w["name"], w["pid"]) for w in json.loads(done.stdout)["workers"] if w["pid"]]
        except (ValueError, KeyError):
            return []
        return [w for w in workers if (w[0] in self.writer) == (kind == "writer")]

    def in_force(self):
        """The number in the document in force; the supervisor may not have seen yet that the writer is gone."""
        text = json.loads(self.hermes.wait_for(lambda: self.node.admin("--json", "config", "show", check=False).stdout, 60,
                                               message="config show"))
        listeners = text.get("config", text)["listeners"]
        return int(next(l for l in listeners if l["name"] == "apps")["add_headers"]["x-number"])

    def up_again(self, name):
        if name == "hermesd":
            self.node.process.wait()
            self.node.start(wait=False)
        self.hermes.wait_for(lambda: self.node.socket.exists(), 20)
        self.node.admin("wait", "ready", "--timeout", "60", timeout=70)

    def settled(self):
        pass

    def once(self, pick):
        acknowledged, found = self.acknowledged, self.pids(pick.choices(("hermesd", "writer", "other"), (0.4, 0.3, 0.3))[0])
        if not found:
            return None
        name, pid = pick.choice(found)
        time.sleep(pick.random() * 0.15)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        self.up_again(name)
        number = self.in_force()
        if number < acknowledged:
            self.faults.append(f"{name} killed: {acknowledged} was acknowledged, {number} is in force")
        return name


class Domain(Victim):
    """A controller's node."""
    writer = ("config-sync", "controller", "keeper")

    def __init__(self, folder):
        import domains
        import hermes
        self.hermes, self.folder = hermes, folder
        self.node = domains.Machine("c1", folder, extra={"control": {"report": "200ms"}, "node": {"tunnel_workers": 1}})
        self.node.init(hermes.free_port())
        self.number, self.acknowledged, self.stop, self.faults = 0, 0, False, []

    def apply_all(self):
        while not self.stop:
            self.number += 1
            number = self.number
            document = {"domain": "example.net", "nodes": [{"name": "c1", "labels": {"number": str(number), "end": str(number)},
                                                            "config": {"node": {"max_hops": 1 + number % 200}}}]}
            done = self.node.admin("controller", "document", "apply", "-", stdin=json.dumps(document), check=False, timeout=60)
            if done.returncode == 0:
                self.acknowledged = number
            else:
                time.sleep(0.05)

    def in_force(self):
        text = self.hermes.wait_for(lambda: self.node.admin("--json", "controller", "document", "show", check=False).stdout, 60,
                                    message="document show")
        labels = json.loads(json.loads(text)["document"])["nodes"][0]["labels"]
        return int(labels["number"]) if labels["number"] == labels["end"] else -1

    def settled(self):
        """The node runs what the controller has, once nobody changes it."""
        def runs():
            node = self.node.node_state("c1")
            return node and node["wants"] and node["runs"] and node["runs"]["version"] == node["wants"]["version"]
        self.hermes.wait_for(runs, 60, message="the newest document at its node")


def main():
    folder = Path(tempfile.mkdtemp(prefix="hermes-bench-"))
    folder.chmod(0o755)
    failed = run(Victim(folder), KILLS)
    domain = Domain(folder)
    failed |= run(domain, KILLS // 5)
    print(f"logs: {folder}")
    return 1 if failed else 0


def run(victim, kills):
    pick, counts = random.Random(SEED), {}
    thread = threading.Thread(target=victim.apply_all)
    thread.start()
    print(f"kill -9, {kills} times ", end="", flush=True)
    try:
        while sum(counts.values()) < kills and not victim.faults:
            name = victim.once(pick)
            if name:
                counts[name] = counts.get(name, 0) + 1
                if sum(counts.values()) % (kills // 20 or 1) == 0:
                    print(".", end="", flush=True)
    except (AssertionError, subprocess.SubprocessError) as e:
        victim.faults.append(str(e)[:500])
    victim.stop = True
    thread.join()
    print()
    try:
        victim.settled()
    except AssertionError as e:
        victim.faults.append(str(e)[:500])
    damaged = [line for line in victim.node.log().splitlines() if "damaged" in line or "moved aside" in line]
    print(f"killed: {', '.join(f'{k} {v}' for k, v in sorted(counts.items()))}")
    print(f"versions submitted {victim.number:,}, last acknowledged {victim.acknowledged:,}, in force {victim.in_force():,}; "
          f"damaged records {len(damaged)}")
    victim.node.stop(check=False)
    for fault in victim.faults + damaged[:3]:
        print(f"FAULT: {fault}")
    return bool(victim.faults or damaged)


if __name__ == "__main__":
    sys.exit(main())
