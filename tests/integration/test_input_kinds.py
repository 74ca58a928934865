"""`vptkit run` on the same images in every form: the same answers, also after a stop on the way."""

from __future__ import annotations

import csv
import json
import sys
import time

import pytest

from tests.support.children import Child
from tests.support.command_errors import assert_error
from tests.support.image_archives import write_tar
from tests.support.stopped_runs import stopped_after

KINDS = ("folder", "csv", "json", "jsonl", "tar", "tars", "parquet", "parquets", "saved")


def files_of(folder):
    return sorted(folder.rglob("*.png"))


def write(kind, folder, place):
    """The images of a folder in another form, in the same order."""
    files = files_of(folder)
    if kind == "folder":
        return folder
    if kind in ("csv", "json", "jsonl"):
        names = [str(file.relative_to(folder)) for file in files]
        text = {
            "csv": "".join(
                f"{line}\n" for line in ("path,label", *(f"{name},x" for name in names))
            ),
            "json": json.dumps(names),
            "jsonl": "".join(json.dumps({"file_name": name, "n": 1}) + "\n" for name in names),
        }[kind]
        (folder / f"list.{kind}").write_text(text)
        return folder / f"list.{kind}"
    if kind == "tar":
        members = {str(file.relative_to(folder)): file.read_bytes() for file in files}
        return write_tar(place / "s.tar", members)
    if kind == "tars":
        for number, file in enumerate(files):
            write_tar(place / f"s-{number:02}.tar", {file.name: file.read_bytes(), "x.json": b"{}"})
        return place / f"s-{{00..{len(files) - 1}}}.tar"
    return write_tables(kind, files, place)


