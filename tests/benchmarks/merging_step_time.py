"""One training step with merged tokens against one without, interleaved in one process (docs/results.md).

Processor time of one thread, which a busy machine disturbs least.

AdamW's step included; random weights, which decide what is merged but not how much is computed.

    python -m tests.benchmarks.merging_step_time [--model vit_tiny_patch16_224] [--batch 32]
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch

from vptkit.backbones.merge_schedule import merge_schedule, tokens_of_blocks
from vptkit.devices.probes.machine import detect_machine
from vptkit.tune import TuneConfig
from vptkit.tune.backbone.spec_from_timm import spec_from_model

from .training_steps import tuned_step

if TYPE_CHECKING:
    from collections.abc import Callable

MERGES = (
    (0, "proportional"),
    (8, "proportional"),
    (12, "plain"),
    (12, "proportional"),
    (16, "proportional"),
)


def stepper(name: str, method: str, merge: int, attention: Any, batch: int) -> Callable[[], object]:
    """A call that makes one training step."""
    model: Any = timm.create_model(name, num_classes=0).eval().requires_grad_(requires_grad=False)
    merging = {"merge": merge, "merge_attention": attention} if merge else {}
    config = TuneConfig(backbone=name, method=method, **merging)
    return tuned_step(model, config, 10, batch)[1]


def multiply_accumulates(name: str, merge: int) -> float:
    """Of the blocks' linears and attention products, forward, prompts not counted."""
    model: Any = timm.create_model(name, num_classes=0)
    spec = spec_from_model(model, name)
    d, hidden = spec.width, spec.mlp_width
    return sum(
        t * 4 * d * d + 2 * t * t * d + rows * 2 * d * hidden
        for t, rows in tokens_of_blocks(merge_schedule(merge, spec), spec)
    )


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--merges", default="0,8,12,16")
    args = parser.parse_args()
    merges = [merge for merge in MERGES if str(merge[0]) in args.merges.split(",")]
    print(f"{args.model}, batch {args.batch}, {args.rounds} rounds, interleaved")
    machine = detect_machine()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {machine['cpu']}")
    print(
        "\n| method | r | attention | median ms of CPU | ÷ r = 0 [quartiles] | multiply-accumulates ÷ r = 0 |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for method in ("ln", "vpt"):
        steps = [stepper(args.model, method, *merge, args.batch) for merge in merges]
        for step in steps:
            step()
        times = np.zeros((args.rounds, len(steps)))
        for row in times:
            for i, step in enumerate(steps):
                begun = time.process_time()
                step()
                row[i] = 1000 * (time.process_time() - begun)
        whole = multiply_accumulates(args.model, 0)
        for i, (merge, attention) in enumerate(merges):
            low, mid, high = np.percentile(times[:, i] / times[:, 0], [25, 50, 75])
            share = multiply_accumulates(args.model, merge) / whole
            print(
                f"| {method} | {merge} | {attention if merge else '-'} | {np.median(times[:, i]):.0f} "
                f"| {mid:.3f} [{low:.3f}, {high:.3f}] | {share:.3f} |"
            )


if __name__ == "__main__":
    main()
