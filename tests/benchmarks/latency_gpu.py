"""Folded against unfolded against the bare backbone, fp16 on a GPU (docs/benchmarks.md).

ViT-B/16, 100 deep prompts, token pooling. Engines of TensorRT (or TensorRT-RTX) next to
`torch.compile(mode="reduce-overhead")` of the same networks, in one process, interleaved, inputs and
outputs resident on the device. torch allocates, captures CUDA graphs and keeps the clock. Weights
are random: latency does not depend on them; every candidate must still give the logits of an fp32
forward pass before it is timed.

    python tests/benchmarks/latency_gpu.py [--model vit_base_patch16_224] [--prompts 100]
    python tests/benchmarks/latency_gpu.py --structure 86 89 120     layers only, takes no GPU
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_engines import Call, Candidate, Engines, built, tensorrt
from gpu_networks import Network

from vptkit.images.preprocess import normalize
from vptkit.runtime.engine_build.trt_rtx_oracle import ask_oracle

TOLERANCE = 1e-2  # largest difference over largest logit
BURST = 10  # calls back to back in one timed sample


def compiled(network: Network, form: str, pixels: torch.Tensor) -> Candidate:
    """torch.compile with CUDA graphs, as a user of torch would have it."""
    forward = torch.compile(
        network.forward(form, torch.float16), mode="reduce-overhead", dynamic=False
    )
    logits = torch.empty(len(pixels), 10, dtype=torch.float16, device="cuda")

    @torch.no_grad()
    def call() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        logits.copy_(forward(pixels))

    for _ in range(5):
        call()
    return Candidate(name=f"torch.compile, {form}", call=call, burst=call, logits=logits)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over largest expected logit."""
    return float((found.float() - expected).abs().max() / expected.abs().max())


def sample(call: Call, count: int, stream: torch.cuda.Stream) -> tuple[float, float]:
    """Milliseconds a call, `count` back to back: by the GPU's events, and by the wall clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.cuda.stream(stream):
        begin.record()
        for _ in range(count):
            call()
        end.record()
    end.synchronize()
    wall = 1000 * (time.perf_counter() - start)
    return begin.elapsed_time(end) / count, wall / count


def measure(candidates: list[Candidate], rounds: int, stream: torch.cuda.Stream) -> dict[str, Any]:
    """Name → float array [rounds, 3]: GPU ms in a burst, GPU ms of plain calls, wall of one call."""
    rng = np.random.default_rng(2)
    times = {one.name: np.empty((rounds, 3)) for one in candidates}
    for r in range(-5, rounds):  # the first rounds settle the clocks
        for i in rng.permutation(len(candidates)):
            one = candidates[i]
            row = [
                sample(one.burst, BURST, stream)[0],
                sample(one.call, BURST, stream)[0],
                sample(one.burst, 1, stream)[1],
            ]
            if r >= 0:
                times[one.name][r] = row
    return times


def table(candidates: list[Candidate], times: dict[str, Any], batch: int, errors: Any) -> None:
    """Print markdown; the ratio is to the first candidate in the same round."""
    base = times[candidates[0].name][:, 0]
    print(f"\nbatch {batch}\n")
    print(
        "| network | layers / fused attentions, build | max rel. error | ms [quartiles] "
        "| images/s | ÷ first row, paired | without CUDA graph, ms | wall ms of one call |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for one in candidates:
        ms = times[one.name]
        low, mid, high = np.percentile(ms[:, 0], [25, 50, 75])
        a, b, c = np.percentile(ms[:, 0] / base, [25, 50, 75])
        plain, wall = np.median(ms[:, 1]), np.median(ms[:, 2])
        print(
            f"| {one.name} | {one.built or '-'} | {errors[one.name]:.1e} "
            f"| {mid:.4f} [{low:.4f}, {high:.4f}] | {1000 * batch / mid:.0f} "
            f"| {b:.3f} [{a:.3f}, {c:.3f}] | {plain:.4f} | {wall:.4f} |",
            flush=True,
        )


def run(network: Network, batch: int, args: argparse.Namespace, folder: Path) -> None:
    """Everything for one batch size."""
    torch.compiler.reset()  # what other batch sizes compiled would only be guards to fail
    images = network.images(batch)
    pixels = torch.from_numpy(normalize(images, network.adapter.preprocess)).cuda()
    with torch.no_grad():
        expected = {
            form: network.forward(form, torch.float32)(pixels) for form in ("bare", "reference")
        }
    if relative(expected["bare"], expected["reference"]) < 3 * TOLERANCE:
        raise RuntimeError("the prompts change too little for the parity check to mean anything")
    resident = torch.from_numpy(images).cuda()
    candidates, stream = [], torch.cuda.Stream()
    if tensorrt() is not None:
        engines = Engines()
        stream = engines.stream
        for name, (plan, word) in built(network.write(batch, folder)).items():
            if word.startswith("FAILED"):
                print(f"{name}, batch {batch}: {word}", flush=True)
            else:
                candidates.append(engines.open(name, plan, word, resident, pixels))
    for form in args.torch:
        candidates.append(compiled(network, form, pixels.half()))  # noqa: PERF401 - each takes a minute
    errors = {}
    for one in candidates:
        one.burst()
        torch.cuda.synchronize()
        errors[one.name] = relative(
            one.logits, expected["bare" if "bare" in one.name else "reference"]
        )
        if not errors[one.name] < TOLERANCE:
            raise RuntimeError(f"{one.name}: relative error {errors[one.name]:.1e}")
    table(candidates, measure(candidates, args.rounds, stream), batch, errors)


def show_structure(network: Network, args: argparse.Namespace) -> None:
    """What TensorRT-RTX makes of the graphs, ahead of time and without a GPU."""
    print(
        f"{args.model}, {args.prompts} deep prompts, fp16: layers / fused attentions, activations"
    )
    print("\n| batch | network |" + "".join(f" SM{sm} |" for sm in args.structure))
    print("| --- " * (2 + len(args.structure)) + "|")
    for batch in args.batch:
        with tempfile.TemporaryDirectory() as folder:
            for label, path in network.write(batch, Path(folder)).items():
                cells = [
                    f"{len(one.structure.layers)} / {len(one.structure.fused)}, "
                    f"{(one.activation_bytes or 0) / 2**20:.1f} MiB"
                    if one.structure
                    else f"{one.stage}: {one.errors}"
                    for one in ask_oracle(path, args.structure)
                ]
                print(f"| {batch} | {label} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure and print a markdown table for each batch size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--torch", nargs="*", default=["bare", "reference", "prefix"])
    parser.add_argument(
        "--structure", type=int, nargs="+", metavar="SM", help="only count layers; takes no GPU"
    )
    args = parser.parse_args()
    if args.structure:
        show_structure(Network(args.model, args.prompts), args)
        return
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU; --structure 86 120 needs none")
    torch.backends.cudnn.allow_tf32 = False  # the fp32 answers are fp32
    trt = tensorrt()
    print(f"{args.model}, {args.prompts} deep prompts, fp16, {args.rounds} rounds of {BURST} calls")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, ", end="")
    print(f"{trt.__name__} {trt.__version__}" if trt else "no TensorRT", flush=True)
    network = Network(args.model, args.prompts)
    for batch in args.batch:
        with tempfile.TemporaryDirectory() as folder:
            run(network, batch, args, Path(folder))


if __name__ == "__main__":
    main()
