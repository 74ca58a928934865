"""Builds: by a scripted child, by the fake TensorRT, and by TensorRT-RTX on the processor."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.adapter_files import files_of
from tests.support.bank_cases import family, write_family
from tests.support.children import DEVNULL, PIPE, Child, run_child
from tests.support.small_vit import SMALL_VIT
from tests.support.strategies import Setup
from vptkit.errors import GateError, MissingError, TargetError, VptkitError
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.precision.lowering import Lowering
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.backends.engine_cache import engine_folder, find_engine, list_engines
from vptkit.runtime.backends.engine_seal import make_key, with_seal
from vptkit.runtime.engine_build import build_worker
from vptkit.runtime.engine_build.build_progress import Follower
from vptkit.runtime.engine_build.builder import (
    BuildOptions,
    build_engine,
    carry_out,
    prepare_build,
    profile_of,
)
from vptkit.runtime.engine_build.engine_layers import structure
from vptkit.runtime.engine_build.memory_forecast import Room
from vptkit.runtime.engine_build.precision_check import require_type, shortfalls

ROOT = Path(__file__).resolve().parents[3]
GPU = {
    "index": 0,
    "name": "Orin",
    "capability": "8.7",
    "memory_bytes": 8 * 2**30,
    "integrated": True,
    "sms": 8,
    "clock_mhz": 1020,
    "driver": "12.6",
}
RTX = importlib.util.find_spec("tensorrt_rtx_bindings") is not None
rtx = pytest.mark.skipif(not RTX, reason="TensorRT-RTX is missing")

# A child that answers as trt_build would; what it does is appended.
CHILD = """
import json, os, signal, sys
request = json.loads(sys.stdin.readline())
def say(event, **fields):
    print(json.dumps({{"event": event, **fields}}), flush=True)
def answer(stage, **fields):
    base = {{"stage": stage, "version": "10.3.0", "gpu": {gpu!r}, "errors": [], "plan_bytes": 4,
            "inspector": None, "parse_s": 0.1, "build_s": 0.2, "peak_rss_mb": 300.0}}
    say("result", **{{**base, **fields}})
if request["model"] is None:
    answer("identity")
    sys.exit()
open({seen!r}, "w").write(json.dumps({{**request, "pid": os.getpid()}}))
def done():
    open(request["plan"], "wb").write(b"plan")
    answer("done")
