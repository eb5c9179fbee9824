# SPDX-License-Identifier: Apache-2.0
"""TUN devices, their routes, source NAT and transparent capture, seen from outside: ping, curl and nft in namespaces.

    program in A -- hermes0 == alice (A) ======== ingress (B) == hermes0 -- C
                    10.77.1.0/24 between A and B, 10.77.2.0/24 between B and C; C knows no way to A and to the pool
"""
import json
import os
import re
import signal
import subprocess
import time
from types import SimpleNamespace

import jsonschema
import pytest
from hermes import ROOT, wait_for
from netlab import Lab, available

pytestmark = pytest.mark.skipif(not available(), reason="needs root and namespaces")


@pytest.fixture
def lab():
    with Lab() as lab:
        a, b, c = lab.namespace("a"), lab.namespace("b"), lab.namespace("c")
        lab.link(a, "10.77.1.1/24", b, "10.77.1.2/24")
        lab.link(b, "10.77.2.1/24", c, "10.77.2.2/24")
        b.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        yield SimpleNamespace(a=a, b=b, c=c)


def alice(certs, **more):
    return {
        "node": {"name": "alice", "domain": "example.net", "tunnel_workers": 2},
        "identity": certs.identity("alice"),
        "tunnels": [{"name": "hermes0", "addresses": ["10.8.0.2/32"], "networks": [
            {"prefix": "10.77.2.0/24", "add_headers": {"user": "alice"}}]}],
        "clusters": [{"name": "ingress", "carry": "h2", "tls": {"server_name": "ingress.example.net"},
                      "endpoints": ["10.77.1.2:8443"]}],
        "routes": [{"match": {}, "cluster": "ingress"}],
        **more,
    }


def ingress(certs, nat=True, **more):
    return {
        "node": {"name": "ingress", "domain": "example.net"},
        "identity": certs.identity("ingress"),
        "listeners": [{"name": "from-nodes", "address": "10.77.1.2:8443", "accept": "overlay"}],
        "tunnels": [{"name": "hermes0", "addresses": ["10.8.0.1/24"]}],
        "clusters": [{"name": "campus", "carry": "ip", "device": "hermes0", "pool": ["10.8.0.0/24"],
                      "advertise": ["10.77.2.0/24"], "nat": nat}],
        "routes": [{"match": {}, "cluster": "campus"}],
        **more,
    }


def pings(namespace, target, count=3, timeout=10):
    """How many of them are answered."""
    done = subprocess.run(namespace.wrap(["ping", "-n", "-c", count, "-i", "0.1", "-W", "2", "-w", timeout, target]),
                          capture_output=True, text=True)
    return int(re.search(r"(\d+) received", done.stdout)[1]) if "received" in done.stdout else 0


class Pinging:
    """ping beside the test; counts() ends it."""

    def __init__(self, namespace, target, interval=0.01):
        self.process = subprocess.Popen(namespace.wrap(["ping", "-n", "-i", interval, "-W", "2", target]),
                                        stdout=subprocess.PIPE, text=True)

    def counts(self):
        time.sleep(0.3)                    # what comes after counts as well
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=20)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", out)
        sent = int(found[1])
        if sent not in {int(seq) for seq in re.findall(r"icmp_seq=(\d+)", out)}:
            sent -= 1                      # under way when ping was stopped
        return sent, int(found[2])


@pytest.fixture
def two(lab, certs, node):
    there = node("ingress", ingress(certs), wrap=lab.b.wrap)
    here = node("alice", alice(certs), wrap=lab.a.wrap)
    wait_for(lambda: pings(lab.a, "10.77.2.2", 1, 2), 15, message="a ping through the overlay")
    return SimpleNamespace(here=here, there=there, alice=alice(certs), ingress_config=lambda **kw: ingress(certs, **kw))


def device(node, name="hermes0"):
    return next(d for d in node.admin("tunnels", "list", json=True)["tunnels"] if d["name"] == name)


def index(namespace, name="hermes0"):
    return int(namespace.run("cat", f"/sys/class/net/{name}/ifindex").stdout)


