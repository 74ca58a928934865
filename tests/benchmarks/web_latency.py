"""A graph in Chromium (onnxruntime-web, WebAssembly) against ONNX Runtime on the same processor (docs/web.md).

Per model one bundle with 10 deep prompts, random weights, batch 1. Both ways are warmed up, and take turns in
one process; of each round the time of one run is noted, without decoding and resizing: by the clock, and the
processor's (of the browser: of the processes that show pages), which a machine that others use tells, too. Ratios
are medians of the rounds' ratios, with the 5th and 95th percentile of the rounds.

    python -m tests.benchmarks.web_latency [--model vit_tiny_patch16_224 …] [--threads 1 2] [--int8] [--rounds 20]
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks.opening import bundle_of
from tests.integration.test_web_in_browser import encoded, picture
from tests.support.browser import browser
from tests.support.children import descendants
from tests.support.web_pages import opened, static_host, web_package
from vptkit.export import ExportOptions, Lowering, export
from vptkit.runtime import open_session
from vptkit.runtime.web.web_folder import write_web

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Times = tuple[float, float]

_MODELS = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")
_KEEP = """async (text) => {
  const source = await import("./source.js");
  const image = new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]);
  const [model] = (await source.state()).models;
  window.again = async () => (await source.answer(image, model.name, null)).runMs;
}"""


def int8_of(bundle: Path, folder: Path) -> Path:
    """The same network in int8; ranges of noise, which latency does not depend on."""
    images = folder / "images"
    images.mkdir()
    for i in range(8):
        picture(224, 224, seed=i).save(images / f"{i}.png")
    made = folder / "int8.vptk"
    options = ExportOptions(lowering=Lowering(precision="int8", target="cpu", min_agreement=0.0))
    weights = folder / "weights.safetensors"
    adapter = next(p for p in folder.glob("*.safetensors") if p != weights)
    export(adapter, made, weights=weights, options=options, calibration=images)
    return made


@contextlib.contextmanager
def ways(
    bundle: Path, threads: int, chromium: Any, folder: Path
) -> Iterator[dict[str, Callable[[], Times]]]:
    """Name → one run, which tells its milliseconds."""
    height, width = 224, 224
    pixels = np.zeros((1, height, width, 3), np.uint8)
    with (
        open_session(bundle, "cpu", threads=threads) as session,
        static_host(folder, isolated=True) as host,
        opened(chromium, host, f"?backend=wasm&threads={threads}") as page,
    ):
        page.evaluate(_KEEP, base64.b64encode(encoded(picture(width, height))).decode())

        def native() -> Times:
            begun, spent = time.perf_counter(), time.process_time()
            session.run(pixels)
            return 1000 * (time.perf_counter() - begun), 1000 * (time.process_time() - spent)

        def in_browser() -> Times:
            before = _spent_by_pages()
            clock = float(page.evaluate("again()"))
            return clock, _spent_by_pages() - before

        yield {"native": native, "browser": in_browser}


def _spent_by_pages() -> float:
    """Milliseconds of the processor that the browser's pages took till now."""
    total = 0
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            place = Path(f"/proc/{pid}")
            if b"--type=renderer" in (place / "cmdline").read_bytes():
                stats = [task.read_text() for task in place.glob("task/*/schedstat")]
                total += sum(int(text.split()[0]) for text in stats)
    return total / 1e6


def measured(found: dict[str, Callable[[], Times]], rounds: int) -> dict[str, np.ndarray]:
    """Name → [rounds, 2]."""
    for run in found.values():
        for _ in range(10):  # WebAssembly is compiled anew while it runs
            run()
    times: dict[str, list[Times]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, run in found.items():
            times[name].append(run())
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=list(_MODELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    with browser() as chromium:
        print(f"Chromium {chromium.version}, load {os.getloadavg()[0]:.1f}")
        for name in args.model:
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                bundle = bundle_of(name, 1, folder)
                bundle = int8_of(bundle, folder) if args.int8 else bundle
                write_web([bundle], folder / "web", onnxruntime_web=web_package())
                for threads in args.threads:
                    with ways(bundle, threads, chromium, folder / "web") as found:
                        times = measured(found, args.rounds)
                    for i, kind in enumerate(("clock", "processor")):
                        browser_ms, native_ms = times["browser"][:, i], times["native"][:, i]
                        low, middle, high = np.percentile(browser_ms / native_ms, (5, 50, 95))
                        medians = f"{np.median(native_ms):.1f} and {np.median(browser_ms):.1f} ms"
                        told = f"{medians}, {middle:.2f} ({low:.2f} to {high:.2f})"
                        print(f"{name}, threads {threads}, {kind}: {told}")
                    print(f"  load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
