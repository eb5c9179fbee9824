# SPDX-License-Identifier: Apache-2.0
"""Tunnels between Hermes ends go on when what is under them breaks: UDP programs at 1,000 datagrams a second notice nothing."""
import json
import socket
import time

import pytest

import hermes
from hermes import free_port, wait_for
from numbered import Echo, Numbered, Relay

DGRAM = socket.SOCK_DGRAM
PATIENT = {"datagram_queue": "16MiB", "datagram_age": "60s", "resume_timeout": "60s"}


def client_config(certs, port, overlay, **node):
    config = hermes.alice_config(free_port(), certs, overlay)
    config["node"].update(PATIENT, **node)
    config["listeners"].append({"name": "echo", "address": f"127.0.0.1:{port}", "accept": "udp", "target": "ECHO:7",
                                "add_headers": {"user": "alice"}})
    return config


def far_config(certs, overlay, target, **node):
    config = hermes.ingress_config(overlay, certs)
    config["node"].update(PATIENT, **node)
    config["clusters"].append({"name": "echo", "carry": "udp", "endpoints": [f"127.0.0.1:{target}"]})
    config["routes"].insert(0, {"match": {"authority": "ECHO"}, "cluster": "echo"})
    return config


def middle_config(certs, overlay, to, name="middle"):
    config = hermes.ingress_config(overlay, certs)
    config["node"].update(PATIENT, name=name)
    config["identity"] = certs.identity(name)
    config["clusters"] = [{"name": "next", "carry": "h2", "tls": {"server_name": "ingress.example.net"},
                           "endpoints": [f"127.0.0.1:{to}"]}]
    config["routes"] = [{"match": {}, "cluster": "next"}]
    return config


def states(node):
    return [f["state"] for f in node.admin("flows", "list", json=True)["flows"] if f.get("protocol") == "connect-udp"]


@pytest.fixture
def through_relay(node, certs):
    """alice, a relay, and the far end; program and echo at its sides."""
    port, overlay = free_port(DGRAM), free_port()
    with Echo() as echo:
        far = node("ingress", far_config(certs, overlay, echo.port))
        relay = Relay(overlay)
        alice = node("alice", client_config(certs, port, relay.port))
        program = Numbered(port)
        program.answered(100)
        yield program, echo, relay, alice, far
        relay.close()


def test_connections_are_reset(through_relay):
    program, echo, relay, alice, far = through_relay
    for _ in range(4):
        relay.reset()
        program.answered(600)
    program.stop()
    program.check(echo)
    assert len(echo.peers) == 1                    # the same socket at the far end
    assert far.log().count("tunnel joined") >= 4
    assert alice.log().count("tunnel resumed") >= 4
    assert states(alice) == ["STREAMING"] and set(states(far)) == {"STREAMING"}


