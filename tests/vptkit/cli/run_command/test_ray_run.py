"""With a stand-in for the cluster; tests/runtime/ray_data has real ones."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.command_errors import assert_error
from tests.support.serial_cluster import SerialCluster
from vptkit.cli.run_command.ray_run import require_ray_options
from vptkit.errors import VptkitError

pytest.importorskip("onnxruntime")
pytest.importorskip("pyarrow")


@pytest.fixture
def cluster(monkeypatch):
    """A stand-in of one actor in this process."""
    names = ("ray", "ray.data", "ray.data.checkpoint")
    stand_ins = {name: ModuleType(name) for name in names}
    stand_ins["ray"].data = stand_ins["ray.data"]
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(Path.cwd())  # put back, for a worker goes elsewhere
    monkeypatch.setattr(sys, "path", sys.path.copy())
    found = SerialCluster()
    monkeypatch.setitem(sys.modules, "vptkit.runtime.ray_data.driver_child", found)
    return found


def on_ray(vptkit, *arguments, address="auto"):
    return vptkit("run", *arguments, "--ray-address", address, "--batch", 2)


def plainly(vptkit, save, *arguments):
    vptkit("run", *arguments, "--batch", 2, "--save", save)
    return save.read_bytes()


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
@pytest.mark.parametrize("broken", [False, True])
def test_the_output_is_that_of_a_plain_run(
    vptkit, make_bundle, colour_folders, tmp_path, cluster, name, broken
):
    (tmp_path / "ray").mkdir()
    bundle, save = make_bundle(), tmp_path / "ray" / name
    if broken:
        (colour_folders / "a.png").write_bytes(b"\x89PNG")
        shutil.copyfile(colour_folders / "red/0.png", os.fsencode(colour_folders) + b"/\xff.png")
    code, out, err = on_ray(vptkit, bundle, colour_folders, "--save", save, "--actors", 3)
    count = 14 if broken else 12
    assert f"{count} images in" in out
    assert f"cpu), {int(broken)} broken → {save}" in out
    assert (code, "error: 1 of 14 images failed" in err) == ((2, True) if broken else (0, False))
    assert cluster.asked == [("auto", None, 3)]
    assert save.read_bytes() == plainly(vptkit, tmp_path / name, bundle, colour_folders)
    assert os.listdir(save.parent) == [name]  # noqa: PTH208


def test_images_in_other_things(
    vptkit, make_bundle, colour_folders, tmp_path, cluster, monkeypatch
):
    """A list, an archive and a table, named from the folder of the command."""
    monkeypatch.chdir(tmp_path)
    with tarfile.open("photos.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(colour_folders / "red", "red")
    Path("list.csv").write_text("image\ncolours/green/0.png\ncolours/green/no.png\n")
    images = [(colour_folders / "blue" / f"{i}.png").read_bytes() for i in range(3)]
    table = pytest.importorskip("pyarrow").table({"image": images})
    pytest.importorskip("pyarrow.parquet").write_table(table, "table.parquet")
    bundle, sources = make_bundle(), ("photos.tar", "list.csv", "table.parquet")
    assert on_ray(vptkit, bundle, *sources, "--save", "ray.jsonl")[0] == 2  # one is not there
    monkeypatch.chdir(tmp_path)
    expected = plainly(vptkit, Path("plain.jsonl"), bundle, *sources)
    assert Path("ray.jsonl").read_bytes() == expected
    assert len(expected.splitlines()) == 9
    assert b"photos.tar: red/0.png" in expected


def test_answers_are_printed_too(vptkit, make_bundle, colour_folders, tmp_path, cluster):
    save = tmp_path / "x.jsonl"
    code, out, _ = on_ray(vptkit, make_bundle(), colour_folders, "--save", save, "--json")
    assert code == 0
    assert out == save.read_text()


def stopped(vptkit, cluster, save, *arguments, after=3):
    """A run whose driver ends after some batches; what it leaves."""
    cluster.lasts = after
    assert on_ray(vptkit, *arguments, "--save", save)[0] == 130
    cluster.lasts = 1000
    cluster.answered.clear()
    assert not save.exists()
    return save.with_name(f"{save.name}.parts")


def test_a_run_that_stopped_goes_on(vptkit, make_bundle, colour_folders, tmp_path, cluster):
    bundle, save = make_bundle(), tmp_path / "x.jsonl"
    parts = stopped(vptkit, cluster, save, bundle, colour_folders)
    code, _, err = on_ray(vptkit, bundle, colour_folders, "--save", save)
    assert (code, cluster.answered) == (0, [3, 4, 5])
    assert f"note: {parts}: 6 images are done, the run goes on there" in err
    assert save.read_bytes() == plainly(vptkit, tmp_path / "y.jsonl", bundle, colour_folders)
    assert not parts.exists()


def test_a_folder_that_grew_is_taken_up(vptkit, make_bundle, colour_folders, tmp_path, cluster):
    bundle, save = make_bundle(), tmp_path / "x.jsonl"
    stopped(vptkit, cluster, save, bundle, colour_folders)
    first = colour_folders / "blue" / "00.png"
    first.write_bytes((colour_folders / "blue" / "0.png").read_bytes())
    (colour_folders / "red" / "3.png").unlink()
    assert on_ray(vptkit, bundle, colour_folders, "--save", save)[0] == 2
    rows = [json.loads(line) for line in save.read_text().splitlines()]
    paths = [row["path"] for row in rows]
    assert len(paths) == len(set(paths)) == 13
    assert paths[-1] == str(first)
    assert [row["path"] for row in rows if "error" in row] == [
        str(colour_folders / "red" / "3.png")
    ]


def test_killed_while_the_output_was_written(
    vptkit, make_bundle, colour_folders, tmp_path, cluster, monkeypatch
):
    bundle, save = make_bundle(), tmp_path / "x.jsonl"
    with monkeypatch.context() as patch:
        kill = "vptkit.runtime.ray_data.parts_folder.PartsFolder.remove"
        patch.setattr(kill, lambda parts: (_ for _ in ()).throw(KeyboardInterrupt))
        assert on_ray(vptkit, bundle, colour_folders, "--save", save)[0] == 130
    assert save.exists()
    cluster.answered.clear()
    assert on_ray(vptkit, bundle, colour_folders, "--save", save)[0] == 0  # without --force
    assert cluster.answered == []
    assert len(cluster.asked) == 1
    assert_error(on_ray(vptkit, bundle, colour_folders, "--save", save), 2, "--force")
    assert on_ray(vptkit, bundle, colour_folders, "--save", save, "--force")[0] == 0


def test_other_options_do_not_go_on(vptkit, make_bundle, colour_folders, tmp_path, cluster):
    bundle, save = make_bundle(), tmp_path / "x.jsonl"
    asked = (bundle, colour_folders)
    stopped(vptkit, cluster, save, *asked)
    other = on_ray(vptkit, *asked, "--save", save, "--top-k", 1)
    assert_error(other, 2, "unfinished run with top_k 5, this one has 1")
    assert on_ray(vptkit, *asked, "--save", save, "--top-k", 1, "--force")[0] == 0
    assert cluster.answered == [0, 1, 2, 3, 4, 5]
    save.unlink()
    stopped(vptkit, cluster, save, *asked)
    assert on_ray(vptkit, *asked, "--save", save, "--no-resume", address="local")[0] == 0
    assert cluster.answered == [0, 1, 2, 3, 4, 5]


def test_names_on_standard_input(
    vptkit, make_bundle, colour_folders, tmp_path, cluster, monkeypatch
):
    names = "\n".join(str(colour_folders / "red" / f"{i}.png") for i in (2, 0, 2))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names.encode())))
    save = tmp_path / "x.jsonl"
    assert on_ray(vptkit, make_bundle(), "-", "--save", save)[0] == 0
    rows = [json.loads(line)["path"] for line in save.read_text().splitlines()]
    assert [Path(row).name for row in rows] == ["2.png", "0.png"]


def test_several_labels_and_rejection(vptkit, make_bundle, colour_folders, tmp_path, cluster):
    bundle, save = make_bundle(thresholds=(0.5, 0.5, 0.5)), tmp_path / "x.csv"
    assert on_ray(vptkit, bundle, colour_folders, "--save", save)[0] == 0
    assert save.read_bytes() == plainly(vptkit, tmp_path / "y.csv", bundle, colour_folders)
    rejecting = on_ray(vptkit, bundle, colour_folders, "--save", save, "--force", "--reject", 0.1)
    assert_error(rejecting, 2, "does not know the images that it was made for")


def test_nothing_to_do(vptkit, make_bundle, colour_folders, tmp_path, cluster):
    save = tmp_path / "x.jsonl"
    assert_error(on_ray(vptkit, make_bundle(), tmp_path / "no", "--save", save), 2, "no such file")
    (tmp_path / "empty").mkdir()
    assert_error(on_ray(vptkit, make_bundle(), tmp_path / "empty", "--save", save), 2, "no images")
    assert not save.with_name("x.jsonl.parts").exists()
    # One that is missing among others is told in the end.
    some = on_ray(vptkit, make_bundle(), tmp_path / "no", colour_folders, "--save", save)
    assert some[0] == 2
    assert "1 of the sources is missing" in some[2]
    assert len(save.read_text().splitlines()) == 12


def test_what_does_not_go_together(vptkit, make_bundle, colour_folders, tmp_path, cluster):
    bundle, save = make_bundle(), ("--save", tmp_path / "x.jsonl")
    cases = (
        (("photo.png", *save, "--features", "x.npy"), "--features does not go with --ray-address"),
        (("photo.png", *save, "--on-change"), "--on-change does not go with --ray-address"),
        (("photo.png", *save, "--every", 2), "--every does not go with --ray-address"),
        (("rtsp://u:secret@cam/1", *save), "a video or a camera. --ray-address takes images"),
        (("photo.png",), "--ray-address needs --save"),
        (("photo.png", "--save", "x.txt"), "predictions are saved as"),
        (("photo.png", *save, "--adapter", "other"), "other"),
        (("photo.png", *save, "--decode", "how"), "how"),
    )
    for arguments, text in cases:
        told = on_ray(vptkit, bundle, *arguments)
        assert_error(told, 2, text)
        assert "secret" not in told[2]
    for address in ("head", "ray://head:1", ""):
        assert_error(on_ray(vptkit, bundle, "x.png", *save, address=address), 2, "--ray-address")
    assert_error(vptkit("run", bundle, "x.png", "--actors", 2), 2, "goes with --ray-address")
    with pytest.raises(VptkitError, match="--actors"):
        require_ray_options({"ray_address": None, "actors": 2})
    assert cluster.asked == []
    assert not (tmp_path / "x.jsonl.parts").exists()


def test_without_ray_the_extra_is_named(
    vptkit, make_bundle, colour_folders, tmp_path, cluster, monkeypatch
):
    asked = (make_bundle(), colour_folders, "--save", tmp_path / "x.jsonl")
    monkeypatch.setitem(sys.modules, "ray.data.checkpoint", None)
    sys.modules["ray"].__version__ = "2.50.0"
    told = on_ray(vptkit, *asked)
    assert_error(told, 5, "Ray 2.50.0 cannot note what is done, 2.55 and newer can")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert_error(on_ray(vptkit, *asked), 5, 'not installed: pip install "vptkit[ray]"')
