# SPDX-License-Identifier: Apache-2.0
"""hermesd: workers that fail, configurations that fail, starts that fail. Faults that real workers do not have on demand
come from a fake one (tests/unit/fake_worker.c)."""
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

import hermes

ROLES = ["tun-bridge", "tunnel", "router", "policy", "telemetry", "config-sync"]


@pytest.fixture(scope="session")
def fakes(session_tmp):
    """A libexec folder in which every role is the fake worker."""
    program = hermes.build_dir() / "tests/fake_worker"
    sanitized = ["SAN=1"] if b"__asan_init" in (hermes.build_dir() / "bin/hermesd").read_bytes() else []
    subprocess.run(["make", "-s", *sanitized, f"BUILD={hermes.build_dir()}", str(program)], cwd=hermes.ROOT, check=True)
    folder = session_tmp / "fakes"
    folder.mkdir()
    for role in ROLES:
        shutil.copy(program, folder / f"hermes-{role}")
    return folder


def document(port, workers=2, name="alice", **more):
    return {"node": {"name": name, "domain": "example.net", "tunnel_workers": workers},
            "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"}],
            "clusters": [{"name": "anywhere", "carry": "tcp", "endpoints": "target"}],
            "routes": [{"match": {"method": "CONNECT"}, "cluster": "anywhere"}], **more}


@pytest.fixture
def fake(node, fakes):
    """fake(workers=2): a node of fake workers; .port is its listener's."""
    def make(**options):
        port = hermes.free_port()
        made = node("fake", document(port, **options), env={"HERMES_LIBEXEC_DIR": str(fakes)})
        made.port = port
        return made
    return make


def workers(n):
    return {w["name"]: w for w in n.admin("workers", "list", json=True)["workers"]}


def all_serve(n):
    return n.admin("status", json=True)["ready"]


def who_answers(port):
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        return s.makefile().readline().split()


