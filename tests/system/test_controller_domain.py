# SPDX-License-Identifier: Apache-2.0
"""A domain's document reaches its nodes: dry run, versions, rollouts in stages that stop, maintenance, objectives."""
import http.client
import json
import os
import re
import signal
import socket
import threading
import time

import jsonschema
import pytest

import hermes
from backends import Backend
from domains import Machine, online

SCHEMA = json.loads((hermes.ROOT / "packaging/schema/controller.json").read_text())
REPORT = {"control": {"report": "200ms"}}


class DelayedLink:
    """A TCP relay whose delay (each way) is set while it runs."""

    def __init__(self, port):
        self.target, self.delay, self.port = port, 0.0, hermes.free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                a, _ = self.listener.accept()
                b = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            for s in (a, b):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for x, y in ((a, b), (b, a)):
                threading.Thread(target=self._pump, args=(x, y), daemon=True).start()

    def _pump(self, x, y):
        try:
            while data := x.recv(65536):
                time.sleep(self.delay)
                y.sendall(data)
        except OSError:
            pass
        for s in (x, y):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


class Domain:
    """A controller, nodes alice (where users enter), bob and carol (overlay listeners), and the document that joins them."""

    def __init__(self, controller, nodes):
        self.c, self.nodes = controller, nodes
        self.ports = {name: hermes.free_port() for name in ("apps", "bob", "carol")}
        self.backends = {name: Backend(i) for i, name in enumerate(("bob", "carol"))}
        self.links = {name: DelayedLink(self.ports[name]) for name in ("bob", "carol")}

    def document(self, alice=None, **more):
        def exit_(name):
            return {"name": name, "address": f"127.0.0.1:{self.links[name].port}", "groups": ["exits"], "config": {
                "listeners": [{"name": "from-nodes", "address": f"127.0.0.1:{self.ports[name]}", "accept": "overlay"}],
                "clusters": [{"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{self.backends[name].port}"]}],
                "routes": [{"match": {"authority": "VIDEO"}, "cluster": "web"}]}}
        return {
            "domain": "example.net", "groups": [{"name": "exits"}],
            "nodes": [{"name": "alice", "config": {
                "listeners": [{"name": "apps", "address": f"127.0.0.1:{self.ports['apps']}", "accept": "http",
                               "add_headers": {"user": "ann"}}], **(alice or {})}},
                      exit_("bob"), exit_("carol")],
            "users": [{"name": "ann", "nodes": ["alice"], "address_space": {"names": {"VIDEO": {"cluster": "exits"}}}}],
            "clusters": [{"name": "exits", "carry": "h2", "endpoints": [{"node": "bob"}, {"node": "carol"}]},
                         {"name": "by-bob", "carry": "h2", "endpoints": [{"node": "bob"}]},
                         {"name": "by-carol", "carry": "h2", "endpoints": [{"node": "carol"}]}],
            **more}

    def ask(self, method, path, body=None, kind="application/json", spec=None, status=200):
        """The answer of the interface itself, checked against the published schema. spec: the path as the schema has it."""
        conn = UnixConnection(self.c.folder / "run/controller.sock")
        data = None if body is None else body if isinstance(body, str) else json.dumps(body)
        conn.request(method, path, data, {"Host": "controller", "Content-Type": kind} if data is not None else {"Host": "controller"})
        answer = conn.getresponse()
        got = json.loads(answer.read() or "null")
        assert answer.status == status, got
        spec = f"{method} {spec or path.split('?')[0]}"
        schema = SCHEMA["paths"][spec]
        check(schema["answer"] if status < 300 else {"$ref": "#/definitions/error"}, got)
        if status < 300 and body is not None and "request" in schema:
            check(schema["request"], body)
        return got

    def put(self, document, query="", status=200):
        return self.ask("PUT", "/v1/document" + query, json.dumps(document), "application/yaml", status=status)

    def apply(self, document, query="", state="done"):
        """Rolled out, to that state."""
        answer = self.put(document, query)
        return answer, self.state(state, answer["version"])

    def rollout(self):
        return self.ask("GET", "/v1/rollout")

    def state(self, wanted, version=None, timeout=30):
        def reached():
            r = self.rollout()
            return r["state"] == wanted and (version is None or r["version"] == version) and r
        try:
            return hermes.wait_for(reached, timeout, message=f"rollout {wanted}")
        except AssertionError:
            print(json.dumps(self.rollout(), indent=1))
            raise

    def config(self, node):
        return self.ask("GET", f"/v1/nodes/{node}/config", spec="/v1/nodes/NAME/config")

    def runs(self, node):
        """Whether the node runs what it is to run."""
        n = self.ask("GET", f"/v1/nodes/{node}", spec="/v1/nodes/NAME")
        return bool(n["runs"] and n["wants"] and n["runs"]["number"] == n["wants"]["number"] and n["runs"]["state"] == "accepted")

    def settle(self, *names):
        for name in names or ("alice", "bob", "carol"):
            hermes.wait_for(lambda: self.runs(name), 20, message=f"{name} in line")

    def video(self):
        """Which exit serves VIDEO to the user; None: nobody."""
        answer = hermes.curl("http://VIDEO/who", proxy=f"127.0.0.1:{self.ports['apps']}")
        return ("bob", "carol")[int(answer.text)] if answer.status == 200 else None


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("controller", timeout=60)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def check(schema, value):
    jsonschema.Draft7Validator({**schema, "definitions": SCHEMA["definitions"]}).validate(value)


