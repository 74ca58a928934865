from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.children import run_child
from tests.support.fakes.board import STEADY
from vptkit.errors import TargetError, VptkitError
from vptkit.runtime.backends.graph_protocol import Times
from vptkit.runtime.measure.memory_footprint import measure_memory
from vptkit.runtime.measure.telemetry import Instruments
from vptkit.runtime.measure.timing import Budget
from vptkit.runtime.profile import benchmark
from vptkit.runtime.profile.benchmark import profile
from vptkit.runtime.profile.profiled_sessions import Candidate, open_candidates
from vptkit.runtime.session.factory import open_session

QUICK = Budget(rounds=6)
STILL = Instruments(state=lambda: STEADY, no_meter="nothing is plugged in")


class FakeSession:
    """A real bundle whose runs take as long as a test says."""

    backend, threads, versions = "fake", 1, {"fake": "1"}

    def __init__(self, bundle, clock, ms, times=None):
        self.bundle, self.ms, self.clock, self.images = bundle, ms, clock, []
        self.times, self.taken_apart = times, 0

    def run(self, images):
        self.images.append(images)
        self.clock[0] += self.ms * len(images) / 1000
        return np.zeros((len(images), 3), np.float32)

    def timed(self, images):
        self.clock[0] += 1.0  # far from what a run takes: it must not get among the runs
        self.taken_apart += 1
        return self.times


@pytest.fixture
def candidate(make_bundle):
    clock = [0.0]

    def make(name, kind, ms, times=None, **bundle):
        opened = open_session(make_bundle(name, **bundle)).bundle

        def session():
            return FakeSession(opened, clock, ms, times)

        return Candidate(name=name, kind=kind, session=session(), open=session)

    make.clock = lambda: clock[0]
    return make


def test_the_document(candidate):
    members = [
        candidate("a", "adapter", 2.0),
        candidate("bare", "baseline", 4.0),
        candidate("unfolded", "baseline", 5.0),
    ]
    document = profile(
        members,
        batches=[2, 1],
        budget=QUICK,
        memory=False,
        instruments=STILL,
        clock=candidate.clock,
        seed=5,
    )

    assert set(document) == {"format", "rows", "machine", "state", "settings"}
    assert document["settings"] == {
        "rounds": 6,
        "seconds": 10.0,
        "seed": 5,
        "streams": 1,
        "energy_seconds": 0.0,
    }
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
    assert (row["settled"], row["warm_up"] >= 50, row["memory_mb"]) == (True, True, None)
    assert len(row["graph_sha256"]) == 64
    assert row["times"] == {"enqueue": None, "gpu": None, "host": None, "end_to_end": row["ms"]}
    assert (row["cuda_graph"], row["transfers"], row["portions"]) == (None, "none", 1)
    assert (row["streams"], row["energy"]) == (None, None)
    json.dumps(document, allow_nan=False)


def test_rows_are_compared_with_the_first_baseline(candidate):
    members = [
        candidate("a", "adapter", 2.0),
        candidate("bare", "baseline", 4.0),
        candidate("unfolded", "baseline", 5.0),
    ]
    rows = profile(members, instruments=STILL, budget=QUICK, memory=False, clock=candidate.clock)[
        "rows"
    ]
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
    rows = profile(members, instruments=STILL, budget=QUICK, memory=False, clock=candidate.clock)[
        "rows"
    ]
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
            profile(members, instruments=STILL, budget=QUICK, memory=False)


def test_open_candidates_names_everyone_apart(make_bundle, tiny_spec, tmp_path):
    (tmp_path / "other").mkdir()
    a = make_bundle("same").rename(tmp_path / "mine.vptk")
    b = make_bundle("same").rename(tmp_path / "other" / "mine.vptk")
    cheap, dear = make_bundle("x", macs={"after": 1}), make_bundle("y", macs={"after": 2})
    found = open_candidates(
        [a, b], [{"bare": cheap, "unfolded": cheap}, {"bare": cheap, "unfolded": dear}]
    )
    assert [(c.name, c.kind) for c in found] == [
        ("mine", "adapter"),
        ("other/mine", "adapter"),
        ("bare", "baseline"),
        ("unfolded", "baseline"),
        ("unfolded, other/mine", "baseline"),
    ]