def test_datagrams_have_connections_of_their_own(node, certs):
    """No bulk transfer stands before them: requests to the same next hop share another connection."""
    port, overlay = free_port(DGRAM), free_port()
    with Echo() as echo:
        node("ingress", far_config(certs, overlay, echo.port))
        relay = Relay(overlay)
        config = client_config(certs, port, relay.port, tunnel_workers=1)
        node("alice", config)
        program = Numbered(port)
        program.answered(100)
        assert len(relay.pairs) == 1
        proxy = int(config["listeners"][0]["address"].rsplit(":", 1)[1])
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", proxy), 10) as s:
                s.sendall(b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
                assert s.recv(12) == b"HTTP/1.1 502"
        assert len(relay.pairs) == 2
        program.stop()
        program.check(echo)
        relay.close()


def test_the_link_stands_still(through_relay):
    program, echo, relay, *_ = through_relay
    relay.stand_still(5)
    program.answered(500)
    program.stop()
    program.check(echo)


def test_nobody_listens_for_a_while(through_relay):
    program, echo, relay, alice, far = through_relay
    to, relay.to = relay.to, 1                     # nobody there
    relay.reset()
    wait_for(lambda: states(far) == ["PARKED"], message="the far end to wait")
    wait_for(lambda: states(alice) == ["RESUMING"], message="the client end to try again")
    time.sleep(2)
    relay.to = to
    program.answered(500)
    program.stop()
    program.check(echo)
    assert set(states(far)) == {"STREAMING"}       # two where another worker took the new connection


def test_denied_while_it_waits(through_relay):
    """Who may no longer have the tunnel does not get it back."""
    program, echo, relay, alice, far = through_relay
    to, relay.to = relay.to, 1
    relay.reset()
    wait_for(lambda: states(far) == ["PARKED"], message="the far end to wait")
    wait_for(lambda: states(alice) == ["RESUMING"], message="the client end to try again")
    config = json.loads(far.config_file.read_text())
    far.reload({**config, "policies": [{"name": "none", "match": {"authority": "ECHO"}, "default": "deny"}]})
    time.sleep(0.3)                                # what was under way
    reached = sum(echo.counts.values())
    relay.to = to
    wait_for(lambda: "RESUMING" not in states(alice), message="the client end to be refused")
    program.stop(patience=0)
    assert "tunnel joined" not in far.log() and sum(echo.counts.values()) == reached


def test_a_middle_node_is_killed(node, certs):
    port, overlay, between = free_port(DGRAM), free_port(), free_port()
    with Echo() as echo:
        far = node("ingress", far_config(certs, overlay, echo.port))
        middle = node("middle", middle_config(certs, between, overlay))
        config = client_config(certs, port, between)
        config["clusters"][0]["tls"] = {"server_name": "middle.example.net"}
        node("alice", config)
        program = Numbered(port)
        program.answered(500)
        middle.kill()
        time.sleep(0.5)
        middle.start()
        program.answered(1000, timeout=60)
        program.stop()
        program.check(echo)
        assert len(echo.peers) == 1
        assert "tunnel joined" in far.log()


def test_without_time_to_resume_nothing_waits(node, certs):
    port, overlay = free_port(DGRAM), free_port()
    with Echo() as echo:
        far = node("ingress", far_config(certs, overlay, echo.port, resume_timeout="0s"))
        relay = Relay(overlay)
        node("alice", client_config(certs, port, relay.port))
        program = Numbered(port, rate=100)
        program.answered(10)
        relay.reset()
        program.answered(50)                       # a new flow
        program.stop(patience=1)
        assert "tunnel parked" not in far.log()
        relay.close()


def test_a_program_that_leaves_takes_its_tunnel_along(node, certs):
    """The far end waits no longer than told for who does not come back."""
    port, overlay = free_port(DGRAM), free_port()
    with Echo() as echo:
        far = node("ingress", far_config(certs, overlay, echo.port, resume_timeout="1s"))
        relay = Relay(overlay)
        alice = node("alice", client_config(certs, port, relay.port))
        program = Numbered(port, rate=100)
        program.answered(10)
        program.stop()
        relay.to = 1
        alice.kill()
        alice.process = None
        wait_for(lambda: states(far) == ["PARKED"] or not states(far), message="the far end to notice")
        wait_for(lambda: not states(far), message="the far end to let go")
        far.wait_log("tunnel lost")
        relay.close()


def test_over_http1(node, certs):
    """The same with Upgrade (RFC 9298 3.2) on a connection of its own."""
    port, overlay = free_port(DGRAM), free_port()
    with Echo() as echo:
        far = far_config(certs, overlay, echo.port)
        far["listeners"] = [{"name": "plain", "address": f"127.0.0.1:{overlay}", "accept": "http"}]
        far = node("ingress", far)
        relay = Relay(overlay)
        config = client_config(certs, port, relay.port)
        config["clusters"] = [{"name": "ingress", "carry": "h1", "endpoints": [f"127.0.0.1:{relay.port}"]}]
        node("alice", config)
        program = Numbered(port)
        program.answered(100)
        for _ in range(3):
            relay.reset()
            program.answered(500)
        program.stop()
        program.check(echo)
        assert len(echo.peers) == 1 and far.log().count("tunnel joined") >= 3
        relay.close()
