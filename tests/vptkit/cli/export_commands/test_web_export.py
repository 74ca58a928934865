"""`vptkit export --target web` from outside; the page itself is tried in tests/integration."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("onnx")

from tests.support.bank_cases import family, write_family
from tests.support.web_pages import stand_in_package
from vptkit.cli.export_commands.web_export import require_web
from vptkit.formats.bundle import open_bundle


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return stand_in_package(tmp_path / "package", monkeypatch)


@pytest.fixture
def adapters(tmp_path):
    return write_family(family(kinds=("both", "linear")), tmp_path)


def test_adapters_become_a_page(vptkit, adapters, package, tmp_path):
    words = ("export", adapters["both"], adapters["linear"], "--layout", "bank")
    words += ("--weights", adapters["weights"], "--target", "web", "--onnxruntime-web", package)
    code, out, err = vptkit(*words, "-o", tmp_path / "my page")
    assert code == 0, err
    assert f"next: python3 -m http.server --directory '{tmp_path}/my page'" in out
    assert "both, linear" in out
    manifest = json.loads((tmp_path / "my page" / "manifest.json").read_text())
    assert manifest["models"][0]["name"] == "my page"
    code, _, err = vptkit(*words, "-o", tmp_path / "my page")
    assert code == 2
    assert "--force" in err
    assert vptkit(*words, "-o", tmp_path / "my page", "--force")[0] == 0


def test_one_adapter_gets_a_name(vptkit, adapters, package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("export", adapters["both"], "--weights", adapters["weights"], "--target", "web")
    code, out, err = vptkit(*words, "--onnxruntime-web", package, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["web"] == "both-web"
    assert document["parity"]["count"] > 0
    assert document["models"][0]["precision"] == "fp32"


def test_bundles_become_models_of_one_page(vptkit, make_bundle, package, tmp_path):
    bundles = make_bundle(name="a"), make_bundle(name="b")
    words = ("export", *bundles, "--target", "web", "-o", tmp_path / "page")
    code, _, err = vptkit(*words, "--onnxruntime-web", package)
    assert code == 0, err
    models = json.loads((tmp_path / "page" / "manifest.json").read_text())["models"]
    names = [open_bundle(bundle).name for bundle in bundles]
    assert [model["name"] for model in models] == names
    code, _, err = vptkit(*words, "--onnxruntime-web", package, "--force", "--fold", "none")
    assert code == 2
    assert "--fold has no effect" in err


@pytest.mark.parametrize(
    ("options", "code", "match"),
    [
        (["--target", "web", "--precision", "bf16"], 4, "bf16"),
        (["--target", "web", "--precision", "fp8"], 4, "fp8"),
        (["--target", "web", "--input", "float32"], 4, "--input float32"),
        (["--target", "web", "--output", "features"], 4, "--output features"),
        (["--target", "web", "--batch", "8"], 4, "--batch 8"),
        (["--target", "web", "--format", "onnx"], 2, "--format onnx"),
        (["--target", "web", "-o", "x.vptk"], 2, "x-web"),
        (["--target", "web", "-o", "index.html"], 2, "index-web"),
        (["--onnxruntime-web", "package"], 2, "no effect"),
        (["--target", "web", "--onnxruntime-web", "nowhere"], 2, "no such folder"),
    ],
)
def test_what_does_not_go_with_it_is_told_before_the_work(
    vptkit, tmp_path, monkeypatch, options, code, match
):
    monkeypatch.chdir(tmp_path)
    found, _, err = vptkit("export", "a.safetensors", *options)
    assert found == code
    assert match in err


def test_adapters_and_bundles_do_not_mix(make_bundle, tmp_path):
    settings = {"format": "bundle", "adapters": [make_bundle(), tmp_path / "a.safetensors"]}
    with pytest.raises(Exception, match="the one or the other"):
        require_web(settings, set(), tmp_path / "page")
