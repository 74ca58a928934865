"""Training steps by method: time and peak memory, vptkit's, plain torch's and PEFT's (docs/benchmarks.md).

AdamW's step and clipping included. Times are interleaved in one process: by the wall, and processor
time of all threads, which other work on the machine moves less; ratios are of the steps of one round.
Peak memory (VmHWM) is that of a child that makes two steps, above one that makes none.

    python -m tests.benchmarks.step_time --backbone vit_tiny_patch16_224 --batch 16
    python -m tests.benchmarks.step_time --methods LN VPT-deep --by vptkit --variants fp32 recompute
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os

import numpy as np
import torch

from vptkit.devices.probes.machine import detect_machine
from vptkit.devices.probes.memory import process_memory

from .cpu_backends import interleaved, quartiles
from .training_steps import FULL, METHODS, VARIANTS, Form, step_of

MAKERS = ("vptkit", "reference", "PEFT")
STEPS = 2  # of a child; the second has the optimizer's state


def forms_of(args: argparse.Namespace) -> list[Form]:
    """What there is of the methods, makers and variants that were asked for."""
    found = itertools.product(args.methods, args.by, args.variants)
    forms = [form for form in itertools.starmap(Form, found) if form.exists]
    if not forms:
        raise SystemExit("nothing of that exists: see training_steps.Form")
    return forms


def peak_mib(form: Form | None, args: argparse.Namespace) -> float:
    """Most memory that a child ever holds that makes steps; None: that makes none.

    Forked before anything was computed here, so that nothing is imported again.
    """
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        if form is not None:
            step = step_of(form, args.backbone, args.batch, settings_of(args))
            for _ in range(STEPS):
                step()
        os.write(writer, str(process_memory()[1]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        found = file.read()
    os.waitpid(child, 0)
    if not found:
        raise SystemExit(f"{form}: the child ended without an answer, of too little memory?")
    return float(found)


def settings_of(args: argparse.Namespace) -> dict[str, int]:
    """Of `TuneConfig`."""
    return {"prompts": args.prompts, "rank": args.prompts}


def measured(forms: list[Form], args: argparse.Namespace) -> dict[Form, np.ndarray]:
    """Milliseconds [rounds, 2] of each, by the wall and of the processor."""
    names = {"|".join(form): form for form in forms}
    calls = {
        name: step_of(form, args.backbone, args.batch, settings_of(args))
        for name, form in names.items()
    }
    found = interleaved(calls, args.rounds)
    return {names[name]: 1000 * values for name, values in found.items()}


def twin(form: Form, forms: list[Form]) -> Form | None:
    """What a step is compared with: others' of the same, else itself as it is by default."""
    others = [form._replace(variant="fp32"), form._replace(by="reference")]
    return next((other for other in others if other != form and other in forms), None)


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=20, help="and the rank of bilinear ones")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--by", nargs="+", choices=MAKERS, default=[*MAKERS])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["fp32"])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    forms = forms_of(args)
    if "PEFT" in args.by:
        importlib.import_module("peft")  # so that no child pays for it
    idle = 0.0 if args.no_memory else peak_mib(None, args)
    peaks = {} if args.no_memory else {form: peak_mib(form, args) - idle for form in forms}
    times = measured(forms, args)
    print(f"{args.backbone}, batch {args.batch}, {args.prompts} prompts, {args.rounds} rounds")
    print(
        f"torch {torch.__version__}, {args.threads} threads, {detect_machine()['cpu']}, load {os.getloadavg()[0]:.1f}\n"
    )
    heads = ["method", "by", "variant", "ms", "processor ms", "÷ twin", f"÷ {FULL}", "peak MiB"]
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    whole = Form(FULL, "reference", "fp32")
    for form, taken in times.items():
        ratios = [
            "-" if other not in times else quartiles(taken[:, 1] / times[other][:, 1])
            for other in (twin(form, forms), whole)
        ]
        peak = f"{peaks[form]:.0f}" if form in peaks else "-"
        texts = [*form, *(f"{np.median(taken[:, i]):.0f}" for i in (0, 1)), *ratios, peak]
        print("| " + " | ".join(texts) + " |", flush=True)


if __name__ == "__main__":
    main()
