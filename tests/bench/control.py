# SPDX-License-Identifier: Apache-2.0
"""make bench BENCH=control: from a new document to every node having its configuration, with simulated nodes.

    control.py                  QUICK=1: 200 nodes, fewer documents
    BENCH_NODES=1000

A real controller node (hermesd with all its workers), and, held to one core, tests/bench/nodes.c: N nodes, each with a certificate of
the domain and a connection of its own (TLS 1.3, HTTP/2) to the controller node's tunnel worker, doing what config-sync does: long
poll, report of what is in force, a report every five seconds. They apply nothing. The clock runs from before `PUT /v1/document` is
sent until each node has its text, and until its report of it was answered. CPU and memory are the controller's own, beside them those
of the tunnel worker in front of it."""
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lab
from lab import BUILD, ENDS, cpu_seconds, pss_kib

QUICK = os.environ.get("QUICK") not in (None, "", "0")
NODES = int(os.environ.get("BENCH_NODES", 200 if QUICK else 1000))
DOCUMENTS = 5 if QUICK else 12
REPORT_MS = 5000
GOAL_S = 1.0


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("controller", timeout=120)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


class Control:
    def __init__(self, folder):
        import domains
        import hermes
        self.folder, self.hermes = folder, hermes
        self.port = hermes.free_port()
        self.machine = domains.Machine("c1", folder, extra={"control": {"report": f"{REPORT_MS}ms"}, "node": {"tunnel_workers": 1}})
        self.machine.init(self.port)
        self.socket = self.machine.folder / "run/controller.sock"
        self.listener = 0

    def put(self, n):
        """A document in which every node's configuration is new. (when it was sent, its version, how long the answer took)"""
        self.listener += 1
        nodes = [{"name": f"n{i:04}", "config": {"listeners": [
            {"name": "apps", "address": f"127.0.0.1:{10000 + self.listener}", "accept": "http", "add_headers": {"user": f"u{i}"}}]}}
            for i in range(n)]
        document = {"domain": "example.net", "nodes": nodes, "defaults": {
            "clusters": [{"name": "next", "carry": "h2", "tls": {"server_name": "x.example.net"}, "endpoints": ["192.0.2.1:8443"]}],
            "routes": [{"match": {"authority": f"S{k}"}, "cluster": "next"} for k in range(20)]}}
        body = json.dumps(document)
        connection = Unix(self.socket)
        began = time.monotonic_ns()
        connection.request("PUT", "/v1/document", body, {"content-type": "application/yaml"})
        answer = connection.getresponse()
        text = answer.read()
        took = (time.monotonic_ns() - began) / 1e9
        if answer.status >= 300:
            raise RuntimeError(f"PUT /v1/document: {answer.status} {text[:300]}")
        return began, json.loads(text)["version"], took

    def run(self):
        self.put(NODES)
        keys = self.machine.keys
        command = ["taskset", "-c", str(ENDS), BUILD / "bench/nodes", "127.0.0.1", self.port, keys / "ca.key", keys / "ca.crt",
                   "example.net", NODES, REPORT_MS]
        sims = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True)
        try:
            return self.measure(sims)
        finally:
            sims.kill()
            sims.wait()

    def wait_for(self, sims, key, value=None):
        while True:
            line = sims.stdout.readline()
            if not line:
                raise RuntimeError("the simulated nodes have ended")
            said = json.loads(line)
            if key in said and (value is None or said[key] == value):
                return said

    def measure(self, sims):
        self.wait_for(sims, "up")
        self.wait_for(sims, "version")
        pids = self.machine.pids()
        controller, tunnel = pids["controller"], pids["tunnel"]
        idle = cpu_seconds(controller), cpu_seconds(tunnel), time.monotonic()
        time.sleep(5)
        seconds = time.monotonic() - idle[2]
        result = {"nodes": NODES, "documents": [],
                  "idle_cpu_percent": {"controller": (cpu_seconds(controller) - idle[0]) / seconds * 100,
                                       "tunnel": (cpu_seconds(tunnel) - idle[1]) / seconds * 100}}
        got, accepted = [], []
        for _ in range(DOCUMENTS):
            before = cpu_seconds(controller), cpu_seconds(tunnel)
            began, version, took = self.put(NODES)
            said = self.wait_for(sims, "version", version)
            one = [(t - began) / 1e9 for t in said["got"]], [(t - began) / 1e9 for t in said["accepted"]]
            got += one[0]
            accepted += one[1]
            result["documents"].append({
                "answered_s": took, "got_p99_s": percentile(one[0], 0.99), "accepted_p99_s": percentile(one[1], 0.99),
                "cpu_s": {"controller": cpu_seconds(controller) - before[0], "tunnel": cpu_seconds(tunnel) - before[1]}})
            print(".", end="", flush=True)
            time.sleep(1)
        print()
        for name, values in (("got", got), ("accepted", accepted)):
            result[name] = {"p50_s": percentile(values, 0.5), "p99_s": percentile(values, 0.99), "max_s": max(values)}
        result["memory_mib"] = {"controller": pss_kib(controller) / 1024, "tunnel": pss_kib(tunnel) / 1024}
        return result


def show(r):
    def cpu(role):
        return sum(d["cpu_s"][role] for d in r["documents"]) / len(r["documents"])
    print(f"\n{r['nodes']:,} simulated nodes on one controller, a connection each; {len(r['documents'])} documents that change every node")
    for name, label in (("got", "from PUT to its text at the node"), ("accepted", "from PUT to its report answered")):
        v = r[name]
        print(f"  {label:36} p50 {v['p50_s'] * 1000:7.0f} ms   p99 {v['p99_s'] * 1000:7.0f} ms   max {v['max_s'] * 1000:7.0f} ms")
    print(f"  goal: p99 under {GOAL_S * 1000:.0f} ms      {'met' if r['got']['p99_s'] < GOAL_S else 'MISSED'}")
    for role in ("controller", "tunnel"):
        print(f"  {role:12} {cpu(role):6.2f} CPU s a document   {r['idle_cpu_percent'][role]:5.1f} % of a core between   "
              f"{r['memory_mib'][role]:6.1f} MiB (Pss)")


def main():
    sys.path.insert(0, str(lab.ROOT / "tests/system"))
    folder = Path(tempfile.mkdtemp(prefix="hermes-bench-"))
    folder.chmod(0o755)
    control = None
    try:
        control = Control(folder)
        result = control.run()
    finally:
        if control:
            control.machine.stop(check=False)
    (BUILD / "bench/control.json").write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    print(f"JSON: {BUILD / 'bench/control.json'}")
    return 0 if result["got"]["p99_s"] < GOAL_S else 1


if __name__ == "__main__":
    sys.exit(main())
