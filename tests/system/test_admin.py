# SPDX-License-Identifier: Apache-2.0
"""hermes-admin: every verb for people and for programs, who may do what, and what goes wrong."""
import json
import os
import re
import socket
import subprocess
from pathlib import Path

import jsonschema
import pytest

import hermes

SCHEMA = json.loads((hermes.ROOT / "packaging/schema/hermes-admin.schema.json").read_text())


def document(port, **more):
    return {"node": {"name": "alice", "domain": "example.net", "tunnel_workers": 1},
            "users": [{"name": "carol", "password": "$6$salt$SECRETSECRET"}],
            "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http",
                           "add_headers": {"user": "alice"}}],
            "clusters": [{"name": "web", "carry": "h1", "endpoints": ["127.0.0.1:9"]},
                         {"name": "anywhere", "carry": "tcp", "endpoints": "target", "allow_targets": ["loopback"]}],
            "routes": [{"name": "tunnels", "match": {"method": "CONNECT"}, "cluster": "anywhere"},
                       {"name": "org", "match": {"path": "/org/"}, "cluster": "web"}],
            "policies": [{"name": "video", "match": {"authority": "VIDEO"}, "default": "deny",
                          "rules": [{"allow": {"headers": {"token": "admin"}}, "add_headers": {"x-secure": "admin"}}]}],
            **more}


@pytest.fixture(scope="module")
def n(session_tmp):
    """One node for all that only look."""
    folder = session_tmp / "admin"
    folder.mkdir()
    made = hermes.Node("alice", document(hermes.free_port()), folder)
    yield made
    made.stop()


@pytest.fixture
def own(node):
    """A node of one's own, to change."""
    return node("alice", document(hermes.free_port()))


def check(verb, answer):
    jsonschema.Draft7Validator({"$ref": f"#/definitions/{verb.replace(' ', '%20')}",
                                "definitions": SCHEMA["definitions"]}).validate(answer)


def ask(n, *words, **options):
    """The JSON document of a verb (its first one or two words), checked against the published schema."""
    answer = n.admin(*words, json=True, **options)
    two = " ".join(map(str, words[:2]))
    check(two if two in SCHEMA["definitions"] else words[0], answer)
    return answer


@pytest.mark.parametrize("words", [
    ("status",), ("status", "--check", "live"), ("status", "--check", "ready"), ("wait", "ready"), ("workers", "list"),
    ("listeners", "list"), ("flows", "list"), ("clusters", "list"), ("clusters", "list", "web"), ("tunnels", "list"),
    ("route", "explain", "h:1"), ("policy", "explain", "http://VIDEO/"), ("config", "show"), ("config", "show", "1"),
    ("config", "show", "--origin"), ("config", "history"), ("config", "diff", "1"), ("stats",), ("stats", "worker"),
    ("log", "level"), ("bugreport",)])
def test_documents_fit_their_schema(n, words):
    ask(n, *words)
    table = n.admin(*words)
    assert table or words[0] == "wait" or words[1] == "diff"


def test_every_verb_of_the_help_has_a_schema(n):
    shown = re.findall(r"^  ([a-z]+(?: [a-z]+)?) ", n.admin("--help"), re.M)
    assert len(shown) > 20
    assert {v.strip() for v in shown} <= set(SCHEMA["definitions"])


