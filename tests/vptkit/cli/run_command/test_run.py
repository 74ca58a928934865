"""`vptkit run` from outside."""

from __future__ import annotations

import csv
import io
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from tests.support.command_errors import assert_error
from vptkit.cli.run_command.run import run
from vptkit.runtime.session.prediction import predict

CPU = "backend cpu: there is no GPU to use\n"


def test_run_prints_one_object_a_line(vptkit, make_bundle, colour_folders):
    code, out, err = vptkit(
        "run", make_bundle(), colour_folders / "red", colour_folders / "blue", "--json"
    )
    documents = [json.loads(line) for line in out.splitlines()]
    assert (code, err, len(documents)) == (0, CPU, 8)
    assert [d["top"][0]["label"] for d in documents] == ["red"] * 4 + ["blue"] * 4
    assert documents[0]["adapter"] == "tiny"


@pytest.mark.parametrize(("folder", "expected"), [(True, (1, 2)), (False, (2, 1))])
def test_a_folder_is_answered_in_several_batches_at_once(
    vptkit, make_bundle, colour_folders, monkeypatch, folder, expected
):
    seen = []

    def watched(session, sources, **options):
        seen.append((session.threads, options["runs"]))
        return predict(session, sources, **options)

    monkeypatch.setattr("vptkit.runtime.session.prediction.predict", watched)
    sources = [colour_folders] if folder else [colour_folders / "red" / "0.png"]
    code, out, _ = vptkit("run", make_bundle(), *sources, "--threads", "2", "--json")
    assert (code, seen) == (0, [expected])
    assert len(out.splitlines()) == (12 if folder else 1)


def test_run_for_people(vptkit, make_bundle, colour_folders):
    code, out, err = vptkit("run", make_bundle(), colour_folders / "red", "--top-k", "1")
    assert code == 0
    assert all("red 0." in line for line in out.splitlines())
    assert re.fullmatch(rf"{CPU}4 images in \S+ s \(\S+ ms each, cpu\), 0 broken\n", err)


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_run_saves(vptkit, make_bundle, colour_folders, tmp_path, name):
    arguments = ("run", make_bundle(), colour_folders / "red", "--save", tmp_path / name)
    code, out, err = vptkit(*arguments)
    assert (code, err) == (0, f"{CPU}run: 4/4\n")
    assert re.fullmatch(r"4 images in \S+ s \(\S+ ms each, cpu\), 0 broken → .*", out.strip())
    assert out.endswith(f" → {tmp_path / name}\n")
    text = (tmp_path / name).read_text()
    if name.endswith("csv"):
        assert [row["label_1"] for row in csv.DictReader(text.splitlines())] == ["red"] * 4
    else:
        assert [json.loads(line)["top"][0]["label"] for line in text.splitlines()] == ["red"] * 4
    assert_error(vptkit(*arguments), 2, "exists already", "--force")
    assert vptkit(*arguments, "--force")[0] == 0


def test_run_goes_on_past_a_broken_image_and_says_so(vptkit, make_bundle, colour_folders, tmp_path):
    (colour_folders / "red" / "1.png").write_bytes(b"broken")
    save = tmp_path / "out.jsonl"
    result = vptkit("run", make_bundle(), colour_folders / "red", "--json", "--save", save)
    documents = [json.loads(line) for line in result[1].splitlines()]
    assert [("error" in d) for d in documents] == [False, True, False, False]
    assert save.read_text() == result[1]
    assert_error(result, 2, "1 of 4 images", "red/1.png")


def test_a_broken_image_is_told_once_for_people(vptkit, make_bundle, colour_folders):
    broken = colour_folders / "red" / "1.png"
    broken.write_bytes(b"")
    (colour_folders / "red" / "5.HEIC").touch()
    code, out, err = vptkit("run", make_bundle(), colour_folders / "red")
    assert code == 2
    (line,) = [line for line in out.splitlines() if "error" in line]
    assert line.startswith(f"{broken}  error: not an image")
    assert line.count(str(broken)) == 1
    assert line.endswith("it is empty")
    note = "note: 1 file skipped (.heic 1); HEIC is not read, convert it to JPEG first"
    assert err.splitlines()[1] == note
    assert err.splitlines()[-1] == f"error: 1 of 4 images failed; the first: {broken}"


