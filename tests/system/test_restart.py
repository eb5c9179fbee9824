# SPDX-License-Identifier: Apache-2.0
"""Hot restart (DESIGN.md section 6): workers and the supervisor are replaced under traffic, and nobody notices; new programs that
are broken, in every way that one can be, leave the old ones serving, and the operator is told why.

The programs of a node of its own are hard links that tests replace by rename, as a package does. A new release is the same program
with another version in it."""
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import hermes
import servers
from domains import Machine

ROLES = ["tun-bridge", "tunnel", "router", "policy", "telemetry", "config-sync"]
OLD, NEW = b"0.1.0", b"0.2.0"


@pytest.fixture
def own_build(tmp_path):
    """A copy of the build that a test may change."""
    folder = tmp_path / "build"
    for part in ("bin", "libexec"):
        shutil.copytree(hermes.build_dir() / part, folder / part, copy_function=os.link)
    for path in (folder, folder / "bin", folder / "libexec"):
        path.chmod(0o755)
    return folder


def put(path, content, mode=0o755):
    """As dpkg does: the running program stays what it is."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.chmod(mode)
    new.rename(path)


def upgrade(build, old=OLD, new=NEW, only=None):
    for path in (build / "bin/hermesd", *(build / "libexec").glob("hermes-*")):
        if only is None or path.name in only:
            content = path.read_bytes()
            assert old in content, path
            put(path, content.replace(old, new))


def workers(n):
    return {w["name"]: w for w in n.admin("workers", "list", json=True)["workers"]}


def pids(n):
    return {name: w["pid"] for name, w in workers(n).items()}


def versions(n):
    return {n.admin("status", json=True)["version"], *(w["version"] for w in workers(n).values())}


class Traffic:
    """Requests on new connections and on ones that are kept, long bodies, and an echo connection, until stop(); what failed is in
    .failures, how many were done in .done."""

    def __init__(self, port, echo_port):
        self.port, self.failures, self.done = port, [], 0
        self.stopped, self.lock = threading.Event(), threading.Lock()
        self.echo_port, self.echo = echo_port, None
        self.renew()
        self.threads = [threading.Thread(target=self.repeat, args=(what,), daemon=True)
                        for what in (self.new_connection, self.new_connection, self.body)]
        for t in self.threads:
            t.start()

    def repeat(self, what):
        while not self.stopped.is_set():
            try:
                what()
                with self.lock:
                    self.done += 1
            except Exception as e:     # every fault counts
                self.failures.append(f"{time.monotonic():.3f} {what.__name__}: {e!r}")
            time.sleep(0.005)

    def request(self, path, length):
        with socket.create_connection(("127.0.0.1", self.port), 20) as s:
            s.settimeout(20)
            s.sendall(f"GET http://web.example{path} HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n".encode())
            got = b""
            while piece := s.recv(1 << 16):
                got += piece
        head, _, body = got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or len(body) != length:
            raise AssertionError(f"{head[:200]!r} and {len(body)} bytes")

    def new_connection(self):
        self.request("/index.html", len("page of web\n"))

    def body(self):
        self.request("/big", 8 << 20)

    def renew(self):
        """Another echo connection: the one before drains with its worker, and only so many workers may."""
        if self.echo:
            self.echo.close()
        self.echo = socket.create_connection(("127.0.0.1", self.echo_port), 10)
        self.echo.settimeout(20)

    def exchange(self, text):
        self.echo.sendall(text)
        got = b""
        while len(got) < len(text):
            piece = self.echo.recv(4096)
            assert piece, "the echo connection ended"
            got += piece
        assert got == text

    def stop(self):
        self.stopped.set()
        for t in self.threads:
            t.join(40)
        self.echo.close()
        assert not self.failures, self.failures[:10]
        assert self.done > 0


@pytest.fixture
def alice(node, own_build, web):
    """A node with programs of its own, in front of a web server and an echo server. .traffic(): a context under which all is well."""
    port, echo_port = hermes.free_port(), hermes.free_port()
    with servers.TcpEcho() as echo:
        config = {
            "node": {"name": "alice", "domain": "example.net", "tunnel_workers": 2, "drain_timeout": "30s"},
            "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"},
                          {"name": "echo", "address": f"127.0.0.1:{echo_port}", "accept": "tcp", "target": "ECHO:7"}],
            "clusters": [{"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{web.port}"]},
                         {"name": "echo", "carry": "tcp", "endpoints": [f"127.0.0.1:{echo.port}"]}],
            "routes": [{"match": {"authority": "ECHO"}, "cluster": "echo"}, {"match": {}, "cluster": "web"}],
        }
        n = node("alice", config, build=own_build)
        n.config = config

        @contextlib.contextmanager
        def traffic():
            t = Traffic(port, echo_port)
            try:
                t.exchange(b"before")
                hermes.wait_for(lambda: t.done > 5, 30)
                yield t
                before = t.done
                hermes.wait_for(lambda: t.done > before + 5, 30)
            finally:
                t.stopped.set()
            t.stop()
        n.traffic = traffic
        n.own = own_build
        yield n
        if n.running():        # what still drains would make the end wait
            n.signal(signal.SIGTERM)
            n.wait_log("stopping how=orderly")
            n.signal(signal.SIGTERM)


def restart(n, *args, timeout=200):
    return n.admin(*(args or ("restart",)), check=False, timeout=timeout)


# --- workers --------------------------------------------------------------------------------------------------------------

@pytest.mark.seconds(300)
def test_all_workers_three_times_under_traffic(alice):
    with alice.traffic() as t:
        for i in range(3):
            before = pids(alice)
            done = restart(alice, "workers", "restart", "all")
            assert done.returncode == 0, done.stderr
            after = pids(alice)
            assert sorted(after) == sorted(before) and not set(after.values()) & set(before.values())
            t.exchange(b"the connection of before is still there")
            t.renew()
    assert "worker lost" not in alice.log()


@pytest.mark.parametrize("role", ROLES)
def test_a_worker_that_cannot_serve_leaves_the_old_one(alice, role):
    name = "tunnel-0" if role == "tunnel" else role
    program = alice.own / f"libexec/hermes-{role}"
    good, before = program.read_bytes(), pids(alice)
    with alice.traffic():
        for content, mode, reason in [(good, 0o644, "Permission denied"), (b"#!/bin/sh\nexit 3\n", 0o755, "exit status 3"),
                                      (b"#!/bin/sh\nkill -SEGV $$\n", 0o755, "signal 11")]:
            put(program, content, mode)
            done = restart(alice, "workers", "restart", name)
            assert done.returncode == 1 and reason in done.stderr, done.stderr
            hermes.wait_for(lambda: alice.admin("status", json=True)["ready"], 30)
            # config-sync writes the store alone: the program of before was started again
            assert (pids(alice) == before) == (role != "config-sync" or mode == 0o644), reason
        put(program, good)
        assert restart(alice, "workers", "restart", name).returncode == 0
    assert pids(alice)[name] != before[name]


@pytest.mark.seconds(240)
def test_a_worker_that_hangs_leaves_the_old_one(alice):
    before = pids(alice)
    put(alice.own / "libexec/hermes-tunnel", b"#!/bin/sh\nexec sleep 1000\n")
    with alice.traffic() as t:
        done = restart(alice, "workers", "restart", "tunnel-1")
        assert done.returncode == 1 and "did not become ready" in done.stderr, done.stderr
        t.exchange(b"still there")
    assert pids(alice) == before


def test_the_new_worker_is_killed_while_it_starts(alice):
    before = pids(alice)
    with alice.traffic() as t:
        process = start_admin(alice, "workers", "restart", "tunnel-0")
        successor = hermes.wait_for(lambda: set(alice.pids().get("tunnel", [])) - set(before.values()), 20, every=0.001)
        os.kill(successor.pop(), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        if process.returncode == 0:       # it served already
            hermes.wait_for(lambda: alice.admin("status", json=True)["ready"], 30)
            return
        assert "signal 9" in errors
        assert pids(alice) == before
        t.exchange(b"still there")


def start_admin(n, *args):
    return subprocess.Popen([n.build / "bin/hermes-admin", "-s", n.socket, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))


@pytest.mark.seconds(240)
def test_restarts_and_changes_at_once(alice):
    with alice.traffic():
        processes = [start_admin(alice, "workers", "restart", "all")]
        for i in range(3):
            alice.config["node"]["max_hops"] = 20 + i
            document = alice.folder / f"{i}.yaml"
            document.write_text(json.dumps(alice.config))
            processes.append(start_admin(alice, "config", "apply", document))
            processes.append(start_admin(alice, "workers", "restart", "router"))
        for p in processes:
            out, errors = p.communicate(timeout=120)
            assert p.returncode == 0, errors
    assert alice.admin("status", json=True)["ready"]
    generation = alice.admin("status", json=True)["configuration"]["generation"]
    assert {w["generation"] for w in workers(alice).values()} == {generation}


def test_what_fell_is_started_of_the_program_that_served(alice):
    """A package that lies on disk half unpacked does not come into use by a worker's fall."""
    program = alice.own / "libexec/hermes-policy"
    good = program.read_bytes()
    put(program, b"#!/bin/sh\nexit 3\n")
    victim = pids(alice)["policy"]
    os.kill(victim, signal.SIGKILL)
    hermes.wait_for(lambda: pids(alice)["policy"] not in (0, victim) and alice.admin("status", json=True)["ready"], 30)
    put(program, good)


