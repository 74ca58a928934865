from __future__ import annotations

import shutil

import pytest

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family
from vptkit.errors import TargetError, VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.web import page_models
from vptkit.runtime.web.page_models import model_names, page_model, require_web


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"precision": "bf16"}, "bf16.*Export with --precision fp32"),
        ({"precision": "int8", "lowering": {"target": "tensorrt"}}, "laid out for TensorRT"),
        ({"feed": "pixels"}, "--input uint8"),
        ({"batch": 4}, "4 images at once"),
        ({"gives": ("features",)}, "--output both"),
    ],
)
def test_what_a_page_cannot_run_is_refused_by_name(make_bundle, settings, match):
    with pytest.raises(TargetError, match=match):
        require_web(open_bundle(make_bundle(**settings)))


def test_a_graph_that_no_browser_holds(make_bundle, monkeypatch):
    bundle = open_bundle(make_bundle(batch=1))
    require_web(bundle)
    monkeypatch.setattr(page_models, "_MOST", 10)
    with pytest.raises(TargetError, match="more than 2 GB"):
        require_web(bundle)


def test_two_of_one_name_are_called_as_their_folders(make_bundle):
    one, other = (open_bundle(make_bundle(name=name)) for name in ("a", "b"))
    assert model_names([one, other]) == ["a", "b"]
    again = open_bundle(shutil.copytree(one.path, one.path.with_name("quick.vptk")))
    assert model_names([one, again, other]) == [one.path.stem, "quick", "b"]
    with pytest.raises(VptkitError, match="has the name"):
        model_names([one, one])


def test_what_the_page_is_told(make_bundle, tmp_path):
    bundle = open_bundle(make_bundle(thresholds=(0.5, 0.25, 0.75)))
    found = page_model(bundle, "mine", 3, tmp_path)
    assert found["graph"]["name"] == "models/3/model.onnx"
    assert (tmp_path / "models/3/model.onnx").read_bytes() == bundle.read("model.onnx")
    assert found["bundle"]["manifest_sha256"] == bundle.digest
    (adapter,) = found["adapters"]
    assert adapter["thresholds"] == [0.5, 0.25, 0.75]
    assert page_model(bundle, "mine", 3, tmp_path) == found  # again, as after a change meanwhile


def test_a_golden_image_goes_along_where_the_export_compared_with_it(make_bundle, tmp_path):
    parity = {"tolerance": 1e-4, "count": 5}
    bundle = open_bundle(make_bundle(parity=parity))
    check = page_model(bundle, "mine", 0, tmp_path)["check"]
    images, logits = bundle.golden()
    assert (tmp_path / check["name"]).read_bytes() == images[0].tobytes()
    assert check["logits"] == logits[0].tolist()
    assert check["tolerance"] == 1e-4
    assert page_model(open_bundle(make_bundle()), "mine", 1, tmp_path)["check"] is None
    bare = open_bundle(make_bundle(golden=False, parity=parity))
    assert page_model(bare, "mine", 2, tmp_path)["check"] is None


@pytest.mark.parametrize("tables", ["inputs", "constant"])
def test_an_adapter_of_a_bank_is_its_tables_or_its_place(tmp_path, tables):
    bank = export_family(tmp_path, family(kinds=("both", "linear")), tables=tables)
    first, second = page_model(open_bundle(bank), "mine", 0, tmp_path / "page")["adapters"]
    if tables == "inputs":
        assert (second["index"], second["tables"]["name"]) == (0, "models/0/adapter-1.bin")
        assert (tmp_path / "page/models/0/adapter-1.bin").stat().st_size == second["tables"][
            "bytes"
        ]
    else:
        assert [one["index"] for one in (first, second)] == [0, 1]
        assert "tables" not in second
