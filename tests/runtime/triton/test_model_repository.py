from __future__ import annotations

import re

import pytest

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family
from vptkit.errors import BundleError, MissingError, OutputError, TargetError, VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.backends import engine_cache
from vptkit.runtime.triton import model_repository
from vptkit.runtime.triton.model_config import Batching
from vptkit.runtime.triton.model_repository import TritonOptions, write_model_repository


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    found = {}
    for tables in ("inputs", "constant"):
        folder = tmp_path_factory.mktemp(tables)
        found[tables] = export_family(folder, family(kinds=("both", "linear")), tables=tables)
    return found


@pytest.mark.parametrize(
    ("backend", "session", "kind"),
    [
        ("python", None, "KIND_CPU"),
        ("python", "openvino", "KIND_CPU"),
        ("python", "openvino-gpu", "KIND_CPU"),
        ("python", "cuda", "KIND_GPU"),
        ("onnxruntime", None, "KIND_AUTO"),
        ("onnxruntime", "cpu", "KIND_CPU"),
        ("tensorrt", None, "KIND_GPU"),
    ],
)
def test_where_instances_run(backend, session, kind):
    assert model_repository.instance_kind(backend, session) == kind


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_bundle_with_one_adapter(make_bundle, tmp_path):
    bundle = make_bundle(labels=("red", "the\ngreen", "blue"))
    out = tmp_path / "models"
    described = write_model_repository([bundle], out)["tiny-0"]
    assert described["inputs"] == {
        "image": {"datatype": "BYTES", "shape": [-1, 1]},
        "images": {"datatype": "UINT8", "shape": [-1, 24, 16, 3]},
    }
    assert described["outputs"]["label"] == {"datatype": "BYTES", "shape": [-1, 1]}
    model = out / "tiny-0"
    assert (model / "labels.txt").read_text() == "red\nthe green\nblue\n"
    config = (model / "config.pbtxt").read_text()
    assert "optional: true" in config
    assert "adapter" not in config
    copy = open_bundle(model / "1" / "tiny-0.vptk")
    assert copy.digest == open_bundle(bundle).digest


def test_nothing_is_written_over_what_is_there(make_bundle, tmp_path):
    out = tmp_path / "models"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(OutputError, match="exists already"):
        write_model_repository([make_bundle()], out)
    assert files(out) == ["mine"]
    write_model_repository([make_bundle()], out, force=True)
    assert "mine" not in files(out)


def test_a_damaged_bundle_leaves_nothing(make_bundle, tmp_path):
    good, bad = make_bundle(), make_bundle()
    (bad / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError):
        write_model_repository([good, bad], tmp_path / "models")
    assert not [p for p in tmp_path.iterdir() if "models" in p.name]


def test_a_bundle_that_changes_meanwhile_is_copied_whole(make_bundle, tmp_path, monkeypatch):
    bundle, real = make_bundle(), model_repository._copy_file

    def once(opened, name, place):
        monkeypatch.setattr(model_repository, "_copy_file", real)
        bundle.rename(bundle.with_name("old"))
        make_bundle().rename(bundle)
        real(opened, name, place)

    monkeypatch.setattr(model_repository, "_copy_file", once)
    write_model_repository([bundle], tmp_path / "models")
    copy = open_bundle(tmp_path / "models" / "tiny-0" / "1" / "tiny-0.vptk")
    assert copy.digest == open_bundle(bundle).digest


