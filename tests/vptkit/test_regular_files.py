from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from vptkit.errors import BundleError
from vptkit.regular_files import (
    is_file,
    is_folder,
    is_plain_name,
    open_inside,
    open_regular,
    read_regular,
    require_regular,
)


@pytest.mark.parametrize("name", ["model.onnx", "a-b_c.safetensors", "ä b", "..x", ".hidden"])
def test_a_plain_name(name):
    assert is_plain_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/x",
        "a/b",
        "../x",
        "a/../b",
        "a//b",
        "a\\b",
        "a\0b",
        "a\nb",
        "\u202ex",
        "x" * 256,
    ],
)
def test_no_plain_name(name):
    assert not is_plain_name(name)


def test_levels_of_a_plain_name():
    assert is_plain_name("adapters/a.safetensors", levels=2)
    assert not is_plain_name("a/b/c", levels=2)
    assert not is_plain_name("a/../c", levels=9)


def make_odd(kind: str, path: Path) -> None:
    """Something at `path` that is no regular file."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.path.relpath(path))
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["FIFO", "folder", "socket", "device"])
def test_what_is_no_regular_file_is_refused_at_once(kind, tmp_path):
    make_odd(kind, tmp_path / "x")
    with pytest.raises(BundleError, match=rf"/x: a {kind}, expected a regular file"):
        open_regular(tmp_path / "x", BundleError)


@pytest.mark.parametrize("kind", ["FIFO", "folder", "socket", "device"])
def test_inside_a_folder_too(kind, tmp_path):
    make_odd(kind, tmp_path / "x")
    kind = "symbolic link" if kind == "device" else kind
    with pytest.raises(BundleError, match=rf"/x: a {kind}, expected a regular file"):
        open_inside(tmp_path, "x", BundleError)


def test_a_link_that_the_user_named_is_followed(tmp_path):
    (tmp_path / "v2").write_bytes(b"content")
    (tmp_path / "current").symlink_to("v2")
    assert read_regular(tmp_path / "current", BundleError, limit=7) == b"content"
    require_regular(tmp_path / "current", BundleError)


def test_a_folder_that_the_user_named_may_be_a_link(tmp_path):
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "x").write_bytes(b"content")
    (tmp_path / "current").symlink_to("v2")
    with open_inside(tmp_path / "current", "x", BundleError) as stream:
        assert stream.read() == b"content"


def test_no_link_on_the_way(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_bytes(b"content")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "adapters").symlink_to("../outside")
    with pytest.raises(BundleError, match="adapters is a symbolic link"):
        open_inside(tmp_path / "bundle", "adapters/x", BundleError)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ".", ""])
def test_no_way_out(name, tmp_path):
    (tmp_path / "x").touch()
    (tmp_path / "bundle" / "a").mkdir(parents=True)
    with pytest.raises(BundleError, match="does not stay below the folder"):
        open_inside(tmp_path / "bundle", name, BundleError)


def test_what_is_missing_or_closed_has_a_name(tmp_path):
    with pytest.raises(BundleError, match=r"/x: no such file"):
        open_regular(tmp_path / "x", BundleError)
    with pytest.raises(BundleError, match=r"/a/x: no such file"):
        open_inside(tmp_path, "a/x", BundleError)
    with pytest.raises(BundleError, match="not a name of a file"):
        open_regular(tmp_path / "a\0b", BundleError)
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot be read: Not a directory"):
        open_inside(tmp_path, "file/x", BundleError)


def test_no_more_is_read_than_such_a_file_has(tmp_path):
    with (tmp_path / "x").open("wb") as stream:
        stream.truncate(1 << 40)  # sparse
    with pytest.raises(BundleError, match="more than 1000 bytes"):
        read_regular(tmp_path / "x", BundleError, limit=1000)


def test_no_descriptor_stays_open(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").touch()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        open_inside(tmp_path, "a/x", BundleError).close()
        for name in ("fifo", "a/y", "a"):
            with pytest.raises(BundleError):
                open_inside(tmp_path, name, BundleError)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "a/" * 3000, "nowhere", "loop"])
def test_a_name_that_no_file_can_have_is_no_file_and_no_error(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    assert not is_file(tmp_path / name)
    assert not is_folder(tmp_path / name)
    assert is_folder(tmp_path)


def test_a_file_that_is_too_large_is_not_opened(tmp_path):
    (tmp_path / "x").write_bytes(bytes(10))
    open_regular(tmp_path / "x", BundleError, limit=10).close()
    with pytest.raises(BundleError, match="x: more than 9 bytes"):
        open_regular(tmp_path / "x", BundleError, limit=9)
    assert read_regular(tmp_path / "x", BundleError, limit=10) == bytes(10)