def test_drained_endpoints_stay_drained(alice, web):
    endpoint = f"127.0.0.1:{web.port}"
    alice.admin("clusters", "drain", "web", endpoint)

    def is_drained():
        return [c["drained"] for c in alice.admin("clusters", "list", "web", json=True)["clusters"]] == [True]
    assert is_drained()
    os.kill(pids(alice)["router"], signal.SIGKILL)
    hermes.wait_for(lambda: alice.admin("status", json=True)["ready"], 30)
    hermes.wait_for(is_drained)
    assert restart(alice).returncode == 0
    hermes.wait_for(is_drained)
    alice.admin("clusters", "undrain", "web", endpoint)
    assert restart(alice, "workers", "restart", "router").returncode == 0
    assert not is_drained()


# --- the supervisor in place -------------------------------------------------------------------------------------------------

@pytest.mark.seconds(400)
def test_three_releases_under_traffic(alice):
    pid = alice.process.pid
    with alice.traffic() as t:
        for old, new in [(b"0.1.0", b"0.2.0"), (b"0.2.0", b"0.3.0"), (b"0.3.0", b"0.4.0")]:
            before = pids(alice)
            upgrade(alice.own, old, new)
            done = restart(alice)
            assert done.returncode == 0, done.stderr
            assert versions(alice) == {new.decode()}
            assert not set(pids(alice).values()) & set(before.values())
            assert alice.process.poll() is None and alice.admin("status", json=True)["pid"] == pid
            t.renew()
    assert "worker lost" not in alice.log()
    # all is as after any start: it reloads, and workers that fall are replaced
    alice.config["node"]["max_hops"] = 21
    alice.reload(alice.config)
    victim = pids(alice)["router"]
    os.kill(victim, signal.SIGKILL)
    hermes.wait_for(lambda: pids(alice)["router"] not in (0, victim) and alice.admin("status", json=True)["ready"], 30)
    assert versions(alice) == {"0.4.0"}


