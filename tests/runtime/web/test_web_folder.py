from __future__ import annotations

import pytest

from tests.support.web_pages import stand_in_package
from vptkit.atomic_files import sha256_of_file
from vptkit.errors import BundleError, OutputError, VptkitError
from vptkit.runtime.web.web_folder import require_place, sizes_of, write_web


@pytest.fixture
def package(tmp_path, monkeypatch):
    return stand_in_package(tmp_path / "package", monkeypatch)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder_is_whole_and_says_what_it_is(make_bundle, package, tmp_path):
    bundle = make_bundle()
    out = tmp_path / "page"
    manifest = write_web([bundle], out, onnxruntime_web=package)
    assert sorted([*manifest["files"], "manifest.json"]) == files(out)
    assert manifest["files"]["page.js"] == sha256_of_file(out / "page.js")
    assert "Microsoft" in (out / "onnxruntime-web/LICENSE.txt").read_text()
    assert "Cross-Origin-Opener-Policy: same-origin" in (out / "_headers").read_text()
    sizes = sizes_of(out, manifest)
    assert sizes["wasm"] < sum((out / name).stat().st_size for name in manifest["files"])
    again = tmp_path / "again"
    write_web([bundle], again, onnxruntime_web=package)
    assert (again / "manifest.json").read_bytes() == (out / "manifest.json").read_bytes()


def test_only_what_it_wrote_is_replaced(make_bundle, package, tmp_path):
    out, bundle = tmp_path / "page", make_bundle()
    out.mkdir()
    with pytest.raises(OutputError, match="--force"):
        require_place(out, force=False)
    write_web([bundle], out, onnxruntime_web=package, force=True)  # an empty one
    write_web([bundle], out, onnxruntime_web=package, force=True)
    mine = tmp_path / "mine"
    for path in (mine, bundle):
        path.mkdir(exist_ok=True)
        (path / "index.html").write_text("mine")
        with pytest.raises(OutputError, match="does not replace it"):
            write_web([bundle], path, onnxruntime_web=package, force=True)
        assert (path / "index.html").read_text() == "mine"
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(OutputError, match="does not replace it"):
        write_web([bundle], tmp_path / "link", onnxruntime_web=package, force=True)


def test_what_fails_leaves_nothing(make_bundle, package, tmp_path):
    good, bad = make_bundle(name="good"), make_bundle(name="bad")
    (bad / "model.onnx").write_bytes(b"changed")
    before = files(tmp_path)
    with pytest.raises(BundleError, match="differs from its digest"):
        write_web([good, bad], tmp_path / "page", onnxruntime_web=package)
    with pytest.raises(VptkitError, match="no bundle"):
        write_web([], tmp_path / "page", onnxruntime_web=package)
    assert files(tmp_path) == before