"""


class Ear:
    """A `Progress` that keeps what it hears."""

    def __init__(self, heard=None):
        self.total, self.percent, self.texts, self._heard = None, 0, [], heard

    def update(self, advance=1, text=""):
        self.percent += advance
        self.texts.append(text)
        if self._heard is not None:
            self._heard(text)


@pytest.fixture
def bundle(make_bundle):
    return open_bundle(make_bundle())


@pytest.fixture
def child(tmp_path):
    """A function: what the child does → (its command, where it writes what it was asked)."""

    def make(body):
        seen, script = tmp_path / "seen.json", tmp_path / "child.py"
        script.write_text(CHILD.format(gpu=GPU, seen=str(seen)) + body)
        return [sys.executable, str(script)], seen

    return make


@pytest.fixture
def run(child, bundle):
    """A function: what the child does, options → engine."""

    def go(body, *, progress=None, beat_s=60.0, room=None, **options):
        command, _ = child(body)
        job = prepare_build(bundle, BuildOptions(**options), command=command, room=room)
        return carry_out(job, progress=progress or Ear(), command=command, beat_s=beat_s)

    return go


def left(bundle):
    """Files in the cache, the lock left out."""
    return {p.name for p in engine_folder(bundle).glob("*")} - {".lock"}


# a scripted child ----------------------------------------------------------------------------------


def test_an_engine_and_its_record(run, bundle):
    engine = run("done()")
    assert engine.path.read_bytes() == b"plan"
    record = engine.record
    assert (record["version"], record["gpu"], record["capability"]) == ("10.3.0", "Orin", "8.7")
    assert record["options"]["profile"] == {
        "images": [[1, 24, 16, 3], [8, 24, 16, 3], [32, 24, 16, 3]]
    }
    assert record["memory"]["builder_peak_mb"] == 300.0
    assert left(bundle) == {engine.path.name, f"{engine.path.stem}.json"}
    gpu = SimpleNamespace(cc="8.7", name="Orin", sms=8)
    assert find_engine(bundle, library="tensorrt", version="10.3.0", gpu=gpu).path == engine.path


def test_an_engine_of_somebody_else_is_built_again(run, bundle, monkeypatch, tmp_path):
    """It was "there already" for its name alone."""
    run("done()")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))  # as on another machine
    assert not run("done()", trust_engines=True).fresh
    assert run("done()").fresh
    assert not run("done()").fresh


def test_what_a_killed_build_left_goes(run, bundle):
    engine_folder(bundle).mkdir()
    (engine_folder(bundle) / ".0123.engine.abc.part").write_bytes(b"half")
    engine = run("done()")
    assert left(bundle) == {engine.path.name, f"{engine.path.stem}.json"}


def test_the_same_is_not_built_twice(run, bundle):
    first = run("done()")
    crash = "os.kill(os.getpid(), signal.SIGSEGV)"
    again = run(crash)
    assert (again.path, first.fresh, again.fresh) == (first.path, True, False)
    assert run("done()", force=True).fresh
    assert run("done()", batch=(1, 1, 4)).path != first.path
    assert run(crash).path == list_engines(bundle)[0].path == first.path
    with pytest.raises(TargetError):
        run(crash, tf32=True)
    first.path.write_bytes(b"plam")
    assert run("done()").fresh
    assert len(list_engines(bundle)) == 2


def test_what_the_child_is_asked(child, bundle):
    command, seen = child("done()")
    options = BuildOptions(workspace_mb=64, optimization_level=2, tf32=True)
    carry_out(prepare_build(bundle, options, command=command), command=command)
    asked = json.loads(seen.read_text())
    # through the folder's descriptor: the graph whose digest is in the engine's key
    assert re.fullmatch(rf"/proc/{os.getpid()}/fd/\d+/model\.onnx", asked["model"])
    assert (asked["workspace_mb"], asked["optimization_level"], asked["tf32"]) == (64, 2, True)
    assert asked["timing_cache"].endswith("tensorrt-10.3.0-8.7-Orin-8.timing")
    assert asked["types"] == []
    carry_out(
        prepare_build(bundle, BuildOptions(timing_cache=False, force=True), command=command),
        command=command,
    )
    assert json.loads(seen.read_text())["timing_cache"] is None


@pytest.mark.parametrize(
    ("precision", "target", "types"),
    [
        ("fp16", "tensorrt", ["fp16"]),
        ("int8", "tensorrt", ["int8", "fp16"]),
        ("int8", "cpu", ["int8"]),
    ],
)
def test_types_for_tensorrt_8(child, make_bundle, precision, target, types):
    command, seen = child("done()")
    bundle = open_bundle(make_bundle(precision=precision, lowering={"target": target}))
    carry_out(prepare_build(bundle, BuildOptions(), command=command), command=command)
    assert json.loads(seen.read_text())["types"] == types


LOG = 'say("log", severity="VERBOSE", text="Parsing node: blocks.3/add2 [Add]")\n'


def test_a_crash_names_the_last_node(run, bundle):
    with pytest.raises(TargetError, match=r"SIGSEGV; the last node .* blocks\.3/add2 \[Add\]"):
        run(LOG + "os.kill(os.getpid(), signal.SIGSEGV)")
    assert left(bundle) == set()


def test_a_crash_in_the_middle_of_a_line(run):
    with pytest.raises(TargetError, match="SIGSEGV"):
        run('sys.stdout.write("{")\nsys.stdout.flush()\nos.kill(os.getpid(), signal.SIGSEGV)')


def test_kernel_times_that_the_library_does_not_take(tmp_path):
    make_key()
    (tmp_path / "a.timing").write_bytes(with_seal(b"of another driver", "a.timing"))
    (tmp_path / "a.timing").chmod(0o600)
    taken = []
    config = SimpleNamespace(
        create_timing_cache=lambda content: content,
        set_timing_cache=lambda cache, _: taken.append(cache) or not cache,
    )
    build_worker._load_timing_cache(config, tmp_path / "a.timing")
    assert taken == [b"of another driver", b""]


def test_kernel_times_of_somebody_else_are_not_read(tmp_path):
    """A library of native code parses them: those that came with a bundle are not its to read."""
    make_key()
    path, whole = tmp_path / "a.timing", with_seal(b"times", "a.timing")
    for content in (b"times", b"", bytes(32) + b"times", whole + b"!", with_seal(b"times", "b")):
        path.write_bytes(content)
        path.chmod(0o600)
        assert build_worker._kept_times(path) == b""
    path.write_bytes(whole)
    assert build_worker._kept_times(path) == b"times"
    path.chmod(0o666)
    assert build_worker._kept_times(path) == b""
    path.chmod(0o600)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert build_worker._kept_times(path) == b""


def test_kernel_times_are_not_written_through_a_link(tmp_path):
    make_key()
    victim, path = tmp_path / "victim", tmp_path / "a.timing"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    path.with_name(f".{path.name}.{os.getpid()}.part").symlink_to(victim)
    times = SimpleNamespace(serialize=lambda: memoryview(b"times"))
    build_worker._store_timing_cache(SimpleNamespace(get_timing_cache=lambda: times), path)
    assert victim.read_bytes() == b"precious"
    assert build_worker._kept_times(path) == b"times"


def test_a_child_that_the_system_ends_for_lack_of_memory(run):
    with pytest.raises(TargetError, match=r"memory did not do.*--workspace"):
        run("os.kill(os.getpid(), signal.SIGKILL)")


def test_errors_of_the_parser_and_of_the_builder(run):
    wrong = '[{"node": "n", "operator": "Det", "message": "not known"}]'
    with pytest.raises(TargetError, match=r"\(parse\): n \[Det\]: not known"):
        run(f'answer("parse", errors={wrong})')
    error = 'say("log", severity="ERROR", text="blocks.3/add2: out of memory")\n'
    with pytest.raises(TargetError, match=r"\(build\): blocks.3/add2 \[Add\].*What helps"):
        run(LOG + error + 'answer("build")')


def test_a_child_that_does_not_start(run):
    with pytest.raises(TargetError, match=r"exit status 3: no library of that name"):
        run('sys.stderr.write("no library of that name\\n"); sys.exit(3)')


def test_a_library_that_hangs_when_it_is_loaded(bundle):
    ear, hangs = Ear(), ["sleep", "1000"]
    with pytest.raises(MissingError, match=r"no answer after 0\.5 s.*vptkit doctor") as caught:
        prepare_build(
            bundle, BuildOptions(), command=hangs, beat_s=0.1, loading_s=0.5, progress=ear
        )
    assert caught.value.exit_code == 5
    assert "tensorrt is loading, 0 s" in ear.texts
    assert prepare_build.__kwdefaults__["loading_s"] == 60.0


def test_something_is_missing(bundle, tmp_path):
    script = tmp_path / "child.py"
    script.write_text('print(\'{"event": "missing", "message": "no GPU here"}\')')
    with pytest.raises(MissingError, match="no GPU here"):
        prepare_build(bundle, BuildOptions(), command=[sys.executable, str(script)])
    script.write_text("import os; os.abort()")
    with pytest.raises(MissingError, match=r"tensorrt does not start here: .*SIGABRT"):
        prepare_build(bundle, BuildOptions(), command=[sys.executable, str(script)])


def test_signs_of_life(run, tmp_path):
    """The child waits until its silence was reported."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def heard(text):
        if text.startswith("still building") and "tactic 7" in text:
            with contextlib.suppress(OSError), gate.open("w"):
                pass

    ear = Ear(heard)
    body = f'say("tactic", count=7)\nopen({str(gate)!r}).read()\ndone()'
    assert run(body, progress=ear, beat_s=0.05).fresh
    assert any(text.startswith("still building, ") for text in ear.texts)