def test_flows(n):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        proxy = json.loads(n.config_file.read_text())["listeners"][0]["address"].rsplit(":", 1)
        with socket.create_connection((proxy[0], int(proxy[1]))) as s:
            s.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            assert b" 200 " in s.recv(4096)
            flows = ask(n, "flows", "list")["flows"]
            assert len(flows) == 1 and flows[0]["user"] == "alice" and flows[0]["route"] == "tunnels"
            shown = ask(n, "flows", "show", flows[0]["id"])
            assert shown["authority"] == f"127.0.0.1:{port}"
            assert re.search(rf"^authority +127.0.0.1:{port}$", n.admin("flows", "show", flows[0]["id"]), re.M)
            table = n.admin("flows", "list").splitlines()
            assert len(table) == 2 and table[0].split()[:2] == ["ID", "LISTENER"]
            with subprocess.Popen([n.build / "bin/hermes-admin", "-s", n.socket, "--json", "flows", "watch", "--interval",
                                   "0.1"], stdout=subprocess.PIPE, text=True) as watch:
                for _ in range(2):
                    check("flows watch", json.loads(watch.stdout.readline()))
                watch.kill()
    hermes.wait_for(lambda: not ask(n, "flows", "list")["flows"])
    done = n.admin("flows", "show", flows[0]["id"], check=False)
    assert done.returncode == 1 and not done.stdout and "ended" in done.stderr


def test_explain(n):
    def explain(*words):
        return ask(n, "route", "explain", *words)
    assert explain("--listener", "apps", "--header", "token=admin", "http://VIDEO/org/x")["route"] == "org"
    denied = explain("--listener", "apps", "http://VIDEO/org/x")
    assert not denied["accepted"] and denied["status"] == 403 and denied["policies"] == ["video"]
    assert any("video" in line for line in denied["trace"])
    lost = explain("--listener", "apps", "http://other/x")
    assert lost["status"] == 404 and not lost["accepted"]
    # what only a policy may say is removed at the listener
    forged = explain("--listener", "apps", "--header", "x-secure=admin", "http://other/org/")
    assert "x-secure" not in forged["question"]["headers"]
    assert explain("--listener", "apps", "http://other/")["question"]["user"] == "alice"
    packet = explain("--user", "alice", "--ip-protocol", "tcp", "--ip-source", "10.8.0.2", "--ip-destination", "10.0.0.1",
                     "--ip-port", "80", "nowhere:1")    # goes where its tunnel goes: no route is looked for
    assert packet["accepted"] and packet["route"] is None
    assert packet["question"]["ip"] == {"protocol": 6, "source": "10.8.0.2", "destination": "10.0.0.1", "port": 80}
    assert any("none governs this packet" in line for line in packet["trace"])
    assert n.admin("policy", "explain", "--ip-protocol", "tcp", "nowhere:1", check=False).returncode == 2
    people = n.admin("policy", "explain", "http://VIDEO/org/x")
    assert re.search(r"^accepted +no$", people, re.M) and "why:" in people
    done = n.admin("route", "explain", "--colour", "red", "http://x/", check=False)
    assert done.returncode == 2 and "--colour" in done.stderr


def test_clusters_drain(own):
    def state():
        return {(c["cluster"], c["endpoint"]): c["drained"] for c in ask(own, "clusters", "list")["clusters"]}
    ask(own, "clusters", "drain", "web", "127.0.0.1:9")
    assert state()[("web", "127.0.0.1:9")]
    ask(own, "clusters", "undrain", "web", "127.0.0.1:9")
    assert not state()[("web", "127.0.0.1:9")]
    done = own.admin("clusters", "drain", "web", "nowhere:1", check=False)
    assert done.returncode == 1 and "no such endpoint" in done.stderr


def test_configurations_come_and_go(own):
    port = hermes.free_port()
    file = own.folder / "new.yaml"
    file.write_text(json.dumps(document(port)))
    assert ask(own, "config", "check", file)["ok"]
    assert ask(own, "status")["configuration"]["generation"] == 1
    second = ask(own, "config", "apply", file)["generation"]
    assert second > 1 and ask(own, "listeners", "list")["listeners"][0]["address"] == f"127.0.0.1:{port}"
    assert ask(own, "config", "apply", file)["unchanged"]
    assert f"127.0.0.1:{port}" in own.admin("config", "diff", 1, second)
    third = ask(own, "config", "rollback", 1)["generation"]
    states = {v["version"]: v["state"] for v in ask(own, "config", "history")["versions"]}
    assert states == {1: "superseded", second: "superseded", third: "in force"}
    fourth = ask(own, "config", "apply", "-", stdin=json.dumps(document(port, telemetry={})))["generation"]
    assert fourth > third
    authors = {v["version"]: (v["source"], v["author"]) for v in ask(own, "config", "history")["versions"]}
    assert authors[1][0] == "file" and authors[second] == ("admin", "root")
    assert own.admin("config", "rollback", 99, check=False).returncode == 1
    assert own.admin("config", "rollback", "x", check=False).returncode == 2


