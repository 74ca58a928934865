"""The short form of tests/benchmarks/kills.py, which says what is done and what must hold."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.children import run_child

pytest.importorskip("timm")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("tune --force", "export --force", "bank add", "build", "run --save")


@pytest.mark.long
def test_kills_and_full_disks():
    script = [sys.executable, "-m", "tests.benchmarks.kills", "--rounds", "1", "--seed", "3"]
    done = run_child([*script, *COMMANDS, "careless"], check=False, cwd=ROOT)
    document = json.loads(done.stdout)
    careless = document.pop("careless")["failures"]
    assert any("neither old nor new" in failure for failure in careless)
    assert done.returncode == 1
    assert set(document) == set(COMMANDS)
    for found in document.values():
        assert found["failures"] == []
        assert sum(found["states"].values()) == 4  # of each way one
        assert any(state.startswith(("op: old", "op: new")) for state in found["states"])


@pytest.mark.long
def test_a_server_is_started_on_each_bank_that_is_left():
    pytest.importorskip("tests.support.serving")
    script = [sys.executable, "-m", "tests.benchmarks.kills", "--served", "--real-every", "3"]
    chosen = ["--modes", "op", "--rounds", "3", "--seed", "5"]
    done = run_child([*script, *chosen, "bank add", "bank remove"], cwd=ROOT)
    for found in json.loads(done.stdout).values():
        assert found["failures"] == []
        assert found["servers"] == {"this process": 2, "own process": 1}
