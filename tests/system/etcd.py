# SPDX-License-Identifier: Apache-2.0
"""etcd (Debian's etcd-server) on loopback: a cluster of members that can be killed, frozen and started again."""
import json
import os
import shutil
import signal
import subprocess
import urllib.request

import hermes


class Cluster:
    """Members 0...n-1. endpoints: HOST:PORT of each, for clients."""

    def __init__(self, folder, n=3):
        self.folder, self.n = folder, n
        self.ports = [(hermes.free_port(), hermes.free_port()) for _ in range(n)]
        self.endpoints = [f"127.0.0.1:{client}" for client, _ in self.ports]
        self.members = [None] * n

    def __enter__(self):
        for i in range(self.n):
            self.start(i)
        hermes.wait_for(lambda: all(self.healthy(i) for i in range(self.n)), 30, message="etcd to be healthy")
        return self

    def __exit__(self, *_):
        for i in range(self.n):
            self.kill(i)

    def start(self, i):
        client, peer = self.ports[i]
        url = f"http://127.0.0.1:{client}"
        cluster = ",".join(f"m{k}=http://127.0.0.1:{p}" for k, (_, p) in enumerate(self.ports))
        line = [shutil.which("etcd") or "etcd", "--name", f"m{i}", "--data-dir", str(self.folder / f"etcd-{i}"),
                "--listen-client-urls", url, "--advertise-client-urls", url,
                "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
                "--initial-cluster", cluster, "--initial-cluster-token", "hermes-test", "--unsafe-no-fsync"]
        with open(self.folder / f"etcd-{i}.log", "ab") as log:
            self.members[i] = subprocess.Popen(line, stdout=log, stderr=log, env=dict(os.environ, ETCD_LOG_LEVEL="warn"))

    def signal(self, i, number):
        self.members[i].send_signal(number)

    def kill(self, i):
        if self.members[i]:
            self.signal(i, signal.SIGKILL)
            self.members[i].wait()
            self.members[i] = None

    def _get(self, i, path, body=None):
        request = urllib.request.Request(f"http://{self.endpoints[i]}{path}", data=body)
        with urllib.request.urlopen(request, timeout=3) as answer:
            return json.load(answer)

    def healthy(self, i):
        try:
            return self._get(i, "/health").get("health") == "true"
        except OSError:
            return False

    def leader(self):
        """The number of the member that leads, or None."""
        for i in range(self.n):
            try:
                status = self._get(i, "/v3/maintenance/status", b"{}")
            except OSError:
                continue
            if status.get("leader") == status["header"]["member_id"]:
                return i
        return None
