# SPDX-License-Identifier: Apache-2.0
"""Metrics, stats and access logs of a running node."""
import json
import os
import socket
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

import hermes
from hermes import curl, wait_for

SCHEMA = json.loads((hermes.ROOT / "packaging/schema/access-log.schema.json").read_text())


@pytest.fixture
def target(node, tmp_path, odd):
    ports = SimpleNamespace(http=hermes.free_port(), metrics=hermes.free_port(), odd=odd.port)
    logs = SimpleNamespace(json=tmp_path / "access.json", text=tmp_path / "access.log")
    config = {
        "node": {"name": "t", "domain": "example.net", "tunnel_workers": 2},
        "listeners": [{"name": "apps", "address": f"127.0.0.1:{ports.http}", "accept": "http",
                       "add_headers": {"user": "alice"}}],
        "clusters": [{"name": "origin", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]}],
        "policies": [{"name": "no-secrets", "match": {"path": "/secret/"}, "default": "deny"}],
        "routes": [{"name": "all-odd", "match": {}, "cluster": "origin"}],
        "telemetry": {"metrics": {"address": f"127.0.0.1:{ports.metrics}"},
                      "access_log": [{"to": str(logs.json), "format": "json"}, {"to": str(logs.text), "format": "text"}]},
    }
    return SimpleNamespace(node=node("t", config), config=config, logs=logs, **vars(ports))


def ask(target, path="/echo", *args):
    return curl(f"http://origin{path}", *args, proxy=f"127.0.0.1:{target.http}")


def scrape(target):
    """{(sample name, frozenset of labels): value}, by the strict parser."""
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    answer = curl(f"http://127.0.0.1:{target.metrics}/metrics", "-H",
                  "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    return {(s.name, frozenset(s.labels.items())): s.value
            for family in parser.text_string_to_metric_families(answer.text) for s in family.samples}


def value(samples, name, **labels):
    return samples.get((name, frozenset(labels.items())), 0)


def records(target, n, path=None):
    """Waits for n records in the JSON log."""
    def read():
        file = Path(path or target.logs.json)
        lines = file.read_text().splitlines() if file.exists() else []
        return lines if len(lines) >= n else None
    return [json.loads(line) for line in wait_for(read, message=f"{n} records")]


def test_counters(target):
    for _ in range(5):
        assert ask(target).status == 200
    assert ask(target, "/status/404").status == 404
    samples = wait_for(lambda: (s := scrape(target)) and value(s, "hermes_listener_flows_total", listener="apps") == 6 and s)
    assert value(samples, "hermes_listener_responses_total", listener="apps", code="2xx") == 5
    assert value(samples, "hermes_listener_responses_total", listener="apps", code="4xx") == 1
    assert value(samples, "hermes_cluster_flows_total", cluster="origin") == 6
    assert value(samples, "hermes_route_flows_total", route='all-odd') == 6
    assert value(samples, "hermes_listener_sent_bytes_total", listener="apps") > 500
    assert value(samples, "hermes_route_flow_duration_seconds_count", route='all-odd') == 6
    assert value(samples, "hermes_configuration_generation") >= 1
    assert value(samples, "hermes_worker_up", worker="tunnel-1") == 1
    assert value(samples, "hermes_listener_open_flows", listener="apps") == 0
    asked = sum(v for (name, _), v in samples.items() if name == "hermes_worker_questions_total")
    assert asked >= 1


def test_pages(target):
    base = f"http://127.0.0.1:{target.metrics}"
    assert curl(base + "/health").status == 200
    assert curl(base + "/nothing").status == 404
    assert curl(base + "/metrics", "-X", "POST", "-d", "x").status in (400, 405)
    plain = curl(base + "/metrics", "-H", "Accept: text/plain")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4") and "# EOF" not in plain.text
    head = curl(base + "/metrics", "-I")
    assert head.status == 200 and int(head.headers["content-length"]) > 1000


def test_stats_verb(target):
    ask(target)
    def found():
        rows = target.node.admin("stats", "listener_flows", json=True)
        rows = rows if isinstance(rows, list) else next(v for v in rows.values() if isinstance(v, list))
        return [r for r in rows if r["labels"].get("listener") == "apps" and r["value"] == 1]
    wait_for(found)
    assert "hermes_listener_flows_total" in target.node.admin("stats", "listener_flows")


def test_restarted_worker_does_not_count_backwards(target):
    for _ in range(8):
        assert ask(target).status == 200
    before = wait_for(lambda: (s := scrape(target)) and value(s, "hermes_listener_flows_total", listener="apps") == 8 and s)
    assert before
    old = target.node.pids()["tunnel"]
    os.kill(old[0], signal.SIGKILL)
    wait_for(lambda: len(target.node.pids().get("tunnel", [])) == 2 and target.node.pids()["tunnel"] != old)
    target.node.admin("wait", "ready", "--timeout", "20")
    now = value(scrape(target), "hermes_listener_flows_total", listener="apps")
    assert now == 8, now
    assert ask(target).status == 200
    wait_for(lambda: value(scrape(target), "hermes_listener_flows_total", listener="apps") == 9)
    starts = scrape(target)
    assert sum(v for (name, _), v in starts.items() if name == "hermes_worker_starts_total") > \
        sum(v for (name, _), v in before.items() if name == "hermes_worker_starts_total")