def test_a_broken_document_is_refused_with_its_place(own):
    file = own.folder / "broken.yaml"
    file.write_text("node: {name: alice, domain: example.net}\nlisteners:\n  - {name: a, adress: 127.0.0.1:1}\n")
    for verb in ("check", "apply"):
        done = own.admin("config", verb, file, check=False)
        assert done.returncode == 1 and not done.stdout
        assert re.search(r"broken\.yaml:3:\d+: .*adress.*address", done.stderr), done.stderr
        done = own.admin("--json", "config", verb, file, check=False)
        answer = json.loads(done.stdout)
        check(f"config {verb}", answer)
        assert not answer["ok"] and answer["errors"]
    assert ask(own, "status")["configuration"]["generation"] == 1
    assert own.admin("config", "apply", own.folder / "no-such-file", check=False).returncode == 1


def test_reload_log_level_and_restart_of_a_worker(own):
    assert ask(own, "reload")["unchanged"]
    assert ask(own, "log", "level", "debug")["level"] == "debug"
    assert own.admin("log", "level").split() == ["level", "debug"]
    own.admin("workers", "restart", "router")
    own.wait_log("debug supervisor.* worker state worker=router")
    own.admin("wait", "ready", "--timeout", "10")
    assert own.admin("log", "level", "loud", check=False).returncode == 2
    ask(own, "workers", "restart", "policy")
    ask(own, "wait", "ready", "--timeout", "10")
    status = ask(own, "status")
    assert status["ready"] and status["workers"]["restarts"] == 2
    assert own.admin("workers", "restart", "nobody", check=False).returncode == 1


def test_stop_returns_when_all_has_ended(own):
    pids = [p for many in own.pids().values() for p in many]
    ask(own, "stop")
    assert not any(Path(f"/proc/{p}").exists() for p in pids)
    assert own.process.wait(5) == 0
    own.process = None


def test_bugreport_holds_no_secrets(n):
    report = ask(n, "bugreport")
    assert "SECRETSECRET" not in json.dumps(report)
    assert report["config show"]["config"]["node"]["name"] == "alice"
    assert report["status"]["ready"]
    assert "SECRETSECRET" not in n.admin("config", "show")
    assert "SECRETSECRET" in n.admin("config", "show", "--origin")


@pytest.mark.parametrize("words, status, said", [
    ((), 2, "a verb is missing"), (("fly",), 2, "no such verb"), (("flows",), 2, "flows show"),
    (("flows", "fly"), 2, "flows list"), (("flows", "show"), 2, "usage"), (("status", "--check", "x"), 2, "usage"),
    (("wait", "ready", "--timeout", "x"), 2, "usage"),
    (("--nonsense",), 2, "nonsense"), (("workers", "list", "extra"), 2, "usage")])
def test_wrong_usage(n, words, status, said):
    done = n.admin(*words, check=False)
    assert done.returncode == status and said in done.stderr and not done.stdout


def test_help(n):
    everything = n.admin("--help")
    assert "  restart " in everything and "bugreport" in everything
    flows = n.admin("flows", "--help")
    assert "flows show" in flows and "config apply" not in flows
    assert re.fullmatch(r"hermes-admin \d+\.\d+\.\d+\n", n.admin("--version"))


