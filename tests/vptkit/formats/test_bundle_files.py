"""A bundle is a closed set of plain files: nothing else is read, written or removed."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from vptkit.errors import BundleError, TargetError
from vptkit.formats.bundle import open_bundle
from vptkit.formats.bundle_files import (
    folder_name,
    is_leftover,
    is_row_file,
    verify_files,
)
from vptkit.regular_files import opened_folder, stamp_of
from vptkit.runtime import open_session

MODEL, GOLDEN = "model.onnx", "golden.safetensors"


def listed(path: Path) -> dict[str, str]:
    return json.loads((path / "manifest.json").read_text())["files"]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("path", "called"),
    [
        ("a/my.flowers.vptk", "my.flowers"),
        ("flowers", "flowers"),
        ("a/.vptk", ".vptk"),
        ("blüten.vptk/", "blüten"),
    ],
)
def test_a_bundle_is_called_as_its_folder_is(path, called):
    assert folder_name(Path(path)) == called


@pytest.mark.parametrize("name", ["x", ".bashrc", "model.onnx.bak", "norms.safetensors", ".part"])
def test_what_is_not_listed_is_refused(make_bundle, name):
    path = make_bundle()
    (path / name).write_bytes(b"x")
    with pytest.raises(BundleError, match=rf"holds '{name}', which manifest.json does not list"):
        open_bundle(path)


def test_folders_that_are_not_listed_are_refused(make_bundle):
    path = make_bundle()
    for name in ("adapters", ".x.part"):
        (path / name).mkdir()
        with pytest.raises(BundleError, match=rf"holds '{name}', which"):
            open_bundle(path)
        (path / name).rmdir()
    for name in "abcde":
        (path / name).touch()
    with pytest.raises(BundleError, match="'a', 'b', 'c' and 2 more"):
        open_bundle(path)


def test_what_a_killed_run_leaves_does_no_harm(make_bundle):
    path = make_bundle()
    (path / ".manifest.json.x1y2z3.part").write_bytes(b"{")
    (path / ".nfs0123456789ab").write_bytes(b"")
    (path / "engines").mkdir()
    (path / "engines" / "x").touch()
    assert open_bundle(path).path == path
    (path / ".model.onnx.12.part").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="does not list"):
        open_bundle(path)


def test_the_genuine_model_under_another_name(make_bundle, edit_manifest):
    """The manifest's digest was believed for a name that began with model.onnx."""
    path, other = make_bundle(), make_bundle(shift=1.0)
    files = listed(path)
    (path / MODEL).rename(path / "model.onnx.genuine")
    (path / MODEL).write_bytes((other / MODEL).read_bytes())
    edit_manifest(path, files={"model.onnx.genuine": files[MODEL], GOLDEN: files[GOLDEN]})
    with pytest.raises(BundleError, match=r"files lists no model\.onnx"):
        open_bundle(path)
    edit_manifest(path, files={**files, "model.onnx.genuine": files[MODEL]})
    with pytest.raises(BundleError, match=r"model\.onnx differs from its digest"):
        open_bundle(path)


@pytest.mark.parametrize("name", [MODEL, GOLDEN, "manifest.json"])
@pytest.mark.parametrize("kind", ["FIFO", "socket", "link", "device", "folder"])
def test_only_regular_files(make_bundle, tmp_path, monkeypatch, name, kind):
    """A FIFO held every reader; a link led out of the bundle."""
    path = make_bundle()
    genuine = tmp_path / "genuine"
    (path / name).rename(genuine)
    if kind == "FIFO":
        os.mkfifo(path / name)
    elif kind == "socket":
        monkeypatch.chdir(path)  # names of sockets are short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(name)
    elif kind == "folder":
        (path / name).mkdir()
    else:
        (path / name).symlink_to(genuine if kind == "link" else "/dev/zero")
    kind = "symbolic link" if kind in ("link", "device") else kind
    with pytest.raises(BundleError, match=rf"{name}: a {kind}, expected a regular file"):
        open_bundle(path)
    with pytest.raises(BundleError, match=rf"{name}: a {kind}"):
        open_bundle(path, verify=False).read(name)


def test_a_bundle_that_is_named_by_a_link_opens(make_bundle, tmp_path):
    path = make_bundle()
    (tmp_path / "current.vptk").symlink_to(path)
    assert open_bundle(tmp_path / "current.vptk").golden() is not None
    assert open_session(tmp_path / "current.vptk").bundle.name == "tiny"


def test_a_graph_with_constants_elsewhere_does_not_open(make_bundle, edit_manifest):
    path = make_bundle()
    value = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1])
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    model = helper.make_model(helper.make_graph([], "g", [value], [value], [tensor]))
    (path / MODEL).write_bytes(model.SerializeToString())
    edit_manifest(path, files={**listed(path), MODEL: digest(model.SerializeToString())})
    with pytest.raises(BundleError, match=r"keeps constants in '\.\./\.\./\.\./etc/passwd'"):
        open_bundle(path)
    with pytest.raises(BundleError, match="keeps constants"):
        open_bundle(path, verify=False).graph().__enter__()