def test_json_records_meet_their_schema(target):
    ask(target, "/echo?a=\"b\"", "-A", "x")
    ask(target, "/secret/x")
    ask(target, "/reset-first")
    got = records(target, 3)
    for record in got:
        jsonschema.validate(record, SCHEMA)
    # each tunnel worker sends its own
    first, denied, broken = (next(r for r in got if r["path"].startswith(path)) for path in ("/echo", "/secret", "/reset"))
    assert first["status"] == 200 and first["user"] == "alice" and first["route"] == 'all-odd' and first["result"] == "ok"
    assert first["cluster"] == "origin" and first["next_hop"].endswith(str(target.odd)) and first["bytes_out"] > 50
    assert first["method"] == "GET" and first["authority"] == "origin" and first["listener"] == "apps" and first["in"] == "h1"
    assert 0 < first["first_us"] <= first["total_us"] < 60_000_000
    assert abs(time.time() - time.mktime(time.strptime(first["time"][:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone) < 60
    assert denied["status"] == 403 and denied["policies"] == ["no-secrets"] and denied["result"] == "http_request_denied"
    assert broken["status"] == 502 and broken["result"] not in ("ok", "")


def test_text_records(target):
    ask(target)
    line = wait_for(lambda: target.logs.text.exists() and target.logs.text.read_text())
    assert "event=end" in line and "user=alice" in line and 'route=all-odd' in line and "result=ok" in line


def test_control_characters_never_reach_the_log(target):
    """An authority or path cannot carry them, but what does get through is escaped."""
    ask(target, "/echo/%1b[31m", "-H", "user-agent: \x1b[0m")
    with socket.create_connection(("127.0.0.1", target.http)) as s:
        s.sendall(b"GET http://origin/\xc2\x9b31m\xe2\x80\xae HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n")
        while s.recv(65536):
            pass
    ask(target)
    records(target, 1)
    for file in (target.logs.json, target.logs.text, target.node.log_file):
        for c in file.read_text(errors="strict"):
            assert c == "\n" or (c >= " " and not "\x7f" <= c < "\xa0" and c != "\u202e"), ascii(c)


def test_rotation(target):
    ask(target)
    records(target, 1)
    target.logs.json.rename(str(target.logs.json) + ".1")
    target.node.reload()
    ask(target)
    got = records(target, 1)
    assert len(got) == 1 and got[0]["status"] == 200
    assert len(records(target, 1, str(target.logs.json) + ".1")) == 1


def test_full_disk_is_counted_and_harms_nobody(node, tmp_path, odd):
    ports = SimpleNamespace(http=hermes.free_port(), metrics=hermes.free_port())
    n = node("full", {
        "node": {"name": "full", "domain": "example.net", "tunnel_workers": 1},
        "listeners": [{"name": "apps", "address": f"127.0.0.1:{ports.http}", "accept": "http"}],
        "clusters": [{"name": "origin", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]}],
        "routes": [{"match": {}, "cluster": "origin"}],
        "telemetry": {"metrics": {"address": f"127.0.0.1:{ports.metrics}"}, "access_log": [{"to": "/dev/full"}]}})
    target = SimpleNamespace(**vars(ports))
    for _ in range(3):
        assert ask(target).status == 200
    wait_for(lambda: value(scrape(target), "hermes_access_log_dropped_records_total", log="/dev/full", reason="error") == 3)
    n.wait_log("access log loses records")


def test_metrics_listener_can_move_and_go(target):
    moved = hermes.free_port()
    config = {**target.config, "telemetry": {**target.config["telemetry"], "metrics": {"address": f"127.0.0.1:{moved}"}}}
    target.node.reload(config)
    wait_for(lambda: curl(f"http://127.0.0.1:{moved}/health").status == 200)
    assert curl(f"http://127.0.0.1:{target.metrics}/health").exit == 7
    config["telemetry"] = {"access_log": []}
    target.node.reload(config)
    assert curl(f"http://127.0.0.1:{moved}/health").exit == 7
    assert ask(target).status == 200


def test_log_that_cannot_be_opened_is_refused(target, tmp_path):
    bad = {**target.config, "telemetry": {"access_log": [{"to": str(tmp_path / "no/such/folder/log")}]}}
    done = target.node.reload(bad, check=False)
    assert done.returncode == 1 and "no/such/folder" in done.stderr + done.stdout, done
    assert ask(target).status == 200
    records(target, 1)


def test_telemetry_is_replaced(target):
    ask(target)
    records(target, 1)      # what is on its way to a telemetry that is killed is lost with it
    old = target.node.pids()["telemetry"]
    os.kill(old[0], signal.SIGKILL)
    wait_for(lambda: target.node.pids().get("telemetry") not in (None, [], old))
    target.node.admin("wait", "ready", "--timeout", "20")
    assert ask(target).status == 200
    # the workers' counters live on in their regions
    wait_for(lambda: value(scrape(target), "hermes_listener_flows_total", listener="apps") == 2, timeout=15)
    records(target, 2)
