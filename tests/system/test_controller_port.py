# SPDX-License-Identifier: Apache-2.0
"""A controller's port leads to the controller and nowhere else, whatever the node's own routes say; for strangers and for nodes."""
import re
import subprocess

import pytest

import hermes
from backends import Backend
from domains import Machine


@pytest.fixture(scope="module")
def world(session_tmp):
    folder = session_tmp / "port"
    folder.mkdir(mode=0o755)
    web, apps = Backend(0), hermes.free_port()
    extra = {"control": {"report": "200ms"},
             "listeners": [{"name": "apps", "address": f"127.0.0.1:{apps}", "accept": "http"}],
             "clusters": [{"name": "anywhere", "carry": "tcp", "endpoints": "target", "allow_targets": ["loopback"]},
                          {"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{web.port}"]}],
             "routes": [{"match": {"method": "CONNECT"}, "cluster": "anywhere"}, {"match": {"authority": "WEB"}, "cluster": "web"}]}
    with Machine("c1", folder, extra=extra).init(hermes.free_port()) as c:
        bob = Machine("bob", folder).enroll(c, start=False)
        yield c, bob, web, apps


def curl(*args):
    """(status, what is told, body)"""
    done = subprocess.run(["curl", "-s", "-m", "10", "-w", "\n%{http_code} %{http_connect}", *map(str, args)], capture_output=True, text=True,
                          timeout=15)
    body, _, codes = done.stdout.rpartition("\n")
    return (*map(int, codes.split()), body)


@pytest.mark.parametrize("who", ["stranger", "node"])
def test_no_other_way(world, who):
    c, bob, web, apps = world
    target, port = f"http://127.0.0.1:{web.port}/", f"https://127.0.0.1:{c.port}"
    mine = ["--cert", bob.keys / "node.crt", "--key", bob.keys / "node.key"] if who == "node" else []
    proxy = ["--proxy-insecure", *(str(m).replace("--", "--proxy-") for m in mine), "-x", port]
    # what the routes would do elsewhere
    assert curl("-p", "-x", f"http://127.0.0.1:{apps}", target)[:2] == (200, 200)
    assert curl("-x", f"http://127.0.0.1:{apps}", "http://WEB/")[0] == 200
    status, tunnel, _ = curl("-p", *proxy, target)
    assert (status, tunnel) == (0, 400)
    status, _, body = curl(*proxy, "http://WEB/")                # absolute-form
    assert status in (400, 403, 404) and body != curl(target)[2]
    for version in ("--http1.1", "--http2"):
        for authority in ("WEB", f"127.0.0.1:{web.port}", "controller", "controller.example.net"):
            status, _, body = curl(version, "-k", *mine, "-H", f"Host: {authority}", f"{port}/v1/nodes")
            assert status == 403 and '"forbidden"' in body, (version, authority)
            status, _, body = curl(version, "-k", *mine, "-H", f"Host: {authority}", f"{port}/v1/authorities")
            assert status == 200 and re.search("BEGIN CERTIFICATE", body)
            assert curl(version, "-k", *mine, "-H", f"Host: {authority}", f"{port}/")[0] == 404
    # who one is, the certificate says
    assert curl("-k", *mine, "-H", "hermes-peer: c1", f"{port}/v1/nodes")[0] == 403