def test_signs_of_life_of_a_child_that_talks(run):
    """Tactics come every second or so; the time that passes is told all the same."""
    ear = Ear()
    run('[say("tactic", count=i) for i in range(100)]\ndone()', progress=ear, beat_s=0.0)
    assert any("tactic" in text for text in ear.texts)


def test_progress_in_percent():
    ear = Ear()
    follower = Follower(ear)
    for event in (
        {"event": "phase", "name": "all", "parent": None, "steps": 4},
        {"event": "step", "name": "all"},
        {"event": "phase", "name": "inner", "parent": "all", "steps": 2},
        {"event": "step", "name": "inner"},
        {"event": "finish", "name": "inner"},
        {"event": "step", "name": "all"},
        {"event": "step", "name": "unheard of"},
    ):
        follower(event)
    assert (ear.total, ear.percent) == (100, 50)
    assert ear.texts[3] == "inner"
    follower({"event": "beat", "seconds": 95.2})
    assert ear.texts[-1] == "all, 95 s"
    follower({"event": "result", "stage": "done"})
    assert ear.percent == 100


def test_phases_that_end_in_any_order():
    ear = Ear()
    follower = Follower(ear)
    for event in (
        {"event": "step", "name": "early"},
        {"event": "phase", "name": "all", "parent": None, "steps": 2},
        {"event": "phase", "name": "inner", "parent": "all", "steps": 0},
        {"event": "finish", "name": "all"},
        {"event": "finish", "name": "inner"},
        {"event": "step", "name": "all"},
        {"event": "finish", "name": "all"},
    ):
        follower(event)
    assert ear.percent == 50


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_an_interruption_ends_the_child(child, bundle):
    command, seen = child(
        'say("tactic", count=1)\nsay("phase", name="p", parent=None, steps=2)\nsys.stdin.read()'
    )

    def interrupt(text):
        raise KeyboardInterrupt

    job = prepare_build(bundle, BuildOptions(), command=command)
    with pytest.raises(KeyboardInterrupt):
        carry_out(job, progress=Ear(interrupt), command=command)
    assert gone(json.loads(seen.read_text())["pid"])
    assert left(bundle) == set()


