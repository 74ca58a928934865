import pytest

from vptkit.runtime.streams.frame import StreamError
from vptkit.runtime.streams.gstreamer_source import GstreamerSource
from vptkit.runtime.streams.image_sequence_source import ImageSequenceSource
from vptkit.runtime.streams.pyav_source import PyavSource
from vptkit.runtime.streams.source import SourceOptions, is_stream, open_source, open_sources


@pytest.mark.parametrize(
    ("text", "kind", "live"),
    [
        ("a.mp4", PyavSource, False),
        ("rtsp://h/x", PyavSource, True),
        ("0", PyavSource, True),
        ("csi://0", GstreamerSource, True),
        ("gst:videotestsrc", GstreamerSource, True),
        ("seq:x", ImageSequenceSource, False),
    ],
)
def test_each_text_has_its_source(text, kind, live):
    source = open_source(text)
    assert (type(source), source.live, source.name) == (kind, live, text)
    assert is_stream(text)


def test_gstreamer_may_be_asked_for():
    options = SourceOptions(decoder="gstreamer")
    assert isinstance(open_source("a.mp4", options=options), GstreamerSource)
    assert isinstance(open_source("0", options=options), PyavSource)


def test_no_stream():
    assert not is_stream("photos")
    with pytest.raises(StreamError, match=r"\*\*\*@h") as caught:
        open_source("s3://joe:geheim@h/x")
    assert "geheim" not in str(caught.value)


def test_names_are_unique():
    texts = ["rtsp://a:1@h/x", "rtsp://a:2@h/x", "a=0", "a=1", "a#2=rtsp://h", "a.mp4"]
    names = [source.name for source in open_sources(texts[:4] + texts[5:])]
    assert names == ["rtsp://***@h/x", "rtsp://***@h/x#2", "a", "a#2", "a.mp4"]
