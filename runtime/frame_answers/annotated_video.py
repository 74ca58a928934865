"""The answered frames as .mp4, one file a source, with label and score drawn on them."""

from __future__ import annotations

import contextlib
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.atomic_files import require_absent, require_writable
from vptkit.errors import MissingExtraError, OutputError

from .smoothing import SourceClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from PIL import Image

    from .frame_answer import FrameAnswer

__all__ = ["annotated_videos", "drawn", "video_paths"]

_TICKS = 90_000  # a second, as MPEG counts
_RATE = 30  # frames a second, which the encoder plans for; times are the source's
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_LONGEST = 40  # characters of a label


def video_paths(path: Path, sources: Sequence[str]) -> dict[str, Path]:
    """The file of each source: `out.mp4` of the only one, of several `out-cam1.mp4` and so on.

    Raises:
        OutputError: no .mp4.
    """
    if path.suffix.lower() != ".mp4":
        raise OutputError(f"{path}: annotated frames are written as .mp4, not {path.suffix!r}")
    if len(sources) == 1:
        return {sources[0]: path}
    found: dict[str, Path] = {}
    for number, source in enumerate(sources, 1):
        name = re.sub(r"[^\w.-]+", "_", source).strip("._")[-60:] or str(number)
        place = path.with_name(f"{path.stem}-{name}{path.suffix}")
        if place in found.values():
            place = path.with_name(f"{path.stem}-{name}-{number}{path.suffix}")
        found[source] = place
    return found


@contextlib.contextmanager
def annotated_videos(
    path: Path, sources: Sequence[str], *, force: bool = False
) -> Iterator[Callable[[FrameAnswer], None]]:
    """Yield a writer of videos, which play up to the last fragment also when the process is killed.

    Args:
        path: an .mp4 file; see `video_paths`.
        sources: names.
        force: replace files that exist.

    Raises:
        OutputError: not .mp4, a file exists, or it cannot be written.
        MissingExtraError: PyAV is not installed.
    """
    try:
        import av  # noqa: F401 -- refused before a frame is captured
    except ModuleNotFoundError as error:
        raise MissingExtraError("av", "streams", "--annotate") from error
    paths = video_paths(path, sources)
    for place in paths.values():
        require_absent(place, force=force)
    require_writable(path)
    videos = {source: _Video(place) for source, place in paths.items()}
    try:
        yield lambda answer: videos[answer.frame.source].add(answer)
    finally:
        for video in videos.values():
            video.close()


class _Video:
    """One file; it begins with the first frame, whose size it has."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clock = SourceClock()
        self._ticks = -1
        self._seconds = 0.0
        self._container: Any = None
        self._stream: Any = None

    def add(self, answer: FrameAnswer) -> None:
        import av

        self._seconds += self._clock.step(answer.frame)
        self._ticks = max(self._ticks + 1, round(self._seconds * _TICKS))
        image = drawn(answer)
        try:
            if self._container is None:
                self._begin(image.width, image.height)
            size = self._stream.width, self._stream.height
            image = image if image.size == size else image.resize(size)
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame.pts, frame.time_base = self._ticks, Fraction(1, _TICKS)
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (av.FFmpegError, OSError) as error:
            raise OutputError(f"{self._path}: the video cannot be written: {error}") from error

    def close(self) -> None:
        """Write what the encoder holds back, and the end."""
        if self._container is None:
            return
        import av

        with contextlib.suppress(av.FFmpegError, OSError), self._container:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container = None

    def _begin(self, width: int, height: int) -> None:
        import av

        self._container = av.open(
            str(self._path),
            "w",
            format="mp4",
            options={
                "movflags": "frag_keyframe+empty_moov+default_base_moof",
                "flush_packets": "1",
            },
        )
        self._stream = self._container.add_stream(_encoder(), rate=_RATE)
        self._stream.width, self._stream.height = width - width % 2 or 2, height - height % 2 or 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._stream.codec_context.gop_size = _RATE
        if self._stream.codec_context.name == "libx264":
            self._stream.options = {"preset": "veryfast", "tune": "zerolatency"}


def _encoder() -> str:
    import av

    for name in _ENCODERS:
        if name in av.codecs_available:
            with contextlib.suppress(ValueError, av.FFmpegError):
                return str(av.Codec(name, "w").name)
    raise OutputError("this build of PyAV has no H.264 and no MPEG-4 encoder: pip install av")


def drawn(answer: FrameAnswer) -> Image.Image:
    """The frame, with its label and score on a dark bar at the bottom."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(answer.frame.pixels)
    prediction = answer.prediction
    told = prediction.top[:1] if prediction.labels is None else prediction.labels
    words = "  ".join(f"{label[:_LONGEST]} {score:.2f}" for label, score in told[:3]) or "no label"
    text = "error" if prediction.error is not None else words
    size = max(image.height // 18, 8)
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rectangle((0, image.height - 2 * size, image.width, image.height), fill=(0, 0, 0, 160))
    try:
        font: Any = ImageFont.load_default(size)
        draw.text((size // 2, image.height - 1.7 * size), text, font=font, fill="white")
    except (ImportError, UnicodeError):  # without FreeType: one small font, Latin letters alone
        plain = text.encode("latin-1", "replace").decode("latin-1")
        draw.text((size // 2, image.height - 1.7 * size), plain, fill="white")
    return image
