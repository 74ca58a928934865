"""`vptkit run` killed with SIGKILL, and continued: the outputs of a run that nothing disturbed.

The long form, by hand: tests/benchmarks/run_kills.py.
"""

from __future__ import annotations

import csv
import os
import sys
import time

import numpy as np
import pytest

from tests.support.children import Child, run_child
from vptkit.runtime.bulk.run_journal import journal_of

pytest.importorskip("onnxruntime")

IMAGES = 1200


@pytest.fixture
def folder(tmp_path, colour_folders):
    """Links to a few pictures, in folders."""
    pictures = sorted(colour_folders.rglob("*.png"))
    for i in range(IMAGES):
        place = tmp_path / "many" / f"{i // 100:02}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(pictures[i % len(pictures)], place / f"{i:04}.png")
    return tmp_path / "many"


def command(bundle, folder, place):
    outputs = ["--save", place / "x.csv", "--features", place / "x.npy"]
    run = [sys.executable, "-m", "vptkit", "run", bundle, folder]
    return [*run, "--backend", "cpu", "--batch", "5", *outputs]


def kill_at(child, journal, lines):
    """Kill it as soon as the journal has so many lines; False if it ended before."""
    deadline = time.monotonic() + 60
    while child.poll() is None:
        assert time.monotonic() < deadline
        if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
            child.kill()
            child.wait()
            return True
        time.sleep(0.001)
    return False


@pytest.mark.long
def test_a_run_that_is_killed_three_times_gives_the_outputs_of_one_that_is_not(
    make_bundle, folder, tmp_path, vptkit
):
    bundle = make_bundle(gives=("logits", "features"))
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    code, _, err = vptkit(*command(bundle, folder, tmp_path / "whole")[3:])
    assert code == 0, err
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert sorted(expected) == ["x.csv", "x.npy", "x.npy.csv"]

    # The answers stand behind a line that says which run it is. Killed among the first, among the later
    # ones, and as the outputs are about to be written; of that moment the run may be quicker.
    journal = journal_of(tmp_path / "killed" / "x.csv")
    for lines in (2, IMAGES // 2, IMAGES + 1):
        with Child(command(bundle, folder, tmp_path / "killed")) as child:
            assert kill_at(child, journal, lines) or lines > IMAGES
        if lines <= IMAGES:
            assert not (tmp_path / "killed" / "x.csv").exists()
    done = run_child([*command(bundle, folder, tmp_path / "killed"), "--force"])

    assert f"{IMAGES:,} images" in done.stdout
    found = {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()}
    assert found == expected
    rows = list(csv.DictReader(found["x.csv"].decode().splitlines()))
    assert len({row["path"] for row in rows}) == len(rows) == IMAGES
    assert np.load(tmp_path / "killed" / "x.npy").shape == (IMAGES, 3)
