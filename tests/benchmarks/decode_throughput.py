"""Whether decoding and the graph share the cores without loss (docs/benchmarks.md).

A folder's images, each a JPEG, are decoded and answered by ViT-Ti/16 at 224 px. If nothing is lost, an image
takes as long as the graph alone on all cores and decoding alone on all cores, one after the other: the bound
is 1 / (1/graph + 1/decode) images/s. Everything runs in one process, in turns of random order.

Other programs on the machine spoil that more than anything else. So each measurement waits until they
are quiet, and looks at what they took of the processor meanwhile (/proc/stat, steal included); those that
were disturbed by more than `--others` are thrown away. On a machine that never is quiet `--first` measures at
the highest priority (as root), with pauses for the others.

    python -m tests.benchmarks.decode_throughput --shared ../shared --kind small camera [--seconds 300]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from tests.benchmarks.opening import bundle_of
from vptkit.devices.probes.machine import detect_machine, usable_cores
from vptkit.formats.bundle import open_bundle, write_manifest
from vptkit.images.image_pixels import pixels_of
from vptkit.runtime.session import prediction
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.image_inputs import FoundImages
from vptkit.runtime.session.image_loader import decoded
from vptkit.runtime.session.run_threads import run_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vptkit.images.preprocess import Preprocess

MODEL = "vit_tiny_patch16_224"
KINDS = {"small": ("exact", 240), "camera": ("fast", 96), "camera-exact": ("exact", 48)}
_GRAPH, _DECODE = "graph alone", "decoding alone"
_PROCESSES = "decoding alone, processes"


class Share(NamedTuple):
    """One measurement.

    Attributes:
        rate: images/s.
        others: what other programs and the host took of all cores, 0 to 1.
    """

    rate: float
    others: float


def small_images(shared: Path, folder: Path) -> list[Path]:
    """JPEGs as they are: training images of the development sets, some 300 x 200 pixels."""
    paths = sorted((shared / "data").glob("*/train/**/*.jpg"))
    chosen = np.random.default_rng(0).permutation(len(paths))[:400]
    files = []
    for i, row in enumerate(chosen):
        files.append(folder / f"{i:04}.jpg")
        files[-1].write_bytes(paths[row].read_bytes())
    return files


def camera_images(shared: Path, folder: Path, noise: float, quality: int) -> list[Path]:
    """The same as a camera would give them: 3000 x 2000, sharpened, with noise, colours halved."""
    rng = np.random.default_rng(0)
    files = small_images(shared, folder)
    for extra in files[48:]:
        extra.unlink()
    for path in files[:48]:
        image = Image.open(path).convert("RGB").resize((3000, 2000), Image.Resampling.LANCZOS)
        pixels = np.asarray(image.filter(ImageFilter.UnsharpMask(3, 120, 0)), np.float32)
        noisy = pixels + noise * rng.standard_normal(pixels.shape, np.float32)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=quality)
    return files[:48]


def network(folder: Path) -> Path:
    """A bundle with random weights, its images cut as timm's of this name."""
    bundle = bundle_of(MODEL, 1, folder)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["preprocess"]["crop_pct"] = 0.9
    write_manifest(bundle, {k: v for k, v in manifest.items() if k != "files"})
    return bundle


def measured(call: Callable[[], int], limit: float, until: float, *, first: bool) -> Share | None:
    """Images/s of a call that says how many it did; None where others were not quiet.

    Args:
        call: what is measured.
        limit: what others may take of all cores.
        until: when to wait no longer, of `time.monotonic`.
        first: wait for nobody, and pause behind it.
    """
    while not first and _share(_a_moment).others > limit:
        if time.monotonic() > until:
            return None
    begun = time.monotonic()
    share = _share(call)
    if first:
        time.sleep(time.monotonic() - begun)
    return share if share.others <= limit else None


def _a_moment() -> int:
    time.sleep(0.5)
    return 1


def _share(call: Callable[[], int]) -> Share:
    busy, own, begun = _busy_seconds(), _own_seconds(), time.perf_counter()
    count = call()
    seconds = time.perf_counter() - begun
    others = _busy_seconds() - busy - (_own_seconds() - own)
    return Share(count / seconds, others / (seconds * (os.cpu_count() or 1)))


def _busy_seconds() -> float:
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])


