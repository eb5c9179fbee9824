# SPDX-License-Identifier: Apache-2.0
"""The main job, as make demo shows it: real curl, nginx and MariaDB, through alice and ingress."""
import hashlib
import json
import re
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest

import hermes
import servers

PASSWORD = "builder"


@pytest.fixture(scope="module")
def shop(session_tmp, certs):
    with servers.Nginx(session_tmp / "shop", certs, text="the shop\n", big=100 << 20) as server:
        (server.root / "film.txt").write_text("from Europe\n")
        yield server


@pytest.fixture(scope="module")
def america(session_tmp):
    with servers.Nginx(session_tmp / "america") as server:
        (server.root / "film.txt").write_text("from America\n")
        yield server


@pytest.fixture(scope="module")
def database(session_tmp):
    with servers.MariaDB(session_tmp / "db") as server:
        server.query("create database films; create table films.film (id int, title text, big longtext);"
                     "insert into films.film values (1, 'Metropolis', repeat('x', 3000000)), (2, 'Nosferatu', ''),"
                     "(3, 'Faust', '')")
        yield server


@pytest.fixture(scope="module")
def world(session_tmp, certs, shop, america, database):
    """The two nodes with the demo's configuration. Tests may change alice's as long as they leave these ways alone."""
    folder = session_tmp / "main-job"
    folder.mkdir()
    ports = SimpleNamespace(http=hermes.free_port(), db=hermes.free_port(), overlay=hermes.free_port(),
                            metrics=hermes.free_port(), tls=hermes.free_port())
    crypted = subprocess.run(["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True).stdout.strip()
    inner = hermes.ingress_config(
        ports.overlay, certs,
        clusters=[{"name": "europe", "carry": "h1", "endpoints": [f"127.0.0.1:{shop.port}"]},
                  {"name": "america", "carry": "h1", "endpoints": [f"127.0.0.1:{america.port}"]},
                  {"name": "shop", "carry": "tcp", "endpoints": [f"127.0.0.1:{shop.tls_port}"]},
                  {"name": "database", "carry": "tcp", "endpoints": [f"127.0.0.1:{database.port}"]}],
        routes=[{"match": {"authority": "VIDEO", "headers": {"region": "america"}}, "cluster": "america"},
                {"match": {"authority": "VIDEO"}, "cluster": "europe"},
                {"match": {"authority": "www.example.com:443", "method": "CONNECT"}, "cluster": "shop"},
                {"match": {"authority": "MYSQL:3306", "method": "CONNECT"}, "cluster": "database"}])
    inner["listeners"][0]["peers"] = [{"node": "alice", "users": ["alice", "bob"]}]
    crt, key = certs.server("alice-front", "DNS:localhost", "IP:127.0.0.1")
    outer = hermes.alice_config(
        ports.http, certs, ports.overlay,
        users=[{"name": "bob", "password": crypted}],
        address_spaces=[
            {"name": "gold", "users": ["alice"], "names": {
                "VIDEO": {"cluster": "ingress", "add_headers": {"region": "europe"}},
                "www.example.com": {"cluster": "ingress"}, "MYSQL": {"cluster": "ingress"}}},
            {"name": "silver", "users": ["bob"], "names": {
                "VIDEO": {"cluster": "ingress", "add_headers": {"region": "america"}}}}],
        policies=[{"name": "video", "match": {"authority": "VIDEO"}, "default": "deny",
                   "rules": [{"allow": {"method": ["GET", "HEAD"], "headers": {"token": "admin"}}}]}],
        routes=[],
        telemetry={"metrics": {"address": f"127.0.0.1:{ports.metrics}"},
                   "access_log": [{"to": str(folder / "access.log"), "format": "json"}]})
    outer["listeners"] += [
        {"name": "database", "address": f"127.0.0.1:{ports.db}", "accept": "tcp", "target": "MYSQL:3306",
         "add_headers": {"user": "alice"}},
        {"name": "apps-tls", "address": f"127.0.0.1:{ports.tls}", "accept": "http", "add_headers": {"user": "alice"},
         "tls": {"certificate": str(crt), "key": str(key)}}]
    ingress = hermes.Node("ingress", inner, folder)
    try:
        alice = hermes.Node("alice", outer, folder)
    except BaseException:
        ingress.stop(check=False)
        raise
    yield SimpleNamespace(alice=alice, ingress=ingress, ports=ports, proxy=f"127.0.0.1:{ports.http}", config=outer,
                          access=folder / "access.log")
    for node in (alice, ingress):
        print(f"--- log of {node.name}\n{node.log()[-10000:]}")
    try:
        alice.stop()
    finally:
        ingress.stop()


def video(world, *args, token="admin", proxy=None, path="film.txt"):
    return hermes.curl(f"http://VIDEO/{path}", "-H", f"token: {token}", *args, proxy=proxy or world.proxy)


def test_name_of_an_address_space(world):
    answer = video(world)
    assert answer.status == 200 and answer.text == "from Europe\n", answer


def test_head_and_conditional_requests(world):
    head = video(world, "-I")
    assert head.status == 200 and head.headers["content-length"] == "12" and b"Europe" not in head.body, head
    again = video(world, "-H", f"If-None-Match: {head.headers['etag']}")
    assert again.status == 304 and not again.body, again


def test_range(world, shop):
    answer = video(world, "-r", "1000-1999", path="big")
    assert answer.status == 206 and len(answer.body) == 1000, answer.headers
    with open(shop.root / "big", "rb") as f:
        f.seek(1000)
        assert answer.body == f.read(1000)


def test_policy_refuses_by_name(world):
    answer = video(world, token="guest")
    assert answer.status == 403, answer
    assert re.search(r"alice.*error=http_request_denied.*video", answer.headers["proxy-status"]), answer


def test_servers_own_errors_arrive_as_they_are(world):
    answer = video(world, path="nothing-here")
    assert answer.status == 404 and "nginx" in answer.text, answer


def test_unknown_name(world):
    answer = hermes.curl("http://NOBODY/", proxy=world.proxy)
    assert answer.status == 404 and "proxy-status" in answer.headers, answer


def test_end_to_end_tls_and_100_mb(world, certs, shop):
    answer = hermes.curl("https://www.example.com/big", "--cacert", certs.ca, proxy=world.proxy, timeout=60)
    assert answer.status == 200, answer.error
    assert hashlib.sha256(answer.body).hexdigest() == shop.big_digest


def test_proxy_itself_over_tls(world, certs):
    """curl speaks TLS to the proxy, and TLS to the server within."""
    proxy = f"https://localhost:{world.ports.tls}"
    answer = video(world, "--proxy-cacert", certs.ca, proxy=proxy)
    assert answer.status == 200 and answer.text == "from Europe\n", answer
    answer = hermes.curl("https://www.example.com/", "--cacert", certs.ca, "--proxy-cacert", certs.ca, proxy=proxy)
    assert answer.text == "the shop\n", answer


def test_another_user_is_led_elsewhere(world):
    assert video(world, proxy=f"http://bob:{PASSWORD}@{world.proxy}").text == "from America\n"
    assert video(world).text == "from Europe\n"
    answer = video(world, proxy=f"http://bob:wrong@{world.proxy}")
    assert answer.status == 407 and "proxy-authenticate" in answer.headers, answer


def test_user_cannot_be_claimed_by_header(world):
    """`user` is the overlay's own word: one from outside is removed."""
    assert video(world, "-H", "user: bob", "-H", "region: america").text == "from Europe\n"


def test_database(world, database):
    assert database.query("select title from films.film order by id", port=world.ports.db) == "Metropolis\nNosferatu\nFaust\n"


def test_database_large_result(world, database):
    assert len(database.query("select big from films.film where id = 1", port=world.ports.db)) == 3000001


def test_status_and_lists(world):
    status = world.alice.admin("status", json=True)
    assert status["ready"] and status["node"] == "alice"
    names = {w["name"] if "name" in w else w["worker"] for w in world.alice.admin("workers", "list", json=True)["workers"]}
    assert {"router", "policy", "telemetry", "config-sync", "tun-bridge"} <= names
    listeners = {x["name"] for x in world.alice.admin("listeners", "list", json=True)["listeners"]}
    assert {"apps", "database", "apps-tls"} <= listeners


def test_explain(world):
    line = ["route", "explain", "--listener", "apps", "--header", "token=admin", "http://VIDEO/film.txt"]
    assert "ingress" in world.alice.admin(*line)
    json.dumps(world.alice.admin(*line, json=True))
    refused = world.alice.admin("policy", "explain", "--listener", "apps", "http://VIDEO/film.txt", check=False)
    assert "video" in refused.stdout + refused.stderr


def test_metrics(world):
    video(world)

    def metrics():
        text = hermes.curl(f"http://127.0.0.1:{world.ports.metrics}/metrics").text
        assert text.endswith("# EOF\n"), text[-200:]
        return {m[1]: float(m[2]) for m in re.finditer(r"^(hermes_\S+) ([0-9.e+]+)$", text, re.M)}
    key = 'hermes_listener_flows_total{listener="apps"}'
    before = metrics()[key]
    video(world)
    hermes.wait_for(lambda: metrics()[key] == before + 1, message="the counter")


def test_access_log(world):
    video(world, path="film.txt?access-log-test")
    line = hermes.wait_for(lambda: [x for x in world.access.read_text().splitlines() if "access-log-test" in x],
                           message="the record")[0]
    record = json.loads(line)
    assert (record["user"], record["status"], record["bytes_out"], record["result"]) == ("alice", 200, 12, "ok"), record
    assert record["policies"] == ["video"] and record["cluster"] == "ingress", record


def slow_download(world, into):
    into.update(answer=video(world, "--limit-rate", "25M", path="big"))


@pytest.mark.seconds(180)
def test_change_and_broken_change_under_a_download(world, shop, tmp_path):
    got = {}
    thread = threading.Thread(target=slow_download, args=(world, got))
    thread.start()
    try:
        hermes.wait_for(lambda: any(f.get("path") == "/big" for f in world.alice.admin("flows", "list", json=True)["flows"]),
                        message="the download among the flows")
        changed = json.loads(json.dumps(world.config, default=str))
        changed["address_spaces"][0]["names"]["NEWS"] = {"cluster": "ingress", "add_headers": {"x": "y"}}
        changed["routes"] = [{"match": {"authority": "UNKNOWN"}, "cluster": "ingress"}]
        file = tmp_path / "new.yaml"
        file.write_text(json.dumps(changed))
        world.alice.admin("config", "apply", file)
        assert hermes.curl("http://UNKNOWN/", proxy=world.proxy).status == 404      # ingress says so now
        version = world.alice.admin("status", json=True)["configuration"]["generation"]

        broken = tmp_path / "broken.yaml"
        broken.write_text("node: {name: alice}\nlisteners:\n  - name: apps\n    adress: 127.0.0.1:1\n")
        refused = world.alice.admin("config", "apply", broken, check=False)
        assert refused.returncode == 1, refused
        said = refused.stdout + refused.stderr
        assert re.search(r"broken\.yaml:4:\d+:.*adress", said) and "address" in said, said
        assert world.alice.admin("status", json=True)["configuration"]["generation"] == version
        assert video(world).text == "from Europe\n"
        assert thread.is_alive(), "the download ended before the changes"
    finally:
        thread.join(60)
    assert got["answer"].status == 200 and hashlib.sha256(got["answer"].body).hexdigest() == shop.big_digest


def test_rollback(world):
    before = world.alice.admin("status", json=True)["configuration"]["generation"]
    first = min(v["version"] for v in world.alice.admin("config", "history", json=True)["versions"])
    world.alice.admin("config", "rollback", first)
    assert video(world).text == "from Europe\n"
    assert world.alice.admin("status", json=True)["configuration"]["generation"] != before or before == first


def test_a_worker_that_dies_is_replaced(world):
    # Last of the file: living flows of that worker end.
    for role in ("policy", "router", "telemetry", "tunnel"):
        victim = world.alice.pids()[role][0]
        began = time.monotonic()
        subprocess.run(["kill", "-9", str(victim)], check=True)
        hermes.wait_for(lambda: victim not in world.alice.pids().get(role, [victim]) and
                        len(world.alice.pids().get(role, [])) >= 1, 5, message=f"a new {role}")
        world.alice.admin("wait", "ready", "--timeout", "10")
        assert time.monotonic() - began < 5
        assert video(world).text == "from Europe\n", role