def test_what_is_not_there_among_good_sources(vptkit, make_bundle, colour_folders):
    bundle, red = make_bundle(), colour_folders / "red"
    code, out, err = vptkit("run", bundle, red, colour_folders / "*.bmp", "--json")
    assert (code, len(out.splitlines())) == (0, 4)  # a glob may be meant to match nothing
    assert "warning: " in err
    assert "*.bmp: no images there" in err
    code, out, err = vptkit("run", bundle, colour_folders / "rad", red, "--json")
    assert (code, len(out.splitlines())) == (2, 4)
    assert err.splitlines()[-1].startswith("error: 1 of the sources is missing: ")


def test_names_on_standard_input(vptkit, make_bundle, colour_folders, monkeypatch):
    names = "\n".join(str(path) for path in sorted((colour_folders / "red").iterdir()))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(names.encode())))
    code, out, _ = vptkit("run", make_bundle(), "-", "--json")
    assert (code, len(out.splitlines())) == (0, 4)


def test_run_of_bad_input(vptkit, make_bundle, colour_folders, tmp_path):
    bundle = make_bundle()
    save = tmp_path / "sub" / "out.csv"
    save.parent.mkdir()
    assert_error(vptkit("run", bundle, "nowhere.jpg", "--save", save), 2, "nowhere.jpg")
    assert_error(vptkit("run", bundle, colour_folders, "--adapter", "huge"), 2, "huge")
    assert_error(vptkit("run", bundle, colour_folders, "--save", tmp_path / "x.xml"), 2, ".csv")
    assert list(save.parent.iterdir()) == []


def test_the_batch_does_not_change_the_lines(make_bundle, colour_folders, capsys):
    bundle, found = make_bundle(), set()
    for batch in (1, 5, 64):
        run(bundle, [str(colour_folders)], batch=batch, top_k=1)
        found.add(capsys.readouterr().out)
    (text,) = found
    assert len(text.splitlines()) == 12


