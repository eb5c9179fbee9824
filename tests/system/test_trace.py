# SPDX-License-Identifier: Apache-2.0
"""hermes-admin ping and traceroute over three real nodes (alice, middle, exit), and what programs get instead."""
import json
import socket

import jsonschema
import pytest

import hermes
import rawh2
from capsules import UdpServer
from pairs import Upstream

SCHEMA = json.loads((hermes.ROOT / "packaging/schema/hermes-admin.schema.json").read_text())


class World:
    pass


@pytest.fixture(scope="module")
def world(session_tmp, certs):
    w, folder = World(), session_tmp / "trace"
    folder.mkdir()
    folder.chmod(0o755)
    w.web, w.echo = Upstream("h1"), UdpServer()
    w.web.handler = lambda exchange: (w.web.said.put((exchange.method, dict(exchange.headers))), exchange.head(405))
    w.programs, middle, far = (hermes.free_port() for _ in range(3))
    w.dead = hermes.free_port()
    alice = hermes.alice_config(w.programs, certs, middle)
    alice["clusters"][0]["tls"]["server_name"] = "middle.example.net"
    alice["clusters"].append({"name": "dead", "carry": "h2", "endpoints": [f"127.0.0.1:{w.dead}"]})
    alice["clusters"].append({"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{w.web.port}"]})
    alice["routes"] = [{"match": {"authority": "dead.example"}, "cluster": "dead"},
                       {"match": {"authority": "web.example"}, "cluster": "web"},
                       *alice["routes"]]
    relay = hermes.ingress_config(middle, certs)
    relay["node"]["name"], relay["identity"] = "middle", certs.identity("middle")
    relay["clusters"] = [{"name": "exit", "carry": "h2", "tls": {"server_name": "exit.example.net"},
                          "endpoints": [f"127.0.0.1:{far}"]}]
    relay["routes"] = [{"match": {"headers": {"user": "alice"}}, "cluster": "exit"},
                       {"match": {"headers": {"user": "bob"}, "method": "GET"}, "cluster": "exit"}]
    w.exit_config = hermes.ingress_config(far, certs)
    w.exit_config["node"]["name"], w.exit_config["identity"] = "exit", certs.identity("exit")
    w.exit_config["clusters"] += [{"name": "udp", "carry": "udp", "endpoints": "target", "allow_targets": ["loopback"]},
                                  {"name": "shop", "carry": "h1", "endpoints": [f"127.0.0.1:{w.web.port}"]}]
    w.exit_config["routes"] = [{"match": {"method": "CONNECT-UDP"}, "cluster": "udp"},
                               {"match": {"authority": "shop.example"}, "cluster": "shop"},
                               {"match": {"method": "CONNECT"}, "cluster": "anywhere"}]
    w.exit = hermes.Node("exit", w.exit_config, folder)
    w.middle = hermes.Node("middle", relay, folder)
    w.alice = hermes.Node("alice", alice, folder)
    for port in (w.programs, middle, far):
        hermes.wait_port(port)
    yield w
    for node in (w.alice, w.middle, w.exit):
        node.stop()
    w.web.stop()
    w.echo.stop()


def ask(node, verb, *args, check=True):
    """The document, checked against the schema; check=False: (exit status, document)."""
    done = node.admin(verb, *args, json=True, check=False)
    assert done.stdout.strip(), done.stderr
    document = json.loads(done.stdout)
    jsonschema.Draft7Validator({"$ref": f"#/definitions/{verb}", **SCHEMA}).validate(document)
    if check:
        assert done.returncode == 0, (document, done.stderr)
        return document
    return done.returncode, document


def nodes(document):
    return [hop.get("node") for hop in document["hops"]]


# --- traceroute --------------------------------------------------------------------------------------------------------------

def test_the_way_of_a_connection(world):
    found = ask(world.alice, "traceroute", "--user", "alice", "www.example:443")
    assert nodes(found) == ["alice", "middle", "exit"]
    assert [hop["cluster"] for hop in found["hops"]] == ["ingress", "exit", "anywhere"]
    assert [hop["carry"] for hop in found["hops"]] == ["h2", "h2", "tcp"]
    assert [hop["end"] for hop in found["hops"]] == [False, False, True]
    assert found["complete"] and found["endpoint"] == "www.example:443" and found["target"] == "www.example:443"
    for hop in found["hops"]:
        assert hop["sent"] == hop["received"] == 3
        assert hop["min_us"] <= hop["median_us"] <= hop["max_us"]


def test_the_way_of_datagrams(world):
    found = ask(world.alice, "traceroute", "--user", "alice", "--method", "CONNECT-UDP", "--count", "1", f"127.0.0.1:{world.echo.port}")
    assert nodes(found) == ["alice", "middle", "exit"]
    assert found["hops"][-1]["cluster"] == "udp"
    assert found["endpoint"] == f"127.0.0.1:{world.echo.port}"
    assert not world.echo.seen
    status, found = ask(world.alice, "traceroute", "--user", "alice", "--method", "CONNECT-IP", "10.0.0.1/32", check=False)
    assert status == 1 and nodes(found) == ["alice", "middle", "exit"]
    assert (found["hops"][-1]["error"], found["hops"][-1]["cluster"]) == ("destination_unavailable", "anywhere")