INTERRUPTED = """
import sys
from pathlib import Path
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.engine_build.builder import BuildOptions, carry_out, prepare_build
class Ear:
    total = None
    def update(self, advance=1, text=""):
        print("building", flush=True)
command = sys.argv[2:]
job = prepare_build(open_bundle(Path(sys.argv[1])), BuildOptions(), command=command)
carry_out(job, progress=Ear(), command=command)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_real_signal_leaves_no_child(child, bundle, tmp_path, signum):
    """SIGINT unwinds; of SIGKILL the child learns by its closed input."""
    os.mkfifo(tmp_path / "alive")
    alive = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    hold = f'held = open({str(tmp_path / "alive")!r}, "w")\n'
    command, _ = child(hold + 'say("phase", name="p", parent=None, steps=2)\nsys.stdin.read()')
    line = [sys.executable, "-c", INTERRUPTED, bundle.path, *command]
    with Child(line, stdout=PIPE, stderr=DEVNULL) as parent:
        assert parent.stdout.readline() == "building\n"
        parent.send_signal(signum)
        assert parent.wait() != 0
    os.set_blocking(alive, True)
    assert os.read(alive, 1) == b""  # comes when nobody holds the other end any more
    os.close(alive)
    assert not {name for name in left(bundle) if name.endswith((".engine", ".json"))}


DISPOSITION = """
import signal, sys
signal.signal(signal.SIGINT, signal.{before})
from vptkit.runtime.engine_build import build_worker as trt_build
try:
    trt_build.main()
except ValueError:  # no request on standard input
    sys.stderr.write(signal.getsignal(signal.SIGINT).name)