def ask_for(n, what):
    """Tells a fake tunnel worker to misbehave; the answer may never come."""
    subprocess.Popen([n.build / "bin/hermes-admin", "-s", n.socket, "flows", "show", what],
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# --- life ---------------------------------------------------------------------------------------------------------------

def test_six_roles_start_and_stop(node):
    n = node("alice", document(hermes.free_port()))
    pids = n.pids()
    assert sorted(pids) == sorted(ROLES) and len(pids["tunnel"]) == 2
    assert {w["pid"] for w in workers(n).values()} == {p for many in pids.values() for p in many}
    n.stop()
    assert not [p for many in pids.values() for p in many if os.path.exists(f"/proc/{p}")]
    assert not n.socket.exists()


def test_workers_are_not_root_and_inherit_nothing(node):
    n = node("alice", document(hermes.free_port()))
    assert os.geteuid() == 0, "run as root"
    for role, pids in n.pids().items():
        status = Path(f"/proc/{pids[0]}/status").read_text()
        uids = set(re.search(r"^Uid:\t(.*)$", status, re.M).group(1).split())
        assert "0" not in uids, role
        assert re.search(r"^Groups:\t\s*$", status, re.M), role
        held = int(re.search(r"^CapEff:\t(.*)$", status, re.M).group(1), 16)
        # CAP_NET_ADMIN and CAP_NET_BIND_SERVICE
        assert held == (1 << 12 | 1 << 10 if role == "tun-bridge" else 0), role
        environment = Path(f"/proc/{pids[0]}/environ").read_bytes().decode().split("\0")
        names = {line.split("=")[0] for line in environment if line}
        assert names <= {"PATH", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "HERMES_LOG_LEVEL",
                         "HERMES_LOG_FORMAT", "HERMES_SANDBOX", "HERMES_STATE_DIR", "HERMES_JOURNAL_FD", "HERMES_NET_SLOT",
                         "HERMES_RUNTIME_DIR"}
        assert ("HERMES_STATE_DIR" in names) == (role == "config-sync")
        assert ("HERMES_RUNTIME_DIR" in names) == (role == "tunnel")


@pytest.mark.parametrize("role", ROLES)
def test_a_killed_worker_is_replaced_and_the_others_stay(node, role):
    n = node("alice", document(hermes.free_port()))
    before = n.pids()
    victim = before[role][0]
    os.kill(victim, signal.SIGKILL)
    hermes.wait_for(lambda: not os.path.exists(f"/proc/{victim}"))
    hermes.wait_for(lambda: all_serve(n))
    after = n.pids()
    assert victim not in after[role] and len(after[role]) == len(before[role])
    for other in ROLES:
        survivors = set(before[other]) - {victim}
        assert survivors <= set(after[other]), other
    assert re.search(rf"worker lost worker={role}.* restart_in_ms=0", n.log())
    assert n.admin("route", "explain", "--method", "CONNECT", "a.example:443", json=True)["accepted"]


@pytest.mark.parametrize("what, reason", [
    ("crash", "signal 11"), ("exit", "exit status 3"), ("lie", "worker lied"),
    ("stop", "stopped by a signal"), ("loop", "it loops")])
def test_a_worker_that_misbehaves_is_replaced(fake, what, reason):
    n = fake()
    before = workers(n)
    ask_for(n, f"{what}@1")
    hermes.wait_for(lambda: workers(n)["tunnel-1"]["restarts"] == 1 and all_serve(n), 20)
    after = workers(n)
    assert re.search(reason, n.log())
    assert re.search(r"worker lost worker=tunnel-1.* restart_in_ms=0", n.log())
    for name, worker in before.items():
        assert (after[name]["pid"] == worker["pid"]) == (name != "tunnel-1"), name
    assert who_answers(n.port)[0].startswith("tunnel-")


def test_a_hanging_worker_is_replaced(fake):
    n = fake()
    ask_for(n, "hang@0")
    n.wait_log("worker lost worker=tunnel-0.*did not answer for 10 s", 20)
    hermes.wait_for(lambda: all_serve(n))


def test_a_growing_worker_is_replaced_orderly(fake):
    n = fake(workers=1)
    config = document(n.port, 1)
    sanitized = b"__asan_init" in (hermes.build_dir() / "bin/hermesd").read_bytes()
    config["node"]["worker_rss"] = "64MiB"
    if sanitized:
        pytest.skip("a sanitizer's own memory counts, too")
    n.reload(config)
    ask_for(n, "grow@0")
    n.wait_log("worker too large worker=tunnel-0", 15)
    hermes.wait_for(lambda: workers(n)["tunnel-0"]["restarts"] == 1 and all_serve(n))
    hermes.wait_for(lambda: "it grew above worker_rss" in (workers(n)["tunnel-0"]["last_end"] or ""))


def test_a_listener_outlives_its_workers(fake):
    """A connection made while no worker is there waits for the replacement."""
    n = fake(workers=1)
    first = who_answers(n.port)
    os.kill(int(first[1]), signal.SIGKILL)
    second = who_answers(n.port)
    assert second[0] == first[0] and second[1] != first[1]


def test_back_off_doubles(fake):
    n = fake(workers=1)
    for times in range(1, 4):
        ask_for(n, "exit@0")
        hermes.wait_for(lambda: workers(n)["tunnel-0"]["restarts"] == times and all_serve(n), 15)
    assert re.findall(r"worker lost worker=tunnel-0.* restart_in_ms=(\d+)", n.log()) == ["0", "500", "1000"]


def test_operator_replaces_a_worker(fake):
    n = fake()
    before = workers(n)
    for name in ("tunnel-0", "router", "config-sync", "telemetry"):
        n.admin("workers", "restart", name)
        hermes.wait_for(lambda: all_serve(n))
        assert workers(n)[name]["pid"] != before[name]["pid"]
    assert workers(n)["tunnel-1"]["pid"] == before["tunnel-1"]["pid"]
    assert who_answers(n.port)


# --- changes ------------------------------------------------------------------------------------------------------------

def descriptors(n):
    """What hermesd holds open: with a closing client's descriptors, until it has seen its end."""
    return len(os.listdir(f"/proc/{n.process.pid}/fd"))


def refused(n, config, reason):
    generation = n.admin("status", json=True)["configuration"]["generation"]
    n.write(config)
    done = n.admin("config", "apply", n.config_file, check=False)
    assert done.returncode == 1 and re.search(reason, done.stderr), done.stderr
    assert n.admin("status", json=True)["configuration"]["generation"] == generation
    assert who_answers(n.port)


def test_a_refusal_changes_nothing_and_keeps_nothing(fake):
    n = fake()
    hermes.wait_for(lambda: descriptors(n))
    before = descriptors(n)
    for role in ROLES:
        port = hermes.free_port()
        refused(n, document(port, name=f"refuse-{role}"), "refused for a test")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)
    hermes.wait_for(lambda: descriptors(n) <= before, message="descriptors closed")


