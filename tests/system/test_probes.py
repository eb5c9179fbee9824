# SPDX-License-Identifier: Apache-2.0
"""`probes:` over a real link whose delay changes, which is cut, and mends."""
import pytest

import hermes
import netlab
from hermes import wait_for

pytestmark = pytest.mark.skipif(not netlab.available(), reason="needs root and TUN")


def overlay(name, certs, address):
    return {"node": {"name": name, "domain": "example.net", "tunnel_workers": 1}, "identity": certs.identity(name),
            "listeners": [{"name": "nodes", "address": address, "accept": "overlay"}]}


def near_config(certs):
    probes = [{"name": "bob", "cluster": "bob", "interval": "200ms", "timeout": "500ms"},
              {"name": "through", "cluster": "bob", "target": "SERVICE:80", "interval": "200ms", "timeout": "500ms",
               "add_headers": {"user": "alice"}},
              {"name": "other", "cluster": "bob", "target": "SERVICE:80", "interval": "200ms", "add_headers": {"user": "eve"}}]
    cluster = {"name": "bob", "carry": "h2", "tls": {"server_name": "bob.example.net"}, "endpoints": ["10.7.0.2:8443"]}
    return {"node": {"name": "alice", "domain": "example.net", "tunnel_workers": 1}, "identity": certs.identity("alice"),
            "overlay_headers": ["user"], "clusters": [cluster], "probes": probes}


def far_config(certs):
    return {**overlay("bob", certs, "10.7.0.2:8443"),
            "clusters": [{"name": "service", "carry": "tcp", "endpoints": ["127.0.0.1:9"]}],
            "policies": [{"name": "alice-only", "match": {"authority": "SERVICE"}, "default": "deny",
                          "rules": [{"allow": {"user": "alice"}}]}],
            "routes": [{"match": {"authority": "SERVICE"}, "cluster": "service"}]}


def probe(alice, name):
    return next(p for p in alice.admin("probes", "list", json=True)["probes"] if p["name"] == name)


def test_delay_loss_and_policy_are_seen(certs, tmp_path):
    with netlab.Lab() as lab:
        near, far = lab.namespace("alice"), lab.namespace("bob")
        link = lab.emulated_link(near, "10.7.0.1/24", far, "10.7.0.2/24", delay="15ms")
        with hermes.Node("bob", far_config(certs), tmp_path, wrap=far.wrap), \
                hermes.Node("alice", near_config(certs), tmp_path, wrap=near.wrap) as alice:
            for name in ("bob", "through"):
                seen = wait_for(lambda n=name: (p := probe(alice, n))["sent"] - p["lost"] > 5 and p, 20, message=f"{name} measured")
                assert seen["rtt_us"] >= 30000 and seen["rtt_max_us"] >= seen["rtt_us"]
            # as for whom it is asked, so it is answered
            eve = probe(alice, "other")
            assert eve["sent"] and eve["lost"] == eve["sent"] and eve["error"]
            link.set(delay="60ms")
            wait_for(lambda: probe(alice, "bob")["rtt_us"] >= 120000, 20, message="the longer delay")
            link.cut()
            wait_for(lambda: (p := probe(alice, "bob"))["lost"] == p["sent"] > 10 and p["rtt_us"] == 0, 30, message="all lost")
            assert probe(alice, "bob")["age_ms"] > 5000
            link.mend()
            wait_for(lambda: probe(alice, "through")["age_ms"] < 1000 and probe(alice, "through")["error"] is None, 40,
                     message="answers again")
