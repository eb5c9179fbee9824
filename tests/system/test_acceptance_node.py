# SPDX-License-Identifier: Apache-2.0
"""One node as its operator meets it: addresses of every family, no privilege, logs, timeouts, and errors that say why."""
import json
import os
import re
import socket
import subprocess
import time

import pytest

import hermes
import servers
from hermes import curl, wait_for


def config(port, *clusters, routes=None, listeners=(), **more):
    return {"node": {"name": "one", "domain": "example.net", "tunnel_workers": 1, "drain_timeout": "1s"},
            "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"}, *listeners],
            "clusters": list(clusters), "routes": routes or [{"match": {}, "cluster": clusters[0]["name"]}], **more}


def web(port, **more):
    return {"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{port}"], **more}


# --- addresses -----------------------------------------------------------------------------------------------------------

def test_ipv6_all_the_way(node, certs, tmp_path):
    """Listener, overlay link, endpoint and target in IPv6; source prefixes match; Forwarded quotes it (RFC 7239 6)."""
    apps, overlay = hermes.free_port(), hermes.free_port()
    with servers.Odd("127.0.0.1") as odd, socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        six = taken.getsockname()[1]
        inner = hermes.ingress_config(overlay, certs)
        inner["listeners"][0]["address"] = f"[::1]:{overlay}"
        inner["clusters"].append(web(odd.port))
        inner["routes"] = [{"match": {"authority": "web"}, "cluster": "web"}, {"match": {}, "cluster": "anywhere"}]
        node("ingress", inner)
        outer = hermes.alice_config(apps, certs, overlay, policies=[
            {"name": "six", "default": "deny", "rules": [{"allow": {"source": ["::1/128"]}}]}])
        outer["listeners"][0]["address"] = f"[::1]:{apps}"
        outer["clusters"][0]["endpoints"] = [f"[::1]:{overlay}"]
        node("alice", outer)
        answer = curl("http://web/echo", proxy=f"http://[::1]:{apps}")
        assert answer.status == 200, answer
        assert [v for n, v in answer.json["headers"] if n.lower() == "forwarded"][0].startswith('for="[::1]:')
        taken.settimeout(10)
        with socket.create_connection(("::1", apps), 10) as s:
            s.sendall(f"CONNECT [::1]:{six} HTTP/1.1\r\nHost: [::1]:{six}\r\n\r\n".encode())
            far, address = taken.accept()
            assert address[0] == "::1"
            far.sendall(b"by six")
            far.close()
            got = b""
            while (data := s.recv(1000)):
                got += data
            assert got.startswith(b"HTTP/1.1 200") and got.endswith(b"by six")


def test_unix_sockets_at_both_ends(node, odd, tmp_path):
    path = tmp_path / "apps.sock"
    port = hermes.free_port()
    node("one", config(port, web(odd.port), listeners=[{"name": "sock", "address": f"unix:{path}", "accept": "http",
                                                        "add_headers": {"user": "local"}}]))
    wait_for(path.exists)
    done = subprocess.run(["curl", "-sS", "--unix-socket", str(path), "http://web/echo"], capture_output=True, text=True, timeout=20)
    assert ["user", "local"] in [[n.lower(), v] for n, v in json.loads(done.stdout)["headers"]], done


# --- privilege -----------------------------------------------------------------------------------------------------------

@pytest.mark.skipif(os.getuid() != 0, reason="starts as root and gives it up")
def test_an_ordinary_user_runs_two_nodes(node, certs, odd, tmp_path):
    """Everything of the main job without privilege: workers run as the user, traffic flows, a change is taken."""
    apps, overlay = hermes.free_port(), hermes.free_port()
    wrap = lambda line: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *line]
    inner = hermes.ingress_config(overlay, certs, clusters=[web(odd.port)], routes=[{"match": {}, "cluster": "web"}])
    log = tmp_path / "alice" / "access.log"
    outer = hermes.alice_config(apps, certs, overlay, telemetry={"access_log": [{"to": str(log)}]})
    nodes = [node(name, made, wrap=wrap, start=False) for name, made in (("ingress", inner), ("alice", outer))]
    for made in nodes:
        subprocess.run(["chown", "-R", "65534:65534", str(made.folder)], check=True)
    for key in certs.folder.glob("*.key"):
        key.chmod(0o644)
    for made in nodes:
        made.start()
        assert made.admin("status", json=True)["privileged"] is False
        assert {os.stat(f"/proc/{pid}").st_uid for pids in made.pids().values() for pid in pids} == {65534}
    assert curl("http://anything/echo", proxy=f"127.0.0.1:{apps}").status == 200
    wait_for(lambda: log.exists() and "status=200" in log.read_text(), message="its access log")
    nodes[1].reload({**outer, "policies": [{"name": "no"}]})
    assert curl("http://anything/echo", proxy=f"127.0.0.1:{apps}").status == 403


# --- logs ----------------------------------------------------------------------------------------------------------------