@pytest.fixture(scope="module")
def d(session_tmp):
    folder = session_tmp / "domain"
    folder.mkdir(mode=0o755)
    with Machine("c1", folder, extra=REPORT).init(hermes.free_port()) as c:
        online(c, "c1")
        with (Machine("alice", folder, extra=REPORT).enroll(c) as alice, Machine("bob", folder, extra=REPORT).enroll(c) as bob,
              Machine("carol", folder, extra=REPORT).enroll(c) as carol):
            domain = Domain(c, {"alice": alice, "bob": bob, "carol": carol})
            for name in domain.nodes:
                online(c, name)
            yield domain


@pytest.fixture(autouse=True)
def shaped(d, request):
    """Whatever test comes first, the domain has its document."""
    if request.node.name != "test_first_document" and not d.ask("GET", "/v1/versions")["versions"]:
        d.apply(d.document())
        d.settle()


def test_first_document(d):
    assert d.ask("GET", "/v1/document", status=404)["error"]["code"] == "no-document"
    assert d.rollout() == {"state": None}
    answer = d.put(d.document(), "?dry_run=1")
    assert answer["version"] is None and {n["name"]: n["change"] for n in answer["nodes"]} == dict.fromkeys(d.nodes, "new")
    assert f"127.0.0.1:{d.ports['apps']}" in answer["nodes"][0]["diff"]
    answer, rollout = d.apply(d.document(), "?comment=the%20first")
    assert answer["version"] == 1 and rollout["progress"]["accepted"] == 3
    d.settle()
    assert {d.video() for _ in range(10)} == {"bob", "carol"}
    assert d.ask("GET", "/v1/status")["document"]["comment"] == "the first"
    assert "by-bob" not in d.config("alice")["document"]


def test_versions(d):
    first = d.ask("GET", "/v1/document")["version"]
    d.apply(d.document(alice={"log": {"level": "debug"}}))
    diff = d.c.admin("controller", "diff", first)
    assert '+' in diff and "debug" in diff
    d.settle("alice")
    assert "debug" in d.nodes["alice"].admin("config", "show")
    answer = d.ask("POST", "/v1/rollback", {"version": first})
    assert answer["version"] == first + 2
    d.state("done", answer["version"])
    assert "debug" not in d.config("alice")["document"]
    history = d.ask("GET", "/v1/versions")["versions"]
    assert [h["version"] for h in history] == list(range(first + 2, 0, -1)) and history[0]["comment"] == f"back to version {first}"
    d.ask("GET", f"/v1/versions/{first}", spec="/v1/versions/VERSION")
    assert d.put(d.document(), f"?base={first}", status=409)["error"]["code"] == "conflict"


def test_errors(d):
    broken = "domain: example.net\nnodes:\n- {name: alice, config: {listeners: [{name: a, adress: ':1'}]}}\n"
    error = d.ask("PUT", "/v1/document?name=my.yaml", broken, "application/yaml", status=422)["error"]
    assert error["details"][0].startswith('my.yaml:3:48: node alice: listeners[0].adress: unknown key in listener; did you mean "address"?')
    done = d.c.admin("controller", "document", "check", "-", stdin=broken, check=False)
    assert done.returncode == 1 and "adress" in done.stderr
    d.ask("PUT", "/v1/document", {"domain": "example.net"}, status=415)
    d.ask("POST", "/v1/rollback", {"version": 4711}, status=404)
    d.ask("POST", "/v1/rollout", {"action": "resume"}, status=409)
    d.ask("POST", "/v1/rollout", {"action": "dance"}, status=400)
    d.ask("POST", "/v1/nodes/nobody/drain", spec="/v1/nodes/NAME/drain", status=404)
    d.ask("POST", "/v1/nodes/bob/scale", {"tunnel_workers": 1000}, spec="/v1/nodes/NAME/scale", status=400)
    d.ask("POST", "/v1/nodes/bob/roles", {"role": "tunnel", "on": False}, spec="/v1/nodes/NAME/roles", status=400)


