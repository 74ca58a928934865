"""Memory and pace of `vptkit run` over very many images (docs/big-folders.md).

Hard links to a small JPEG in folders of a thousand (or all in one, `--flat`), and a graph that costs next to
nothing: what is left is vptkit's own work. The command runs as a child, whose resident memory is
looked at every second; how far it is says its journal. By hand; a million links take a few minutes to make
and to remove, and no room but their names.

    python -m tests.benchmarks.big_folder --images 1000000 [--broken 0.01] [--flat] [--save x.csv]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.support.adapter_files import files_of
from tests.support.small_vit import SMALL_VIT
from vptkit.devices.probes.machine import detect_machine
from vptkit.export.bundle.export_bundle import export
from vptkit.runtime.bulk.run_journal import journal_of

_LINKS = 30_000  # of one file; ext4 allows 65,000


class Sample(NamedTuple):
    """The child at one moment.

    Attributes:
        seconds: since it was started.
        done: bytes of its journal; 0 before and behind.
        resident: MB.
    """

    seconds: float
    done: int
    resident: float


def tiny_bundle(folder: Path) -> Path:
    """One block of width 32 on 32 x 32 pixels: some 10 µs an image."""
    setup = replace(SMALL_VIT, image=(32, 32), depth=1, mlp_ratio=1.0, prompts=1)
    files = files_of(folder, setup)
    export(files.adapter, files.out, weights=files.weights)
    return files.out


def link_images(folder: Path, count: int, *, flat: bool, broken: float) -> None:
    """Links to a picture of 48 x 36, a share of them to a file that is none."""
    source = folder.with_name("sources")
    source.mkdir()
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (36, 48, 3), np.uint8))
    kinds = rng.random(count) < broken
    for i in range(count):
        place = folder if flat else folder / f"{i // 1000:04}"
        if i == 0 or (not flat and i % 1000 == 0):
            place.mkdir(parents=True)
        name = source / f"{i // _LINKS}-{kinds[i]}.jpg"
        if not name.exists():
            name.write_bytes(b"no JPEG") if kinds[i] else picture.save(name)
        os.link(name, place / f"{i:07}.jpg")


def watched(command: list[str], journal: Path) -> tuple[list[Sample], int, str]:
    """Run a command to its end: samples, exit status, and its last words."""
    begun, samples = time.monotonic(), []
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while child.poll() is None:
            try:
                done = journal.stat().st_size
            except FileNotFoundError:
                done = 0
            samples.append(Sample(time.monotonic() - begun, done, _resident(child.pid)))
            time.sleep(1)
        said.seek(0)
        return samples, child.returncode, said.read()[-400:]


def _resident(pid: int) -> float:
    """MB, 0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    found = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(found[0]) / 1024 if found else 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--flat", action="store_true", help="all in one folder")
    parser.add_argument("--broken", type=float, default=0.0, help="a share of them is no JPEG")
    parser.add_argument("--save", default="x.csv", help="its suffix decides the format")
    args = parser.parse_args()
    print(detect_machine()["cpu"], "load", os.getloadavg())
    with tempfile.TemporaryDirectory() as place:
        folder, output = Path(place) / "images", Path(place) / args.save
        bundle = tiny_bundle(Path(place))
        begun = time.monotonic()
        link_images(folder, args.images, flat=args.flat, broken=args.broken)
        print(f"{args.images:,} links in {time.monotonic() - begun:.0f} s", flush=True)
        command = [sys.executable, "-m", "vptkit", "run", str(bundle), str(folder)]
        command += ["--backend", "cpu", "--save", str(output)]
        samples, status, words = watched(command, journal_of(output))
        print(f"exit status {status}: {words.strip().splitlines()[-1]}")
        most = max(sample.done for sample in samples)
        print("\n| images | s | resident MB |\n| --- | --- | --- |")
        for share in (0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 1):
            at = next(one for one in samples if one.done >= share * most)
            images = round(at.done / most * args.images)
            print(f"| {images:,} | {at.seconds:.0f} | {at.resident:.0f} |")
        last = max(samples, key=lambda one: one.seconds)
        print(f"| the output is written | {last.seconds:.0f} | {last.resident:.0f} |")
        print(f"most: {max(one.resident for one in samples):.0f} MB; load {os.getloadavg()}")


if __name__ == "__main__":
    main()
