import numpy as np
import pytest

from tests.support.videos import frame_pixels, turned, write_video
from vptkit.runtime.streams.frame import StreamError
from vptkit.runtime.streams.pyav_source import PyavSource
from vptkit.runtime.streams.source_protocol import SourceOptions

av = pytest.importorskip("av", reason="PyAV is not installed")
# Of the stripe and of the red: chroma at half size and compression; a wrong range is off by 16 and more.
TOLERANCE = 6


def pictures(path):
    return list(PyavSource(str(path), path.name, SourceOptions(), "file").frames())


def assert_frames(found, count, turn=0):
    assert len(found) == count
    for number, picture in enumerate(found):
        pixels = picture.read()
        expected = np.rot90(frame_pixels(number), turn)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert pixels.shape == expected.shape
        for row, column in ((4, 4), (4, 40), (40, 40)):
            difference = pixels[row, column].astype(int) - expected[row, column]
            assert abs(difference).max() <= TOLERANCE, (number, row, column)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a b:ü%d.mp4", {}),
        ("concat:x.mkv", {"codec": "ffv1"}),
        ("ten.mp4", {"pixel_format": "yuv420p10le"}),
        ("full.mp4", {"full_range": True}),
        ("rgb.mkv", {"codec": "ffv1", "pixel_format": "bgr0"}),
        ("b frames.ts", {}),
        ("m.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    ],
)
def test_the_pixels_of_a_file(tmp_path, name, settings):
    found = pictures(write_video(tmp_path / name, **settings))
    assert_frames(found, 8)


def test_grey(tmp_path):
    found = pictures(write_video(tmp_path / "g.mkv", codec="ffv1", pixel_format="gray"))
    assert len(found) == 8
    assert abs(found[3].read()[4, 4].astype(int) - 30).max() <= TOLERANCE


def test_it_is_turned_upright(tmp_path):
    path = turned(write_video(tmp_path / "a.mp4"), tmp_path / "turned.mp4")
    found = pictures(path)
    assert found[3].read().shape == (64, 48, 3)
    assert abs(found[3].read()[4, :].astype(int) - 30).max() <= TOLERANCE  # the stripe: now above


def test_times_of_a_variable_rate(tmp_path):
    times = [0, 1, 5, 6, 20]
    found = pictures(write_video(tmp_path / "v.mkv", 5, times=times))
    assert [round(picture.timestamp, 2) for picture in found] == [t / 10 for t in times]
    arrivals = [picture.captured for picture in found]
    assert all(arrivals)


def test_a_truncated_file_gives_what_is_whole(tmp_path):
    content = write_video(tmp_path / "a.mkv", 30, codec="ffv1").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    source = PyavSource(str(tmp_path / "cut.mkv"), "cut", SourceOptions(), "file")
    count = 0
    try:
        for picture in source.frames():
            picture.read()
            count += 1
    except StreamError as error:
        assert error.lasting  # noqa: PT017 -- either end is allowed
    assert 5 < count < 30


def _audio(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_audio, "sound, but no video"),
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_bytes(b"no video" * 100), "no video that FFmpeg can read"),
        (
            lambda path: path.write_bytes(write_video(path.with_suffix(".mp4")).read_bytes()[:900]),
            "trunc",
        ),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: None, "no such file"),
        (lambda path: write_video(path, 0, codec="mpeg4"), "no frames|no video"),
        (lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n"), "x.mkv: "),
    ],
)
def test_what_is_no_video(tmp_path, write, message):
    path = tmp_path / "x.mkv"
    write(path)
    with pytest.raises(StreamError, match=message) as caught:
        pictures(path)
    assert caught.value.lasting


def test_closed_in_the_middle(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    source = PyavSource(str(path), "a", SourceOptions(), "file")
    found = source.frames()
    next(found)
    source.close()
    assert len(list(found)) < 8


@pytest.mark.parametrize(
    ("url", "live"),
    [("http://h/a.mp4?x=1", False), ("http://h/a.m3u8", True), ("rtsp://h/a.mp4", True)],
)
def test_what_is_live(url, live):
    assert PyavSource(url, "x", SourceOptions(), "network").live is live


def test_no_credentials_in_errors(capfd):
    url = "rtsp://joe:geheim@127.0.0.1:1/x"
    with pytest.raises(StreamError, match="Connection refused") as caught:
        list(PyavSource(url, "rtsp://***@127.0.0.1:1/x", SourceOptions(), "network").frames())
    assert not caught.value.lasting
    assert caught.value.__suppress_context__
    assert "geheim" not in str(caught.value) + "".join(capfd.readouterr())


def test_a_camera_that_is_not_there():
    source = PyavSource(
        "/dev/video987", "/dev/video987", SourceOptions(size=(8, 8), rate=5), "v4l2"
    )
    with pytest.raises(StreamError, match="no such camera"):
        list(source.frames())


def test_without_pyav_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r"vptkit\[streams\]"):
        pictures(tmp_path / "a.mp4")
