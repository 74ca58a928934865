"""In a child, as the system's `gi` must be on its path."""

import json
import sys

import pytest

from tests.support.children import run_child
from tests.support.videos import gstreamer_path, write_video
from vptkit.runtime.streams.gstreamer_source import camera_pipeline
from vptkit.runtime.streams.source_protocol import SourceOptions

_CODE = """
import json, sys
sys.path.append(sys.argv[1])
from vptkit.errors import VptkitError
from vptkit.runtime.streams.source import SourceOptions, open_source
found = []
for text in sys.argv[2:]:
    source = open_source(text, options=SourceOptions(decoder="gstreamer", read_timeout=2.0))
    frames = []
    try:
        for picture in source.frames():
            pixels = picture.read()
            frames.append([picture.timestamp, pixels.shape, pixels[-1, -1].tolist()])
            if len(frames) == 12:
                source.close()
        found.append(frames)
    except VptkitError as error:
        found.append([type(error).__name__, str(error), getattr(error, "lasting", None)])
print(json.dumps(found))
"""


def run(*texts):
    place = gstreamer_path()
    return json.loads(run_child([sys.executable, "-c", _CODE, place, *texts]).stdout)


def test_the_pipeline_of_a_camera():
    text = camera_pipeline(1, SourceOptions(size=(640, 480), rate=60.0))
    assert "sensor-id=1 !" in text
    assert "width=640,height=480,framerate=60/1" in text


@pytest.mark.slow
def test_pipelines_and_what_is_wrong_with_them():
    red = "videotestsrc is-live=true pattern=red ! video/x-raw,width=33,height=21,framerate=50/1"
    endless, own, no_element, csi, syntax, one, credentials = run(
        f"gst:{red}",
        f"gst:{red} ! videoconvert ! video/x-raw,format=RGB ! appsink",
        "gst:nosuchsrc ! videoconvert",
        "csi://0",
        "gst:videotestsrc ! ! !",
        "gst:videotestsrc num-buffers=0",
        "gst:filesrc location=/none/geheim password=geheim ! decodebin",
    )
    for frames in (endless, own):
        assert len(frames) == 12
        assert all(shape == [21, 33, 3] and last == [255, 0, 0] for _, shape, last in frames)
        times = [time for time, _, _ in frames]
        assert times == sorted(times)
    assert no_element[0] == "MissingError"
    assert "nosuchsrc" in no_element[1]
    assert csi[0] == "MissingError"
    assert "JetPack" in csi[1]
    assert syntax[0] == "StreamError"
    assert one[0] == "StreamError"
    assert "geheim" not in credentials[1]


@pytest.mark.slow
def test_files_are_whole(tmp_path):
    video = write_video(tmp_path / "a é%d.avi", 8, codec="mjpeg", pixel_format="yuvj420p")
    (tmp_path / "b.mp4").write_bytes(b"no video" * 100)
    good, bad, none = run(str(video), str(tmp_path / "b.mp4"), str(tmp_path / "none.mp4"))
    assert [shape for _, shape, _ in good] == [[48, 64, 3]] * 8
    assert all(abs(last[0] - 200) < 8 for _, _, last in good)
    assert bad[0] == none[0] == "StreamError"
    assert bad[2]
    assert none[2]