def test_backends_beside_each_other(make_bundle):
    pytest.importorskip("openvino", reason="openvino is not installed")
    bundle, bare = make_bundle("a"), make_bundle("b")
    members = open_candidates([bundle], [{"bare": bare}], backends=["cpu", "openvino"], threads=1)
    name = bundle.name.removesuffix(".vptk")
    document = profile(members, budget=QUICK, memory=False)
    assert [(row["name"], row["backend"]) for row in document["rows"]] == [
        (f"{name}, cpu", "cpu"),
        ("bare, cpu", "cpu"),
        (f"{name}, openvino", "openvino"),
        ("bare, openvino", "openvino"),
    ]
    ratios = [row["ratio"] for row in document["rows"]]
    assert ratios.pop(1) is None
    assert {ratio["to"] for ratio in ratios} == {"bare, cpu"}
    assert {"onnxruntime", "openvino"} <= set(document["machine"]["versions"])


def test_the_device_of_nvidias_is_watched(candidate, monkeypatch):
    watched = []
    monkeypatch.setattr(
        benchmark, "find_instruments", lambda backend: watched.append(backend) or STILL
    )
    members = [candidate("a", "adapter", 1.0), candidate("b", "adapter", 1.0)]
    for member in members:
        member.session.backend = "cpu"
    profile(members, budget=QUICK, memory=False)
    members[1].session.backend = "tensorrt"
    profile(members, budget=QUICK, memory=False)
    assert watched == ["cpu", "tensorrt"]


def test_two_exports_of_one_adapter_are_called_as_their_files(make_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good, low = make_bundle("i").rename("good.vptk"), make_bundle("i").rename("i8.vptk")
    assert [c.name for c in open_candidates([good, low])] == ["good", "i8"]
    monkeypatch.chdir(low)
    assert [c.name for c in open_candidates([Path()])] == ["i8"]


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
        "import numpy as np; from vptkit.devices.probes.memory import process_memory as memory\n"
        "before, _ = memory(); np.ones(100 * 2**20, np.uint8).sum(); after, peak = memory()\n"
        "assert peak > before + 90 and after < before + 50, (before, after, peak)"
    )
    run_child([sys.executable, "-c", code])


def test_a_child_that_does_not_end_is_killed(make_bundle):
    with pytest.raises(VptkitError, match=r"did not end in 0\.01 s and was killed.*--no-memory"):
        measure_memory(make_bundle(), backend="cpu", batch=1, threads=1, seconds=0.01)


