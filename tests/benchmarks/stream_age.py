"""From the light on a sensor to an answer: a frame carries its time as a pattern of blocks.

A child process draws frames at a rate, encodes them as H.264 (no look-ahead) and sends them as
MPEG-TS over UDP on loopback, one port a camera; `vptkit.run_streams` answers them. Per camera it
prints p50 and p99 of two ages: from drawing to answer (encoder, network, decoder included), and from
capture to answer, which `vptkit run` reports. For docs/streams.md:

    python tests/benchmarks/stream_age.py BUNDLE --cameras 30 30 --seconds 20
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

BITS, BLOCK = 32, 16  # a time in ms of the monotonic clock; pixels of a block
SIZE = 640, 480


def stamp(pixels: np.ndarray, milliseconds: int) -> None:
    """Draw a number as black and white blocks along the top, and its complement below."""
    for bit in range(BITS):
        on = milliseconds >> bit & 1
        where = slice(bit * BLOCK, (bit + 1) * BLOCK)
        pixels[:BLOCK, where], pixels[BLOCK : 2 * BLOCK, where] = 255 * on, 255 * (1 - on)


def stamped(pixels: np.ndarray) -> int | None:
    """The number that a frame carries; None where the picture is damaged."""
    grey = pixels[: 2 * BLOCK, : BITS * BLOCK].mean(axis=2)
    blocks = grey.reshape(2, BLOCK, BITS, BLOCK)[:, 4:-4, :, 4:-4].mean(axis=(1, 3)) > 128
    if (blocks[0] == blocks[1]).any():
        return None
    return sum(int(on) << bit for bit, on in enumerate(blocks[0]))


def send(port: int, fps: float) -> None:
    """Draw, encode and send until the process is ended."""
    import av

    rng = np.random.default_rng(port)
    scene = rng.integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8)
    scene = scene.repeat(8, 0).repeat(8, 1)
    with av.open(f"udp://127.0.0.1:{port}?pkt_size=1316", "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=round(fps))
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "keyint=30"}
        begun = time.monotonic()
        for number in range(1 << 30):
            time.sleep(max(begun + number / fps - time.monotonic(), 0))
            pixels = np.roll(scene, 8 * number, axis=1)
            stamp(pixels, int(time.monotonic() * 1000) & 0xFFFFFFFF)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, round(fps))
            container.mux(stream.encode(frame))


def measure(bundle: Path, rates: list[float], seconds: float, threads: int | None) -> None:
    """Answer the cameras, and print their ages."""
    import vptkit

    ports = [free_port() for _ in rates]
    with contextlib.ExitStack() as stack:
        for port, fps in zip(ports, rates, strict=True):
            command = [sys.executable, __file__, "--send", str(port), str(fps)]
            child = subprocess.Popen(command)
            stack.callback(child.wait)
            stack.callback(child.kill)
        session = stack.enter_context(vptkit.open_session(bundle, threads=threads))
        sources = [f"cam{i}=udp://127.0.0.1:{port}" for i, port in enumerate(ports, 1)]
        adapter = session.adapters[0]
        found: dict[str, list[float]] = {}
        damaged = 0
        with vptkit.run_streams(session, sources, adapter=adapter, duration=seconds) as run:
            for answer in run:
                drawn = stamped(answer.frame.pixels)
                if drawn is None:
                    damaged += 1
                    continue
                answered = int((answer.frame.captured + answer.age) * 1000) & 0xFFFFFFFF
                found.setdefault(answer.frame.source, []).append(float(answered - drawn))
        print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {damaged} frames damaged")
        for report in run.reports():
            ages = found.get(report.name, [])
            glass = np.percentile(ages, (50, 99)).round(1) if ages else "-"
            print(f"{report.name}: drawing to answer p50, p99 {glass} ms; {report.to_json()}")


def free_port() -> int:
    """A port of UDP that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> None:
    """Send, or measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--send", nargs=2, metavar=("PORT", "FPS"))
    parser.add_argument("--cameras", nargs="+", type=float, default=[30.0], metavar="FPS")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.send:
        send(int(arguments.send[0]), float(arguments.send[1]))
    else:
        measure(arguments.bundle, arguments.cameras, arguments.seconds, arguments.threads)


if __name__ == "__main__":
    main()
