from __future__ import annotations

from pathlib import Path

import pytest

from vptkit.errors import OutputError
from vptkit.runtime.ray_data.parts_folder import opened_parts, parts_of

RUN = {"bundle": "abc", "top_k": 2, "sources": ["ph\udcffotos"]}
NAMES = [Path(f"{i}.png") for i in range(5)]


def kept(output, run=RUN, names=NAMES, **options):
    """Begin a run and stop as if killed: (batches that were there, batches)."""
    with opened_parts(output, run, **options) as parts:
        before = parts.batches
        parts.take_up(names, 2)
        return before, parts.batches, list(parts.listed())


def test_the_same_command_goes_on(tmp_path):
    output = tmp_path / "x.jsonl"
    assert kept(output, names=[]) == (0, 0, [])
    assert not parts_of(output).exists()  # nothing is listed, so nothing is kept
    assert kept(output) == (0, 3, NAMES)
    assert kept(output, names=[]) == (3, 3, NAMES)
    more = [Path("new.png")]
    assert kept(output, names=more) == (3, 4, NAMES + more)
    with opened_parts(output, RUN) as parts:
        assert parts.images_of([0, 2, 3]) == 4
        parts.answers.mkdir()
        (parts.answers / "x.parquet").touch()
        parts.remove()
    assert not parts_of(output).exists()
    assert kept(output) == (0, 3, NAMES)
    assert kept(output, resume=False) == (0, 3, NAMES)


def test_what_was_listed_counts_when_it_is_noted(tmp_path):
    """Killed while it was listed: run.json is not there yet, or says less."""
    output = tmp_path / "x.jsonl"
    kept(output)
    noted = (parts_of(output) / "run.json").read_bytes()
    kept(output, names=[Path("late.png")])
    (parts_of(output) / "run.json").write_bytes(noted)
    assert kept(output, names=[]) == (3, 3, NAMES)
    (parts_of(output) / "run.json").unlink()
    (parts_of(output) / ".run.json.abcdefgh.part").touch()
    assert kept(output) == (0, 3, NAMES)


def test_parts_of_another_run_are_refused_by_name(tmp_path):
    output = tmp_path / "x.jsonl"
    kept(output)
    with pytest.raises(OutputError, match="unfinished run with top_k 2, this one has 1"):
        kept(output, RUN | {"top_k": 1})
    assert kept(output, names=[]) == (3, 3, NAMES)  # they are still there
    assert kept(output, RUN | {"top_k": 1}, force=True) == (0, 3, NAMES)


@pytest.mark.parametrize("name", ["precious.txt", "answers.bak"])
@pytest.mark.parametrize("options", [{}, {"force": True}, {"resume": False}])
def test_a_folder_of_somebodys_stays_as_it_is(tmp_path, name, options):
    output = tmp_path / "x.jsonl"
    (parts_of(output) / name).mkdir(parents=True)
    with pytest.raises(OutputError, match=f"holds {name}. Move it away"):
        kept(output, **options)
    assert [entry.name for entry in parts_of(output).iterdir()] == [name]


def test_links_and_files_are_not_followed(tmp_path):
    output, elsewhere = tmp_path / "x.jsonl", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    parts_of(output).symlink_to(elsewhere)
    with pytest.raises(OutputError, match=r"x\.jsonl\.parts: "):
        kept(output)
    parts_of(output).unlink()
    parts_of(output).write_text("mine")
    with pytest.raises(OutputError, match="not a folder"):
        kept(output)
    parts_of(output).unlink()
    kept(output)
    (parts_of(output) / "answers").symlink_to(elsewhere)
    kept(output, resume=False)
    assert [entry.name for entry in elsewhere.iterdir()] == ["precious"]


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"format": "vptkit.parts/2"}'])
def test_notes_of_another_kind(tmp_path, text):
    output = tmp_path / "x.jsonl"
    kept(output)
    (parts_of(output) / "run.json").write_text(text)
    with pytest.raises(OutputError, match=r"run\.json: not"):
        kept(output)


def test_two_at_once(tmp_path):
    output = tmp_path / "x.jsonl"
    with (
        opened_parts(output, RUN),
        pytest.raises(OutputError, match="another run writes it now"),
        opened_parts(output, RUN),
    ):
        pass


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"), opened_parts(tmp_path / "a/b", RUN):
        pass