def test_schema():
    """Every path of the interface is in the published schema, and no other."""
    found = set()
    for source in (hermes.ROOT / "workers/controller").glob("*.c"):
        for prefix, methods, what in re.findall(r'{"(/(?:v1/|metrics)[^"]*)", "([A-Z ]+)", API_\w+, \w+, ?(NULL|"\w+")}', source.read_text()):
            for method in methods.split():
                found.add(f"{method} {prefix.rstrip('/')}" + (f"/NAME/{what[1:-1]}" if what != "NULL" else ""))
    assert len(found) > 20
    members = re.compile(r"/(NAME|ID|VERSION)$")
    published = {members.sub("", p) for p in SCHEMA["paths"]}
    assert published == found
    jsonschema.Draft7Validator.check_schema({"definitions": SCHEMA["definitions"]})


def test_tokens_and_certificates(d):
    token = d.ask("POST", "/v1/tokens", {"node": "dave", "lifetime": 60}, status=201)
    assert token["id"] in [t["id"] for t in d.ask("GET", "/v1/tokens")["tokens"]]
    d.ask("DELETE", f"/v1/tokens/{token['id']}", spec="/v1/tokens/ID", status=204)
    assert d.ask("GET", "/v1/tokens")["tokens"] == []
    assert d.ask("POST", "/v1/nodes/carol/renew", spec="/v1/nodes/NAME/renew") == {"renews": True}
    assert {n["name"] for n in d.ask("GET", "/v1/nodes")["nodes"]} >= set(d.nodes)


def test_canary_refuses(d):
    """What the controller cannot know: the address is taken on that machine. The others never see it."""
    before = {name: d.config(name)["document"] for name in d.nodes}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bad = d.document(defaults={"listeners": [{"name": "more", "address": f"127.0.0.1:{taken.getsockname()[1]}", "accept": "socks5"}]},
                         rollout={"canary": ["bob"], "wait": "0s"})
        answer = d.put(bad)
        r = d.state("stopped", answer["version"])
        assert r["back"] and "bob" in r["reason"] and r["moved"] == 1
        hermes.wait_for(lambda: {name: d.config(name)["document"] for name in d.nodes} == before, 10, message="all as before")
    d.settle()
    assert d.video()


def test_stages(d):
    stages = {"canary": ["carol"], "steps": ["60%", "100%"], "wait": "300ms", "timeout": "20s"}
    answer, r = d.apply(d.document(defaults={"log": {"level": "warn"}}, rollout=stages))
    assert [(s["name"], s["nodes"]) for s in r["stages"]] == [("canary", 1), ("60%", 2), ("all", 3)]
    assert r["nodes"][0] == "carol"
    d.settle()
    # held until an operator says so
    answer = d.put(d.document(rollout={**stages, "wait": "1h"}))
    hermes.wait_for(lambda: d.rollout()["settled"], 20, message="canary settled")
    assert d.ask("POST", "/v1/rollout", {"action": "pause"})["state"] == "paused"
    assert "moved" in d.c.admin("controller", "rollout", "show")
    assert d.ask("POST", "/v1/rollout", {"action": "resume"})["state"] == "running"
    assert d.ask("POST", "/v1/rollout", {"action": "promote"})["moved"] == 2
    assert d.ask("POST", "/v1/rollout", {"action": "abort"})["back"]
    hermes.wait_for(lambda: all("level: warn" in d.config(n)["document"] for n in d.nodes), 10, message="all back")


def test_killed_in_the_middle(d):
    """The controller is killed while a rollout runs: it goes on where it was."""
    stages = {"canary": ["carol"], "steps": ["60%", "100%"], "wait": "2s", "timeout": "60s"}
    answer = d.put(d.document(defaults={"log": {"level": "info"}}, rollout=stages))
    hermes.wait_for(lambda: d.rollout()["settled"], 20, message="canary settled")
    os.kill(d.c.pids()["controller"][0], signal.SIGKILL)

    def back():
        try:
            return d.rollout()["version"] == answer["version"]
        except OSError:
            return False
    hermes.wait_for(back, 20, message="controller again")
    r = d.state("done", answer["version"], 60)
    assert r["moved"] == 3
    d.settle()


