# SPDX-License-Identifier: Apache-2.0
"""A domain's document reaches its nodes: dry run, versions, rollouts in stages that stop, maintenance, objectives."""
import json
import subprocess
import time

import pytest

import hermes
from domains import Machine, online

REPORT = {"control": {"report": "200ms"}}


@pytest.fixture(scope="module")
def domain(session_tmp):
    """A controller and two nodes."""
    folder = session_tmp / "domain"
    folder.mkdir(mode=0o755)
    with Machine("c1", folder, extra=REPORT).init(hermes.free_port()) as c:
        online(c, "c1")
        with Machine("alice", folder, extra=REPORT).enroll(c) as alice, Machine("bob", folder, extra=REPORT).enroll(c) as bob:
            for name in ("alice", "bob"):
                online(c, name)
            yield c, alice, bob


def apply(controller, text, *args, check=True):
    """The answer of document apply, or the message of the refusal."""
    file = controller.folder / "domain.yaml"
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    done = controller.admin("controller", "document", "apply", file, *args, json=True, check=check)
    return done


def rollout(controller):
    return controller.admin("controller", "rollout", "show", json=True)


def state(controller, wanted, timeout=20):
    return hermes.wait_for(lambda: (r := rollout(controller)) and r["state"] == wanted and r, timeout,
                           message=f"rollout {wanted}")


def test_first_document(domain):
    c, alice, bob = domain
    port = hermes.free_port()
    document = {
        "domain": "example.net",
        "defaults": {"log": {"level": "info"}},
        "nodes": [
            {"name": "alice", "config": {"listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"}]}},
            {"name": "bob"},
        ],
    }
    answer = apply(c, document, "--dry-run")
    assert answer["version"] is None and {n["name"]: n["change"] for n in answer["nodes"]} == {"alice": "new", "bob": "new"}
    assert f"127.0.0.1:{port}" in answer["nodes"][0]["diff"]
    answer = apply(c, document)
    assert answer["version"] == 1
    hermes.wait_port(port)
    state(c, "done")
