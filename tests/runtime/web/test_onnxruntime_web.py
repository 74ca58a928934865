"""Where onnxruntime-web's files come from, and what is taken for them."""

from __future__ import annotations

import base64
import hashlib
import os
import tarfile

import pytest

from tests.support.web_pages import stand_in_package
from vptkit.errors import MissingError, VptkitError
from vptkit.runtime.web import onnxruntime_web
from vptkit.runtime.web.onnxruntime_web import (
    PACKAGE,
    VERSION,
    find_library,
    library_files,
    web_name,
)

NPM = """#!/bin/sh
echo "$@" >> {log}
[ -e {archive} ] && cp {archive} . && exit 0
echo "npm error code ENOTFOUND" >&2
echo "npm error network request to the registry failed" >&2
exit 1
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return stand_in_package(tmp_path / "package", monkeypatch)


@pytest.fixture
def npm(tmp_path, monkeypatch, package):
    """A stand-in for npm, and the archive that it brings if that is there."""
    archive = tmp_path / "brought.tgz"
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "npm"
    script.write_text(NPM.format(log=tmp_path / "log", archive=archive))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    return archive


def pack(archive, package, monkeypatch):
    with tarfile.open(archive, "w:gz") as written:
        written.add(package, "package")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    monkeypatch.setattr(onnxruntime_web, "_SHA512", digest)


def test_an_unpacked_package(package):
    library = find_library(package)
    assert library.version == VERSION
    assert library.files["ort.wasm.min.mjs"] == b"stands for ort.wasm.min.mjs"
    both = library_files("wasm") + library_files("webgpu")
    assert sorted(both) == sorted(web_name(name) for name in library.files)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda p: (p / "dist" / "ort.wasm.min.mjs").write_text("mine"), "damaged, or changed"),
        (lambda p: (p / "dist" / "ort.wasm.min.mjs").unlink(), "ort.wasm.min.mjs"),
        (lambda p: (p / "package.json").write_text('{"name": "left-pad"}'), "left-pad None"),
        (lambda p: (p / "package.json").write_text("{"), "package.json"),
        (lambda p: (p / "dist").rename(p / "other"), "has no dist/"),
        (lambda p: p.rename(p.parent / "elsewhere"), "no such folder"),
    ],
)
def test_what_is_no_such_package(package, spoil, match):
    spoil(package)
    with pytest.raises(VptkitError, match=match):
        find_library(package)


def test_npm_fetches_it_once(npm, package, monkeypatch, tmp_path):
    pack(npm, package, monkeypatch)
    assert find_library().files == find_library(package).files
    npm.unlink()
    assert find_library().files == find_library(package).files
    assert (tmp_path / "log").read_text().splitlines() == [
        f"pack {PACKAGE}@{VERSION} --ignore-scripts --fetch-retries=1"
    ]


def test_a_damaged_cache_is_fetched_again(npm, package, monkeypatch, tmp_path):
    pack(npm, package, monkeypatch)
    find_library()
    kept = tmp_path / "cache" / "vptkit" / f"{PACKAGE}-{VERSION}" / "ort.wasm.min.mjs"
    kept.write_text("cut")
    assert find_library().files["ort.wasm.min.mjs"] == b"stands for ort.wasm.min.mjs"
    assert kept.read_text() == "stands for ort.wasm.min.mjs"


def test_an_archive_that_is_another(npm, package, monkeypatch):
    pack(npm, package, monkeypatch)
    npm.write_bytes(npm.read_bytes() + b" ")
    with pytest.raises(MissingError, match="brought another"):
        find_library()


def test_without_a_network_or_npm_it_says_what_to_do(npm, monkeypatch, tmp_path):
    with pytest.raises(MissingError, match="network request to the registry failed") as error:
        find_library()
    assert "--onnxruntime-web package/" in str(error.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="apt install npm") as error:
        find_library()
    assert f"npm pack {PACKAGE}@{VERSION}" in str(error.value)