def test_access_log_of_start_and_end(node, odd, tmp_path):
    """start: true writes one record when the flow goes on its way, with its route; the other log has ends only."""
    port, both, ends = hermes.free_port(), tmp_path / "both.log", tmp_path / "ends.log"
    node("one", config(port, web(odd.port), telemetry={"access_log": [{"to": str(both), "format": "json", "start": True},
                                                                     {"to": str(ends), "format": "json"},
                                                                     {"to": "stderr", "format": "text"}]}))
    curling = subprocess.Popen(["curl", "-sS", "-x", f"127.0.0.1:{port}", "http://web/slow?ms=1500&n=1"], stdout=subprocess.PIPE)
    record = json.loads(wait_for(lambda: both.exists() and both.read_text()))
    assert curling.poll() is None, "the record of its start comes while it runs"
    assert (record["event"], record["route"], record["cluster"], record["authority"]) == ("start", "routes[0]", "web", "web")
    curling.communicate(timeout=20)
    records = wait_for(lambda: (lines := both.read_text().splitlines()) and len(lines) == 2 and [json.loads(l) for l in lines])
    assert [r["event"] for r in records] == ["start", "end"] and records[0]["id"] == records[1]["id"]
    assert records[1]["time"] > records[0]["time"] and records[1]["total_us"] >= 1_500_000
    assert [json.loads(line)["event"] for line in ends.read_text().splitlines()] == ["end"]


def test_stderr_log_and_journal(node, odd):
    port = hermes.free_port()
    n = node("one", config(port, web(odd.port), telemetry={"access_log": [{"to": "stderr"}]}))
    assert curl("http://web/status/404?findme", proxy=f"127.0.0.1:{port}").status == 404
    n.wait_log(r"event=end .*findme.* status=404|event=end .*status=404")
    refused = n.reload(config(port, web(odd.port), telemetry={"access_log": [{"to": "journald"}]}), check=False)
    assert refused.returncode == 1 and "journal" in refused.stderr + refused.stdout, refused
    assert curl("http://web/status/200", proxy=f"127.0.0.1:{port}").status == 200


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a folder of its own over /run")
def test_journald(node, odd, tmp_path):
    """Under systemd: log lines with MESSAGE_ID and HERMES_ fields, and access records, in the journal's own protocol."""
    folder = tmp_path / "journal"
    folder.mkdir()
    folder.chmod(0o755)
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind(str(folder / "socket"))
    os.chmod(folder / "socket", 0o666)
    journal.settimeout(10)
    port = hermes.free_port()
    script = ("mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind \"$0\" /run/systemd/journal && "
              "JOURNAL_STREAM=$(stat -Lc %d:%i /dev/stderr) exec \"$@\"")
    n = node("one", config(port, web(odd.port), telemetry={"access_log": [{"to": "journald"}]}),
             wrap=lambda line: ["unshare", "-m", "sh", "-c", script, str(folder), *line])
    assert curl("http://web/status/404?in-the-journal", proxy=f"127.0.0.1:{port}").status == 404
    entries = [journal.recv(65536)]
    while b"in-the-journal" not in entries[-1]:
        entries.append(journal.recv(65536))

    def field(entry, name):     # NAME=VALUE, or NAME, a length of eight bytes, VALUE
        found = re.search(rb"(?:^|\n)%s(?:=|\n.{8})(.*?)\n" % name, entry, re.S)
        return found and found.group(1).decode()
    assert (field(entries[-1], b"HERMES_STATUS"), field(entries[-1], b"HERMES_ROUTE")) == ("404", "routes[0]"), entries[-1]
    started = next(e for e in entries if field(e, b"HERMES_EVENT") == "worker started")
    assert re.fullmatch("[0-9a-f]{32}", field(started, b"MESSAGE_ID")) and field(started, b"PRIORITY") == "6", started
    assert n.running()
    journal.close()


def test_log_as_json(node, odd):
    port = hermes.free_port()
    n = node("one", config(port, web(odd.port)), env={"HERMES_LOG_FORMAT": "json"})
    assert curl("http://web/", proxy=f"127.0.0.1:{port}").status == 200
    lines = [json.loads(line) for line in n.log().splitlines() if not line.startswith("hermes")]
    assert len(lines) > 5 and all({"time", "level"} <= set(line) for line in lines), lines[:2]


def test_log_level(node, odd):
    port = hermes.free_port()
    n = node("one", config(port, web(odd.port)))
    curl("http://web/", proxy=f"127.0.0.1:{port}")
    assert " debug " not in n.log()
    n.admin("log", "level", "debug")
    curl("http://web/", proxy=f"127.0.0.1:{port}")
    n.wait_log(r" debug tunnel")


# --- time ----------------------------------------------------------------------------------------------------------------