def says(namespace, *command):
    return subprocess.run(namespace.wrap(command), capture_output=True, text=True).stdout


def leftovers(namespace):
    return [line for line in (says(namespace, "ip", "rule") + says(namespace, "ip", "-6", "rule") +
                              says(namespace, "ip", "route", "show", "table", "all") +
                              says(namespace, "nft", "list", "tables")).splitlines()
            if "proto 72" in line or "hermes" in line]


class Teller:
    """In a namespace: tells whoever connects or sends (TCP and UDP) from which address, and to which it came."""
    CODE = """
import socket, sys, threading
port = int(sys.argv[1])
t = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True); u = socket.socket(type=socket.SOCK_DGRAM); u.bind(("", port))
def tcp():
    while True:
        c, a = t.accept(); c.sendall(f"{a[0]} to {c.getsockname()[0]}".replace("::ffff:", "").encode()); c.close()
def udp():
    while True:
        d, a = u.recvfrom(65536); u.sendto(f"{a[0]} said {d.decode()}".encode(), a)
threading.Thread(target=tcp, daemon=True).start(); print("ready", flush=True); udp()
"""

    def __init__(self, namespace, port=7000):
        self.process = subprocess.Popen(namespace.wrap(["/usr/bin/python3", "-c", self.CODE, port]), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()


def told_tcp(namespace, address, port=7000, seconds=10):
    code = f"import socket; s = socket.create_connection(('{address}', {port}), {seconds}); print(s.recv(100).decode())"
    done = subprocess.run(namespace.wrap(["/usr/bin/python3", "-c", code]), capture_output=True, text=True)
    return done.stdout.strip()


def told_udp(namespace, address, port=7000):
    """The answer, and from where it came."""
    code = ("import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(10); "
            f"s.sendto(b'hello', ('{address}', {port})); d, a = s.recvfrom(1000); print(d.decode(), 'from', a[0], a[1])")
    done = subprocess.run(namespace.wrap(["/usr/bin/python3", "-c", code]), capture_output=True, text=True)
    return done.stdout.strip()


# --- devices -----------------------------------------------------------------------------------------------------------------

def test_devices_come_and_go(two, lab):
    here = two.here
    assert "10.8.0.2/32" in says(lab.a, "ip", "-o", "address", "show", "dev", "hermes0")
    assert "10.77.2.0/24 dev hermes0" in says(lab.a, "ip", "route", "show", "table", "4823")
    assert "hermes0" not in says(lab.a, "ip", "route", "show", "table", "main")
    shown = device(here)
    assert shown["state"] == "up" and shown["addresses"] == ["10.8.0.2/32"] and shown["mtu"] == 1500 and shown["queues"] == 1
    assert shown["routes"] == ["10.77.2.0/24"] and shown["worker"] in ("tunnel-0", "tunnel-1") and "tso4" in shown["offload"]
    table = here.admin("tunnels", "list")
    assert re.search(r"hermes0 +up +10.8.0.2/32 +1500", table) and re.search(r"hermes0 +10.77.2.0/24 +alice", table)
    schema = json.loads((ROOT / "packaging/schema/hermes-admin.schema.json").read_text())
    for node in here, two.there:
        jsonschema.validate(node.admin("tunnels", "list", json=True), schema["definitions"]["tunnels list"])
    here.reload({**two.alice, "tunnels": []})
    assert here.admin("tunnels", "list", json=True) == {"tunnels": []}
    wait_for(lambda: "hermes0" not in says(lab.a, "ip", "-o", "link"), message="the device gone")
    assert not leftovers(lab.a)
    here.reload(two.alice)
    assert pings(lab.a, "10.77.2.2") == 3
    two.there.stop()
    here.stop()
    for namespace in lab.a, lab.b:
        assert not leftovers(namespace)


def test_a_living_device_changes(two, lab):
    """Routes, exclusions, addresses, MTU and queues change in place: a ping beside them loses nothing."""
    before = index(lab.a)
    beside = Pinging(lab.a, "10.77.2.2")
    tunnel = two.alice["tunnels"][0]
    network = tunnel["networks"][0]
    for change in ({"mtu": 1400}, {"queues": 3}, {"exclude": ["10.77.2.128/25"]}, {"queues": 1, "offload": False},
                   {"queues": 4},
                   {"networks": [network, {"prefix": "10.99.0.0/16"}]}, {"addresses": ["10.8.0.2/32", "10.8.0.9/32"]},
                   {"mtu": 1500}):
        two.here.reload({**two.alice, "tunnels": [{**tunnel, **change}]})
        assert device(two.here)["state"] == "up"
    sent, received = beside.counts()
    assert received == sent > 10
    assert index(lab.a) == before
    assert not leftovers(lab.c)
    # somebody takes it away: the next change makes it again
    lab.a.run("ip", "link", "del", "hermes0")
    assert device(two.here)["state"] == "gone"
    time.sleep(0.3)
    assert two.here.log().count("device not read") <= 4       # nobody spins over what is gone: once for each queue
    two.here.reload({**two.alice, "tunnels": [{**tunnel, "mtu": 1420}]})
    assert device(two.here)["mtu"] == 1420 and index(lab.a) != before
    wait_for(lambda: pings(lab.a, "10.77.2.2", 1, 2), 15, message="a ping through the new device")


def test_devices_follow_the_number_of_workers(two, lab):
    """Whose a device is depends on it."""
    before, owners = index(lab.a), set()
    beside = Pinging(lab.a, "10.77.2.2")
    for workers in 1, 3, 4, 2:
        two.here.reload({**two.alice, "node": {**two.alice["node"], "tunnel_workers": workers}})
        two.here.admin("wait", "ready", "--timeout", "20")
        owners.add(device(two.here)["worker"])
        wait_for(lambda: pings(lab.a, "10.77.2.2", 1, 2), 15, message=f"a ping with {workers} workers")
    sent, received = beside.counts()
    assert received > 10 and len(owners) > 1
    assert index(lab.a) == before


def test_what_cannot_be_made_is_refused(two, lab):
    lab.a.run("ip", "tuntap", "add", "name", "taken0", "mode", "tun")
    bad = {**two.alice, "tunnels": [*two.alice["tunnels"], {"name": "new0", "addresses": ["10.8.3.1/32"]},
                                    {"name": "taken0", "addresses": ["10.8.4.1/32"]}]}
    two.here.write(bad)
    done = two.here.admin("reload", check=False)
    assert done.returncode == 1
    assert "tunnel taken0: a network interface with this name exists already and is not ours" in done.stdout + done.stderr
    wait_for(lambda: "new0" not in says(lab.a, "ip", "-o", "link"), message="the other device gone again")
    assert pings(lab.a, "10.77.2.2") == 3
    assert len(two.here.admin("tunnels", "list", json=True)["tunnels"]) == 1


# prctl(PR_CAPBSET_DROP, CAP_NET_ADMIN), and what root executes has it no more
WITHOUT_NET_ADMIN = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 12, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.mark.parametrize("wrap, why", [
    (["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"], "start hermesd as root"),
    (["/usr/bin/python3", "-c", WITHOUT_NET_ADMIN], "making a TUN device needs CAP_NET_ADMIN"),
    (["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net; exec "$@"', "x"], "/dev/net/tun: the kernel's tun module"),
], ids=["unprivileged", "without CAP_NET_ADMIN", "without /dev/net/tun"])
def test_what_is_missing_is_named(lab, certs, node, tmp_path, wrap, why):
    made = node("alice", {"node": {"name": "alice"}, "tunnels": [{"name": "hermes0", "addresses": ["10.8.0.2/32"]}]},
                start=False, wrap=lambda command: lab.a.wrap([*wrap, *command]))
    for folder in made.folder, made.folder / "state", made.folder / "run":
        folder.chmod(0o777)
    with pytest.raises(AssertionError):
        made.start()
    assert re.search(f"hermesd: tun-bridge: .*{re.escape(why)}", made.log())
    made.process.wait(10)
    made.process = None


def test_workers_fall_and_the_device_stays(two, lab):
    before, pids = index(lab.a), two.here.pids()
    owner = int(device(two.here)["worker"].removeprefix("tunnel-"))
    assert pings(lab.a, "10.77.2.2") == 3
    # nobody notices tun-bridge's end
    beside = Pinging(lab.a, "10.77.2.2")
    os.kill(pids["tun-bridge"][0], signal.SIGKILL)
    wait_for(lambda: two.here.pids().get("tun-bridge", pids["tun-bridge"]) != pids["tun-bridge"], message="a new tun-bridge")
    two.here.admin("wait", "ready", "--timeout", "20")
    two.here.admin("workers", "restart", "tun-bridge")
    two.here.admin("wait", "ready", "--timeout", "20")
    sent, received = beside.counts()
    assert received == sent > 10
    # the tunnel worker that moves the packets: they wait in the device until its successor takes them on
    worker = next(w for w in two.here.admin("workers", "list", json=True)["workers"] if w["name"] == f"tunnel-{owner}")
    os.kill(worker["pid"], signal.SIGKILL)
    assert "10.77.2.0/24 dev hermes0" in says(lab.a, "ip", "route", "show", "table", "4823")
    assert pings(lab.a, "10.77.2.2", 5, 20) >= 5
    assert index(lab.a) == before and device(two.here)["addresses"] == ["10.8.0.2/32"]


def test_a_killed_run_leaves_nothing_to_its_successor(two, lab):
    two.here.reload({**two.alice, "tunnels": [{**two.alice["tunnels"][0], "exclude": ["10.77.2.128/25"]}]})
    two.here.kill()
    wait_for(lambda: "hermes0" not in says(lab.a, "ip", "-o", "link"), message="the device gone with the processes")
    assert leftovers(lab.a)
    two.here.write({**two.alice, "tunnels": []})
    two.here.start()
    assert not leftovers(lab.a)


def test_two_in_one_namespace_do_not_meet(two, lab, certs, node):
    other = node("bob", {**alice(certs), "node": {"name": "bob", "domain": "example.net"}, "identity": certs.identity("bob"),
                         "tunnels": [{"name": "hermes1", "addresses": ["10.8.0.3/32"],
                                      "networks": [{"prefix": "10.77.3.0/24"}]}]}, wrap=lab.a.wrap)
    assert "10.77.3.0/24 dev hermes1" in says(lab.a, "ip", "route", "show", "table", "4831")
    other.stop()
    assert "10.77.2.0/24 dev hermes0" in says(lab.a, "ip", "route", "show", "table", "4823")
    assert "4831" not in says(lab.a, "ip", "rule")
    assert pings(lab.a, "10.77.2.2") == 3


def test_tun_bridge_may_little(two):
    status = open(f"/proc/{two.here.pids()['tun-bridge'][0]}/status").read()
    for line in ("CapEff:\t0000000000001400", "CapPrm:\t0000000000001400", "CapInh:\t0000000000000000",
                 "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    assert re.search(r"Uid:\t[1-9]", status)


# --- the ways that packets go ------------------------------------------------------------------------------------------------------

def test_the_overlay_itself_never_enters_a_device(two, lab):
    """Everything is to go into the device, also the address of the next hop."""
    tunnel = {**two.alice["tunnels"][0], "networks": [{"prefix": "0.0.0.0/0"}], "exclude": ["10.77.1.99/32"]}
    two.here.reload({**two.alice, "tunnels": [tunnel], "listeners": [
        {"name": "apps", "address": "10.77.1.1:3129", "accept": "tcp", "target": "NOBODY:1"}]})
    assert "hermes0" in says(lab.a, "ip", "route", "get", "10.77.1.2")
    assert "hermes0" not in says(lab.a, "ip", "route", "get", "10.77.1.99")
    assert pings(lab.a, "10.77.2.2") == 3
    # nor does what our listeners answer, from the first packet on
    connect = "import socket; socket.create_connection(('10.77.1.1', 3129), 5)"
    lab.b.run("/usr/bin/python3", "-c", connect)
    two.there.stop()
    two.there.start()                   # new connections stay out as well
    assert pings(lab.a, "10.77.2.2", 3, 20) >= 3      # those that waited come at once


def test_source_nat(two, lab):
    with Teller(lab.c):
        assert told_tcp(lab.a, "10.77.2.2") == "10.77.2.1 to 10.77.2.2"
        assert told_udp(lab.a, "10.77.2.2") == "10.77.2.1 said hello from 10.77.2.2 7000"
        two.there.reload(two.ingress_config(nat=False))
        assert "masquerade" not in says(lab.b, "nft", "list", "ruleset")
        lab.c.run("ip", "route", "add", "10.8.0.0/24", "via", "10.77.2.1")
        assert told_tcp(lab.a, "10.77.2.2") == "10.8.0.2 to 10.77.2.2"
    assert "forwarding is off" not in two.there.log()
    lab.b.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    two.there.reload(two.ingress_config(nat=True))
    two.there.wait_log("forwarding is off.*net.ipv4.ip_forward")


def test_ipv6(two, lab):
    for ns, address, dev in (lab.b, "fd77:2::1/64", "veth1"), (lab.c, "fd77:2::2/64", "veth0"):
        ns.run("ip", "address", "add", address, "dev", dev, "nodad")
    lab.b.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    there = two.ingress_config()
    there["tunnels"][0]["addresses"].append("fd08::1/64")
    there["clusters"][0].update(pool=["10.8.0.0/24", "fd08::/64"], advertise=["10.77.2.0/24", "fd77:2::/64"])
    two.there.reload(there)
    tunnel = two.alice["tunnels"][0]
    tunnel = {**tunnel, "addresses": ["10.8.0.2/32", "fd08::2/128"], "exclude": ["fd77:2::ff/128"],
              "networks": [*tunnel["networks"], {"prefix": "fd77:2::/64", "add_headers": {"user": "alice"}}]}
    lab.a.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    two.here.reload({**two.alice, "tunnels": []})
    two.here.write({**two.alice, "tunnels": [tunnel]})
    assert "IPv6 is switched off" in two.here.admin("reload", check=False).stderr
    lab.a.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=0")
    two.here.reload({**two.alice, "tunnels": [tunnel]})
    assert "fd77:2::/64 dev hermes0" in says(lab.a, "ip", "-6", "route", "show", "table", "4823")
    assert "throw fd77:2::ff" in says(lab.a, "ip", "-6", "route", "show", "table", "4823")
    with Teller(lab.c):
        wait_for(lambda: pings(lab.a, "fd77:2::2", 1, 2), 15, message="an IPv6 ping through the overlay")
        assert told_tcp(lab.a, "fd77:2::2") == "fd77:2::1 to fd77:2::2"
    two.here.stop()
    assert not leftovers(lab.a)


def test_assigned_addresses(two, lab):
    tunnel = {**two.alice["tunnels"][0], "addresses": "assigned"}
    two.here.reload({**two.alice, "tunnels": [tunnel]})
    given = wait_for(lambda: device(two.here)["addresses"], message="an address")
    assert re.fullmatch(r"10\.8\.0\.\d+/\d+", given[0])
    assert pings(lab.a, "10.77.2.2") == 3
    os.kill(two.here.pids()["tun-bridge"][0], signal.SIGKILL)
    two.here.admin("wait", "ready", "--timeout", "20")
    time.sleep(0.3)
    two.here.admin("wait", "ready", "--timeout", "20")
    assert device(two.here)["addresses"] == given
    assert pings(lab.a, "10.77.2.2") == 3


# --- transparent capture ----------------------------------------------------------------------------------------------------------

def capturing(certs, **capture):
    """A node that dials and sends itself what it captures."""
    return {
        "node": {"name": "ingress", "domain": "example.net"},
        "listeners": [{"name": "captured", "address": ":3128", "accept": "transparent", "add_headers": {"user": "lan"},
                       "capture": capture}],
        "clusters": [{"name": "tcp", "carry": "tcp", "endpoints": "target", "allow_targets": ["private"]},
                     {"name": "udp", "carry": "udp", "endpoints": "target", "allow_targets": ["private"]}],
        "routes": [{"match": {"method": "CONNECT-UDP"}, "cluster": "udp"}, {"match": {}, "cluster": "tcp"}],
    }


@pytest.mark.parametrize("version", [4, 6])
def test_passing_traffic_is_captured(lab, certs, node, version):
    target, way = ("10.77.2.2", "10.77.1.2") if version == 4 else ("fd77:2::2", "fd77:1::2")
    if version == 6:
        for ns, address, dev in ((lab.a, "fd77:1::1/64", "veth0"), (lab.b, "fd77:1::2/64", "veth0"),
                                 (lab.b, "fd77:2::1/64", "veth1"), (lab.c, "fd77:2::2/64", "veth0")):
            ns.run("ip", "address", "add", address, "dev", dev, "nodad")
        lab.b.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    lab.a.run("ip", "route", "add", "default", "via", way)
    here = node("ingress", capturing(certs, exclude=["10.77.2.9/32"]), wrap=lab.b.wrap)
    assert {(x["protocol"], x["accept"]) for x in here.admin("listeners", "list", json=True)["listeners"]} == {
        ("tcp", "transparent"), ("udp", "transparent")}
    with Teller(lab.c):
        # C knows no way back to A: what it answers it answers to B
        assert told_tcp(lab.a, target) == f"{'10.77.2.1' if version == 4 else 'fd77:2::1'} to {target}"
        if version == 4:
            assert told_udp(lab.a, target) == f"10.77.2.1 said hello from {target} 7000"
        assert pings(lab.b, "10.77.2.2", 1) == 1
        flows = here.admin("flows", "list", json=True)["flows"]
        assert version == 6 or any(f["user"] == "lan" and f["authority"] == "10.77.2.2:7000" for f in flows)
        # what is excluded, and other ports, go their own way: nowhere
        here.reload(capturing(certs, ports="80-99"))
        assert told_tcp(lab.a, target, seconds=1) == ""
    here.stop()
    assert not leftovers(lab.b)


def test_traffic_that_begins_here_is_captured(lab, certs, node):
    lab.a.run("ip", "route", "add", "default", "via", "10.77.1.2")
    end = {**capturing(certs), "identity": certs.identity("ingress"),
           "listeners": [{"name": "from-nodes", "address": "10.77.1.2:8443", "accept": "overlay"}]}
    lab.b.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    there = node("ingress", end, wrap=lab.b.wrap)
    config = {**alice(certs, tunnels=[]), "listeners": [
        {"name": "captured", "address": "127.0.0.1:3128", "accept": "transparent", "add_headers": {"user": "alice"},
         "capture": {"local": True, "exclude": ["10.77.1.77/32"]}}]}
    here = node("alice", config, wrap=lab.a.wrap)
    with Teller(lab.c), Teller(lab.a, 7001):
        assert told_tcp(lab.a, "10.77.2.2") == "10.77.2.1 to 10.77.2.2"
        assert told_udp(lab.a, "10.77.2.2") == "10.77.2.1 said hello from 10.77.2.2 7000"
        # what is for this machine stays, and a server here answers strangers itself
        assert told_tcp(lab.a, "127.0.0.1", 7001) == "127.0.0.1 to 127.0.0.1"
        assert told_tcp(lab.a, "10.77.1.1", 7001) == "10.77.1.1 to 10.77.1.1"
        assert told_tcp(lab.b, "10.77.1.1", 7001) == "10.77.1.2 to 10.77.1.1"
        assert told_udp(lab.b, "10.77.1.1", 7001) == "10.77.1.2 said hello from 10.77.1.1 7001"
        # workers that fall take no rule with them
        os.kill(here.pids()["tun-bridge"][0], signal.SIGKILL)
        assert told_tcp(lab.a, "10.77.2.2") == "10.77.2.1 to 10.77.2.2"
        here.reload({**config, "listeners": []})
        assert told_tcp(lab.a, "10.77.2.2", seconds=1) == ""
    there.stop()
    here.stop()
    assert not leftovers(lab.a)
