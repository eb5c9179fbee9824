# SPDX-License-Identifier: Apache-2.0
"""Next hops: which endpoint is chosen, what happens when it fails, and how it comes back."""
import hashlib
import os
import threading
from collections import Counter

import pytest

import hermes
from backends import Backend
from hermes import curl, wait_for


@pytest.fixture
def backends():
    made = []

    def make(n):
        made.extend(Backend(i) for i in range(n))
        return made
    yield make
    for backend in made:
        backend.stop()


@pytest.fixture
def proxy(node):
    """proxy(clusters, routes): a node with one tunnel worker, so that counts are exact; .at is its listener."""
    def make(clusters, routes=None, **more):
        port = hermes.free_port()
        made = node("proxy", {
            "node": {"name": "proxy", "domain": "example.net", "tunnel_workers": 1},
            "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"}],
            "clusters": clusters, "routes": routes or [{"match": {}, "cluster": clusters[0]["name"]}], **more})
        made.at = f"127.0.0.1:{port}"
        return made
    return make


def cluster(endpoints, carry="h1", **more):
    return {"name": "web", "carry": carry, "endpoints": endpoints, **more}


def ask(n, path="/who", *args, **options):
    return curl(f"http://web{path}", *args, proxy=n.at, **options)


def who(n, *args):
    answer = ask(n, "/who", *args)
    assert answer.status == 200, answer
    return int(answer.text)


def endpoints(n):
    return {e["endpoint"]: e for e in n.admin("clusters", "list", json=True)["clusters"]}


# --- choosing ----------------------------------------------------------------------------------------------------------------

def test_round_robin_by_weight(proxy, backends):
    a, b = backends(2)
    n = proxy([cluster([a.endpoint, {"address": b.endpoint, "weight": 3}])])
    assert Counter(who(n) for _ in range(24)) == {0: 6, 1: 18}


def test_least_request(proxy, backends):
    a, b = backends(2)
    a.delay = 6
    n = proxy([cluster([a.endpoint, b.endpoint], balance="least_request")])
    slow = [threading.Thread(target=ask, args=(n, "/sleep")) for _ in range(4)]
    for thread in slow:       # some of them hang on a; b answers at once
        thread.start()
    # those that b answered have ended, the others hang on a: no request is under way elsewhere
    wait_for(lambda: 0 < a.asked == sum(thread.is_alive() for thread in slow), message="a busy")
    assert {who(n) for _ in range(10)} == {1}
    for thread in slow:
        thread.join()


def test_hash(proxy, backends):
    made = backends(4)
    clusters = [cluster([b.endpoint for b in made], balance="hash", hash_header="x-user")]
    n = proxy(clusters)
    keys = [f"user-{i}" for i in range(16)]
    first = {k: who(n, "-H", f"X-User: {k}") for k in keys}
    assert len(set(first.values())) > 1
    assert {k: who(n, "-H", f"X-User: {k}") for k in keys} == first
    # without one endpoint, only its own keys move
    n.admin("clusters", "drain", "web", made[2].endpoint)
    wait_for(lambda: endpoints(n)[made[2].endpoint]["drained"], message="drained")
    after = {k: who(n, "-H", f"X-User: {k}") for k in keys}
    assert 2 not in after.values()
    assert {k: v for k, v in after.items() if first[k] != 2} == {k: v for k, v in first.items() if v != 2}


def test_drain_and_undrain(proxy, backends):
    a, b = backends(2)
    n = proxy([cluster([a.endpoint, b.endpoint])])
    assert {who(n) for _ in range(6)} == {0, 1}
    n.admin("clusters", "drain", "web", a.endpoint)
    assert endpoints(n)[a.endpoint]["drained"] is True
    assert {who(n) for _ in range(6)} == {1}
    n.admin("clusters", "drain", "web", b.endpoint)
    answer = ask(n)
    assert answer.status == 503 and "destination_unavailable" in answer.headers["proxy-status"], answer
    n.admin("clusters", "undrain", "web", a.endpoint)
    n.admin("clusters", "undrain", "web", b.endpoint)
    assert {who(n) for _ in range(6)} == {0, 1}