def test_maintenance(d):
    d.apply(d.document())
    d.settle()
    assert d.ask("POST", "/v1/nodes/bob/drain", spec="/v1/nodes/NAME/drain")["override"] == {"drained": True}
    hermes.wait_for(lambda: f"127.0.0.1:{d.links['bob'].port}" not in d.config("alice")["document"], 10, message="bob left out")
    d.settle("alice")
    assert {d.video() for _ in range(10)} == {"carol"}
    d.ask("POST", "/v1/nodes/bob/undrain", spec="/v1/nodes/NAME/undrain")
    hermes.wait_for(lambda: {d.video() for _ in range(10)} == {"bob", "carol"}, 10, message="bob in again")
    d.ask("POST", "/v1/nodes/alice/scale", {"tunnel_workers": 2}, spec="/v1/nodes/NAME/scale")
    d.ask("POST", "/v1/nodes/alice/roles", {"role": "telemetry", "on": False}, spec="/v1/nodes/NAME/roles")
    hermes.wait_for(lambda: "telemetry: off" in d.config("alice")["document"], 10, message="roles")
    d.settle("alice")
    pids = hermes.wait_for(lambda: (p := d.nodes["alice"].pids()) and len(p["tunnel"]) == 2 and "telemetry" not in p and p, 20,
                           message="two tunnel workers, no telemetry")
    assert pids
    d.c.admin("nodes", "scale", "alice", "0")
    d.ask("POST", "/v1/nodes/alice/roles", {"role": "telemetry", "on": None}, spec="/v1/nodes/NAME/roles")
    hermes.wait_for(lambda: "telemetry" in d.nodes["alice"].pids(), 20, message="telemetry again")


def test_objective(d):
    """The way gets slow: the user is moved to the other one, and stays there."""
    d.apply(d.document(objectives=[{
        "name": "video", "user": "ann", "service": "VIDEO:80", "method": "GET", "limit": "80ms", "for": "1s", "hold": "1h", "interval": "100ms",
        "ways": [{"cluster": "by-bob"}, {"cluster": "by-carol"}]}]))
    d.settle()

    def objective():
        return d.ask("GET", "/v1/objectives/video", spec="/v1/objectives/NAME")
    hermes.wait_for(lambda: objective()["state"] == "met" and all(w["known"] for w in objective()["ways"]), 30, message="measured")
    assert d.video() == "bob" and objective()["choice"] == "by-bob"
    d.links["bob"].delay = 0.1
    hermes.wait_for(lambda: objective()["choice"] == "by-carol", 40, message="moved")
    hermes.wait_for(lambda: d.video() == "carol", 10, message="served by the other")
    o = objective()
    assert o["from"] == "by-bob" and "by-bob takes" in o["reason"] and len(o["history"]) == 1
    assert d.ask("GET", "/v1/objectives")["objectives"][0]["name"] == "video"
    assert "by-carol" in d.c.admin("controller", "objectives", "list")
    d.links["bob"].delay = 0
    d.links["carol"].delay = 0.1
    hermes.wait_for(lambda: objective()["state"] == "violated", 30, message="violated")
    time.sleep(2)
    assert objective()["choice"] == "by-carol"     # held
    d.links["carol"].delay = 0


def test_another_node_answers(d):
    """A cluster that names a node believes that node's certificate only, whoever has its address."""
    space = [{"name": "ann", "nodes": ["alice"], "address_space": {"names": {"VIDEO": {"cluster": "by-bob"}}}}]
    d.apply(d.document(users=space))
    d.settle()
    hermes.wait_for(lambda: d.video() == "bob", 10, message="bob serves")
    document = d.document(users=space)
    document["nodes"][1]["address"] = f"127.0.0.1:{d.links['carol'].port}"
    d.apply(document)
    d.settle()
    hermes.wait_for(lambda: d.video() is None, 10, message="nobody serves")


def test_removed_node(d):
    """A node that the document does not name any more has nothing."""
    document = d.document()
    document["nodes"] = [n for n in document["nodes"] if n["name"] != "carol"]
    document["clusters"] = [c for c in document["clusters"] if c["name"] != "by-carol"]
    document["clusters"][0]["endpoints"] = [{"node": "bob"}]
    answer = d.put(document, "?dry_run=1")
    assert {n["name"]: n["change"] for n in answer["nodes"]}["carol"] == "removed"
    d.apply(document)
    d.settle()
    assert d.config("carol")["document"] == "{}\n"
    assert d.video() == "bob"