BROKEN = [
    ("not executable", None, "Permission denied"),
    ("nothing", b"", "Exec format error"),
    ("refuses the state", b"#!/bin/sh\necho 'a state of another world' >&2\nexit 1\n", "a state of another world"),
    ("crashes at the state", b"#!/bin/sh\nkill -SEGV $$\n", "signal 11"),
]


@pytest.mark.parametrize("content, reason", [b[1:] for b in BROKEN], ids=[b[0].replace(" ", "-") for b in BROKEN])
def test_a_broken_hermesd_is_refused(alice, content, reason):
    program, before = alice.own / "bin/hermesd", pids(alice)
    good = program.read_bytes()
    with alice.traffic() as t:
        put(program, good if content is None else content, 0o644 if content is None else 0o755)
        done = restart(alice)
        assert done.returncode == 1 and reason in done.stderr, done.stderr
        assert pids(alice) == before
        t.exchange(b"still there")
    assert "restart refused" in alice.log() or content is None
    put(program, good)
    assert restart(alice).returncode == 0


@pytest.mark.seconds(240)
def test_a_hermesd_that_hangs_at_the_state_is_refused(alice):
    before = pids(alice)
    put(alice.own / "bin/hermesd", b"#!/bin/sh\nexec sleep 1000\n")
    with alice.traffic():
        first = start_admin(alice, "restart")
        alice.wait_log("restart begins")
        second = restart(alice)
        assert second.returncode == 1 and "under way" in second.stderr
        _, errors = first.communicate(timeout=60)
        assert first.returncode == 1 and "15 s" in errors
    assert pids(alice) == before


