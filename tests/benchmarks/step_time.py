"""One training step, prefix form against the reference: time and peak memory (docs/benchmarks.md).

ViT-Ti/16 at 224 px, 100 deep prompts, AdamW's step included. Times are interleaved in one process;
peak memory is that of two child processes that run one form each.

    python tests/benchmarks/step_time.py [--batch 16]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

import numpy as np
import timm
import torch
from torch.nn import functional as F

from vptkit.devices.probes.machine import detect_machine
from vptkit.devices.probes.memory import process_memory
from vptkit.tune.backbone.prefix_forward import fast_features
from vptkit.tune.backbone.reference import features

FORMS = {"prefix": fast_features, "reference": features}


def stepper(form: str, batch: int, prompts: int) -> Any:
    """A call that makes one training step."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval().requires_grad_(False)
    rows = [torch.randn(prompts, 192).requires_grad_() for _ in model.blocks]
    head = torch.nn.Linear(192, 10)
    optimizer = torch.optim.AdamW([*rows, *head.parameters()], lr=1e-3)
    pixels, targets = torch.randn(batch, 3, 224, 224), torch.randint(10, (batch,))

    def step() -> None:
        f = FORMS[form](model, pixels, rows, "deep", "token", "before_pool")
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(head(f), targets).backward()
        optimizer.step()

    return step


def peak_mib(form: str, batch: int, prompts: int) -> float:
    """Peak resident memory of a fresh process that makes three steps."""
    command = [sys.executable, __file__, "--child", form, "--batch", str(batch)]
    command += ["--prompts", str(prompts)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--child", choices=[*FORMS, "none"])
    args = parser.parse_args()
    if args.child:
        if args.child != "none":
            step = stepper(args.child, args.batch, args.prompts)
            for _ in range(3):
                step()
        print(process_memory()[1])
        return
    steps = {form: stepper(form, args.batch, args.prompts) for form in FORMS}
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(args.rounds):
        for form, step in steps.items():
            begun = time.perf_counter()
            step()
            times[form].append(1000 * (time.perf_counter() - begun))
    memory = {form: peak_mib(form, args.batch, args.prompts) for form in [*FORMS, "none"]}
    print(f"ViT-Ti, {args.prompts} deep prompts, batch {args.batch}, {args.rounds} rounds")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {detect_machine()}")
    print("\n| form | median ms | peak MiB | above an idle process |")
    print("| --- | --- | --- | --- |")
    for form in FORMS:
        more = memory[form] - memory["none"]
        print(f"| {form} | {np.median(times[form]):.0f} | {memory[form]:.0f} | {more:.0f} |")
    ratio = np.array(times["prefix"]) / np.array(times["reference"])
    low, mid, high = np.percentile(ratio, [25, 50, 75])
    print(f"\nprefix ÷ reference, paired: {mid:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
