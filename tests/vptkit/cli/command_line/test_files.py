"""Names for completion: bounded, and never an error."""

from __future__ import annotations

import os

import pytest

from vptkit.cli.command_line import files
from vptkit.devices.boards.catalog import boards


def test_paths_are_bounded_and_shown_as_they_are(tmp_path, monkeypatch):
    for i in range(30):
        (tmp_path / f"{i:02}.png").touch()
    (tmp_path / "evil\x1b[2J.png").touch()
    (tmp_path / "two\nlines.png").touch()
    assert len(files.paths(f"{tmp_path}/", ())) == 30
    monkeypatch.setattr(files, "_MOST_SHOWN", 7)
    assert len(files.paths(f"{tmp_path}/", (".png",))) == 7
    monkeypatch.setattr(files, "_MOST_ENTRIES", 3)
    assert len(files.paths(f"{tmp_path}/", ())) <= 3


def test_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.vptk").mkdir()
    assert files.paths("~/a", (".vptk",)) == ["~/a.vptk"]


@pytest.mark.parametrize("begun", ["/no/such/folder/x", "a\0b", "x" * 5000 + "/"])
def test_no_such_folder(begun):
    assert files.paths(begun, ()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"adapters": 3}', b'{"adapters": [3, {"name": ["x"]}]}', b"\xff" * 99],
)
def test_what_is_no_manifest(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    assert files.adapters_of_bank(str(tmp_path)) == []


def test_a_manifest_that_never_ends(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "manifest.json")
    assert files.adapters_of_bank(str(tmp_path)) == []
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").write_text('{"adapters": [{"name": "a"}]}')
    assert files.adapters_of_bank(str(tmp_path)) == ["a"]
    monkeypatch.setattr(files, "_MANIFEST_BYTES", 9)
    assert files.adapters_of_bank(str(tmp_path)) == []


def test_boards_are_those_of_the_catalog():
    assert files.boards() == sorted(boards())


def test_backbones_are_those_of_the_table(tmp_path):
    table = tmp_path / "backbones.json"
    assert files.backbones(table) == []
    table.write_text('{"backbones": [{"name": "vit_tiny"}, {"name": "vit_small"}]}')
    assert files.backbones(table) == ["vit_tiny", "vit_small"]
    table.write_text('{"backbones": [3]}')
    assert files.backbones(table) == []
    assert all(isinstance(name, str) for name in files.backbones())
