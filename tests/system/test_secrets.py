# SPDX-License-Identifier: Apache-2.0
"""What must not be seen: tokens, private keys and password hashes stay out of logs, reports, stores and other nodes' configurations."""
import json
import re
import subprocess

import pytest

import hermes
from domains import Machine, online

HASH = "$6$saltsalt$HASHOFANNSPASSWORD"
QUICK = {"control": {"report": "200ms"}, "log": {"level": "debug"}}


def document(port):
    def node(name, port_):
        return {"name": name, "config": {"listeners": [{"name": "apps", "address": f"127.0.0.1:{port_}", "accept": "http"}]}}
    return {"domain": "example.net", "nodes": [node("alice", port), node("bob", hermes.free_port())],
            "users": [{"name": "ann", "password": HASH, "nodes": ["alice"]}]}


@pytest.fixture(scope="module")
def domain(session_tmp):
    """Everything that goes through hands that hold secrets: two enrolled, a wrong token, an unused one, a renewal, a password."""
    folder = session_tmp / "secrets"
    folder.mkdir(mode=0o755)
    with Machine("c1", folder, extra=QUICK).init(hermes.free_port()) as c:
        tokens = [c.token("--node", name) for name in ("alice", "bob", "carol", "dave")]
        port = hermes.free_port()
        with Machine("alice", folder, extra=QUICK).enroll(c, token=tokens[0]) as alice, \
                Machine("bob", folder, extra=QUICK).enroll(c, token=tokens[1]) as bob:
            kind, ident, secret, fingerprint = tokens[2].split(".")
            Machine("carol", folder).enroll(c, token=f"{kind}.{ident}.{secret[::-1]}.{fingerprint}", check=False, start=False)
            file = folder / "domain.yaml"
            file.write_text(json.dumps(document(port)))
            c.admin("controller", "document", "apply", file, "--wait")
            online(c, "bob")
            serial = c.node_state("alice")["serial"]
            c.admin("nodes", "renew", "alice")
            hermes.wait_for(lambda: c.node_state("alice")["serial"] != serial, 20, message="renewed")
            subprocess.run(["curl", "-s", "-m", "10", "-x", f"http://127.0.0.1:{port}", "-U", "ann:PASSWORDOFANN",
                            "http://VIDEO/"], capture_output=True)
            yield c, [alice, bob], tokens


def key_lines(machine):
    """Each line of its private keys; they are base64, and no log would break them elsewhere."""
    return {line for path in machine.keys.glob("*.key") for line in path.read_text().split("\n")
            if len(line) > 20 and "-" not in line}


def secrets_of(domain):
    c, nodes, tokens = domain
    keys = set().union(*map(key_lines, [c, *nodes]))
    secrets = {t.split(".")[2] for t in tokens}
    # the wrong one
    secrets.add(tokens[2].split(".")[2][::-1])
    assert len(keys) >= 5 and all(len(s) > 20 for s in secrets)
    return keys | secrets | {"PASSWORDOFANN", "HASHOFANNSPASSWORD", "PRIVATE KEY"}


def seen(text, secrets):
    return [s for s in secrets if s in text]


def test_logs(domain):
    c, nodes, _ = domain
    secrets = secrets_of(domain)
    for machine in (c, *nodes):
        log = machine.log_file.read_text(errors="replace")
        assert len(log) > 1000 and " debug " in log
        assert not seen(log, secrets), machine.name
    assert "token made" in c.log_file.read_text() and "enrolment refused" in c.log_file.read_text()


def test_what_is_shown(domain):
    c, nodes, _ = domain
    secrets = secrets_of(domain)
    for machine in (c, *nodes):
        for words in (("bugreport",), ("config", "show"), ("config", "history"), ("status",), ("workers", "list"), ("stats",),
                      ("flows", "list")):
            assert not seen(machine.admin(*words), secrets), (machine.name, words)
    for words in (("nodes", "list"), ("nodes", "show", "alice"), ("nodes", "config", "bob"), ("controller", "status"),
                  ("controller", "token", "list"), ("controller", "history"), ("controller", "rollout", "show")):
        assert not seen(json.dumps(c.admin(*words, json=True)), secrets), words
    metrics = subprocess.run(["curl", "-s", "--unix-socket", c.folder / "run/controller.sock", "http://controller/metrics"],
                             capture_output=True, text=True, check=True).stdout
    assert "hermes_controller" in metrics and not seen(metrics, secrets)


def test_only_who_needs_it(domain):
    """A user's hash is where the user enters; the controller keeps tokens as digests, and keys lie nowhere but with the keeper."""
    c, (alice, bob), _ = domain
    assert HASH in c.admin("nodes", "config", "alice")
    assert "ann" not in bob.admin("config", "show", "--controller")
    for machine in (c, alice, bob):
        secrets = secrets_of(domain) - {"HASHOFANNSPASSWORD"}
        stores = [p for p in machine.state.rglob("*") if p.is_file() and p.parent != machine.keys]
        assert any(p.name == "data.mdb" or p.stat().st_size > 4096 for p in stores)
        for path in stores:
            assert not seen(path.read_bytes().decode("latin-1"), secrets), path
    alices = [p.read_bytes() for p in alice.state.rglob("*") if p.is_file()]
    assert any(b"HASHOFANNSPASSWORD" in text for text in alices)
    bobs = [p.read_bytes() for p in bob.state.rglob("*") if p.is_file()]
    assert not any(b"HASHOFANNSPASSWORD" in text for text in bobs)


def test_command_lines_and_environments(domain):
    """Of hermesd and its workers: anybody on the machine reads these."""
    c, nodes, _ = domain
    secrets = secrets_of(domain)
    for machine in (c, *nodes):
        for worker in machine.admin("workers", "list", json=True)["workers"]:
            for name in ("cmdline", "environ"):
                with open(f"/proc/{worker['pid']}/{name}", "rb") as f:
                    assert not seen(re.sub(r"\0", " ", f.read().decode("latin-1")), secrets)
