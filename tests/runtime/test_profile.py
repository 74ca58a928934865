from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from vptkit.errors import TargetError, VptkitError
from vptkit.runtime.memory import measure_memory
from vptkit.runtime.profile import Candidate, open_candidates, profile
from vptkit.runtime.session import open_session
from vptkit.runtime.timing import Budget

QUICK = Budget(rounds=6)


class FakeSession:
    """A real bundle whose runs take as long as a test says."""

    backend, threads, versions = "fake", 1, {"fake": "1"}

    def __init__(self, bundle, clock, ms):
        self.bundle, self.ms, self.clock, self.images = bundle, ms, clock, []

    def run(self, images):
        self.images.append(images)
        self.clock[0] += self.ms * len(images) / 1000
        return np.zeros((len(images), 3), np.float32)


@pytest.fixture
def candidate(make_bundle):
    clock = [0.0]

    def make(name, kind, ms, **bundle):
        opened = open_session(make_bundle(name, **bundle)).bundle
        return Candidate(name=name, kind=kind, session=FakeSession(opened, clock, ms))

    make.clock = lambda: clock[0]
    return make


def test_the_document(candidate):
    members = [
        candidate("a", "adapter", 2.0),
        candidate("bare", "baseline", 4.0),
        candidate("unfolded", "baseline", 5.0),
    ]
    document = profile(
        members, batches=[2, 1], budget=QUICK, memory=False, clock=candidate.clock, seed=5
    )

    assert set(document) == {"format", "rows", "machine", "settings"}
    assert document["settings"] == {"rounds": 6, "seconds": 10.0, "seed": 5}
    assert {"cpu", "cores", "memory_mb", "load", "session_threads", "versions"} <= set(
        document["machine"]
    )
    assert set(document["machine"]["versions"]) == {"vptkit", "numpy", "fake"}
    rows = document["rows"]
    assert [(r["name"], r["kind"], r["batch"]) for r in rows] == [
        ("a", "adapter", 1),
        ("bare", "baseline", 1),
        ("unfolded", "baseline", 1),
        ("a", "adapter", 2),
        ("bare", "baseline", 2),
        ("unfolded", "baseline", 2),
    ]
    row = rows[3]
    assert (row["backend"], row["precision"], row["count"]) == ("fake", "fp32", 6)
    assert row["ms"] == pytest.approx({"p50": 4, "p90": 4, "p99": 4, "mean": 4})
    assert row["images_per_s"] == pytest.approx(500)
    assert (row["settled"], row["warm_up"], row["memory_mb"]) == (True, 10, None)
    assert len(row["graph_sha256"]) == 64
    json.dumps(document, allow_nan=False)


def test_rows_are_compared_with_the_first_baseline(candidate):
    members = [
        candidate("a", "adapter", 2.0),
        candidate("bare", "baseline", 4.0),
        candidate("unfolded", "baseline", 5.0),
    ]
    rows = profile(members, budget=QUICK, memory=False, clock=candidate.clock)["rows"]
    assert rows[1]["ratio"] is None
    assert rows[0]["ratio"]["to"] == rows[2]["ratio"]["to"] == "bare"
    assert (rows[0]["ratio"]["value"], rows[0]["ratio"]["verdict"]) == (
        pytest.approx(0.5),
        "faster",
    )
    assert (rows[2]["ratio"]["value"], rows[2]["ratio"]["verdict"]) == (
        pytest.approx(1.25),
        "slower",
    )


def test_without_a_baseline_rows_are_compared_with_the_first(candidate):
    members = [candidate("a", "adapter", 2.0), candidate("b", "adapter", 3.0)]
    rows = profile(members, budget=QUICK, memory=False, clock=candidate.clock)["rows"]
    assert rows[0]["ratio"] is None
    assert rows[1]["ratio"]["to"] == "a"


