"""`vptkit run` on an S3 server: what is listed, fetched, gone, denied, and written after a stop."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import pytest

from tests.support.children import run_child
from tests.support.command_errors import assert_error
from tests.support.image_archives import write_tar
from tests.support.object_store import s3_address, s3_server  # noqa: F401 -- fixtures
from tests.support.stopped_runs import stopped_after
from vptkit.errors import DataError
from vptkit.runtime.bulk.named_sources import NamedImages
from vptkit.runtime.stores.stored_image import fetched_ahead

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(s3_server, colour_folders):  # noqa: F811
    """The bucket with the coloured images below photos/."""
    for file in sorted(colour_folders.rglob("*.png")):
        key = f"bucket/photos/{file.relative_to(colour_folders)}"
        s3_server.pipe_file(key, file.read_bytes())
    s3_server.pipe_file("bucket/photos/notes.txt", b"x")
    s3_server.pipe_file("bucket/photos/.hidden.png", b"x")
    return s3_server


def paths(text):
    return [json.loads(line)["path"] for line in text.splitlines()]


def test_a_prefix_a_glob_and_an_object(vptkit, make_bundle, bucket):
    bundle = make_bundle()
    code, out, err = vptkit("run", bundle, "s3://bucket/photos/", "--json")
    assert (code, len(paths(out))) == (0, 12)
    assert paths(out)[0] == "s3://bucket/photos/blue/0.png"
    assert "1 file skipped (.txt 1)" in err
    assert [json.loads(line)["top"][0]["label"] for line in out.splitlines()][-4:] == ["red"] * 4
    wanted = (
        "s3://bucket/photos/red/[01].png",
        "s3://bucket/photos/blue/3.png",
        "s3://bucket/photos/red/0.png",
    )
    code, out, _ = vptkit("run", bundle, *wanted, "--json")
    assert [path.rpartition("photos/")[2] for path in paths(out)] == [
        "red/0.png",
        "red/1.png",
        "blue/3.png",
    ]


def test_lists_shards_and_tables(vptkit, make_bundle, bucket, colour_folders, tmp_path):
    images = {f"{n}.png": (colour_folders / "red" / f"{n}.png").read_bytes() for n in range(4)}
    for number in range(3):
        file = write_tar(tmp_path / "s.tar", images)
        bucket.pipe_file(f"bucket/shards/s-{number:02}.tar", file.read_bytes())
    bucket.pipe_file("bucket/photos/l.csv", b"path\nred/0.png\nred/9.png\n../shards/s-00.tar\n")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"image": list(images.values())})
    parquet.write_table(table, tmp_path / "t.parquet")
    bucket.pipe_file("bucket/t.parquet", (tmp_path / "t.parquet").read_bytes())
    bundle = make_bundle()
    for source, count in (("shards/s-{00..02}.tar", 12), ("shards/", 12), ("t.parquet", 4)):
        code, out, _ = vptkit("run", bundle, f"s3://bucket/{source}", "--json")
        assert (code, len(set(paths(out)))) == (0, count)
        assert {json.loads(line)["top"][0]["label"] for line in out.splitlines()} == {"red"}
    assert paths(out)[3] == "s3://bucket/t.parquet: row 3"
    result = vptkit("run", bundle, "s3://bucket/photos/l.csv", "--json")
    assert paths(result[1])[1:] == [
        "s3://bucket/photos/red/9.png",
        "s3://bucket/photos/l.csv: line 4",
    ]
    assert_error(result, 2, "2 of 3 images failed", "red/9.png: no such object")


def test_the_same_file_after_a_stop(vptkit, make_bundle, bucket, tmp_path, monkeypatch):
    bundle, save = make_bundle(), tmp_path / "x.csv"
    asked = ("run", bundle, "s3://bucket/photos/", "--batch", 2, "--save", save)
    assert vptkit(*asked)[0] == 0
    whole = save.read_bytes()
    save.unlink()
    with stopped_after(7, monkeypatch):
        assert vptkit(*asked)[0] == 130
    code, _, err = vptkit(*asked)
    assert (code, save.read_bytes()) == (0, whole)
    assert "6 images are done" in err


def test_more_objects_than_a_page(bucket, monkeypatch):
    monkeypatch.setattr("vptkit.runtime.inputs.store_listing._PAGE", 5)
    named = NamedImages(["s3://bucket/photos/"])
    found = [str(image) for image in named]
    assert found == sorted(set(found))
    assert len(found) == named.count() == 12


def test_an_object_that_goes_on_the_way(bucket):
    found = list(NamedImages(["s3://bucket/photos/red/"]))
    bucket.rm_file("bucket/photos/red/2.png")
    for image in fetched_ahead(found):
        gone = pytest.raises(DataError, match=r"red/2\.png: no such object")
        with gone if image.name == "2.png" else contextlib.nullcontext():
            assert image.read_bytes()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://no-such-bucket/x/", "s3://no-such-bucket/x/: The specified bucket does not exist"),
        ("s3://bucket/photos/red/9.png", "s3://bucket/photos/red/9.png: no such object"),
        ("s3://bucket/nothing/", "s3://bucket/nothing/: no images there"),
        ("s3://bucket/nothing-{0..3}.tar", "s3://bucket/nothing-0.tar: no such object"),
        ("s3://", "no such object|cannot be read"),
    ],
)
def test_what_is_not_there(vptkit, make_bundle, s3_server, source, message):  # noqa: F811
    result = vptkit("run", make_bundle(), source)
    assert result[0] == 2
    assert any(part in result[2] for part in message.split("|"))


@pytest.mark.long
def test_what_is_denied(bucket, make_bundle, tmp_path):
    """Children, for s3fs keeps what it found: without credentials, and as anybody."""
    bucket.pipe_file(
        "bucket/public/0.png", bucket.cat_file("bucket/photos/red/0.png"), ACL="public-read"
    )
    given = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    given |= {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_DISABLED")}
    given["HOME"] = str(tmp_path)
    command = [sys.executable, "-m", "vptkit", "run", str(make_bundle()), "s3://bucket/"]
    done = run_child(command, check=False, env=given)
    assert done.returncode == 2
    assert "s3://bucket/: no credentials were found" in done.stderr
    assert "FSSPEC_S3_ANON=true" in done.stderr
    done = run_child([*command, "--json"], check=False, env={**given, "FSSPEC_S3_ANON": "true"})
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, len(documents)) == (2, 13)
    for one in documents:
        if one["path"] == "s3://bucket/public/0.png":
            assert "error" not in one
        else:
            assert one["error"].startswith(f"{one['path']}: access denied")