def test_unix_endpoint(proxy, tmp_path):
    import http.server
    import socketserver
    path = str(tmp_path / "web.sock")

    class Handler(http.server.BaseHTTPRequestHandler):
        def address_string(self):
            return "unix"

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"ok\n")

    with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
        os.chmod(path, 0o777)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        n = proxy([cluster([f"unix:{path}"])])
        answer = ask(n, "/")
        server.shutdown()
    assert answer.status == 200 and answer.text == "ok\n", answer


# --- failing -----------------------------------------------------------------------------------------------------------------

def test_connection_refused(proxy):
    dead = hermes.free_port()
    n = proxy([cluster([f"127.0.0.1:{dead}"])])
    answer = ask(n)
    assert answer.status == 502, answer
    status = answer.headers["proxy-status"]
    assert "connection_refused" in status and f"127.0.0.1:{dead}" in status and status.startswith("proxy"), status
    # the same through CONNECT
    answer = curl("https://web/", proxy=n.at)
    assert answer.exit != 0 and answer.status == 502 and "connection_refused" in answer.headers["proxy-status"], answer


def test_connect_timeout(proxy):
    import socket
    with socket.socket() as full:     # a backlog that is full takes no SYN any more
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        clients = [socket.socket() for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        n = proxy([cluster([f"127.0.0.1:{full.getsockname()[1]}"], connect_timeout="300ms")])
        answer = ask(n)
        assert answer.status == 504 and "connection_timeout" in answer.headers["proxy-status"], answer
        for client in clients:
            client.close()


def test_no_tls_at_the_endpoint(proxy, backends, certs):
    a, = backends(1)
    n = proxy([cluster([a.endpoint], tls={"authorities": [str(certs.ca)], "identity": False, "server_name": "localhost"})])
    answer = ask(n)
    assert answer.status == 502 and "tls_" in answer.headers["proxy-status"], answer


def test_certificate_of_another(proxy, web, certs):
    n = proxy([cluster([f"127.0.0.1:{web.tls_port}"], tls={"authorities": [str(certs.ca)], "identity": False,
                                                         "server_name": "other.example.com"})])
    answer = ask(n, "/")
    assert answer.status == 502 and "tls_certificate_error" in answer.headers["proxy-status"], answer


def test_https_and_http2_to_a_service(proxy, web, certs):
    tls = {"authorities": [str(certs.ca)], "identity": False, "server_name": "www.example.com"}
    for carry in ("h1", "h2"):
        n = proxy([cluster([f"127.0.0.1:{web.tls_port}"], carry=carry, tls=tls)])
        answer = ask(n, "/")
        assert answer.status == 200 and answer.text == web.text, answer
        n.stop()


def test_another_endpoint_after_a_refused_connection(proxy, backends):
    a, = backends(1)
    dead = f"127.0.0.1:{hermes.free_port()}"
    n = proxy([cluster([dead, a.endpoint], ejection={"failures": 0})],
              [{"match": {}, "cluster": "web", "retry": {"on": ["connect-failure"], "attempts": 2}}])
    assert [who(n) for _ in range(8)] == [0] * 8
    assert a.asked == 8


@pytest.mark.parametrize("how", ["reset", 502, 503, 504])
def test_body_is_replayed(proxy, backends, how):
    a, b = backends(2)
    body = os.urandom(40000)
    for backend in (a, b):
        backend.fail, backend.how = 1, how
    n = proxy([cluster([a.endpoint, b.endpoint], ejection={"failures": 0})],
              [{"match": {}, "cluster": "web", "retry": {"on": ["reset", "gateway-error"], "attempts": 3}}])
    file = n.folder / "body"
    file.write_bytes(body)
    answer = ask(n, "/count", "--data-binary", f"@{file}")
    assert answer.status == 200 and answer.text == f"2 {hashlib.sha256(body).hexdigest()}\n", answer
    assert a.asked + b.asked == 3      # both were tried before one was asked again


def test_upstream_status_reaches_the_client_after_the_last_try(proxy, backends):
    a, = backends(1)
    a.fail, a.how = 100, 503
    n = proxy([cluster([a.endpoint], ejection={"failures": 0})],
              [{"match": {}, "cluster": "web", "retry": {"on": ["gateway-error"], "attempts": 3}}])
    answer = ask(n, "/count")
    assert answer.status == 503 and answer.text == "not yet\n", answer
    assert a.asked == 3


def test_body_too_large_to_be_kept_is_not_replayed(proxy, backends):
    a, = backends(1)
    a.fail, a.how = 1, 503
    n = proxy([cluster([a.endpoint])],
              [{"match": {}, "cluster": "web", "retry": {"on": ["gateway-error"], "attempts": 3}}])
    file = n.folder / "body"
    file.write_bytes(os.urandom(3 << 20))
    answer = ask(n, "/count", "--data-binary", f"@{file}")
    assert answer.status == 503 and a.asked == 1, answer


def test_per_try_timeout(proxy, backends):
    a, b = backends(2)
    a.delay = 5
    n = proxy([cluster([a.endpoint, b.endpoint], ejection={"failures": 0})],
              [{"match": {}, "cluster": "web", "retry": {"on": ["reset"], "attempts": 2, "per_try_timeout": "300ms"}}])
    answers = [ask(n, "/sleep") for _ in range(4)]
    assert [(x.status, x.text) for x in answers] == [(200, "1\n")] * 4, answers
    assert a.asked >= 1


def test_per_try_timeout_of_the_last_try(proxy, backends):
    a, = backends(1)
    a.delay = 5
    n = proxy([cluster([a.endpoint])],
              [{"match": {}, "cluster": "web", "retry": {"on": ["reset"], "attempts": 2, "per_try_timeout": "200ms"}}])
    answer = ask(n, "/sleep")
    assert answer.status == 504 and "http_response_timeout" in answer.headers["proxy-status"], answer
    assert a.asked == 2


def test_idle_connection_that_the_server_closed(proxy, backends):
    """The next request goes on a new connection, also without any retry configured."""
    a, = backends(1)
    n = proxy([cluster([a.endpoint])])
    assert who(n) == 0
    port = a.port
    a.stop()
    again = Backend(7, port=port)
    try:
        assert [who(n) for _ in range(3)] == [7, 7, 7]
    finally:
        again.stop()


# --- health ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("workers", [1, 2])
def test_health_check_takes_out_and_brings_back(node, backends, workers):
    a, b = backends(2)
    port = hermes.free_port()
    n = node("proxy", {
        "node": {"name": "proxy", "tunnel_workers": workers},
        "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"}],
        "clusters": [cluster([a.endpoint, b.endpoint], health_check={
            "path": "/check", "interval": "200ms", "timeout": "1s", "healthy": 2, "unhealthy": 2})],
        "routes": [{"match": {}, "cluster": "web"}]})
    n.at = f"127.0.0.1:{port}"
    wait_for(lambda: a.checks > 2 and b.checks > 2, message="checks")
    assert {who(n) for _ in range(10)} == {0, 1}
    a.health = 503
    wait_for(lambda: endpoints(n)[a.endpoint]["health"] == "down" and endpoints(n)[a.endpoint]["down_at"] == workers,
             message="a down")
    assert "status 503" in endpoints(n)[a.endpoint]["reason"]
    assert {who(n) for _ in range(10)} == {1}
    a.health = 204
    wait_for(lambda: endpoints(n)[a.endpoint]["health"] == "up", message="a up")
    assert {who(n) for _ in range(20)} == {0, 1}