def test_run_answers_the_good_images_of_a_stranger(vptkit, make_bundle, colour_folders):
    """One of each kind that hung, ended the run, started a program or took all memory."""
    folder = colour_folders / "red"
    Image.new("L", (3_000_000, 1)).save(folder / "a.png")
    os.mkfifo(folder / "b.png")
    (folder / "c.png").symlink_to("/dev/zero")
    (folder / "d.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    )
    (folder / "e.png").symlink_to("e.png")
    result = vptkit("run", make_bundle(), folder, "--json")
    documents = [json.loads(line) for line in result[1].splitlines()]
    assert [("error" in d) for d in documents] == [False] * 4 + [True] * 5
    assert_error(result, 2, "5 of 9 images", "a.png")


@pytest.mark.parametrize("name", ["x.npy", "x.parquet"])
@pytest.mark.parametrize("gives", [("logits", "features"), ("features",)])
def test_run_writes_features(vptkit, make_bundle, colour_folders, tmp_path, name, gives):
    pytest.importorskip("pyarrow")
    (colour_folders / "red" / "1.png").write_bytes(b"broken")
    arguments = ("run", make_bundle(gives=gives), colour_folders / "red")
    result = vptkit(*arguments, "--features", tmp_path / name)
    assert_error(result, 2, "1 of 4 images", "red/1.png")
    assert result[1].endswith(f"1 broken → {tmp_path / name}\n")
    if name == "x.npy":
        found = np.load(tmp_path / name)
        rows = list(csv.DictReader((tmp_path / "x.npy.csv").read_text().splitlines()))
        labels = [row["label"] or None for row in rows]
    else:
        from pyarrow import parquet

        rows = parquet.read_table(tmp_path / name).to_pydict()
        found, labels = np.float32(rows["features"]), rows["label"]
    assert found.shape == (3, 3)
    assert found.argmax(axis=1).tolist() == [0, 0, 0]  # the reddest channel
    assert labels == ["red" if "logits" in gives else None] * 3
    assert_error(vptkit(*arguments, "--features", tmp_path / name), 2, "exists already", "--force")


def test_run_says_what_a_bundle_does_not_give(vptkit, make_bundle, colour_folders, tmp_path):
    alone, photos = make_bundle(gives=("features",)), colour_folders / "red"
    npy = ("--features", tmp_path / "x.npy")
    assert_error(vptkit("run", alone, photos), 2, "no labels", "--features FILE.npy")
    assert_error(vptkit("run", alone, photos, *npy, "--save", tmp_path / "x.csv"), 2, "no logits")
    assert_error(vptkit("run", make_bundle(), photos, *npy), 2, "no features", "--output both")
    assert_error(vptkit("eval", alone, colour_folders), 2, "no logits", "--output both")
    both = make_bundle(gives=("logits", "features"))
    bad = ("--features", tmp_path / "x.csv")
    assert_error(vptkit("run", both, photos, *bad), 2, ".npy or .parquet")
    assert sorted(p.suffix for p in tmp_path.iterdir() if p.is_file()) == []
    assert vptkit("check", alone)[0] == 0
    assert vptkit("check", both, "--json")[0] == 0


def test_profile_of_features_alone(vptkit, make_bundle):
    alone = make_bundle(gives=("features",))
    code, out, err = vptkit("profile", alone, "--rounds", "3", "--no-memory", "--json")
    assert code == 0, err
    assert json.loads(out)["rows"][0]["count"] == 3


@pytest.mark.slow
def test_run_of_several_labels_an_image(vptkit, make_bundle, colour_folders, tmp_path):
    bundle = make_bundle(thresholds=(0.5, 0.5, 0.001))
    _, out, _ = vptkit("run", bundle, colour_folders / "red", "--json", "--top-k", "1")
    document = json.loads(out.splitlines()[0])
    assert document["labels"][0] == document["top"][0]["label"] == "red"
    assert (len(document["top"]), "blue" in document["labels"]) == (
        1,
        True,
    )  # top is cut, labels not
    assert len(document["scores"]) == len(document["labels"])
    code, out, _ = vptkit("run", bundle, colour_folders / "red", "--save", tmp_path / "x.csv")
    assert code == 0
    row = next(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert (json.loads(row["labels"]), row["error"]) == (document["labels"], "")


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
def test_a_run_that_stopped_goes_on(
    vptkit, make_bundle, colour_folders, tmp_path, monkeypatch, name
):
    """Stopped behind each image in turn; the file is the one of an undisturbed run."""
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    bundle, save = make_bundle(), tmp_path / name
    asked = ("run", bundle, colour_folders, "--batch", 2, "--save", save)
    assert vptkit(*asked)[0] == 0
    whole = save.read_bytes()
    save.unlink()
    for stop in (1, 2, 5, 11, 12):
        with monkeypatch.context() as patch:
            _stop_behind(patch, stop)
            assert vptkit(*asked)[0] == 130
        assert not save.exists()
        code, _, err = vptkit(*asked)
        assert (code, save.read_bytes()) == (0, whole)
        assert (f"{stop // 2 * 2} images are done" in err) == (stop > 1)
        assert list(tmp_path.glob("x.*")) == [save]
        save.unlink()


def _stop_behind(patch, count):
    from vptkit.runtime.bulk.run_journal import RunJournal

    add = RunJournal.add

    def stop(self, prediction):
        add(self, prediction)
        if self.count == count:
            raise KeyboardInterrupt

    patch.setattr(RunJournal, "add", stop)


def test_a_folder_that_grew_is_taken_up(vptkit, make_bundle, colour_folders, tmp_path, monkeypatch):
    bundle, save = make_bundle(), tmp_path / "x.jsonl"
    asked = ("run", bundle, colour_folders, "--batch", 2, "--save", save)
    with monkeypatch.context() as patch:
        _stop_behind(patch, 6)
        vptkit(*asked)
    first = colour_folders / "blue" / "00.png"
    first.write_bytes((colour_folders / "blue" / "0.png").read_bytes())
    assert vptkit(*asked)[0] == 0
    paths = [json.loads(line)["path"] for line in save.read_text().splitlines()]
    assert len(paths) == len(set(paths)) == 13
    assert str(first) in paths


def test_other_options_do_not_go_on(vptkit, make_bundle, colour_folders, tmp_path, monkeypatch):
    bundle, save = make_bundle(), tmp_path / "x.jsonl"
    asked = ("run", bundle, colour_folders, "--batch", 2, "--save", save)
    with monkeypatch.context() as patch:
        _stop_behind(patch, 6)
        vptkit(*asked)
    assert_error(vptkit(*asked, "--top-k", 1), 2, "unfinished run with top_k 5, this one has 1")
    code, _, err = vptkit(*asked, "--top-k", 1, "--force")
    assert (code, "images are done" in err) == (0, False)


def test_more_images_than_are_looked_up_first(vptkit, make_bundle, colour_folders, monkeypatch):
    monkeypatch.setattr("vptkit.cli.run_command.found_images._FIRST", 5)
    (colour_folders / "red" / "5.HEIC").touch()
    code, out, err = vptkit("run", make_bundle(), colour_folders, "gone.png", "--json")
    assert (code, len(out.splitlines())) == (2, 12)
    assert err.count("gone.png: no such file") == 2  # the warning, and the error at the end
    assert "1 file skipped (.heic 1)" in err