def candidates(bundle: Path, files: list[Path], decode: str, count: int) -> dict[str, Callable]:
    """Name → what is measured; each does about `count` images and says how many."""
    several = run_threads(usable_cores())
    whole, parted = (open_session(bundle, "cpu", n) for n in (None, several.threads))
    preprocess = whole.bundle.preprocess.reading(decode)
    name = whole.adapters[0]
    images = list(itertools.islice(itertools.cycle(files), count))
    batch = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), np.uint8)

    def graph() -> int:
        for _ in range(-(-count // 8)):
            whole.answers(batch)
        return -(-count // 8) * 8

    def alternating() -> int:
        ahead = decoded(iter(images), preprocess)
        return sum(1 for _ in prediction._predictions(whole, name, ahead, 5, 8, 0))

    def through(session: object, runs: int) -> Callable[[], int]:
        found = FoundImages(images)
        return lambda: sum(1 for _ in prediction.predict(session, found, decode=decode, runs=runs))

    return {
        _GRAPH: graph,
        _DECODE: lambda: sum(1 for _ in decoded(iter(images), preprocess)),
        "a batch, then the next": alternating,
        "a batch beside decoding": through(whole, 1),
        f"{several.runs} batches, {several.threads} thread each": through(parted, several.runs),
    }


@contextlib.contextmanager
def in_processes(files: list[Path], preprocess: Preprocess, count: int) -> Iterator[Callable]:
    """Decoding in processes, the pixels sent back through pipes, for comparison."""
    images = list(itertools.islice(itertools.cycle(files), count))
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as pool:
        yield lambda: sum(
            1 for _ in pool.map(pixels_of, images, itertools.repeat(preprocess), chunksize=4)
        )


def report(kind: str, shares: dict[str, list[float]]) -> None:
    """A markdown table: images/s, and their share of the bound with an interval.

    Args:
        kind: of the images.
        shares: name → images/s of each measurement that was not disturbed.
    """
    print(f"\n{kind}\n\n| | n | images/s | ÷ bound [95 %] |\n| --- | --- | --- | --- |")
    rng = np.random.default_rng(0)
    drawn = {  # medians of resampled measurements
        name: np.median(rng.choice(rates, (4000, len(rates))), axis=1)
        for name, rates in shares.items()
        if rates
    }
    if _DECODE not in drawn or (_GRAPH in shares and _GRAPH not in drawn):
        return print("the machine was never quiet")
    graph = 1 / drawn[_GRAPH] if _GRAPH in drawn else 0
    bound = 1 / (graph + 1 / drawn[_DECODE])
    for name, medians in drawn.items():
        low, mid, high = np.percentile(medians / bound, [2.5, 50, 97.5])
        rate = np.median(shares[name])
        print(f"| {name} | {len(shares[name])} | {rate:.1f} | {mid:.3f} [{low:.3f}, {high:.3f}] |")
    return None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=["small", "camera"])
    parser.add_argument("--seconds", type=float, default=120.0, help="of each kind")
    parser.add_argument("--others", type=float, default=0.03, help="a share of all cores")
    parser.add_argument("--noise", type=float, default=2.0, help="of a camera, grey levels")
    parser.add_argument("--quality", type=int, default=90, help="of a camera's JPEG")
    parser.add_argument("--processes", action="store_true", help="only decode, in processes too")
    parser.add_argument("--first", action="store_true", help="before others, by priority")
    args = parser.parse_args()
    if args.first:
        os.nice(-20)
        with contextlib.suppress(
            FileNotFoundError
        ):  # Linux weighs sessions against each other first
            Path("/proc/self/autogroup").write_text("-20")
    print(os.getloadavg(), detect_machine())
    rng = np.random.default_rng()
    for kind in args.kind:
        decode, count = KINDS[kind]
        with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
            folder = Path(place) / "images"
            folder.mkdir()
            if kind == "small":
                files = small_images(args.shared, folder)
            else:
                files = camera_images(args.shared, folder, args.noise, args.quality)
            sizes = [path.stat().st_size for path in files]
            bundle = network(Path(place))
            calls = candidates(bundle, files, decode, count)
            if args.processes:
                preprocess = open_bundle(bundle).preprocess.reading(decode)
                pool = in_processes(files, preprocess, count)
                calls = {_DECODE: calls[_DECODE], _PROCESSES: stack.enter_context(pool)}
            for call in calls.values():
                call()
            rates: dict[str, list[float]] = {name: [] for name in calls}
            until = time.monotonic() + args.seconds
            while time.monotonic() < until:
                for name in rng.permutation(list(calls)):
                    limit = 1.0 if name == _PROCESSES else args.others  # their time is not ours
                    share = measured(calls[name], limit, until, first=args.first)
                    if share is not None:
                        rates[name].append(share.rate)
        report(f"{kind}, --decode {decode}, {np.mean(sizes) / 1000:.0f} kB a file", rates)


if __name__ == "__main__":
    main()
