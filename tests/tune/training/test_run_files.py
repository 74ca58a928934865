"""Names of a run's files, and the refusal to lose one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from vptkit.errors import OutputError  # noqa: E402
from vptkit.tune.training.run_files import require_free, run_files  # noqa: E402


def test_every_name_comes_from_the_adapter():
    files = run_files(Path("d/a.b.safetensors"))
    assert list(map(str, files)) == [
        "d/a.b.safetensors",
        "d/a.b.checkpoint.safetensors",
        "d/a.b.metrics.jsonl",
        "d/a.b.html",
    ]
    assert files.beside("shift.png") == Path("d/a.b.shift.png")
    assert {Path("d/a.b.loss.png"), Path("d/a.b.curves.png")} < set(files.pictures())


@pytest.mark.parametrize("name", ["a", "a.onnx", "a.safetensors.txt"])
def test_an_adapter_has_its_ending(name):
    with pytest.raises(OutputError, match=r"an adapter's file name ends in \.safetensors"):
        run_files(Path(name))


@pytest.mark.parametrize(
    ("there", "resume", "force", "message"),
    [
        ("a.safetensors", False, False, r"a\.safetensors: exists already"),
        ("a.safetensors", True, False, r"a\.safetensors: exists already"),
        ("a.safetensors", False, True, None),
        ("a.checkpoint.safetensors", False, False, r"interrupted.*--resume.*--force"),
        ("a.checkpoint.safetensors", True, False, None),
        ("a.checkpoint.safetensors", False, True, None),
        ("a.metrics.jsonl", False, False, None),  # it is written anew
    ],
)
def test_what_is_there_is_not_lost(tmp_path, there, resume, force, message):
    (tmp_path / there).write_bytes(b"precious")
    files = run_files(tmp_path / "a.safetensors")
    if message is None:
        require_free(files, resume=resume, force=force)
    else:
        with pytest.raises(OutputError, match=message):
            require_free(files, resume=resume, force=force)
    assert (tmp_path / there).read_bytes() == b"precious"


def test_a_folder_is_not_replaced_even_by_force(tmp_path):
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(OutputError, match=r"a folder\. Remove it"):
        require_free(run_files(tmp_path / "a.safetensors"), resume=False, force=True)
