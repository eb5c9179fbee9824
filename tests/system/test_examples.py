# SPDX-License-Identifier: Apache-2.0
"""The example configurations of the package pass hermesd's own check. (The document of a domain: tests/unit/test_compose.c.)"""
import shutil
import subprocess

import pytest

import hermes

EXAMPLES = sorted(p.name for p in (hermes.ROOT / "packaging/examples").glob("*.yaml") if p.name != "domain.yaml")


@pytest.fixture(scope="module")
def folder(session_tmp, certs):
    to = session_tmp / "examples"
    shutil.copytree(hermes.ROOT / "packaging/examples", to)
    (to / "tls").mkdir(exist_ok=True)
    for name in ("alice", "ingress", "exit"):
        certificate, key = certs.node(name)
        shutil.copy(certificate, to / f"tls/{name}.crt")
        shutil.copy(key, to / f"tls/{name}.key")
    shutil.copy(certs.ca, to / "tls/ca.crt")
    return to


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(folder, name):
    done = subprocess.run([hermes.build_dir() / "bin/hermesd", "-t", "-c", folder / name], capture_output=True, text=True)
    assert done.returncode == 0 and not hermes.BAD_WORDS.search(done.stderr), done.stderr


def test_there_are_some():
    assert "hermes.yaml" in EXAMPLES and len(EXAMPLES) >= 5
