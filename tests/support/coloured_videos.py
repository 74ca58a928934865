"""Small videos for tests: frames of one colour each, made by PyAV."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["COLOURS", "make_video", "read_video"]

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


def make_video(
    path: Path, colours: Sequence[str], *, size: tuple[int, int] = (64, 48), fps: int = 10
) -> Path:
    """Write a video of one frame for each colour, with some texture; returns its path."""
    import av

    rng = np.random.default_rng(0)
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 2_000_000
        for number, colour in enumerate(colours):
            noise = rng.integers(-8, 8, (height // 8, width // 8, 1)).repeat(8, 0).repeat(8, 1)
            pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """Its frames, uint8 [H, W, 3], RGB, and their times, s."""
    import av

    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [f.to_ndarray(format="rgb24") for f in frames], [float(f.time) for f in frames]
