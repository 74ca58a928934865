"""Bundles under the profiler: ONNX Runtime's own, and TensorRT's by the fakes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family
from tests.support.fakes.gpu import SERVER
from vptkit.devices.probes.machine import usable_cores
from vptkit.errors import BundleError, MissingError, TargetError, VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.backends import tensorrt_graph
from vptkit.runtime.layers import profile_layers as module
from vptkit.runtime.layers.layer_comparison import compare_layers
from vptkit.runtime.layers.profile_layers import LayerOptions, names_of, profile_layers


def options(**changes):
    return LayerOptions(**{"rounds": 4, "threads": 1} | changes)


@pytest.fixture
def bank(tmp_path):
    return export_family(tmp_path, family(kinds=("bilinear", "norms")))


def test_the_layers_of_a_model_are_placed(bank):
    (found,) = profile_layers({"bank": bank}, options(batch=3))
    spec = open_bundle(bank).spec
    places = [place.place for place in found.places]
    assert {f"blocks.{i}.{p}" for i in range(spec.depth) for p in ("attention", "mlp")} <= {*places}
    assert {"preprocessing", "adapter", "patch_embed", "head"} <= {*places}
    assert "other" not in places
    assert (len(found.runs), found.adapters) == (4, ("bilinear", "norms"))
    assert all(len(layer.spans) == 4 for layer in found.layers)
    assert found.layers_ms > 0
    linears = spec.depth * spec.tokens * 2 * spec.width * spec.mlp_width
    flops = sum(x.cost.flops for p in found.places if p.place.endswith("mlp") for x in p.layers)
    assert 0.5 * 2 * 3 * linears < flops <= 2 * 3 * linears  # the last block computes one row


def test_two_bundles_run_in_turns_and_are_compared(bank, make_bundle):
    one, two = profile_layers({"a": bank, "b": bank}, options())
    changes = compare_layers(one, two)
    assert all(change.same for change in changes)
    assert [p.place for p in one.places] == [change.place for change in changes]
    tiny, _ = profile_layers({"tiny": make_bundle(), "bank": bank}, options())
    assert tiny.name == "tiny"


def test_the_roof_is_that_of_all_cores(make_bundle, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    (whole,) = profile_layers({"a": make_bundle()}, options(threads=usable_cores()))
    assert whole.roof is not None
    assert all(layer.cost for layer in whole.layers)
    assert all((place.of_roof(whole.roof) or 0) <= 1 + 1e-9 for place in whole.places)
    (more,) = profile_layers({"a": make_bundle()}, options(threads=usable_cores() + 1))
    assert more.roof is None
    assert "threads" in more.no_roof


def test_one_adapter_of_a_bank(bank):
    (found,) = profile_layers({"bank": bank}, options(adapter="norms"))
    assert found.adapters == ("norms",)
    with pytest.raises(BundleError, match="nobody"):
        profile_layers({"bank": bank}, options(adapter="nobody"))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rounds": 0}, "rounds"),
        ({"batch": 0}, "batch"),
        ({"seconds": 0.0}, "seconds"),
        ({"backend": "cuda"}, "launches"),
        ({"backend": "ort-tensorrt"}, "launches"),
    ],
)
def test_bad_settings_are_refused(make_bundle, changes, word):
    with pytest.raises(VptkitError, match=word):
        profile_layers({"a": make_bundle()}, options(**changes))
    with pytest.raises(VptkitError, match="no bundles"):
        profile_layers({}, options())


def test_a_fixed_batch_is_kept(make_bundle):
    (found,) = profile_layers({"a": make_bundle(batch=4)}, options(batch=4))
    assert found.batch == 4
    with pytest.raises(TargetError, match="--batch 4"):
        profile_layers({"a": make_bundle(batch=4)}, options())


def test_seconds_end_it(make_bundle, monkeypatch):
    monkeypatch.setattr(module, "_MOST_RUNS", 7)
    (found,) = profile_layers({"a": make_bundle()}, options(rounds=None, seconds=60.0))
    assert len(found.runs) == 7


@pytest.mark.parametrize("fake_gpu", [SERVER], indirect=True)
@pytest.mark.parametrize("banked", [False, True])
def test_an_engine_tells_its_layers(fake_gpu, monkeypatch, make_bundle, bank, banked):
    path = bank if banked else make_bundle()
    engine = fake_gpu.engine(path)
    monkeypatch.setattr(tensorrt_graph, "open_engine", lambda *_, **__: engine.opened())
    (found,) = profile_layers({"a": path}, options(backend="tensorrt", batch=2))
    names = [layer["Name"] for layer in found.information["Layers"]]
    assert {layer.name for layer in found.layers} == {*names}
    assert len(found.runs) == 4
    assert all(len(layer.spans) == 4 for layer in found.layers)
    assert found.roof is None
    total = sum(range(1, len(names) + 1)) / 1000  # as the fake tells them
    assert found.layers_ms == pytest.approx(total)
    if banked:
        assert "blocks.0.attention" in [place.place for place in found.places]


def test_times_that_do_not_fit_the_runs_are_refused():
    with pytest.raises(TargetError, match="5 times in 4 runs"):
        module._spans([("a", 1.0)] * 5, [module.Span(0, 1)])
    found = module._spans([("a", 1.0), ("b", 2.0), ("a", 3.0)] * 4, [module.Span(5, 9)])
    assert found == {"a": (module.Span(5, 4.0),), "b": (module.Span(9.0, 2.0),)}


def test_without_onnxruntime_it_says_what_to_install(make_bundle, monkeypatch):
    import builtins

    real = builtins.__import__

    def refuse(name, *rest):
        if name.endswith("onnxruntime_graph"):
            raise ModuleNotFoundError("no onnxruntime", name="onnxruntime")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingError, match="pip install"):
        profile_layers({"a": make_bundle()}, options())


def test_the_profile_does_not_change_the_answers(make_bundle, tiny_model, tmp_path):
    from vptkit.runtime.backends.onnxruntime_graph import OrtGraph

    images = np.random.default_rng(0).integers(0, 256, (2, 24, 16, 3), dtype=np.uint8)
    graph = OrtGraph(open_bundle(make_bundle()), threads=1, profile=tmp_path / "p")
    np.testing.assert_allclose(graph(images), tiny_model.logits(images), atol=2e-5)
    assert graph.end_profile().parent == tmp_path


def test_bundles_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / "a" / "x.vptk", tmp_path / "b" / "x.vptk", tmp_path / "a" / "x.vptk"]
    found = names_of(paths)
    assert list(found.values()) == paths
    assert list(found)[:2] == ["x", "b/x"]