@pytest.mark.parametrize("role", ["policy", "tunnel", "config-sync"])
def test_a_worker_that_dies_while_preparing(fake, role):
    n = fake()
    refused(n, document(n.port, name=f"die-{role}"), "ended while it prepared")
    hermes.wait_for(lambda: all_serve(n), 15)
    config = document(n.port, name="bob")
    n.write(config)
    n.admin("config", "apply", n.config_file)
    assert n.admin("status", json=True)["node"] == "bob"


def test_a_port_in_use_is_named(fake):
    n = fake()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(n, document(taken.getsockname()[1]), "listener apps: cannot listen on .*another program")


def test_a_missing_file_is_named(fake):
    n = fake()
    config = document(n.port, identity={"certificate": "no.crt", "key": "no.key", "authorities": ["no-ca.crt"]})
    refused(n, config, rf"certificate: cannot read {n.folder}/no.crt: No such file")


def inodes(port):
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return {f[9] for f in map(str.split, lines) if f[1].endswith(f":{port:04X}") and f[3] == "0A"}


def test_unchanged_addresses_keep_their_sockets(fake):
    n = fake()
    other = hermes.free_port()
    before = inodes(n.port)
    assert len(before) == 2
    config = document(n.port, 3)
    config["listeners"].append({"name": "more", "address": f"127.0.0.1:{other}", "accept": "http"})
    n.reload(config)
    hermes.wait_for(lambda: all_serve(n) and len(inodes(n.port)) == 3)
    assert before < inodes(n.port) and who_answers(other)
    n.reload(document(n.port, 1))
    hermes.wait_for(lambda: not inodes(other) and len(inodes(n.port)) == 1)
    assert inodes(n.port) < before and len(workers(n)) == 6
    assert who_answers(n.port)[0] == "tunnel-0"


def test_unix_listener(fake):
    n = fake()
    path = n.folder / "apps.sock"
    config = document(n.port)
    config["listeners"].append({"name": "local", "address": f"unix:{path}", "accept": "http"})
    n.reload(config)
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(path))
        assert s.makefile().readline().startswith("tunnel-")
    n.reload(document(n.port))
    assert not path.exists()


def test_hangup_reloads(fake):
    n = fake()
    n.write(document(n.port, name="bob"))
    n.signal(signal.SIGHUP)
    hermes.wait_for(lambda: n.admin("status", json=True)["node"] == "bob")


def test_a_changed_certificate_is_taken_at_reload(node, certs, tmp_path):
    port = hermes.free_port()
    files = {"certificate": tmp_path / "s.crt", "key": tmp_path / "s.key"}

    def install(name):
        for made, target in zip(certs.server(name), files.values()):
            shutil.copy(made, target)
    install("first.test")
    config = document(port)
    config["listeners"][0]["tls"] = {k: str(v) for k, v in files.items()}
    n = node("alice", config)
    first = ssl.get_server_certificate(("127.0.0.1", port))
    install("second.test")
    n.reload()
    second = ssl.get_server_certificate(("127.0.0.1", port))
    assert first != second and second.split() == files["certificate"].read_text()[
        files["certificate"].read_text().index("-----BEGIN"):].split()[:len(second.split())]
    files["key"].write_text("nonsense\n")
    assert n.reload(check=False).returncode == 1
    assert ssl.get_server_certificate(("127.0.0.1", port)) == second


