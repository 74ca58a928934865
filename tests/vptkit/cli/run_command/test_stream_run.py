"""`vptkit run` on videos, from outside."""

from __future__ import annotations

import csv
import json
import signal
import sys

import numpy as np
import pytest

from tests.support.children import PIPE, Child
from tests.support.command_errors import assert_error
from vptkit.cli.run_command.stream_run import any_stream, seconds_of
from vptkit.errors import VptkitError
from vptkit.runtime import open_session

pytest.importorskip("av")
from tests.support.coloured_videos import make_video, read_video

COLOURS = ["red"] * 4 + ["blue"] * 3 + ["green"] * 3


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "clip.mp4", COLOURS)


def test_every_frame_of_a_file_is_told(vptkit, make_bundle, clip):
    code, out, err = vptkit("run", make_bundle(), clip, "--json")
    *documents, summary = map(json.loads, out.splitlines())
    assert code == 0, err
    assert [d["label"] for d in documents] == COLOURS
    assert [d["frame"] for d in documents] == list(range(10))
    assert [d["timestamp"] for d in documents] == pytest.approx([i / 10 for i in range(10)])
    (source,) = summary["sources"]
    assert (source["captured"], source["served"], source["dropped"]) == (10, 10, {})
    assert source["age_ms"]["p50"] <= source["age_ms"]["p99"]


def test_answers_are_those_of_predict_bit_for_bit(make_bundle, clip):
    import vptkit as package

    with open_session(make_bundle(), threads=1) as session:
        with package.run_streams(session, str(clip), batch=4) as run:
            found = list(run)
        expected = list(session.predict(read_video(clip)[0]))
    assert len(found) == len(expected) == 10
    for answer, alone in zip(found, expected, strict=True):
        assert np.array_equal(answer.prediction.logits, alone.logits)


def test_two_files_of_one_bundle_and_the_outputs(vptkit, make_bundle, clip, tmp_path):
    other = make_video(tmp_path / "ß x.mp4", ["blue"] * 3)
    save, video = tmp_path / "x.csv", tmp_path / "x.mp4"
    code, out, err = vptkit(
        *("run", make_bundle(), f"cam1={clip}", f"cam2={other}", "--save", save),
        *("--annotate", video, "--adapter", "cam1=tiny,cam2=tiny"),
    )
    assert (code, out) == (0, "")
    rows = list(csv.DictReader(save.read_text().splitlines()))
    assert [r["label"] for r in rows if r["source"] == "cam1"] == COLOURS
    assert [r["label"] for r in rows if r["source"] == "cam2"] == ["blue"] * 3
    assert len(read_video(tmp_path / "x-cam1.mp4")[0]) == 10
    assert len(read_video(tmp_path / "x-cam2.mp4")[0]) == 3
    lines = err.splitlines()[-3:]
    assert [line.split()[:3] for line in lines] == [
        ["source", "adapter", "captured"], ["cam1", "tiny", "10"], ["cam2", "tiny", "3"]
    ]  # fmt: skip


def test_events_bounds_and_rates(vptkit, make_bundle, clip):
    bundle = make_bundle()
    events = vptkit("run", bundle, clip, "--on-change")[1].splitlines()
    assert [line.split()[3] for line in events] == ["red", "blue", "green"]
    assert len(vptkit("run", bundle, clip, "--frames", "3")[1].splitlines()) == 3
    assert len(vptkit("run", bundle, clip, "--every", "5")[1].splitlines()) == 2
    assert len(vptkit("run", bundle, clip, "--fps", "5")[1].splitlines()) == 5


def test_a_source_that_fails_is_reported_and_the_others_go_on(vptkit, make_bundle, clip, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    result = vptkit("run", make_bundle(), clip, tmp_path / "bad.mp4")
    assert len(result[1].splitlines()) == 10
    assert_error(result, 2, "1 of 2 sources failed", "bad.mp4")
    assert vptkit("run", make_bundle(), tmp_path / "bad.mp4")[0] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--features", "x.npy"], ["--features has no effect", "images as SOURCE"]),
        (["--reject", "0.1"], ["--reject has no effect"]),
        (["--all-frames", "--max-staleness", "1s"], ["--max-staleness has no effect"]),
        (["--smooth", "often"], ["--smooth 'often'", "0.5s"]),
        (["--adapter", "nobody=tiny"], ["one of the sources"]),
        (["--save", "x.parquet"], [".jsonl or .csv"]),
        (["--annotate", "x.gif"], [".mp4"]),
        (["--fps", "0"], ["frames a second"]),
    ],
)
def test_options_that_are_refused(vptkit, make_bundle, clip, options, words):
    assert_error(vptkit("run", make_bundle(), clip, *options), 2, *words)


@pytest.mark.parametrize("option", ["--all-frames", "--on-change", "--every=2", "--duration=3s"])
def test_options_of_streams_on_images(vptkit, make_bundle, colour_folders, option):
    assert_error(vptkit("run", make_bundle(), colour_folders / "red", option), 2, "has no effect")


def test_images_and_videos_side_by_side(vptkit, make_bundle, colour_folders, clip):
    result = vptkit("run", make_bundle(), colour_folders / "red", clip)
    assert_error(result, 2, "one after the other")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_whole_lines_and_a_video_that_plays(make_bundle, clip, tmp_path, number):
    save, video = tmp_path / "x.jsonl", tmp_path / "x.mp4"
    endless = f"seq:{tmp_path / 'pictures'}"
    (tmp_path / "pictures").mkdir()
    from PIL import Image

    for i in range(3000):
        Image.new("RGB", (64, 48), "red").save(tmp_path / "pictures" / f"{i:05d}.png")
    command = [sys.executable, "-m", "vptkit", "run", make_bundle(), endless, "--save", save]
    with Child([*map(str, command), "--annotate", str(video)], stderr=PIPE, text=True) as child:
        while not (save.exists() and save.read_text().count("\n") > 20):
            assert child.poll() is None
        child.send_signal(number)
        error = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    documents = [json.loads(line) for line in save.read_text().splitlines()]
    assert [d["frame"] for d in documents] == list(range(len(documents)))
    assert save.read_text().endswith("\n")
    assert len(read_video(video)[0]) >= len(documents) - 1
    assert "served" in error


@pytest.mark.parametrize(
    ("text", "seconds"), [("0.5s", 0.5), ("500ms", 0.5), ("2", 2.0), ("2m", 120.0), (None, None)]
)
def test_durations(text, seconds):
    assert seconds_of("--x", text) == pytest.approx(seconds) if text else seconds is None


@pytest.mark.parametrize("text", ["", "s", "-1s", "0", "1e3", "nan", "5 days"])
def test_no_durations(text):
    with pytest.raises(VptkitError, match="--x"):
        seconds_of("--x", text)


def test_images_are_no_streams():
    assert not any_stream(["photos", "a.jpg", "-"], {"features": None, "all_frames": False})