def test_ways_of_users_methods_and_headers(world):
    """The same target by another user, or another method, goes elsewhere: decided as the real thing would be."""
    assert nodes(ask(world.alice, "traceroute", "--user", "alice", "shop.example:80")) == ["alice", "middle", "exit"]
    status, found = ask(world.alice, "traceroute", "--user", "bob", "shop.example:80", check=False)
    assert status == 1 and not found["complete"] and found["endpoint"] is None
    assert nodes(found) == ["alice", "middle"]
    assert (found["hops"][1]["status"], found["hops"][1]["error"]) == (404, "destination_not_found")
    # the last is the web server, no proxy of ours
    found = ask(world.alice, "traceroute", "--header", "user=bob", "--method", "GET", "http://shop.example/")
    assert nodes(found) == ["alice", "middle", "exit"]
    assert found["endpoint"] == f"127.0.0.1:{world.web.port}"
    # as it would come in at a listener: it adds user: alice
    assert nodes(ask(world.alice, "traceroute", "--listener", "apps", "www.example:443")) == ["alice", "middle", "exit"]


def test_what_it_looks_like(world):
    lines = world.alice.admin("traceroute", "--user", "alice", "www.example:443").splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["0", "alice"], ["1", "middle"], ["2", "exit"]]
    assert " ms " in lines[0] and "ingress over h2" in lines[0]
    assert lines[3].split()[0] == "www.example:443"


def test_a_next_hop_that_is_not_there(world):
    status, found = ask(world.alice, "traceroute", "--count", "1", "dead.example:80", check=False)
    assert status == 1 and not found["complete"]
    assert found["hops"][0]["cluster"] == "dead"
    assert (found["hops"][1]["node"], found["hops"][1]["status"]) == ("alice", 502)
    assert found["hops"][1]["error"] == "connection_refused"


def test_wrong_words(world):
    for words in (["--user"], ["--nonsense", "x", "a:1"], ["--header", "x", "a:1"], ["a b"], ["--method", "CONNECT-UDP", "a"],
                  ["--cluster", "none", "a:1"], ["--listener", "none", "a:1"], ["--count", "0", "a:1"], ["a:1", "b:2"]):
        done = world.alice.admin("traceroute", *words, check=False)
        assert done.returncode == 2, (words, done)
        assert done.stderr and not done.stdout


# --- ping --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name,hop", [("alice", 0), ("middle", 1), ("exit", 2), ("EXIT.example.net", 2)])
def test_ping(world, name, hop):
    found = ask(world.alice, "ping", "--count", "3", "--interval", "0", "--user", "alice", name)
    assert (found["node"], found["hop"], found["sent"], found["received"], found["loss_percent"]) == (name, hop, 3, 3, 0)
    assert found["min_us"] <= found["median_us"] <= found["max_us"]


def test_ping_through_a_cluster(world):
    assert ask(world.alice, "ping", "--count", "1", "--cluster", "ingress", "middle")["hop"] == 1
    done = world.alice.admin("ping", "--count", "1", "--cluster", "dead", "middle", check=False)
    assert done.returncode == 1 and "alice" in done.stderr


def test_ping_for_people(world):
    text = world.alice.admin("ping", "--count", "2", "--interval", "0", "--user", "alice", "exit")
    assert text.count("exit: hop=2 time=") == 2
    assert "2 sent, 2 received, 0.0 % lost; min/median/max" in text


def test_ping_of_nobody(world):
    done = world.alice.admin("ping", "--user", "alice", "nobody", check=False)
    assert done.returncode == 1 and "exit" in done.stderr


# --- what others get ---------------------------------------------------------------------------------------------------------

def options(port, extra, line="OPTIONS * HTTP/1.1"):
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.settimeout(10)
        sock.sendall(f"{line}\r\nHost: www.example\r\nConnection: close\r\n{extra}\r\n".encode())
        answer = b""
        while (data := sock.recv(65536)):
            answer += data
    return answer.decode()


PROBE = 'Hermes-Probe: method="CONNECT", authority="www.example:443"\r\n'


@pytest.mark.parametrize("extra", ["Max-Forwards: 0\r\n", "Max-Forwards: 0\r\n" + PROBE])
def test_programs_learn_nothing(world, extra):
    answer = options(world.programs, extra)
    assert answer.startswith("HTTP/1.1 200 ")
    assert "hermes-hop" not in answer.lower() and "ingress" not in answer


def test_a_program_cannot_make_others_speak(world):
    for forwards in (1, 2, 3):
        answer = options(world.programs, f"Max-Forwards: {forwards}\r\n" + PROBE)
        assert "hermes-hop" not in answer.lower()


def test_trace_ends_here(world):
    assert options(world.programs, "Max-Forwards: 0\r\n", "TRACE / HTTP/1.1").startswith("HTTP/1.1 405 ")


def test_max_forwards_is_counted(world):
    """RFC 9110 7.6.2, towards a server that is no proxy of ours."""
    while not world.web.said.empty():
        world.web.said.get()
    with rawh2.H2(world.programs) as client:
        client.send(client.block(1, [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "web.example"),
                                     ("max-forwards", "7"), ("hermes-probe", 'method="GET", authority="a"')]))
        assert client.answer(1) == 405
    method, headers = world.web.told()
    assert method == "OPTIONS" and headers["max-forwards"] == "6" and "hermes-probe" not in headers


def test_probes_over_raw_overlay_links(world, certs):
    """A peer without a certificate asks nothing."""
    port = world.exit_config["listeners"][0]["address"].rsplit(":", 1)[1]
    with pytest.raises(OSError):
        client = rawh2.H2(int(port), tls=rawh2.client_tls(certs))
        client.send(client.block(1, [(":method", "OPTIONS"), (":scheme", "https"), (":path", "*"), (":authority", "localhost"),
                                     ("max-forwards", "0"), ("hermes-probe", 'method="CONNECT", authority="a:1"')]))
        answer = client.answer(1)
        client.close()
        if answer != 200:
            raise OSError("refused")
