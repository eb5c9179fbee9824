# SPDX-License-Identifier: Apache-2.0
"""Living UDP flows follow the configuration: at 1,000 datagrams a second none is lost and none comes twice when a change sends
the flow elsewhere, whether the client end, a node in between or the far end has the change."""
import copy
import re
import socket

import hermes
from hermes import free_port, wait_for
from numbered import Echo, Numbered
from test_resume import client_config, far_config, middle_config

DGRAM = socket.SOCK_DGRAM


def named(config, certs, name):
    config["node"]["name"] = name
    config["identity"] = certs.identity(name)
    return config


def cluster(name, server, port):
    return {"name": name, "carry": "h2", "tls": {"server_name": f"{server}.example.net"}, "endpoints": [f"127.0.0.1:{port}"]}


def carries(node):
    return [f["cluster"] for f in node.admin("flows", "list", json=True)["flows"] if f.get("protocol") == "connect-udp"]


def steady(program):
    program.answered(400)


def test_the_client_end_moves_to_another_far_end_and_back(node, certs):
    port, one, two = free_port(DGRAM), free_port(), free_port()
    with Echo() as echo1, Echo() as echo2:
        node("ingress", far_config(certs, one, echo1.port))
        node("second", named(far_config(certs, two, echo2.port), certs, "second"))
        config = client_config(certs, port, one)
        config["clusters"].append(cluster("second", "second", two))
        alice = node("alice", config)
        program = Numbered(port)
        steady(program)
        other = copy.deepcopy(config)
        other["routes"][0]["cluster"] = "second"
        for i in range(4):
            alice.reload(config if i % 2 else other)
            steady(program)
        program.stop()
        program.check(echo1, echo2)
        assert len(echo1.counts) > 800 and len(echo2.counts) > 600
        assert carries(alice) == ["ingress"]
        assert alice.log().count("tunnel moved") == 4


def test_the_endpoint_changes(node, certs):
    port, one, two = free_port(DGRAM), free_port(), free_port()
    with Echo() as echo1, Echo() as echo2:
        node("ingress", far_config(certs, one, echo1.port))
        node("second", named(far_config(certs, two, echo2.port), certs, "second"))
        config = client_config(certs, port, one)
        alice = node("alice", config)
        program = Numbered(port)
        steady(program)
        config["clusters"][0] = cluster("ingress", "second", two)
        alice.reload(config)
        steady(program)
        program.stop()
        program.check(echo1, echo2)
        assert len(echo2.counts) > 300


def test_the_same_far_end_by_another_way(node, certs):
    """The far end sees the same peer: its socket stays, and what was under way is told exactly."""
    port, overlay = free_port(DGRAM), free_port()
    with Echo() as echo:
        far = node("ingress", far_config(certs, overlay, echo.port))
        config = client_config(certs, port, overlay)
        config["clusters"].append({**config["clusters"][0], "name": "again"})
        alice = node("alice", config)
        program = Numbered(port)
        steady(program)
        other = copy.deepcopy(config)
        other["routes"][0]["cluster"] = "again"
        for i in range(6):
            alice.reload(config if i % 2 else other)
            steady(program)
        program.stop()
        program.check(echo)
        assert len(echo.peers) == 1
        assert far.log().count("tunnel joined") == 6


def test_a_node_in_between_moves_it(node, certs):
    port, between, one, two = free_port(DGRAM), free_port(), free_port(), free_port()
    with Echo() as echo1, Echo() as echo2:
        node("ingress", far_config(certs, one, echo1.port))
        node("second", named(far_config(certs, two, echo2.port), certs, "second"))
        config = middle_config(certs, between, one)
        config["clusters"].append(cluster("second", "second", two))
        middle = node("middle", config)
        outer = client_config(certs, port, between)
        outer["clusters"][0]["tls"] = {"server_name": "middle.example.net"}
        alice = node("alice", outer)
        program = Numbered(port)
        steady(program)
        other = copy.deepcopy(config)
        other["routes"][0]["cluster"] = "second"
        for i in range(3):
            middle.reload(config if i % 2 else other)
            steady(program)
        program.stop()
        program.check(echo1, echo2)
        assert len(echo2.counts) > 600
        wait_for(lambda: carries(middle) == ["second"], message="the former ways to end")
        assert alice.log().count("tunnel moved") == 3