FAULT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* the loop of an image that takes over, as the file says: crash, abort, hang, end */
int event_base_dispatch(void *base)
{
	int (*real)(void *) = (int (*)(void *))dlsym(RTLD_NEXT, "event_base_dispatch");
	char line[4096] = "", what[32] = "";
	FILE *f = fopen("/proc/self/cmdline", "r");
	size_t n = f ? fread(line, 1, sizeof(line) - 1, f) : 0;
	int taking = 0, failed = 0;
	for (size_t i = 0; i < n; i += strlen(line + i) + 1) {
		taking |= !strcmp(line + i, "--take-over");
		failed |= !strcmp(line + i, "--failed");
	}
	if (f)
		fclose(f);
	f = getenv("FAULT") ? fopen(getenv("FAULT"), "r") : NULL;
	if (f && !fgets(what, sizeof(what), f))
		*what = 0;
	if (f)
		fclose(f);
	if (!taking || failed || !*what)
		return real(base);
	if (!strcmp(what, "crash"))
		*(volatile int *)8 = 1;
	if (!strcmp(what, "abort"))
		abort();
	while (!strcmp(what, "hang"))
		pause();
	return -1;
}
"""


@pytest.fixture(scope="session")
def fault(session_tmp):
    """A library that makes new images fail after they were executed."""
    source = session_tmp / "fault.c"
    source.write_text(FAULT)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", session_tmp / "fault.so", source], check=True)
    return session_tmp / "fault.so"


@pytest.mark.seconds(300)
@pytest.mark.parametrize("what, reason", [("crash", "crashed"), ("abort", "aborted"), ("hang", "hung"), ("end", "loop ended")])
def test_an_image_that_fails_executes_the_one_before(alice, fault, tmp_path, what, reason):
    alice.stop()
    switch = tmp_path / "switch"
    alice.env = {"LD_PRELOAD": str(fault), "FAULT": str(switch), "ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=0"}
    alice.start()
    pid, before = alice.process.pid, pids(alice)
    upgrade(alice.own)
    with alice.traffic() as t:
        switch.write_text(what)
        done = restart(alice)
        assert done.returncode == 1 and reason in done.stderr, done.stderr
        assert alice.process.poll() is None and alice.admin("status", json=True)["pid"] == pid
        assert pids(alice) == before and versions(alice) == {"0.1.0"}
        assert "restart failed" in alice.log()
        t.exchange(b"still there")
        # and it can be tried again
        switch.unlink()
        done = restart(alice)
        assert done.returncode == 0, done.stderr
        assert versions(alice) == {"0.2.0"}


@pytest.mark.seconds(240)
def test_a_restart_with_one_broken_worker_says_so(alice):
    """The new hermesd serves, and the old worker stays."""
    before = pids(alice)
    upgrade(alice.own)
    put(alice.own / "libexec/hermes-policy", b"#!/bin/sh\nexit 3\n")
    with alice.traffic():
        done = restart(alice)
        assert done.returncode == 1 and "policy" in done.stderr and "exit status 3" in done.stderr, done.stderr
        after = workers(alice)
        assert after["policy"]["pid"] == before["policy"] and after["policy"]["version"] == "0.1.0"
        assert after["router"]["version"] == "0.2.0" and alice.admin("status", json=True)["version"] == "0.2.0"


@pytest.mark.seconds(240)
def test_a_restart_while_configurations_are_applied(alice):
    with alice.traffic():
        restarting = start_admin(alice, "restart")
        for i in range(6):
            alice.config["node"]["max_hops"] = 30 + i
            alice.write(alice.config)
            hermes.wait_for(lambda: restart(alice, "config", "apply", alice.config_file).returncode == 0, 30)
        _, errors = restarting.communicate(timeout=120)
        assert restarting.returncode == 0, errors
    status = alice.admin("status", json=True)
    assert status["ready"]
    assert {w["generation"] for w in workers(alice).values()} == {status["configuration"]["generation"]}
    alice.admin("config", "rollback", 1)


def test_a_worker_that_falls_while_hermesd_is_replaced(alice):
    """The new image notices."""
    victim = pids(alice)["policy"]
    os.kill(victim, signal.SIGSTOP)        # seen at once, and killed: both happen about the restart
    restarting = start_admin(alice, "restart")
    _, errors = restarting.communicate(timeout=120)
    assert restarting.returncode == 0, errors
    hermes.wait_for(lambda: alice.admin("status", json=True)["ready"], 30)
    assert pids(alice)["policy"] not in (0, victim)


# --- systemd's fd store -------------------------------------------------------------------------------------------------------

class Manager:
    """What systemd does for a service: takes descriptors and passes them to the next start."""

    def __init__(self, folder):
        self.path = folder / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(0.2)
        self.kept, self.ended = {}, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ended.is_set():
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 65536, 16)
            except TimeoutError:
                continue
            words = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
            name = words.get("FDNAME", "")
            assert ":" not in name and len(name) < 256
            if words.get("FDSTOREREMOVE"):
                for fd in self.kept.pop(name, []):
                    os.close(fd)
            for fd in fds:
                self.kept.setdefault(name, []).append(fd)

    def names(self):
        return sorted(self.kept)

    def start(self, n):
        """n with what is kept at 3, 4, ..."""
        items = [(name, fds[0]) for name, fds in sorted(self.kept.items())]
        high = [os.dup(fd) for _, fd in items]
        high = [_above(fd, 3 + 2 * len(items)) for fd in high]

        def lay_out():
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i)
                os.set_inheritable(3 + i, True)

        shell = ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", *n.command()]
        env = {**n._environment(), "NOTIFY_SOCKET": str(self.path)}
        if items:
            env.update(LISTEN_FDS=str(len(items)), LISTEN_FDNAMES=":".join(name for name, _ in items))
        with open(n.log_file, "ab") as log:
            n.process = subprocess.Popen(shell if items else n.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         env=env, preexec_fn=lay_out, close_fds=False)
        for fd in high:
            os.close(fd)

    def close(self):
        self.ended.set()
        self.thread.join(5)
        self.socket.close()
        for fds in self.kept.values():
            for fd in fds:
                os.close(fd)


def _above(fd, low):
    import fcntl
    new = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, low + 100)
    os.close(fd)
    return new


@pytest.fixture
def manager(tmp_path):
    m = Manager(tmp_path)
    yield m
    m.close()


def ready(n):
    hermes.wait_for(lambda: n.socket.exists(), 20)
    n.admin("wait", "ready", "--timeout", 20)


def test_a_plain_restart_refuses_no_connection(node, manager, web):
    port, unix_port = hermes.free_port(), hermes.free_port()
    config = {
        "node": {"name": "alice", "domain": "example.net", "tunnel_workers": 2, "drain_timeout": "1s"},
        "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"},
                      {"name": "other", "address": f"127.0.0.1:{unix_port}", "accept": "http"},
                      {"name": "data", "address": f"127.0.0.1:{port}", "accept": "udp", "target": "X:7"}],
        "clusters": [{"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{web.port}"]}],
        "routes": [{"match": {}, "cluster": "web"}],
    }
    n = node("alice", config, start=False)
    config["listeners"].append({"name": "local", "address": f"unix:{n.folder}/run/local.sock", "accept": "http"})
    n.write(config)
    manager.start(n)
    ready(n)
    hermes.wait_for(lambda: "udp/data/1" in manager.kept)
    assert manager.names() == ["admin", "tcp/apps/0", "tcp/apps/1", "tcp/other/0", "tcp/other/1", "udp/data/0", "udp/data/1",
                               "unix/local/0", "unix/local/1"]
    # a listener that goes is kept no longer; one that comes is
    config["listeners"][1] = {"name": "third", "address": f"127.0.0.1:{hermes.free_port()}", "accept": "http"}
    n.reload(config)
    hermes.wait_for(lambda: "tcp/other/0" not in manager.kept and "tcp/third/1" in manager.kept)
    manager.kept["tcp/stranger/0"] = [socket.socket().detach()]

    failures, answers, stopped = [], [], threading.Event()

    def ask(url, *args):
        while not stopped.is_set():
            answer = hermes.curl(url, *args, timeout=30)
            (answers if answer.status == 200 else failures).append(answer)
    threads = [threading.Thread(target=ask, args=("http://web.example/index.html", "-x", f"http://127.0.0.1:{port}")),
               threading.Thread(target=ask, args=("http://web.example/index.html", "--unix-socket", f"{n.folder}/run/local.sock",
                                                  "-H", "Host: web.example"))]
    for t in threads:
        t.start()
    for _ in range(3):
        n.process.send_signal(signal.SIGTERM)
        assert n.process.wait(30) == 0, n.log()
        connected = socket.create_connection(("127.0.0.1", port), 5)      # nobody is there, and it waits
        manager.start(n)
        connected.settimeout(30)
        connected.sendall(b"GET http://web.example/index.html HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n")
        assert connected.recv(65536).startswith(b"HTTP/1.1 200")
        connected.close()
        ready(n)
    stopped.set()
    for t in threads:
        t.join(60)
    assert answers and not failures, failures[:5]
    assert len([line for line in n.log().splitlines() if "socket taken over" in line]) == 3 * 7
    assert "stored descriptor dropped name=tcp/stranger/0" in n.log() and "tcp/stranger/0" not in manager.kept

    # other names for the same addresses, and a Unix socket that nobody wants any more
    n.process.send_signal(signal.SIGTERM)
    assert n.process.wait(30) == 0, n.log()
    connected = socket.create_connection(("127.0.0.1", port), 5)
    config["listeners"][0]["name"] = "programs"
    config["listeners"].pop()
    n.write(config)
    manager.start(n)
    connected.settimeout(30)
    connected.sendall(b"GET http://web.example/index.html HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n")
    assert connected.recv(65536).startswith(b"HTTP/1.1 200")
    connected.close()
    ready(n)
    hermes.wait_for(lambda: "tcp/programs/1" in manager.kept and "tcp/apps/0" not in manager.kept)
    assert manager.names() == ["admin", "tcp/programs/0", "tcp/programs/1", "tcp/third/0", "tcp/third/1", "udp/data/0", "udp/data/1"]
    assert not (n.folder / "run/local.sock").exists()
    n.stop()


@pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no TUN here")
def test_a_device_outlives_a_plain_restart(node, manager):
    config = {"node": {"name": "alice", "domain": "example.net", "tunnel_workers": 2, "drain_timeout": "1s"},
              "tunnels": [{"name": "hrst0", "addresses": ["10.77.0.1/32"], "queues": 2}],
              "clusters": [{"name": "campus", "carry": "ip", "device": "hrst0", "pool": ["10.78.0.0/24"]}],
              "routes": [{"match": {}, "cluster": "campus"}]}
    n = node("alice", config, start=False)
    manager.start(n)
    ready(n)
    hermes.wait_for(lambda: len([name for name in manager.names() if name.startswith("tun/hrst0/")]) == 2)
    index = socket.if_nametoindex("hrst0")
    n.process.send_signal(signal.SIGTERM)
    assert n.process.wait(30) == 0, n.log()
    assert socket.if_nametoindex("hrst0") == index
    manager.start(n)
    ready(n)
    assert socket.if_nametoindex("hrst0") == index
    assert n.log().count("queue taken over device=hrst0") == 2
    # and a restart in place
    assert restart(n).returncode == 0
    assert socket.if_nametoindex("hrst0") == index
    n.stop()


# --- how many drain, and who is there at all ---------------------------------------------------------------------------------

@pytest.mark.seconds(180)
def test_at_most_two_predecessors_drain(node):
    port = hermes.free_port()
    with servers.TcpEcho() as echo, contextlib.ExitStack() as connections:
        n = node("alice", {
            "node": {"name": "alice", "domain": "example.net", "tunnel_workers": 1, "drain_timeout": "6s"},
            "listeners": [{"name": "echo", "address": f"127.0.0.1:{port}", "accept": "tcp", "target": "ECHO:7"}],
            "clusters": [{"name": "echo", "carry": "tcp", "endpoints": [f"127.0.0.1:{echo.port}"]}],
            "routes": [{"match": {}, "cluster": "echo"}]})
        most, ended = 0, threading.Event()

        def look():
            nonlocal most
            while not ended.is_set():
                most = max(most, len(n.pids().get("tunnel", [])))
        looking = threading.Thread(target=look)
        looking.start()
        for _ in range(4):
            s = connections.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            s.settimeout(10)
            s.sendall(b"x")
            assert s.recv(1) == b"x"
            assert restart(n, "workers", "restart", "tunnel-0").returncode == 0
        assert len(workers(n)["tunnel-0"]["draining"]) in (1, 2)
        ended.set()
        looking.join()
    # who serves, a successor that starts, and two that drain; while one ends, another may begin
    assert 3 <= most <= 4


def test_roles_come_and_go(node):
    config = {"node": {"name": "alice", "domain": "example.net", "tunnel_workers": 1}}
    n = node("alice", config)
    assert sorted(n.pids()) == sorted(ROLES)
    n.reload({**config, "roles": {"telemetry": "off", "tun_bridge": "off"}})
    hermes.wait_for(lambda: sorted(n.pids()) == ["config-sync", "policy", "router", "tunnel"], 20)
    assert n.admin("status", json=True)["ready"]
    assert restart(n).returncode == 0
    assert sorted(n.pids()) == ["config-sync", "policy", "router", "tunnel"]
    n.reload(config)
    hermes.wait_for(lambda: sorted(n.pids()) == sorted(ROLES) and n.admin("status", json=True)["ready"], 20)


@pytest.mark.seconds(180)
def test_a_controller_and_its_node_are_replaced(tmp_path):
    """The domain goes on: reports come, and a token that was given before is good after."""
    with Machine("c1", tmp_path, extra={"control": {"report": "200ms"}}).init(hermes.free_port()) as c1:
        token = c1.token("--node", "n1")
        before = pids(c1)
        assert {"controller", "keeper"} <= set(before)
        keys = c1.keys.stat()
        assert restart(c1).returncode == 0
        assert not set(pids(c1).values()) & set(before.values())
        assert (c1.keys.stat().st_ino, c1.keys.stat().st_mode & 0o777) == (keys.st_ino, 0o700)
        n1 = Machine("n1", tmp_path, extra={"control": {"report": "200ms"}})
        try:
            n1.enroll(c1, token=token)
            hermes.wait_for(lambda: (c1.node_state("n1") or {}).get("state") == "online", 30, message="n1 online")
            for n in (n1, c1):
                assert restart(n).returncode == 0
            hermes.wait_for(lambda: n1.admin("status", json=True)["control"]["connected"], 30, message="n1's contact")
            hermes.wait_for(lambda: c1.node_state("n1")["state"] == "online", 30, message="n1 online again")
            assert n1.admin("status", json=True)["ready"] and c1.admin("status", json=True)["ready"]
        finally:
            n1.stop()