"""


@pytest.mark.parametrize(
    ("before", "after"), [("SIG_IGN", "SIG_IGN"), ("default_int_handler", "SIG_DFL")]
)
def test_ctrl_c_ends_the_child_unless_it_was_ignored(before, after):
    done = run_child([sys.executable, "-c", DISPOSITION.format(before=before)])
    assert done.stderr == after


def test_hopeless_builds_are_refused(run):
    room = Room(device=10, host=None, shared=False, source="a tiny board")
    with pytest.raises(TargetError, match="a tiny board has"):
        run("done()", room=room)
    assert run("done()", room=room, force=True).record["forecast"]["tight"]


@pytest.mark.parametrize(
    ("lowering", "match"),
    [
        ({"requires": {"tensorrt": "10.4"}}, "needs TensorRT 10.4"),
        ({"requires": {"compute_capability": "8.9"}}, r"Orin has 8\.7"),
    ],
)
def test_graphs_that_this_machine_cannot_take(child, make_bundle, lowering, match):
    command, _ = child("done()")
    bundle = open_bundle(make_bundle(lowering=lowering))
    with pytest.raises(TargetError, match=match):
        prepare_build(bundle, BuildOptions(), command=command)
    fine = {"requires": {"tensorrt": "10.0", "compute_capability": "8.0"}}
    prepare_build(open_bundle(make_bundle(lowering=fine)), BuildOptions(), command=command)


def test_tensorrt_builds_for_no_other_gpu(bundle):
    with pytest.raises(TargetError, match="--on user@host"):
        build_engine(bundle, BuildOptions(sm=87))


@pytest.mark.parametrize(
    "options",
    [{"batch": (0, 1, 2)}, {"batch": (4, 2, 8)}, {"workspace_mb": 0}, {"optimization_level": 6}],
)
def test_options_out_of_range(options):
    with pytest.raises(VptkitError, match="expected"):
        BuildOptions(**options)


def test_a_fixed_batch_has_no_profile(make_bundle):
    assert profile_of(open_bundle(make_bundle(batch=4)), BuildOptions()) == {}


# what an engine computes in -----------------------------------------------------------------------

LAYERS = [
    {"role": "gemm", "type": "Half", "name": "a", "nodes": ["blocks.0.attn.qkv/MatMul"]},
    {"role": "gemm", "type": "Float", "name": "b", "nodes": ["blocks.1.mlp.fc1/MatMul"]},
    {"role": "norm", "type": "Float", "name": "c", "nodes": ["norm"]},
]
MADE = {"opaque": [], "dequantized_gemms": [], "unfused_softmax": []}


@pytest.mark.parametrize(
    ("made", "expect", "islands", "found"),
    [
        ({}, "fp16", (), ["b (gemm) computes in Float"]),
        ({}, "fp16", ("blocks.1",), []),
        ({}, "fp32", (), ["a (gemm) computes in Half"]),
        ({}, "int8", (), ["no layer computes in int8"]),
        ({"unfused_softmax": ["s"]}, "fp16", ("blocks.1.mlp",), ["s: attention is not fused"]),
        ({"unfused_softmax": ["s"]}, "fp32", (), ["a (gemm) computes in Half"]),
        (
            {"dequantized_gemms": ["d"]},
            "int8",
            (),
            ["d runs dequantized", "no layer computes in int8"],
        ),
        ({"opaque": ["x"]}, "fp16", (), ["the library does not show"]),
    ],
)
def test_shortfalls(made, expect, islands, found):
    record = {"structure": MADE | made, "layers": LAYERS}
    texts = shortfalls(record, expect, islands)
    assert len(texts) == len(found)
    assert all(text.startswith(start) for text, start in zip(texts, found, strict=True))


def test_an_unknown_type():
    with pytest.raises(VptkitError, match="expected fp32, fp16"):
        shortfalls({"structure": MADE, "layers": LAYERS}, "fp64")


# the child against a library that is not there ------------------------------------------------------


def test_the_fake_tensorrt(fake_gpu, bundle):
    ear = Ear()
    engine = build_engine(bundle, progress=ear)
    assert (engine.record["version"], engine.record["gpu"]) == ("10.3.0", "NVIDIA H200")
    assert engine.record["structure"]["layers"] == len(engine.record["layers"]) > 0
    assert ear.percent == 100
    assert any(name.endswith(".timing") for name in left(bundle))
    with pytest.raises(GateError, match="expected int8"):
        require_type(engine, "int8", bundle)


def test_a_new_version_finds_no_engine(fake_gpu, bundle, monkeypatch):
    old = build_engine(bundle)
    monkeypatch.setenv("FAKE_TENSORRT", "10.13.2")
    assert build_engine(bundle).path != old.path
    assert len(list_engines(bundle)) == 2


def flags(**names):
    return SimpleNamespace(**names)


class Made:
    """A layer of a network that TensorRT 8 would make."""

    def __init__(self, kind, dtype):
        self.type, self.precision, self.num_outputs = SimpleNamespace(name=kind), None, 1
        self._output, self.set = SimpleNamespace(dtype=dtype), None

    def get_output(self, index):
        return self._output

    def set_output_type(self, index, dtype):
        self.set = dtype


def eight(*layers):
    """TensorRT 8's module, a network and the flags that are set."""
    trt = SimpleNamespace(
        NetworkDefinitionCreationFlag=flags(EXPLICIT_BATCH=0),
        BuilderFlag=flags(FP16="FP16", INT8="INT8", OBEY_PRECISION_CONSTRAINTS="OBEY"),
        DataType=flags(HALF="HALF", FLOAT="FLOAT"),
    )
    network = SimpleNamespace(num_layers=len(layers), get_layer=lambda i: layers[i])
    chosen = []
    return trt, network, SimpleNamespace(set_flag=chosen.append), chosen