def test_request_timeout(node, odd):
    port = hermes.free_port()
    node("one", config(port, web(odd.port), routes=[{"match": {}, "cluster": "web", "timeout": {"request": "500ms"}}]))
    at = f"127.0.0.1:{port}"
    answer = curl("http://web/slow?ms=5000", proxy=at)
    assert answer.status == 504 and "http_response_timeout" in answer.headers["proxy-status"], answer
    cut = curl("http://web/slow?ms=0&gap=200&n=50", proxy=at)
    assert cut.status == 200 and cut.exit in (18, 56) and b"line 0" in cut.body, cut
    assert curl("http://web/echo", proxy=at).status == 200


def test_idle_timeout(node, odd):
    """Of a request that nothing answers, and of a tunnel on which nothing moves; what moves lives on."""
    port = hermes.free_port()
    with servers.TcpEcho() as echo:
        node("one", config(port, web(odd.port), {"name": "echo", "carry": "tcp", "endpoints": [f"127.0.0.1:{echo.port}"]},
                           routes=[{"match": {"method": "CONNECT"}, "cluster": "echo", "timeout": {"idle": "1s"}},
                                   {"match": {}, "cluster": "web", "timeout": {"idle": "500ms"}}]))
        at = f"127.0.0.1:{port}"
        answer = curl("http://web/slow?ms=5000", proxy=at)
        assert answer.status == 504, answer
        assert curl("http://web/slow?ms=0&gap=200&n=6", proxy=at).exit == 0
        with socket.create_connection(("127.0.0.1", port), 10) as s:
            s.sendall(b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n")
            assert b" 200 " in s.recv(1000)
            for _ in range(4):
                time.sleep(0.5)
                s.sendall(b"x")
                assert s.recv(10) == b"x"
            s.settimeout(10)
            try:
                assert s.recv(10) == b""
            except ConnectionResetError:
                pass


# --- errors say why ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("status, token, make", [
    (502, "connection_refused", lambda e: web(hermes.free_port())),
    (502, "dns_error", lambda e: web(1, endpoints=["no-such-name.invalid:80"])),
    (403, "destination_ip_prohibited", lambda e: {"name": "web", "carry": "h1", "endpoints": "target"}),
    (502, "http_response_incomplete|connection_terminated", lambda e: web(e["odd"], path="/reset-first")),
    (502, "http_protocol_error|http_response_header", lambda e: web(e["odd"], path="/bad/garbage")),
    (502, "tls_protocol_error|tls_alert_received|connection_terminated", lambda e: web(e["odd"], tls={"identity": False, "server_name": "x.example"})),
    (502, "tls_certificate_error", lambda e: web(e["tls"], tls={"identity": False, "server_name": "other.example"})),
    (404, "destination_not_found", "no route"),
    (403, "http_request_denied", "policy"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_errors_of_our_own(node, odd, certs, status, token, make, tmp_path):
    """Each says in Proxy-Status (RFC 9209) which node, what and why, in HTTP/1.1, and its record names the same."""
    port, log = hermes.free_port(), tmp_path / "access.log"
    crt, key = certs.server("else", "DNS:elsewhere.example")
    with servers.Odd(tls=(crt, key)) as secure:
        env = {"odd": odd.port, "tls": secure.port}
        cluster = make(env) if callable(make) else web(odd.port)
        path = cluster.pop("path", "/echo")
        document = config(port, cluster, telemetry={"access_log": [{"to": str(log), "format": "json"}]},
                          **({"identity": certs.identity("alice")} if cluster.get("tls") else {}))
        if make == "no route":
            document["routes"] = []
        if make == "policy":
            document["policies"] = [{"name": "closed"}]
        name = "127.0.0.1" if cluster["endpoints"] == "target" else "web"
        node("one", document)
        answer = curl(f"http://{name}{path}", proxy=f"127.0.0.1:{port}")
        assert answer.status == status, answer
        shown = answer.headers["proxy-status"]
        assert re.match(r"one(\.example\.net)?; *", shown) and re.search(rf"error=({token})(;|$)", shown), shown
        assert answer.body and "via" in answer.headers or answer.headers["content-type"].startswith("text/plain")
        record = json.loads(wait_for(lambda: log.exists() and log.read_text()))
        assert re.fullmatch(token, record["result"]) and record["status"] == status, record


def test_error_of_the_far_node_comes_through(node, certs, tmp_path):
    """alice adds herself to Via and leaves the answer of ingress alone: both its status and its Proxy-Status."""
    apps, overlay = hermes.free_port(), hermes.free_port()
    node("ingress", hermes.ingress_config(overlay, certs))
    node("alice", hermes.alice_config(apps, certs, overlay))
    gone = hermes.free_port()
    answer = curl(f"http://127.0.0.1:{gone}/", proxy=f"127.0.0.1:{apps}")
    assert answer.status == 502 and answer.headers["proxy-status"].startswith("ingress"), answer
    assert "error=connection_refused" in answer.headers["proxy-status"]
    tunnel = curl(f"http://127.0.0.1:{gone}/", "-p", proxy=f"127.0.0.1:{apps}")
    assert tunnel.exit == 56 and " 502 " in tunnel.blocks[0] and "ingress" in tunnel.blocks[0], tunnel