def test_nobody_at_home(n, tmp_path):
    admin = [n.build / "bin/hermes-admin", "-s", tmp_path / "admin.sock"]
    done = subprocess.run([*admin, "status"], capture_output=True, text=True)
    assert done.returncode == 1 and "is hermesd running?" in done.stderr and not done.stdout
    done = subprocess.run([*admin, "wait", "ready", "--timeout", "1"], capture_output=True, text=True)
    assert done.returncode == 1
    (tmp_path / "admin.sock").write_text("")
    done = subprocess.run([*admin, "status"], capture_output=True, text=True)
    assert done.returncode == 1 and "not running" in done.stderr


def as_user(uid, n, *words):
    return subprocess.run(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", n.build / "bin/hermes-admin",
                           "-s", n.socket, *words], capture_output=True, text=True)


def test_levels(node):
    """uid 1 (daemon) reads, uid 2 (bin) operates by its group, uid 3 (sys) has nothing."""
    n = node("alice", document(hermes.free_port(), admin={"read": ["daemon"], "operate": ["group:bin"]}))
    os.chmod(n.socket, 0o660)
    assert "you may not" in as_user(1, n, "status").stderr
    os.chmod(n.socket, 0o666)
    (n.folder / "run").chmod(0o755)
    allowed = {(1, "status"): 0, (1, "reload"): 1, (1, "config diff 1"): 1, (1, "config show --origin"): 1,
               (1, "log level"): 0, (1, "log level debug"): 1, (1, "traceroute a:1"): 1, (1, "ping alice"): 1, (2, "status"): 0,
               (2, "ping --count 1 alice"): 0, (2, "reload"): 0, (2, "stop"): 1,
               (3, "status"): 1, (65534, "status"): 1}
    for (uid, words), status in allowed.items():
        done = as_user(uid, n, *words.split())
        assert done.returncode == status, (uid, words, done)
        if status:
            assert "needs the level" in done.stderr and not done.stdout


def complete(*words):
    script = ("source packaging/completions/hermes-admin.bash; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _hermes_admin; "
              "printf '%s\\n' \"${COMPREPLY[@]}\"")
    env = dict(os.environ, PATH=f"{hermes.build_dir()}/bin:{os.environ['PATH']}")
    return set(subprocess.run(["bash", "-c", script, "bash", "hermes-admin", *map(str, words)], cwd=hermes.ROOT, env=env,
                              capture_output=True, text=True, check=True).stdout.split())


def test_completion(n):
    shown = {line.split()[0] for line in n.admin("--help").splitlines() if line.startswith("  ") and line[2].islower()
             and not line.startswith("   ")}
    assert complete("") == shown
    for noun in ("flows", "clusters", "config", "workers", "log", "wait", "controller", "nodes"):
        verbs = {m for m in re.findall(rf"^  {noun} (\w+)", n.admin("--help"), re.M)}
        assert complete(noun, "") == verbs, noun
    assert complete("-s", n.socket, "workers", "restart", "tun") == {"tun-bridge", "tunnel-0"}
    assert "--header" in complete("route", "explain", "--")


def test_man_pages_name_every_verb_and_option(n):
    page = (hermes.ROOT / "packaging/man/hermes-admin.1").read_text().replace("\\-", "-")
    for noun in complete(""):
        assert noun in page, noun
    for noun in ("controller", "nodes"):
        for verb in complete(noun, ""):
            assert verb in page, verb
    operator = (hermes.ROOT / "packaging/man/hermes-controller.7").read_text().replace("\\-", "-")
    schema = (hermes.ROOT / "workers/controller/document_schema.c").read_text()
    for key in set(re.findall(r'^\t\{"(\w+)", ', schema, re.M)) | complete("controller", "") | complete("nodes", ""):
        assert key in operator, key
    daemon = (hermes.ROOT / "packaging/man/hermesd.8").read_text().replace("\\-", "-")
    usage = subprocess.run([n.build / "bin/hermesd", "--help"], capture_output=True, text=True).stdout
    for option in set(re.findall(r"--[a-z-]+", usage)):
        assert option in daemon, option