def test_a_log_file_is_opened_again(node, tmp_path):
    n = node("alice", document(hermes.free_port(), telemetry={"access_log": [{"to": str(tmp_path / "access.log")}]}))
    log = tmp_path / "access.log"
    assert log.exists() and log.stat().st_mode & 0o777 == 0o600 & 0o640 | 0o600
    log.rename(tmp_path / "access.log.1")
    n.signal(signal.SIGUSR1)
    hermes.wait_for(log.exists)


class Opa(socketserver.StreamRequestHandler):
    """Allows everybody but mallory."""
    def handle(self):
        length = 0
        while (line := self.rfile.readline().strip()):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        asked = json.loads(self.rfile.read(length))
        answer = json.dumps({"result": "mallory" not in json.dumps(asked)}).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                         % (len(answer), answer))


@pytest.mark.parametrize("kind", ["unix", "tcp", "localhost", "name", "nobody"])
def test_authorizers_are_dialled(node, tmp_path, kind):
    """policy may open no socket: hermesd connects, to what the configuration names and no further."""
    path = str(tmp_path / "opa.sock")
    server = socketserver.ThreadingUnixStreamServer(path, Opa) if kind == "unix" else \
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Opa)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = 0 if kind == "unix" else server.server_address[1]
    address = {"unix": f"unix:{path}", "tcp": f"127.0.0.1:{port}", "localhost": f"localhost:{port}",
               "name": f"opa.example.net:{port}", "nobody": f"127.0.0.1:{hermes.free_port()}"}[kind]
    config = document(hermes.free_port(), policies=[{"name": "asks", "default": "allow", "authorizer": {
        "address": address, "path": "/v1/data/hermes", "timeout": "3s"}}])
    n = node("alice", config, wait=False)
    try:
        hermes.wait_for(lambda: n.socket.exists() and n.admin("wait", "ready", check=False).returncode == 0)
        answers = {user: n.admin("route", "explain", "--user", user, "h.example:1", json=True)["accepted"]
                   for user in ("alice", "mallory")}
    finally:
        server.shutdown()
        server.server_close()
    assert answers == {"alice": kind in ("unix", "tcp", "localhost"), "mallory": False}


# --- starts -------------------------------------------------------------------------------------------------------------

def ended(n, timeout=60):
    status = n.process.wait(timeout)
    n.process = None
    return status


def test_broken_file_and_empty_store(node):
    n = node("alice", "node: {name: alice}\nlisteners: 3\n", wait=False)
    assert ended(n) == 1
    assert re.search(r"hermes\.yaml:2:12: listeners", n.log())


def test_broken_file_and_a_stored_version(node):
    n = node("alice", document(hermes.free_port()))
    n.stop()
    n.write("node: {name: alice}\nlisteners: 3\n")
    n.start()
    status = n.admin("status", json=True)
    assert status["ready"] and status["configuration"]["stale"]
    assert "hermes.yaml:2:12" in status["configuration"]["stale_reason"]
    n.write(document(hermes.free_port(), name="bob"))
    n.admin("reload")
    assert not n.admin("status", json=True)["configuration"]["stale"]


def test_no_file_at_all(node):
    n = node("alice", "", start=False)
    n.config_file.unlink()
    n.start(wait=False)
    assert ended(n) == 1
    assert "cannot read" in n.log() and "No such file" in n.log()


def test_a_worker_that_cannot_be_started(node, fakes, tmp_path):
    folder = tmp_path / "libexec"
    shutil.copytree(fakes, folder)
    (folder / "hermes-router").unlink()
    n = node("alice", document(hermes.free_port()), env={"HERMES_LIBEXEC_DIR": str(folder)}, wait=False)
    assert ended(n) == 1
    assert "worker router cannot be brought up" in n.log()


def test_two_with_one_runtime_folder(fake):
    n = fake()
    done = subprocess.run(n.command(), capture_output=True, text=True, env=n._environment())
    assert done.returncode == 1 and "another hermesd runs there" in done.stderr
    assert all_serve(n)