def test_a_digest_holds_for_what_is_read(make_bundle):
    """And not for what had the name when the bundle was opened."""
    path, other = make_bundle(), make_bundle(golden=False)
    bundle = open_bundle(path)
    assert bundle.read(GOLDEN) == (path / GOLDEN).read_bytes()
    (path / GOLDEN).write_bytes(b"another")
    with pytest.raises(BundleError, match="differs from its digest"):
        bundle.read(GOLDEN)
    with pytest.raises(BundleError, match="differs from its digest"):
        bundle.golden()
    with pytest.raises(BundleError, match="lists no golden"):
        open_bundle(other).read(GOLDEN)


def test_a_file_that_changes_while_it_is_read(make_bundle):
    path = make_bundle()
    bundle = open_bundle(path)

    def change(how):
        with bundle.opened(MODEL) as stream:
            stream.read(10)
            how()

    with pytest.raises(BundleError, match="differs from its digest"):
        change(lambda: (path / MODEL).write_bytes(b"x"))


@pytest.mark.parametrize("verify", [True, False])
def test_the_graph_is_that_of_the_opened_manifest(make_bundle, verify):
    path, other = make_bundle(), make_bundle(shift=1.0)
    bundle = open_bundle(path, verify=verify)
    genuine = (path / MODEL).read_bytes()
    with bundle.graph() as found:
        assert found.name == MODEL
        assert found.read_bytes() == genuine
        path.rename(path.with_name("aside"))  # as an export with --force does
        other.rename(path)
        assert found.read_bytes() == genuine
    with pytest.raises(BundleError, match="differs from its digest"), bundle.graph():
        pass
    bundle = open_bundle(path)

    def exchange():
        with bundle.graph():
            (path / "x").write_bytes(genuine)
            (path / "x").rename(path / MODEL)

    with pytest.raises(BundleError, match="was exchanged while it was read"):
        exchange()


def test_a_graph_whose_digest_is_taken_while_it_loads(make_bundle):
    path = make_bundle()
    bundle = open_bundle(path, graph_later=True)
    assert MODEL not in bundle.stamps
    assert GOLDEN in bundle.stamps
    with bundle.graph():
        pass
    assert bundle.stamps == open_bundle(path).stamps
    documented = (path / MODEL).read_bytes() + b"\x32\x01x"  # doc_string: a library loads it
    (path / MODEL).write_bytes(documented)
    loaded = []
    bundle = open_bundle(path, graph_later=True)
    with pytest.raises(BundleError, match="differs from its digest"), bundle.graph() as found:
        loaded.append(found.read_bytes())
    assert loaded
    with pytest.raises(BundleError, match="differs from its digest"), bundle.graph():
        raise TargetError("ONNX Runtime cannot load it")


def test_what_a_graph_wants_of_other_places_is_refused_before_it_loads(make_bundle, edit_manifest):
    path = make_bundle()
    engine = helper.make_node("EPContext", [], ["y"], domain="com.microsoft")
    content = helper.make_model(helper.make_graph([engine], "g", [], [])).SerializeToString()
    (path / MODEL).write_bytes(content)
    edit_manifest(path, files={**listed(path), MODEL: digest(content)})
    bundle = open_bundle(path, graph_later=True)
    loaded = []
    with pytest.raises(BundleError, match="EPContext"), bundle.graph():
        loaded.append(1)
    assert not loaded


def test_a_touched_file_is_read_again_and_still_good(make_bundle):
    path = make_bundle()
    bundle = open_bundle(path)
    with bundle.opened(GOLDEN) as stream:
        os.utime(path / GOLDEN, (1, 1))
        assert stamp_of(stream) != bundle.stamps[GOLDEN]
    assert bundle.golden() is not None


def test_without_proc_the_graph_is_named_plainly(make_bundle, monkeypatch):
    path = make_bundle()
    real = Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda p: not str(p).startswith("/proc") and real(p))
    with open_bundle(path).graph() as found:
        assert found == path / MODEL


@pytest.mark.parametrize("value", [np.zeros((2, 24, 16), np.uint8), np.zeros(3, np.float32)])
def test_golden_answers_of_another_shape(make_bundle, edit_manifest, value):
    from vptkit.formats.tensor_file import write_tensors

    path = make_bundle()
    write_tensors(path / GOLDEN, {"images": value})
    edit_manifest(path, files={**listed(path), GOLDEN: digest((path / GOLDEN).read_bytes())})
    with pytest.raises(BundleError, match="golden images and logits are"):
        open_bundle(path).golden()


def test_names_of_leftovers(tmp_path):
    content = b"rows"
    name = f"birds-{digest(content)[:8]}.safetensors"
    (tmp_path / name).write_bytes(content)
    (tmp_path / "birds-00000000.safetensors").write_bytes(content)
    (tmp_path / "fish-00000000.safetensors").symlink_to(tmp_path / name)
    (tmp_path / ".x.part").touch()
    (tmp_path / "x.part").touch()
    with opened_folder(tmp_path, BundleError) as handle:
        assert is_row_file(tmp_path, handle, name)
        assert not is_row_file(tmp_path, handle, "birds-00000000.safetensors")
        assert not is_row_file(tmp_path, handle, "fish-00000000.safetensors")
        assert is_leftover(handle, ".x.part")
        assert not is_leftover(handle, "x.part")
        with pytest.raises(BundleError, match="does not list"):
            verify_files(tmp_path, handle, {})