def test_tensorrt_8_pins_what_the_graph_has_in_fp32():
    half, island = Made("MATRIX_MULTIPLY", "HALF"), Made("ELEMENTWISE", "FLOAT")
    cast = Made("CAST", "FLOAT")
    trt, network, config, chosen = eight(half, island, cast)
    build_worker._follow_types(trt, network, config, ["int8", "fp16"])
    assert chosen == ["INT8", "FP16", "OBEY"]
    assert (island.precision, island.set) == ("FLOAT", "FLOAT")
    assert half.precision is cast.precision is None
    assert build_worker._network_flags(trt) == 1


def test_tensorrt_8_without_a_half_pins_nothing():
    layer = Made("ELEMENTWISE", "FLOAT")
    trt, network, config, chosen = eight(layer)
    build_worker._follow_types(trt, network, config, ["fp16"])
    assert chosen == ["FP16"]
    assert layer.precision is None


def test_typed_networks_are_left_alone():
    trt, network, config, chosen = eight(Made("ELEMENTWISE", "FLOAT"), Made("CAST", "HALF"))
    trt.NetworkDefinitionCreationFlag = flags(STRONGLY_TYPED=0)
    build_worker._follow_types(trt, network, config, ["fp16"])
    assert chosen == []
    trt.NetworkDefinitionCreationFlag = flags(EXPLICIT_BATCH=0, STRONGLY_TYPED=1)
    assert build_worker._network_flags(trt) == 2


# TensorRT-RTX on the processor ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A function: precision, batch → an opened bundle of a small ViT."""
    files = files_of(tmp_path_factory.mktemp("vit"), SMALL_VIT, golden=False)
    made = {}

    def open_one(precision="fp16", batch=None):
        name = f"{precision}-{batch}"
        if name not in made:
            out = files.adapter.parent / f"{name}.vptk"
            lowering = Lowering(precision=precision, target="tensorrt")
            options = ExportOptions(batch=batch, lowering=lowering)
            export(files.adapter, out, weights=files.weights, options=options)
            made[name] = open_bundle(out)
        return made[name]

    return open_one