@pytest.mark.slow
def test_an_ensemble_of_a_bank(banks, tmp_path):
    out = tmp_path / "models"
    options = TritonOptions(backend="onnxruntime", threads=3, batching=Batching(delay_us=9))
    write_model_repository([banks["constant"]], out, options)
    assert files(out) == [
        "bank/config.pbtxt",
        "bank_decode/1/manifest.vptk/manifest.json",
        "bank_decode/1/model.py",
        "bank_decode/config.pbtxt",
        "bank_graph/1/model.onnx",
        "bank_graph/config.pbtxt",
        "bank_labels/1/manifest.vptk/manifest.json",
        "bank_labels/1/model.py",
        "bank_labels/config.pbtxt",
    ]
    assert (out / "bank" / "1").is_dir()
    graph = " ".join((out / "bank_graph" / "config.pbtxt").read_text().split())
    assert 'backend: "onnxruntime"' in graph
    assert "max_queue_delay_microseconds: 9" in graph
    assert 'key: "intra_op_thread_count" value { string_value: "3" }' in graph
    assert 'name: "adapter" data_type: TYPE_INT32 dims: [1] reshape { shape: [] }' in graph
    steps = (out / "bank" / "config.pbtxt").read_text()
    assert re.findall(r'model_name: "(\w+)"', steps) == ["bank_decode", "bank_graph", "bank_labels"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_what_tritons_own_backends_cannot_run(banks, make_bundle, tmp_path, backend):
    options = TritonOptions(backend=backend)
    for bundle, words in (
        (banks["inputs"], "--layout bank --tables constant"),
        (make_bundle(batch=2), "takes 2 images at once.*--batch dynamic"),
    ):
        with pytest.raises(TargetError, match=words):
            write_model_repository([bundle], tmp_path / "models", options)


@pytest.mark.slow
def test_an_engine_is_built_before(make_bundle, tmp_path, monkeypatch):
    bundle, options = make_bundle(), TritonOptions(backend="tensorrt")
    with pytest.raises(MissingError, match="vptkit build"):
        write_model_repository([bundle], tmp_path / "models", options)
    plan = tmp_path / "a.engine"
    plan.write_bytes(b"plan")
    record = {"library": "tensorrt", "options": {"profile": {"images": [[1], [2], [4]]}}}
    engine = engine_cache.Engine(path=plan, record=record)
    monkeypatch.setattr(model_repository, "list_engines", lambda bundle: [engine])
    monkeypatch.setattr(engine_cache.Engine, "open_plan", lambda self, trust: plan.open("rb"))
    with pytest.raises(TargetError, match="takes 4 images at most, less than --max-batch 8"):
        write_model_repository([bundle], tmp_path / "models", options)
    options = TritonOptions(backend="tensorrt", batching=Batching(max_batch=4))
    write_model_repository([bundle], tmp_path / "models", options)
    graph = tmp_path / "models" / "tiny-0_graph"
    assert (graph / "1" / "model.plan").read_bytes() == b"plan"
    assert 'platform: "tensorrt_plan"' in (graph / "config.pbtxt").read_text()


def test_features_alone_have_no_labels(make_bundle, tmp_path):
    bundle = make_bundle(gives=("features",))
    for backend in ("python", "onnxruntime"):
        out = tmp_path / backend
        write_model_repository([bundle], out, TritonOptions(backend=backend))
        assert not [name for name in files(out) if "labels" in name]
        assert "label" not in (out / "tiny-0" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--instances", 2), "--instances have no effect"),
        (("--triton", "models", "--k8s-image", "a"), "--k8s-image has no effect"),
        (("--triton", "models", "--token-file", "t"), "Triton asks for no token"),
        (("--print-k8s", "--open"), "Triton asks for no token"),
    ],
)
def test_options_without_effect(vptkit, words, said):
    code, _, err = vptkit("serve", "x.vptk", *words)
    assert code == 2
    assert said in " ".join(err.split())


@pytest.mark.slow
def test_the_command(make_bundle, tmp_path, vptkit):
    bundle, out = make_bundle(), tmp_path / "models"
    code, said, _ = vptkit("serve", bundle, "--triton", out, "--max-batch", 3, "--backend", "cuda")
    assert code == 0
    assert f"{out}: model tiny-0, 1 adapter, python" in said
    assert f"next: tritonserver --model-repository={out}" in said
    config = " ".join((out / "tiny-0" / "config.pbtxt").read_text().split())
    assert "max_batch_size: 3" in config
    assert "instance_group { kind: KIND_GPU count: 1 gpus: [0] }" in config
    assert 'key: "session_backend" value { string_value: "cuda" }' in config
    code, said, err = vptkit("serve", bundle, "--triton", out, "--print-k8s")
    assert (code, said) == (2, "")
    assert "exists already" in err
    code, said, err = vptkit("serve", bundle, "--triton", out, "--force", "--print-k8s")
    assert code == 0
    assert said.startswith("# Written by vptkit")
    assert "model tiny-0" in err
    code, _, err = vptkit("serve", bundle, "--triton", out, "--triton-backend", "openvino")
    assert code == 2
    assert "--triton-backend" in err


def test_there_is_no_other_way_to_decode(make_bundle, tmp_path):
    with pytest.raises(VptkitError, match="decode is 'quick', expected one of exact, fast"):
        write_model_repository([make_bundle()], tmp_path / "m", TritonOptions(decode="quick"))
    assert not (tmp_path / "m").exists()
