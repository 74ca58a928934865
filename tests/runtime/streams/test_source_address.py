import pytest

from vptkit.paths.hidden_secrets import redacted
from vptkit.runtime.streams.frame import StreamError
from vptkit.runtime.streams.source_address import source_address


@pytest.mark.parametrize(
    ("text", "place", "target"),
    [
        ("clip.mp4", "file", "clip.mp4"),
        ("Ünï côde.MKV", "file", "Ünï côde.MKV"),
        ("file:///a%20b.mp4", "file", "/a b.mp4"),
        ("rtsp://h:554/x", "network", "rtsp://h:554/x"),
        ("RTSP://h/x", "network", "rtsp://h/x"),
        ("https://h/x.m3u8?t=1", "network", "https://h/x.m3u8?t=1"),
        ("0", "v4l2", "/dev/video0"),
        ("/dev/video3", "v4l2", "/dev/video3"),
        ("v4l2:///dev/video0", "v4l2", "/dev/video0"),
        ("v4l2://2", "v4l2", "/dev/video2"),
        ("csi://1", "csi", "1"),
        ("gst:videotestsrc ! x=1", "gst", "videotestsrc ! x=1"),
        ("frames/%05d.png", "sequence", "frames/%05d.png"),
        ("seq:frames", "sequence", "frames"),
    ],
)
def test_what_users_write(text, place, target):
    assert source_address(text) == (place, target, text)
    assert source_address(f"cam1={text}") == (place, target, "cam1")


@pytest.mark.parametrize(
    "text",
    ["a.jpg", "photos", "*.png", "http://h/a.jpg", "s3://b/x.mp4", "", "a=b", "100%.png", "%s.png"],
)
def test_images_are_no_streams(text):
    assert source_address(text) is None


@pytest.mark.parametrize(
    "text", ["csi://front", "csi://", "gst:", "gst: ", "seq:", "v4l2://x", "rtsp://[x/"]
)
def test_what_only_looks_like_a_stream(text):
    with pytest.raises(StreamError):
        source_address(text)


def test_what_exists_is_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").mkdir()
    (tmp_path / "cam=1.mp4").write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    assert source_address("0") is None
    assert source_address("folder.mp4") is None
    assert source_address("cam=1.mp4") == ("file", "cam=1.mp4", "cam=1.mp4")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://u:p@h/x?channel=1", "rtsp://***@h/x?channel=1"),
        ("rtsp://u:p@ss/w?o@h/x", "rtsp://***@h/x"),
        ("http://h/x?token=abc&a=1&API_KEY=d", "http://h/x?token=***&a=1&API_KEY=***"),
        (
            'gst:rtspsrc location=rtsp://u:p@h user-id=joe user-pw="a b" ! x',
            "gst:rtspsrc location=rtsp://***@h user-id=*** user-pw=*** ! x",
        ),
        ("rtsp://[::1]:554/x", "rtsp://[::1]:554/x"),
    ],
)
def test_credentials_are_hidden(text, shown):
    assert redacted(text) == shown
    assert source_address(text).name == shown