def write_tables(kind, files, place):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    table = arrow.table({"image": images, "label": [0] * len(files)})
    folder = place / "tables"
    folder.mkdir()
    if kind == "saved":
        with arrow.ipc.new_stream(folder / "data.arrow", table.schema) as stream:
            stream.write_table(table, max_chunksize=5)
        (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
        (folder / "dataset_info.json").write_text("{}")
        return folder
    if kind == "parquet":
        parquet.write_table(table, folder / "a.parquet", row_group_size=5)
        return folder / "a.parquet"
    (folder / "data").mkdir()
    for number in range(0, len(files), 5):
        parquet.write_table(table.slice(number, 5), folder / "data" / f"{number:02}.parquet")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_answers_and_the_same_file_after_a_stop(
    vptkit, make_bundle, colour_folders, tmp_path, monkeypatch, kind
):
    bundle, save = make_bundle(), tmp_path / "out" / "x.csv"
    save.parent.mkdir()
    source = write(kind, colour_folders, tmp_path)
    asked = ("run", bundle, source, "--batch", 2, "--save", save)
    assert vptkit(*asked)[0] == 0
    whole = save.read_bytes()
    rows = list(csv.DictReader(whole.decode().splitlines()))
    told = [row["label_1"] for row in rows]
    assert told == ["blue"] * 4 + ["green"] * 3 + ["blue"] + ["red"] * 4  # blue at heart
    assert len({row["path"] for row in rows}) == len(rows) == 12
    save.unlink()
    with stopped_after(7, monkeypatch):
        assert vptkit(*asked)[0] == 130
    code, _, err = vptkit(*asked)
    assert (code, save.read_bytes()) == (0, whole)
    assert "6 images are done" in err


def test_one_broken_thing_in_each_and_the_others_go_on(
    vptkit, make_bundle, colour_folders, tmp_path
):
    pytest.importorskip("pyarrow")
    red = colour_folders / "red"
    (red / "list.csv").write_text("path,label\n0.png,x\n,x\ngone.png,x\n")
    tar = write_tar(tmp_path / "a.tar", {"0.png": (red / "0.png").read_bytes(), "1.png": b"broken"})
    cut = write_tar(tmp_path / "cut.tar", {"0.png": (red / "0.png").read_bytes(), "x": bytes(5000)})
    cut.write_bytes(cut.read_bytes()[:-12000])
    (tmp_path / "b.parquet").write_bytes(b"no table")
    sources = (red / "list.csv", tar, cut, tmp_path / "b.parquet", red / "3.png")
    result = vptkit("run", make_bundle(), *sources, "--json")
    documents = [json.loads(line) for line in result[1].splitlines()]
    names = [document["path"].removeprefix(f"{tmp_path}/") for document in documents]
    folder = red.relative_to(tmp_path)
    assert names == [
        f"{folder}/0.png",
        f"{folder}/list.csv: line 3",
        f"{folder}/gone.png",
        "a.tar: 0.png",
        "a.tar: 1.png",
        "cut.tar: 0.png",
        f"{folder}/3.png",
    ]
    assert [name for name, one in zip(names, documents, strict=True) if "error" in one] == [
        *names[1:3],
        names[4],
    ]
    assert_error(
        result, 2, "3 of 7 images failed", "2 of the sources is broken", "cut.tar: not a whole"
    )
    assert "b.parquet: " in result[2]


def test_a_list_leads_out_of_its_folder_only_if_that_is_allowed(
    vptkit, make_bundle, colour_folders, tmp_path
):
    (tmp_path / "lists").mkdir()
    file = tmp_path / "lists" / "all.csv"
    file.write_text("".join(f"{line}\n" for line in ("path", *files_of(colour_folders))))
    bundle = make_bundle()
    assert_error(
        vptkit("run", bundle, file), 2, "lies outside of the list's folder", "--allow-outside"
    )
    code, out, _ = vptkit("run", bundle, file, "--allow-outside", "--json")
    assert (code, len(out.splitlines())) == (0, 12)
    file.write_text(f"id,image\n7,{colour_folders / 'red' / '0.png'}\n")
    assert_error(vptkit("run", bundle, file), 2, "id and image may both", "--columns")
    asked = ("run", bundle, file, "--allow-outside", "--columns", "image=image")
    assert vptkit(*asked)[0] == 0


def test_python_takes_the_same(make_bundle, colour_folders, tmp_path):
    from vptkit.runtime.session.factory import open_session

    sources = [str(write(kind, colour_folders, tmp_path)) for kind in ("csv", "tar")]
    with open_session(make_bundle()) as session:
        found = list(session.predict([*sources, str(colour_folders / "red")]))
        assert [one.label for one in found[:12]] == [one.label for one in found[12:24]]
        assert len(found) == 24  # the folder's were named by the list
        assert found[12].path.name == "0.png"
        assert found[12].path.read_bytes() == files_of(colour_folders)[0].read_bytes()


@pytest.mark.long
def test_killed_within_a_shard(make_bundle, colour_folders, tmp_path):
    """SIGKILL, and the same command again, until it is through; byte for byte that of a quiet run."""
    files = [file.read_bytes() for file in files_of(colour_folders)]
    members = {f"{number:05}.png": files[number % len(files)] for number in range(1000)}
    shard = write_tar(tmp_path / "s.tar", members)
    save = tmp_path / "out" / "x.jsonl"
    save.parent.mkdir()
    command = [sys.executable, "-m", "vptkit", "run", str(make_bundle()), str(shard)]
    command += ["--save", str(save), "--backend", "cpu"]
    with Child(command, limit=120) as child:
        assert child.wait() == 0
    whole = save.read_bytes()
    save.unlink()
    partial = save.with_name("x.jsonl.partial")
    for size in (1, 30_000):
        with Child(command, limit=120) as child:
            deadline = time.monotonic() + 60
            while not (partial.exists() and partial.stat().st_size > size):
                assert time.monotonic() < deadline
                time.sleep(0.002)
            child.kill()
            child.wait()
        assert not save.exists()
    with Child(command, limit=120) as child:
        assert child.wait() == 0
    assert save.read_bytes() == whole
    assert list(save.parent.iterdir()) == [save]


@pytest.mark.parametrize("option", ["--save", "--features"])
def test_nothing_is_written_into_a_store(vptkit, make_bundle, colour_folders, option):
    bundle = make_bundle(gives=("logits", "features"))
    result = vptkit("run", bundle, colour_folders, option, "s3://bucket/out.parquet")
    assert_error(result, 2, "s3://bucket/out.parquet: outputs are written to this machine's disk")


def test_a_store_without_its_package(vptkit, make_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    result = vptkit("run", make_bundle(), "s3://bucket/photos/")
    assert_error(
        result, 5, "s3://bucket/photos/: reading s3:// needs s3fs", "pip install fsspec s3fs"
    )


def test_options_of_lists_have_no_effect_on_videos(vptkit, make_bundle):
    result = vptkit("run", make_bundle(), "clip.mp4", "--columns", "image=x")
    assert_error(result, 2, "--columns", "images as SOURCE")
