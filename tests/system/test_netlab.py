# SPDX-License-Identifier: Apache-2.0
"""The link emulator of tests/netlab does what it is asked to do. Its decisions are tried on a million packets in virtual time,
which no load on the machine disturbs; real packets then show that it does what it decided."""
import json
import socket
import statistics
import subprocess
import time

import pytest

import netlab

COUNT = 1_000_000


def simulate(shape, count=COUNT, size=1200, interval="1ms", seed=1):
    out = subprocess.run([netlab.linkem(), "--simulate", f"{count},{size},{interval}", "--seed", str(seed), "--ab",
                          netlab.shape_text(shape)], check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def near(value, wanted, share=0.02):
    assert abs(value - wanted) <= share * wanted, f"{value}, wanted {wanted}"


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("loss", (0.01, 0.05, 0.3))
def test_random_loss(loss, seed):
    # 2 % of 40,000 losses are four standard deviations; and the seeds are fixed: it holds always or never
    s = simulate({"loss": loss}, COUNT * 4, seed=seed)
    near(s["lost"], COUNT * 4 * loss)
    assert s["delivered"] + s["lost"] == COUNT * 4


@pytest.mark.parametrize("seed", range(1, 4))
def test_bursty_loss(seed):
    p, r, good = 0.01, 0.2, 0.01
    s = simulate({"loss": good, "burst": (p, r)}, COUNT * 4, seed=seed)
    bad = p / (p + r)
    near(s["lost_burst"], COUNT * 4 * bad)
    near(s["lost"], COUNT * 4 * (1 - bad) * good)
    near(s["lost_burst"] / s["bad_runs"], 1 / r)       # packets that a burst takes
    half = simulate({"burst": (p, r, 0.5)}, COUNT * 4, seed=seed)
    near(half["lost_burst"], COUNT * 4 * bad / 2)


def test_rate_and_queue():
    """12 Mbit/s into 9: the line is always busy, a quarter does not fit, and who comes in waits for a full queue."""
    s = simulate({"rate": "9mbit", "queue": "60000"}, size=1500)
    near(s["span_bytes"] * 8 / s["span_s"], 9e6, 0.001)
    near(s["queue_full"], COUNT / 4)
    assert 60000 - 1500 <= s["backlog_max"] <= 60000
    near(s["delay_max_s"], 60000 * 8 / 9e6)
    # below the rate nothing waits: a packet takes as long as its bits
    s = simulate({"rate": "24mbit", "queue": "60000", "delay": "10ms"}, size=1500)
    assert s["queue_full"] == 0
    near(s["delay_mean_s"], 0.0105, 0.001)


def test_delay_and_jitter():
    s = simulate({"delay": "20ms"})
    assert s["delay_min_s"] == s["delay_max_s"] == 0.02
    s = simulate({"delay": "20ms", "jitter": "5ms"}, interval="11ms")      # too far apart to overtake each other
    near(s["delay_mean_s"], 0.02)
    assert 0.015 <= s["delay_min_s"] < 0.0151 and 0.0249 < s["delay_max_s"] <= 0.025
    assert simulate({"delay": "20ms", "jitter": "5ms"})["overtaken"] == 0
    assert simulate({"delay": "20ms", "jitter": "5ms", "reorder": True})["overtaken"] > 0


def test_outages():
    s = simulate({"outages": ("1s", "2s")}, 3_000_000)
    near(s["delivered"], 1_000_000, 0.001)
    near(s["outage"], 2_000_000, 0.001)
    turns = [simulate({"outages": ("1s", "2s", f"{i}s")}, 3000)["delivered"] for i in range(3)]
    assert turns == [1000, 1000, 1000]                 # 3 links in turn
    assert simulate({"cut": True}, 100)["outage"] == 100


def test_seeds():
    assert simulate({"loss": 0.1}) == simulate({"loss": 0.1})
    assert simulate({"loss": 0.1}) != simulate({"loss": 0.1}, seed=2)


@pytest.mark.parametrize("bad", ("delay=5", "loss=2", "loss=-1", "burst=0.1", "rate=10", "queue=1GB", "outages=1s", "foo=1", "delay",
                                 "burst=0.1:0", "reorder=2"))
def test_bad_shapes(bad):
    p = subprocess.run([netlab.linkem(), "--simulate", "1,1,1ms", "--ab", bad], capture_output=True, text=True)
    assert p.returncode == 2 and bad in p.stderr


needs_root = pytest.mark.skipif(not netlab.available(), reason="needs root and ip netns")


@pytest.fixture
def pair():
    with netlab.Lab() as lab:
        a, b = lab.namespace("a"), lab.namespace("b")
        yield lab, a, b


def socket_in(ns, address):
    """A UDP socket that lives in a namespace; this thread comes back."""
    with open("/proc/self/ns/net") as own, open(f"/run/netns/{ns.name}") as other:
        netlab.enter(other.fileno())
        try:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            netlab.enter(own.fileno())
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    s.bind((address, 7000))
    s.settimeout(5)
    return s


def send_spaced(source, target, count, size, interval=0.0):
    for i in range(count):
        source.sendto(i.to_bytes(4, "big") + time.monotonic_ns().to_bytes(8, "big") + bytes(size - 12), target)
        if interval:
            time.sleep(interval)


def received(sink, count):
    """[(number, seconds on the way)] of what comes, until `count` or silence."""
    out = []
    sink.settimeout(1)
    try:
        while len(out) < count:
            data = sink.recv(65536)
            out.append((int.from_bytes(data[:4], "big"), (time.monotonic_ns() - int.from_bytes(data[4:12], "big")) / 1e9))
    except TimeoutError:
        pass
    return out


@needs_root
def test_real_delay(pair):
    lab, a, b = pair
    link = lab.emulated_link(a, "10.9.0.1/24", b, "10.9.0.2/24", delay="50ms", back={"delay": "10ms"})
    with socket_in(a, "10.9.0.1") as source, socket_in(b, "10.9.0.2") as sink:
        send_spaced(source, ("10.9.0.2", 7000), 300, 100, 0.001)
        there = received(sink, 300)
        send_spaced(sink, ("10.9.0.1", 7000), 100, 100, 0.001)
        back = received(source, 100)
    assert [n for n, _ in there] == list(range(300)) and len(back) == 100
    s = link.stats()
    assert s["ab"]["delay_min_s"] == s["ab"]["delay_max_s"] == 0.05
    assert s["ba"]["delay_mean_s"] == 0.01
    # end to end nothing is early, and what is late is the machine's load, not the link's
    assert min(t for _, t in there) >= 0.05 and min(t for _, t in back) >= 0.01
    assert min(t for _, t in there) <= 0.05 * 1.02 + s["ab"]["late_mean_s"]
    assert statistics.median(t for _, t in there) >= 0.05


@needs_root
def test_real_loss(pair):
    """What the counters say is what the other end sees, and the same seed loses as many."""
    lab, a, b = pair
    seen = []
    for seed in (5, 5, 6):
        link = lab.emulated_link(a, "10.9.0.1/24", b, "10.9.0.2/24", loss=0.2, seed=seed)
        with socket_in(a, "10.9.0.1") as source, socket_in(b, "10.9.0.2") as sink:
            for part in range(40):                     # small parts: nothing else on the way may be full
                send_spaced(source, ("10.9.0.2", 7000), 50, 100)
                time.sleep(0.01)
            got = received(sink, 2000)
        s = link.close()["ab"]
        assert s["received"] == 2000 and len(got) == s["delivered"] == 2000 - s["lost"]
        seen.append([n for n, _ in got])
    assert seen[0] == seen[1] != seen[2]


@needs_root
def test_real_rate(pair):
    """A queue that is never empty: bytes leave at the rate. The sender is ahead of the line throughout."""
    lab, a, b = pair
    link = lab.emulated_link(a, "10.9.0.1/24", b, "10.9.0.2/24", rate="8mbit", queue="2MiB")
    with socket_in(a, "10.9.0.1") as source, socket_in(b, "10.9.0.2") as sink:
        send_spaced(source, ("10.9.0.2", 7000), 1000, 972)      # 1,000 bytes each with their headers: 1 s
        began = time.monotonic()
        got = received(sink, 1000)
    s = link.stats()["ab"]
    assert len(got) == 1000 and s["queue_full"] == 0
    near(s["span_bytes"] * 8 / s["span_s"], 8e6)
    assert got[-1][1] > 0.5 and time.monotonic() - began < 10
    link.set(queue="10000")
    with socket_in(a, "10.9.0.1") as source, socket_in(b, "10.9.0.2") as sink:
        send_spaced(source, ("10.9.0.2", 7000), 1000, 972)
        assert len(received(sink, 1000)) == 1000 - link.stats()["ab"]["queue_full"] < 1000


@needs_root
def test_changes_while_it_runs(pair):
    lab, a, b = pair
    link = lab.emulated_link(a, "10.9.0.1/24", b, "10.9.0.2/24")
    with socket_in(a, "10.9.0.1") as source, socket_in(b, "10.9.0.2") as sink:
        link.cut("ab")
        send_spaced(source, ("10.9.0.2", 7000), 10, 100)
        assert received(sink, 1) == []
        link.mend()
        send_spaced(source, ("10.9.0.2", 7000), 10, 100)
        assert len(received(sink, 10)) == 10
        link.set(delay="100ms")
        send_spaced(source, ("10.9.0.2", 7000), 10, 100)
        assert min(t for _, t in received(sink, 10)) >= 0.1
    assert link.stats()["ab"]["outage"] == 10
    with pytest.raises(ValueError):
        link.set(speed=1)
    with pytest.raises(ValueError):
        link.set("sideways", delay="1ms")


@needs_root
def test_nft_loss(pair):
    lab, a, b = pair
    _, dev = lab.link(a, "10.8.0.1/24", b, "10.8.0.2/24")
    lab.nft_loss(b, dev, 50)
    with socket_in(a, "10.8.0.1") as source, socket_in(b, "10.8.0.2") as sink:
        send_spaced(source, ("10.8.0.2", 7000), 400, 100)
        assert 100 < len(received(sink, 400)) < 300
        lab.nft_loss(b, dev, 0)
        send_spaced(source, ("10.8.0.2", 7000), 100, 100)
        assert len(received(sink, 100)) == 100
