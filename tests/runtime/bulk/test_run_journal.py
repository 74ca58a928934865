from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vptkit.errors import OutputError
from vptkit.runtime.bulk.run_journal import journal_of, opened_journal
from vptkit.runtime.session.session_protocol import Prediction

RUN = {"bundle": "abc", "top_k": 2}


def made(number: int) -> Prediction:
    top = (("red", 0.1 + number / 7), ("blü\n", 1e-17))
    features = np.array([number, 1 / 3], np.float32)
    return Prediction(path=Path(f"f/{number}\udcff.png"), adapter="a", top=top, features=features)


def kept(output: Path, count: int, batch: int = 4, **options) -> list[Prediction]:
    """Answer `count` images more, and stop as if killed; what is kept by then."""
    with opened_journal(output, RUN, batch=batch, features=True, **options) as journal:
        for number in range(journal.count, journal.count + count):
            journal.add(made(number))
        return list(journal.finished())


def test_predictions_come_back_as_they_were(tmp_path):
    broken = Prediction(path=Path("x"), adapter="a", error="x: broken")
    several = Prediction(path=Path("y"), adapter="a", top=(("r", 0.5),), labels=())
    with opened_journal(tmp_path / "x.csv", RUN, batch=1, features=True) as journal:
        for prediction in (made(3), broken, several):
            journal.add(prediction)
        found = list(journal.finished())
    assert found == [made(3), broken, several]
    np.testing.assert_array_equal(found[0].features, made(3).features)
    assert found[1].features is None


def test_at_every_byte_it_may_end_and_whole_batches_stay(tmp_path):
    output = tmp_path / "x.jsonl"
    kept(output, 9)
    whole = journal_of(output).read_bytes()
    lengths = [len(line) for line in whole.splitlines(keepends=True)]
    for size in range(0, len(whole) + 1, 7):
        journal_of(output).write_bytes(whole[:size])
        lines = sum(sum(lengths[: i + 1]) <= size for i in range(len(lengths)))
        with opened_journal(output, RUN, batch=4, features=True) as journal:
            assert journal.count == max(lines - 1, 0) // 4 * 4
            assert list(journal.finished()) == [made(i) for i in range(journal.count)]
            for number in range(journal.count, 9):
                journal.add(made(number))
        assert journal_of(output).read_bytes() == whole


def test_what_the_disk_garbled_is_not_believed(tmp_path):
    output = tmp_path / "x.jsonl"
    kept(output, 8)
    content = bytearray(journal_of(output).read_bytes())
    content[-40] ^= 1
    journal_of(output).write_bytes(content + bytes(100))
    assert len(kept(output, 0)) == 4


def test_another_run_is_refused_by_name(tmp_path):
    output = tmp_path / "x.jsonl"
    kept(output, 4)
    other = RUN | {"top_k": 3}
    with (
        pytest.raises(OutputError, match=r"unfinished run with top_k 2, this one has 3.*--force"),
        opened_journal(output, other, batch=4),
    ):
        pass
    assert len(kept(output, 0)) == 4
    with opened_journal(output, other, batch=4, force=True) as journal:
        assert journal.count == 0
    assert not journal_of(output).exists()  # nothing in it


def test_force_alone_throws_nothing_away_and_no_resume_does(tmp_path):
    output = tmp_path / "x.jsonl"
    kept(output, 4)
    assert len(kept(output, 0, force=True)) == 4
    assert kept(output, 0, resume=False) == []


def test_a_stranger_s_file_is_left_alone(tmp_path):
    journal_of(tmp_path / "x.csv").write_text("my own notes\n")
    with pytest.raises(OutputError, match="not a journal"):
        kept(tmp_path / "x.csv", 1)
    assert journal_of(tmp_path / "x.csv").read_text() == "my own notes\n"
    journal_of(tmp_path / "y.csv").mkdir()
    journal_of(tmp_path / "z.csv").symlink_to(tmp_path / "elsewhere")
    for name in ("y.csv", "z.csv"):
        with pytest.raises(OutputError, match=r"\.partial: cannot be written"):
            kept(tmp_path / name, 1)
    assert not (tmp_path / "elsewhere").exists()


def test_two_runs_do_not_write_one_output(tmp_path):
    with (
        opened_journal(tmp_path / "x.csv", RUN, batch=1),
        pytest.raises(OutputError, match="another run writes it"),
        opened_journal(tmp_path / "x.csv", RUN, batch=1),
    ):
        pass


def test_a_full_disk_says_how_to_go_on(tmp_path, monkeypatch):
    with opened_journal(tmp_path / "x.csv", RUN, batch=1) as journal:
        journal.add(made(0))
        with Path("/dev/full").open("wb", buffering=0) as full:
            monkeypatch.setattr(journal, "_stream", full)
            with pytest.raises(OutputError, match=r"No space left.*same command again.*1 images"):
                journal.add(made(1))
