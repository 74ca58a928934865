from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("pyarrow")

from tests.fuzz.mutations import spoil_bytes, spoil_json
from tests.fuzz.subjects import SUBJECTS
from tests.fuzz.watch import Watch
from tests.support.children import run_child

ROOT = Path(__file__).resolve().parents[2]
HONEST = """
import sys, tempfile, json
from pathlib import Path
from tests.fuzz.campaign import open_honest
from tests.fuzz.subjects import SUBJECTS, make_seeds
with tempfile.TemporaryDirectory() as folder:
    seeds = Path(folder) / "seeds"
    seeds.mkdir()
    make_seeds(seeds)
    codes = {s.name: open_honest(s, seeds, Path(folder) / "case") for s in SUBJECTS}
    empty = Path(folder) / "empty"
    empty.mkdir()
    single = [s for s in SUBJECTS if not s.seeds[0].endswith(".vptk")]
    gone = {s.name: s.open(empty, seeds).code for s in single}
print(json.dumps([codes, gone]))
"""


def child(*arguments: str, limit: float) -> object:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, *arguments]
    done = run_child(command, cwd=ROOT, env=environment, check=False, limit=limit)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_honest_files_are_opened_and_one_that_is_gone_is_an_input_too():
    codes = dict.fromkeys((subject.name for subject in SUBJECTS), 0)
    opened, gone = child("-c", HONEST, limit=120)
    assert opened == codes
    assert len(gone) > 10
    assert set(gone.values()) == {2}


@pytest.mark.long
def test_some_seconds_of_spoilt_files():
    report = child("-m", "tests.fuzz", "--seconds", "15", "--seed", "0", limit=300)
    assert report["failures"] == []
    assert report["inputs"] > 100
    assert set(report["counts"]) == {subject.name for subject in SUBJECTS}


def test_the_same_seed_spoils_the_same():
    for number in range(200):
        assert spoil_bytes(Random(number), b"x" * 99) == spoil_bytes(Random(number), b"x" * 99)
    document = {"a": [1, {"b": 2}], "c": "d"}
    spoilt = [spoil_json(Random(number), document) for number in range(50)]
    assert [repr(spoil_json(Random(n), document)) for n in range(50)] == list(map(repr, spoilt))
    assert sum(repr(one) != repr(document) for one in spoilt) > 40
    assert document == {"a": [1, {"b": 2}], "c": "d"}


WATCH = """
import os, sys
from pathlib import Path
from tests.fuzz.watch import Watch
top = Path(sys.argv[1])
for name in ("in", "out", "secret"):
    (top / name).mkdir()
    (top / name / "x").write_text("x")
(top / "in" / "link").symlink_to("../secret/x")
(top / "in" / "away").symlink_to("../out")
watch = Watch((top / "in",), top / "secret")
def seen(act):
    with watch.on():
        try:
            act()
        except OSError:
            pass
    return len(watch.seen)
assert not seen(lambda: (top / "in" / "y").write_text("y"))
assert not seen(lambda: (top / "out" / "x").read_text())
assert not seen(lambda: (top / "in" / "y").unlink())
assert seen(lambda: (top / "out" / "x").write_text("y"))
assert seen(lambda: (top / "in" / "away" / "x").write_text("y"))
assert seen(lambda: (top / "in" / "link").read_text())
assert seen(lambda: (top / "out" / "x").unlink())
assert seen(lambda: (top / "in" / "away" / "z").mkdir())
assert seen(lambda: os.system("true"))
assert seen(lambda: __import__("socket").create_connection(("127.0.0.1", 9), timeout=1))
assert not seen(lambda: (top / "in" / "link").unlink())
print('"good"')
"""


def test_what_is_forbidden_is_seen(tmp_path):
    assert Watch.__doc__
    assert child("-c", WATCH, str(tmp_path), limit=60) == "good"