def test_health_check_of_a_dead_port(proxy, backends):
    a, = backends(1)
    dead = f"127.0.0.1:{hermes.free_port()}"
    n = proxy([cluster([a.endpoint, dead], health_check={"interval": "200ms", "unhealthy": 1})])
    wait_for(lambda: endpoints(n)[dead]["health"] == "down", message="down")
    assert "refused" in endpoints(n)[dead]["reason"]
    assert {who(n) for _ in range(6)} == {0}


@pytest.mark.parametrize("carry", ["h1", "h2"])
def test_health_check_over_tls(proxy, web, certs, carry):
    tls = {"authorities": [str(certs.ca)], "identity": False, "server_name": "www.example.com"}
    check = {"interval": "200ms", "unhealthy": 1, "healthy": 1, "authority": "www.example.com"}
    at = f"127.0.0.1:{web.tls_port}"
    n = proxy([{"name": name, "carry": carry, "endpoints": [at], "tls": {**tls, **more},
                "health_check": {**check, "path": path}}
               for name, path, more in (("good", "/", {}), ("lost", "/nope", {}), ("other", "/", {"server_name": "x.test"}))])

    def found():
        return {c["cluster"]: c for c in n.admin("clusters", "list", json=True)["clusters"]}
    wait_for(lambda: found()["lost"]["health"] == found()["other"]["health"] == "down", message="two down")
    assert found()["good"]["health"] == "up"
    assert "status 404" in found()["lost"]["reason"]
    assert "mismatch" in found()["other"]["reason"].lower()