@rtx
@pytest.mark.parametrize("sm", [86, 89, 120])
def test_ahead_of_time(vit, sm):
    bundle, ear = vit(), Ear()
    engine = build_engine(
        bundle, BuildOptions(library="tensorrt_rtx", sm=sm, batch=(1, 2, 4)), progress=ear
    )
    record = engine.record
    assert engine.path.read_bytes()[:4] == b"vtrt"
    assert (record["gpu"], record["capability"]) == (None, f"{sm // 10}.{sm % 10}")
    assert record["structure"]["attentions"] == SMALL_VIT.depth
    assert record["structure"]["unfused_softmax"] == []
    assert ear.percent == 100
    require_type(engine, "fp16", bundle)
    with pytest.raises(GateError, match="computes in Half"):
        require_type(engine, "fp32", bundle)


@rtx
def test_an_fp32_graph_does_not_keep_fp16(vit):
    bundle = vit("fp32", 1)
    engine = build_engine(bundle, BuildOptions(library="tensorrt_rtx", sm=86))
    with pytest.raises(GateError, match="computes in Float"):
        require_type(engine, "fp16", bundle)
    assert require_type(engine, "fp32", bundle) is None


@rtx
def test_the_forecast_against_the_library(vit):
    """What a batch adds; of so small a graph one image is lost in what every engine holds."""
    foretold, real = [], []
    for batch in (64, 256):
        record = build_engine(
            vit("fp16", batch), BuildOptions(library="tensorrt_rtx", sm=86)
        ).record
        foretold.append(record["forecast"]["activations"])
        real.append(record["memory"]["activation_bytes"])
    assert foretold[1] - foretold[0] == pytest.approx(real[1] - real[0], rel=0.2)


@rtx
def test_a_target_that_the_library_does_not_have(vit):
    with pytest.raises(
        TargetError, match=r"\(target\): TensorRT-RTX .* has no target SM87, only SM75"
    ):
        build_engine(vit(), BuildOptions(library="tensorrt_rtx", sm=87))


@rtx
def test_a_bank(tmp_path):
    members = family(Setup(tuned_norms=False, depth=2), ("bilinear", "norms", "linear"))
    paths = write_family(members, tmp_path, golden=False)
    weights = paths.pop("weights")
    lowering = Lowering(precision="fp16", target="tensorrt")
    options = ExportOptions(lowering=lowering)
    export_bank(list(paths.values()), tmp_path / "b.vptk", weights=weights, options=options)
    bundle = open_bundle(tmp_path / "b.vptk")
    wanted = BuildOptions(library="tensorrt_rtx", sm=86, batch=(1, 2, 4), bank_max=5)
    profile = profile_of(bundle, wanted)
    assert profile["adapter"] == [[1], [2], [4]]
    assert [shape[0] for shape in profile["bank.head_bias"]] == [1, 5, 5]
    assert [shape[0] for shape in profile["bank.prompts"]] == [2, 10, 10]
    assert build_engine(bundle, wanted).record["structure"]["fused_attentions"] == 2
    with pytest.raises(VptkitError, match="--bank-max 2 is less than the 3"):
        profile_of(bundle, BuildOptions(bank_max=2))
    free = profile_of(bundle, BuildOptions())
    assert [shape[0] for shape in free["adapter"]] == [1, 8, 32]
    assert [shape[0] for shape in free["bank.head_bias"]] == [1, 64, 64]


@rtx
def test_what_the_library_prints_does_not_disturb(vit, tmp_path, monkeypatch):
    """The child's own standard output belongs to the conversation."""
    (tmp_path / "tensorrt_rtx.py").write_text(
        "import os\nos.write(1, b'noise\\n')\nfrom tensorrt_rtx_bindings import *\n"
        "from tensorrt_rtx_bindings import __version__\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert build_engine(vit("fp16", 2), BuildOptions(library="tensorrt_rtx", sm=86)).fresh


def test_the_log_and_the_layers_agree_on_what_is_parsed():
    assert structure("VERBOSE: Parsing node: a [Softmax]").operators == {"a": "Softmax"}