def test_a_child_that_fails_is_reported(tmp_path):
    with pytest.raises(VptkitError, match="the process that measures memory ended with 1"):
        measure_memory(tmp_path, backend="cpu", batch=1, threads=1)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("kill -9 $$", "was killed (signal 9), most likely for lack of memory"),
        ("kill -11 $$", "crashed with signal 11"),
        ("echo 'no room' >&2; exit 3", "ended with 3: no room"),
    ],
)
def test_memory_that_cannot_be_measured_costs_no_times(
    candidate, tmp_path, monkeypatch, end, reason
):
    (tmp_path / "python").write_text(f"#!/bin/sh\n{end}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    members = [candidate("a", "adapter", 2.0)]
    document = profile(members, budget=QUICK, clock=candidate.clock, instruments=STILL)
    (row,) = document["rows"]
    assert row["ms"]["p50"] == pytest.approx(2.0)
    said = row["memory_mb"].pop("unavailable")
    assert f"{members[0].session.bundle.path}: the process that measures memory {reason}" in said
    assert row["memory_mb"] == {"peak": None, "increase": None, "device": None}
    json.dumps(document, allow_nan=False)


def test_runs_are_taken_apart_beside_the_timing(candidate):
    times = Times(enqueue=0.25, gpu=1.0, host=1.5, end_to_end=99.0)
    members = [candidate("a", "adapter", 2.0, times), candidate("b", "adapter", 3.0)]
    rows = profile(members, budget=QUICK, memory=False, clock=candidate.clock, instruments=STILL)[
        "rows"
    ]
    assert {k: v["p50"] for k, v in rows[0]["times"].items()} == pytest.approx(
        {"enqueue": 0.25, "gpu": 1.0, "host": 1.5, "end_to_end": 2.0}
    )
    assert rows[0]["ms"]["p50"] == pytest.approx(2.0)
    assert members[0].session.taken_apart == 1 + QUICK.rounds
    assert rows[1]["times"]["gpu"] is None
    assert members[1].session.taken_apart == 1  # asked once, and had no answer


def test_a_batch_in_portions_has_no_parts(candidate, monkeypatch):
    def refuse(images):
        raise TargetError("a batch of 1 came, the engine takes 2 to 8")

    member = candidate("a", "adapter", 2.0)
    monkeypatch.setattr(member.session, "timed", refuse)
    (row,) = profile(
        [member], budget=QUICK, memory=False, clock=candidate.clock, instruments=STILL
    )["rows"]
    assert (row["times"]["gpu"], row["ms"]["p50"]) == (None, pytest.approx(2.0))


def test_a_graph_tells_of_cuda_graphs_and_transfers(candidate):
    class Graph:
        cuda_graph, replayed, transfers = True, False, "zero copy"

        def portions(self, count):
            return 7 * count

    member = candidate("a", "adapter", 2.0)
    member.session.graph = Graph()
    (row,) = profile(
        [member], budget=QUICK, memory=False, clock=candidate.clock, instruments=STILL
    )["rows"]
    assert (row["cuda_graph"], row["transfers"], row["portions"]) == (False, "zero copy", 7)


@pytest.mark.parametrize(
    ("backend", "transfers"), [("cpu", "none"), ("cuda", "images in, logits out, by ONNX Runtime")]
)
def test_onnx_runtime_copies_to_a_gpu(candidate, backend, transfers):
    member = candidate("a", "adapter", 2.0)
    member.session.backend = backend
    assert member.transfers == transfers


def states(*changes):
    """A function that answers with STEADY, changed, one after the other."""
    answers = [{**STEADY, **change} for change in changes]
    return lambda: answers.pop(0) if len(answers) > 1 else answers[0]


def test_rows_say_what_made_them_doubtful(candidate):
    hot = {"throttling": {"active": ["gpu-throttle-alert"], "counters": {}}}
    member = candidate("a", "adapter", 2.0)
    document = profile(
        [member],
        batches=[1, 2, 4],
        budget=QUICK,
        memory=False,
        clock=candidate.clock,
        instruments=Instruments(state=states({}, {}, hot, {})),
    )
    assert [row["unsteady"] for row in document["rows"]] == [
        [],
        ["gpu-throttle-alert was on"],
        [],
    ]
    state = document["state"]
    assert (state["throttled"], state["changed"]) == (["gpu-throttle-alert was on"], [])
    assert state["before"] == state["after"] == STEADY


def test_rows_carry_the_power_mode(candidate):
    modes = [{"power_mode": {"id": i, "name": name}} for i, name in enumerate(("15W", "MAXN"))]
    document = profile(
        [candidate("a", "adapter", 2.0)],
        budget=QUICK,
        memory=False,
        clock=candidate.clock,
        instruments=Instruments(state=states(*modes)),
    )
    (row,) = document["rows"]
    assert row["power_mode"] == "MAXN"
    assert row["unsteady"] == document["state"]["changed"] == ["power mode: 15W, then MAXN"]


def test_streams_open_sessions_of_their_own(candidate):
    opened = []
    member = candidate("a", "adapter", 2.0)
    make = member.open
    object.__setattr__(member, "open", lambda: opened.append(make()) or opened[-1])
    budget = Budget(rounds=6, seconds=0.05)
    (row,) = profile(
        [member], budget=budget, memory=False, streams=3, instruments=STILL, batches=[2]
    )["rows"]
    assert len(opened) == 2
    assert all(session.images for session in opened)
    assert row["streams"]["count"] == 3
    assert row["streams"]["images_per_s"] > 0
    assert row["streams"]["single_images_per_s"] == row["images_per_s"]


class FakeMeter:
    """A counter that grows by `watts` a second of the test's clock, and by `work` for each run."""

    source, counts, total = "a fake", "joules", ("board",)

    def __init__(self, clock, session, watts, work):
        self.clock, self.session, self.watts, self.work = clock, session, watts, work

    def read(self):
        self.clock[0] += 1e-3  # reading takes time, so that idle time passes
        return {"board": self.watts * self.clock[0] + self.work * len(self.session.images)}


def test_energy_is_what_the_images_cost(candidate, monkeypatch):
    monkeypatch.setattr("vptkit.runtime.measure.energy.INTERVAL", 1e9)
    monkeypatch.setattr("vptkit.runtime.measure.energy.IDLE_SECONDS", 0.0)
    member = candidate("a", "adapter", 2.0)
    meter = FakeMeter(member.session.clock, member.session, watts=5.0, work=0.5)
    (row,) = profile(
        [member],
        batches=[4],
        budget=QUICK,
        memory=False,
        energy=2.0,
        clock=candidate.clock,
        instruments=Instruments(state=lambda: STEADY, meter=meter),
    )["rows"]
    energy = row["energy"]
    assert energy["joules_per_image"] == pytest.approx(0.5 / 4, rel=0.02)
    assert energy["idle_watts"] == pytest.approx(5.0)
    assert (energy["images"], energy["source"]) == (1000, "a fake")
    assert set(energy["rails"]) == {"board"}


def test_without_a_meter_energy_says_why(candidate):
    (row,) = profile(
        [candidate("a", "adapter", 2.0)],
        budget=QUICK,
        memory=False,
        energy=1.0,
        clock=candidate.clock,
        instruments=STILL,
    )["rows"]
    assert row["energy"] == {"unavailable": "nothing is plugged in"}


@pytest.mark.parametrize("wrong", [{"streams": 0}, {"energy": -1.0}, {"energy": float("nan")}])
def test_settings_out_of_range(candidate, wrong):
    with pytest.raises(VptkitError, match="expected at least 1 and at least 0"):
        profile([candidate("a", "adapter", 2.0)], budget=QUICK, memory=False, **wrong)


def test_cuda_graphs_are_tensorrts(make_bundle):
    for choice in ("on", "off", "both"):
        with pytest.raises(VptkitError, match="CUDA graph"):
            open_candidates([make_bundle()], cuda_graph=choice)
    with pytest.raises(VptkitError, match="'maybe': expected on, off, both"):
        open_candidates([make_bundle()], cuda_graph="maybe")


def test_both_cuda_graphs_side_by_side(make_bundle, monkeypatch):
    asked = []

    class Session:
        backend = "tensorrt"

        def __init__(self, bundle, graph):
            self.bundle, self.graph = bundle, graph

    class Graph:
        def __init__(self, cuda_graph):
            self.cuda_graph = cuda_graph

    bundle = open_session(make_bundle("a")).bundle

    def opened(path, backend, threads, *, cuda_graph):
        asked.append((path, backend, threads, cuda_graph))
        return Session(bundle, Graph(cuda_graph))

    monkeypatch.setattr("vptkit.runtime.profile.profiled_sessions.open_session", opened)
    found = open_candidates([bundle.path], backends=["tensorrt"], cuda_graph="both")
    assert [(c.name, c.cuda_graph) for c in found] == [
        ("a-0, CUDA graph", True),
        ("a-0, no CUDA graph", False),
    ]
    assert asked == [(bundle.path, "tensorrt", None, on) for on in (True, False)]