def test_the_far_end_moves_it(node, certs):
    port, overlay = free_port(DGRAM), free_port()
    with Echo() as echo1, Echo() as echo2:
        config = far_config(certs, overlay, echo1.port)
        config["clusters"].append({"name": "second", "carry": "udp", "endpoints": [f"127.0.0.1:{echo2.port}"]})
        far = node("ingress", config)
        alice = node("alice", client_config(certs, port, overlay))
        program = Numbered(port)
        steady(program)
        other = copy.deepcopy(config)
        other["routes"][0]["cluster"] = "second"
        for i in range(3):
            far.reload(config if i % 2 else other)
            steady(program)
        program.stop()
        program.check(echo1, echo2)
        assert len(echo2.counts) > 600
        assert alice.log().count("tunnel moved") == 3


def test_without_a_hop_in_between(node, certs):
    """The listener's own node sends the datagrams on."""
    port = free_port(DGRAM)
    with Echo() as echo1, Echo() as echo2:
        config = client_config(certs, port, 1)
        config["clusters"] = [{"name": n, "carry": "udp", "endpoints": [f"127.0.0.1:{e.port}"]}
                              for n, e in (("one", echo1), ("two", echo2))]
        config["routes"] = [{"match": {}, "cluster": "one"}]
        alice = node("alice", config)
        program = Numbered(port)
        steady(program)
        other = copy.deepcopy(config)
        other["routes"][0]["cluster"] = "two"
        for i in range(3):
            alice.reload(config if i % 2 else other)
            steady(program)
        program.stop()
        program.check(echo1, echo2)
        assert len(echo2.counts) > 600


def test_the_old_way_serves_while_the_new_one_does_not_open(node, certs):
    port, one = free_port(DGRAM), free_port()
    with Echo() as echo:
        node("ingress", far_config(certs, one, echo.port))
        config = client_config(certs, port, one)
        config["clusters"].append(cluster("nobody", "nobody", free_port()))
        alice = node("alice", config)
        program = Numbered(port)
        steady(program)
        other = copy.deepcopy(config)
        other["routes"][0]["cluster"] = "nobody"
        alice.reload(other)
        steady(program)
        alice.wait_log("tunnel not moved")
        alice.reload(config)
        steady(program)
        program.stop()
        program.check(echo)
        assert len(re.findall("tunnel not moved", alice.log())) == 1


def test_a_denied_flow_ends(node, certs):
    port, overlay = free_port(DGRAM), free_port()
    with Echo() as echo:
        node("ingress", far_config(certs, overlay, echo.port))
        config = client_config(certs, port, overlay)
        alice = node("alice", config)
        program = Numbered(port, rate=50)
        program.answered(20)
        config["policies"] = [{"name": "none", "match": {"authority": "ECHO"}, "default": "deny"}]
        alice.reload(config)
        wait_for(lambda: not carries(alice), message="the flow to end")
        program.stop(patience=0)
        assert len(program.counts) < program.sent


def test_other_nodes_in_between(node, certs):
    """Without certificates the far end cannot tell by which node a client came: the tunnel's secret id is enough."""
    port, overlay, ways = free_port(DGRAM), free_port(), [free_port(), free_port()]

    def plain(config):
        for listener in config["listeners"]:
            if listener["accept"] == "overlay":
                listener["tls"] = False
        for c in config["clusters"]:
            c.pop("tls", None)
        return config
    with Echo() as echo:
        far = node("ingress", plain(far_config(certs, overlay, echo.port)))
        for i, way in enumerate(ways):
            node(f"way{i}", plain(middle_config(certs, way, overlay, name=f"way{i}")))
        config = plain(client_config(certs, port, ways[0]))
        alice = node("alice", config)
        program = Numbered(port)
        steady(program)
        for i in range(4):
            config["clusters"][0]["endpoints"] = [f"127.0.0.1:{ways[1 - i % 2]}"]
            alice.reload(config)
            steady(program)
        program.stop()
        program.check(echo)
        assert len(echo.peers) == 1 and far.log().count("tunnel joined") == 4


def test_workers_are_replaced(node, certs):
    """Orderly: what they carry is taken to their successors before they end."""
    port, between, overlay = free_port(DGRAM), free_port(), free_port()
    with Echo() as echo:
        config = far_config(certs, overlay, echo.port, tunnel_workers=1)
        far = node("ingress", config)
        config = middle_config(certs, between, overlay)
        config["node"]["tunnel_workers"] = 1
        middle = node("middle", config)
        config = client_config(certs, port, between)
        config["clusters"][0]["tls"] = {"server_name": "middle.example.net"}
        alice = node("alice", config)
        program = Numbered(port)
        steady(program)
        for n in (middle, far, middle):
            before = n.pids()["tunnel"]
            n.admin("workers", "restart", "tunnel-0")
            wait_for(lambda: not set(before) & set(n.pids()["tunnel"]), message="the old worker to end")
            steady(program)
        program.stop()
        program.check(echo)
        assert alice.log().count("tunnel moved") + alice.log().count("tunnel resumed") >= 3
