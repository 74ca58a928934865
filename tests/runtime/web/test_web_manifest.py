from __future__ import annotations

import json

import pytest

from tests.support.web_pages import stand_in_package
from vptkit.errors import BundleError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.web.web_folder import write_web
from vptkit.runtime.web.web_manifest import read_web_manifest, summarize_web


@pytest.fixture
def page(make_bundle, tmp_path, monkeypatch):
    package = stand_in_package(tmp_path / "package", monkeypatch)
    bundle = make_bundle()
    write_web([bundle], tmp_path / "page", onnxruntime_web=package)
    return tmp_path / "page", bundle


def test_inspect_says_which_bundle_it_is(page, vptkit):
    folder, bundle = page
    document = json.loads(vptkit("inspect", folder, "--json")[1])
    assert document["kind"] == "web"
    (model,) = document["models"]
    assert model["bundle"]["manifest_sha256"] == open_bundle(bundle).digest
    assert model["adapters"] == ["tiny"]
    assert "onnxruntime-web 1.30.0" in vptkit("inspect", folder)[1]


def test_a_file_that_was_changed(page):
    folder, _ = page
    (folder / "page.js").write_text("mine")
    with pytest.raises(BundleError, match=r"page\.js differs"):
        summarize_web(folder)
    (folder / "page.js").unlink()
    with pytest.raises(BundleError, match=r"page\.js"):
        summarize_web(folder)


def test_what_is_something_else_or_says_what_none_can(page, tmp_path):
    folder, bundle = page
    assert read_web_manifest(bundle) is None
    assert read_web_manifest(tmp_path) is None
    document = json.loads((folder / "manifest.json").read_text())
    document["models"][0]["adapters"] = "all"
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="adapters"):
        summarize_web(folder)


def test_other_commands_say_how_it_is_looked_at(page, vptkit):
    folder, _ = page
    code, _, err = vptkit("run", folder, folder)
    assert code == 2
    assert "python3 -m http.server --directory" in err
