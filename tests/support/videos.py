"""Videos for tests: written by PyAV, sent by an RTSP server of GStreamer's on loopback."""

from __future__ import annotations

import contextlib
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.children import PIPE, Child, run_child

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SYSTEM_PYTHON", "frame_pixels", "rtsp_server", "write_video"]

SYSTEM_PYTHON = Path("/usr/bin/python3")
_MATRIX = 44  # bytes from "tkhd" to its matrix
_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true pattern=red ! video/x-raw,format=I420,width=64,height=48,framerate=30/1 "
    "! jpegenc ! rtpjpegpay name=pay0 )")
factory.set_shared(True)
if len(sys.argv) > 2:
    user, password = sys.argv[2:]
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    factory.add_role_from_structure(Gst.Structure.from_string(
        "user, media.factory.access=true, media.factory.construct=true")[0])
server.get_mount_points().add_factory("/cam", factory)
assert server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


def frame_pixels(number: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Red, with a stripe at the left whose grey is ten times the number; uint8 [H, W, 3]."""
    pixels = np.full((size[1], size[0], 3), (200, 30, 60), np.uint8)
    pixels[:, : size[0] // 4] = number * 10 % 256
    return pixels


def write_video(
    path: Path,
    frames: int = 8,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    times: list[int] | None = None,
    full_range: bool = False,
    size: tuple[int, int] = (64, 48),
) -> Path:
    """A video of `frame_pixels`, 10 a second unless their times are given in tenths of a second."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        wide = av.video.reformatter.ColorRange.JPEG
        if full_range:
            stream.codec_context.color_range = wide
        if not frames:
            container.start_encoding()
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(frame_pixels(number, size), "rgb24")
            if full_range:
                frame = frame.reformat(format=pixel_format, dst_color_range=wide)
                frame.color_range = wide
            if times:
                frame.pts = times[number]
                frame.time_base = Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turned(video: Path, path: Path) -> Path:
    """The MP4 with a matrix that turns it by a quarter, clockwise."""
    content = video.read_bytes()
    place = content.index(b"tkhd") + _MATRIX
    words = (0, 0x10000, 0, 0xFFFF0000, 0, 0, 0, 0, 0x40000000)
    matrix = b"".join(word.to_bytes(4, "big") for word in words)
    path.write_bytes(content[:place] + matrix + content[place + len(matrix) :])
    return path


@contextlib.contextmanager
def rtsp_server(port: int = 0, *credentials: str) -> Iterator[tuple[Child, int]]:
    """A camera at rtsp://127.0.0.1:PORT/cam: red, 64 x 48, 30 a second; killed at the end."""
    _require_server()
    with Child([SYSTEM_PYTHON, "-c", _SERVER, port, *credentials], stdout=PIPE) as server:
        try:
            yield server, int(server.stdout.readline())
        finally:
            server.end()


def _require_server() -> None:
    code = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import "
    code += "Gst, GstRtspServer; Gst.init(None); assert Gst.ElementFactory.find('rtpjpegpay')"
    found = (
        SYSTEM_PYTHON.exists()
        and not run_child([SYSTEM_PYTHON, "-c", code], check=False).returncode
    )
    if not found:
        pytest.skip(
            "no RTSP server: apt install python3-gi gir1.2-gst-rtsp-server-1.0 "
            "gstreamer1.0-plugins-good"
        )


def gstreamer_path() -> Any:
    """Where the system's `gi` lies, if this Python can import it; else the test is skipped."""
    place = "/usr/lib/python3/dist-packages"
    code = f"import sys; sys.path.append({place!r}); import gi; gi.require_version('Gst', '1.0'); "
    code += "from gi.repository import Gst; Gst.init(None); "
    code += "assert Gst.ElementFactory.find('videotestsrc')"
    if run_child([sys.executable, "-c", code], check=False).returncode:
        pytest.skip(
            "no GStreamer for this Python: its version is not the system's, or apt install "
            "python3-gi gir1.2-gst-plugins-base-1.0"
        )
    return place