def test_everyone_sees_the_same_noise(candidate):
    members = [candidate("a", "adapter", 1.0), candidate("b", "adapter", 1.0)]
    profile(members, batches=[3], budget=QUICK, memory=False, clock=candidate.clock)
    for member in members:
        for images in member.session.images:
            np.testing.assert_array_equal(images, members[0].session.images[0])
    assert members[0].session.images[0].shape == (3, 24, 16, 3)
    assert members[0].session.images[0].std() > 50


def test_fixed_bundles_take_part_at_their_own_batch(candidate):
    members = [candidate("fixed", "adapter", 1.0, batch=4), candidate("free", "adapter", 1.0)]

    def run(batches):
        document = profile(
            members, batches=batches, budget=QUICK, memory=False, clock=candidate.clock
        )
        return [(r["name"], r["batch"]) for r in document["rows"]]

    assert run(None) == [("fixed", 4), ("free", 4)]
    assert run([1]) == [("free", 1), ("fixed", 4), ("free", 4)]


def test_a_batch_that_nobody_takes_is_an_error(candidate):
    members = [candidate("fixed", "adapter", 1.0, batch=4)]
    with pytest.raises(TargetError, match="batches of 8: fixed takes 4"):
        profile(members, batches=[8], budget=QUICK, memory=False, clock=candidate.clock)
    with pytest.raises(VptkitError, match="batch is 0"):
        profile(members, batches=[0], budget=QUICK, memory=False, clock=candidate.clock)


def test_names_must_differ(candidate):
    twins = [candidate("a", "adapter", 1.0), candidate("a", "adapter", 1.0)]
    for members in (twins, []):
        with pytest.raises(VptkitError, match="a name of its own"):
            profile(members, budget=QUICK, memory=False)


def test_open_candidates_names_everyone_apart(make_bundle, tiny_spec):
    a, b = make_bundle("same"), make_bundle("same")
    cheap, dear = make_bundle("x", macs={"after": 1}), make_bundle("y", macs={"after": 2})
    found = open_candidates(
        [a, b], [{"bare": cheap, "unfolded": cheap}, {"bare": cheap, "unfolded": dear}]
    )
    assert [(c.name, c.kind) for c in found] == [
        ("same", "adapter"),
        (b.name, "adapter"),
        ("bare", "baseline"),
        ("unfolded", "baseline"),
        (f"unfolded, {b.name}", "baseline"),
    ]


def test_real_sessions_and_their_memory(make_bundle):
    members = open_candidates([make_bundle("a"), make_bundle("b", batch=1)], threads=1)
    document = profile(members, budget=QUICK)
    for row in document["rows"]:
        assert row["ms"]["p50"] > 0
        assert 20 < row["memory_mb"]["peak"] < 1000
        assert 0 <= row["memory_mb"]["increase"] < 100
    assert "onnxruntime" in document["machine"]["versions"]


def test_memory_of_a_large_bundle_is_larger(make_bundle):
    """Broken twin: a measurement that looked at the wrong process would not see 64 MiB."""
    small = measure_memory(make_bundle(), backend="cpu", batch=1, threads=1)
    large = measure_memory(make_bundle(), backend="cpu", batch=16000, threads=1)
    pixels = 16000 * 24 * 16 * 3 / 2**20  # and as float32 in the graph
    assert large.increase > small.increase + pixels
    assert large.peak > small.peak + 4 * pixels


def test_the_peak_remembers_what_was_given_back():
    code = (
        "import numpy as np; from vptkit.runtime.memory import memory_of_this_process as memory\n"
        "before, _ = memory(); np.ones(100 * 2**20, np.uint8).sum(); after, peak = memory()\n"
        "assert peak > before + 90 and after < before + 50, (before, after, peak)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_child_that_fails_is_reported(tmp_path):
    with pytest.raises(VptkitError, match="the process that measures memory ended with 1"):
        measure_memory(tmp_path, backend="cpu", batch=1, threads=1)