def test_all_down_is_no_reason_to_refuse(proxy, backends):
    a, b = backends(2)
    a.health = b.health = 500
    n = proxy([cluster([a.endpoint, b.endpoint], health_check={"path": "/check", "interval": "200ms", "unhealthy": 1})])
    wait_for(lambda: all(e["health"] == "down" for e in endpoints(n).values()), message="both down")
    assert {who(n) for _ in range(6)} == {0, 1}


def test_ejection(proxy, backends):
    a, b = backends(2)
    n = proxy([cluster([a.endpoint, b.endpoint], ejection={"failures": 3, "time": "1500ms", "max_percent": 50})])
    b.status = 500
    statuses = Counter(ask(n).status for _ in range(20))
    assert statuses == {200: 17, 500: 3}
    n.wait_log(f"endpoint ejected .*{b.endpoint}")
    b.status = 200
    wait_for(lambda: who(n) == 1, message="b back")


def test_cluster_counters(proxy, backends):
    a, = backends(1)
    dead = f"127.0.0.1:{hermes.free_port()}"
    n = proxy([cluster([a.endpoint]), {"name": "gone", "carry": "h1", "endpoints": [dead]}],
              [{"match": {"path": "/gone"}, "cluster": "gone"}, {"match": {}, "cluster": "web"}])
    for _ in range(3):
        who(n)
    assert ask(n, "/gone").status == 502
    rows = [line.split() for line in n.admin("stats").splitlines()]
    assert value(rows, "hermes_cluster_connections_total", "cluster=web") == 1
    assert value(rows, "hermes_cluster_open_connections", "cluster=web") == 1
    assert value(rows, "hermes_cluster_flows_total", "cluster=web") == 3
    assert value(rows, "hermes_cluster_failures_total", "cluster=gone", "reason=connect") == 1
    assert value(rows, "hermes_cluster_connections_total", "cluster=gone") == 0


def value(rows, *words):
    return next(int(row[len(words)]) for row in rows if tuple(row[:len(words)]) == words)


# --- a change while flows run ------------------------------------------------------------------------------------------------

def test_endpoint_removed_while_it_answers(proxy, backends):
    a, b = backends(2)
    a.delay = 2
    n = proxy([cluster([a.endpoint])])
    answers = []
    slow = threading.Thread(target=lambda: answers.append(ask(n, "/sleep")))
    slow.start()
    wait_for(lambda: a.asked == 1, message="a busy")
    config = hermes._loads(n.config_file.read_text())
    config["clusters"][0]["endpoints"] = [b.endpoint]
    n.reload(config)
    assert who(n) == 1
    slow.join()
    assert answers[0].status == 200 and answers[0].text == "0\n", answers
