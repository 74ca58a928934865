"""Videos with labels on them play, also when nobody closed them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.feeds import colour_frame
from vptkit.errors import OutputError
from vptkit.runtime.frame_answers.annotated_video import annotated_videos, drawn, video_paths
from vptkit.runtime.frame_answers.frame_answer import FrameAnswer
from vptkit.runtime.session.session_protocol import Prediction

pytest.importorskip("av")
from tests.support.coloured_videos import read_video


def answer(source="cam", number=0, size=(65, 97), **fields):
    prediction = Prediction(path=None, adapter="tiny", top=(("röt 红", 0.75),), **fields)
    frame = colour_frame(source, number, (0, 0, 0), captured=number / 5, timestamp=7 + number / 5)
    object.__setattr__(frame, "pixels", np.full((*size, 3), (10, 180, 10), dtype=np.uint8))
    return FrameAnswer(frame=frame, prediction=prediction, age=0.01)


def test_the_label_is_drawn_at_the_bottom_and_the_rest_untouched():
    image = np.asarray(drawn(answer(size=(240, 320))))
    assert (image[:200] == (10, 180, 10)).all()
    assert (image[-25:].max(axis=(1, 2)) > 200).any()


def test_every_frame_with_its_time_and_another_size_midway(tmp_path):
    with annotated_videos(tmp_path / "x.mp4", ["cam"]) as write:
        for number in range(12):
            write(answer(number=number, size=(65, 97) if number < 6 else (40, 40)))
    pixels, times = read_video(tmp_path / "x.mp4")
    assert times == pytest.approx([number / 5 for number in range(12)], abs=1e-3)
    assert {image.shape for image in pixels} == {(64, 96, 3)}
    assert np.abs(pixels[0][:20].astype(int) - (10, 180, 10)).max() < 40


def test_a_copy_of_what_a_killed_run_leaves_plays(tmp_path):
    with annotated_videos(tmp_path / "x.mp4", ["cam"]) as write:
        for number in range(100):
            write(answer(number=number))
        shutil.copy(tmp_path / "x.mp4", tmp_path / "killed.mp4")
    assert len(read_video(tmp_path / "killed.mp4")[0]) >= 30


def interrupted(path):
    with annotated_videos(path, ["a/b", "a b"]) as write:
        write(answer("a/b"))
        write(answer("a b"))
        raise KeyboardInterrupt


def test_ctrl_c_leaves_all(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "x.mp4")
    assert [len(read_video(p)[0]) for p in sorted(tmp_path.glob("*.mp4"))] == [1, 1]


def test_names_of_several():
    found = video_paths(Path("out.mp4"), ["cam1", "rtsp://***@h/x", "a/b", "a b"])
    assert [p.name for p in found.values()] == [
        "out-cam1.mp4", "out-rtsp_h_x.mp4", "out-a_b.mp4", "out-a_b-4.mp4"
    ]  # fmt: skip
    with pytest.raises(OutputError, match=r"\.mp4"):
        video_paths(Path("out.avi"), ["a"])


def test_a_video_that_exists_is_kept(tmp_path):
    (tmp_path / "x.mp4").write_text("mine")
    with pytest.raises(OutputError, match="--force"), annotated_videos(tmp_path / "x.mp4", ["a"]):
        pass