def test_unprivileged(fakes, node):
    """Started as nobody: works, warns once; low ports are refused by name."""
    port = hermes.free_port()
    n = node("alice", document(port), env={"HERMES_LIBEXEC_DIR": str(fakes)}, start=False,
             wrap=lambda line: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *line])
    for path in (n.folder, n.folder / "state", n.folder / "run", n.config_file):
        os.chown(path, 65534, 65534)
    n.start()
    assert n.log().count("unprivileged") == 1 and who_answers(port)
    n.write(document(81))
    done = n.admin("config", "apply", n.config_file, check=False)
    assert done.returncode == 1 and "listener apps" in done.stderr and "below 1024" in done.stderr


def test_a_second_signal_does_not_wait(fake):
    n = fake()
    os.kill(workers(n)["tunnel-0"]["pid"], 0)
    n.signal(signal.SIGTERM)
    n.signal(signal.SIGTERM)
    assert ended(n, 10) == 0


def test_notify(fakes, tmp_path):
    """systemd's protocol: READY, RELOADING with its time, STOPPING."""
    heard = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(10)
        port = hermes.free_port()
        n = hermes.Node("alice", document(port), tmp_path, env={
            "HERMES_LIBEXEC_DIR": str(fakes), "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"})
        n.write(document(port, name="bob"))
        n.admin("reload")
        end = time.monotonic() + 10
        while not any("WATCHDOG=1" in m for m in heard) and time.monotonic() < end:
            heard.append(s.recv(4096).decode())
        n.stop()
        s.settimeout(0.5)
        try:
            while True:
                heard.append(s.recv(4096).decode())
        except TimeoutError:
            pass
    text = "\n".join(heard)
    order = [text.index(word) for word in ("READY=1", "RELOADING=1\nMONOTONIC_USEC=", "STOPPING=1")]
    assert order == sorted(order) and "WATCHDOG=1" in text


# --- hermesd's own words ------------------------------------------------------------------------------------------------

def hermesd(*args):
    return subprocess.run([hermes.build_dir() / "bin/hermesd", *map(str, args)], capture_output=True, text=True)


def test_check_option(tmp_path, certs):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    crt, key = certs.node("alice")
    text = f"node: {{name: alice, domain: example.net}}\nidentity: {{certificate: {crt}, key: {key}, authorities: [{certs.ca}]}}\n"
    good.write_text(text)
    assert (hermesd("-t", "-c", good).returncode, hermesd("-t", "-c", good).stdout) == (0, f"{good}: ok\n")
    bad.write_text(text.replace("domain:", "domian:"))
    done = hermesd("-t", "-c", bad)
    assert done.returncode == 1 and f"{bad}:1:" in done.stderr and "domain" in done.stderr and not done.stdout
    bad.write_text(text.replace(str(key), str(crt)))
    done = hermesd("-t", "-c", bad)
    assert done.returncode == 1 and "identity.key" in done.stderr and "PRIVATE KEY" in done.stderr


@pytest.mark.parametrize("args, status", [(("--help",), 0), (("--version",), 0), (("--nonsense",), 2), (("word",), 2)])
def test_usage(args, status):
    done = hermesd(*args)
    assert done.returncode == status
    assert bool(done.stdout) == (status == 0) and bool(done.stderr) == (status != 0)


# --- the admin socket ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 100, b"\x91\x00", b"\xdd\xff\xff\xff\xff", b"x" * 60000])
def test_garbage_on_the_admin_socket(fake, data):
    n = fake(workers=1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.connect(str(n.socket))
        s.settimeout(10)
        s.recv(65536)
        s.send(data) if data else s.shutdown(socket.SHUT_WR)
        try:
            assert s.recv(65536) == b""
        except ConnectionResetError:
            pass
    assert all_serve(n)


def test_silent_admin_clients_are_bounded(fake):
    n = fake(workers=1)
    idle = []
    for _ in range(40):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(str(n.socket))
        idle.append(s)
    try:
        hermes.wait_for(lambda: n.admin("status", check=False).returncode == 0, 20, message="place for a client again")
    finally:
        for s in idle:
            s.close()
