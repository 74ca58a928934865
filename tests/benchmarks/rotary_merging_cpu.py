"""What merging costs with rotary positions, on ONNX Runtime CPU: docs/token-merging.md.

ViT/16 without prompts, 224 px, class token, one query in the last block, batch 1, fp32; without rotation,
with one for all blocks, and with one of each block's own; interleaved in one process. Weights are random:
latency does not depend on them. The processor's time is compared, which other jobs lengthen less.

    python -m tests.benchmarks.rotary_merging_cpu [--threads 1] [--rounds 20] [--model s]
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from functools import partial

import numpy as np
import onnxruntime

from tests.benchmarks.cpu_backends import interleaved, quartiles
from tests.benchmarks.token_merging_cpu import (
    MODELS,
    PREPROCESS,
    Noise,
    merging_of,
    network,
    session,
)
from vptkit.devices.probes.machine import detect_machine
from vptkit.export.analysis.macs import folded_macs
from vptkit.export.bundle.baselines import random_weights
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.formats.adapter import Adapter, BackboneRef
from vptkit.formats.backbone_spec import BackboneSpec, Rotary

ROTATIONS = {
    "none": None,
    "one for all blocks": Rotary(kind="axial"),
    "each block its own": Rotary(kind="mixed"),
}


def headed(spec: BackboneSpec) -> Adapter:
    """A head alone."""
    head = {"head.weight": np.ones((10, spec.width), np.float32)}
    return Adapter(
        name="bench", backbone=BackboneRef(name="bench", spec=spec), method="linear", insert="none",
        prompt_length=0, pool="token", norm="before_pool", labels=tuple(map(str, range(10))),
        preprocess=PREPROCESS,
        tensors={**head, "head.bias": np.zeros(10, np.float32)},
    )  # fmt: skip


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--model", choices=MODELS, default="b")
    given = parser.parse_args()
    plain, _ = network(*MODELS[given.model])
    opened, macs = {}, {}
    for name, rotary in ROTATIONS.items():
        spec = replace(plain, rotary=rotary)
        folded = fold(spec, random_weights(spec), headed(spec))
        for r in (0, given.tokens):
            options = GraphOptions(batch=1, last_block="query", merging=merging_of(spec, r))
            graph = folded_graph(spec, folded, "none", "token", "before_pool", options)
            opened[name, r] = session(graph, given.threads)
            macs[name, r] = folded_macs(spec, 0, "none", "token", "query", options.merging)
    image = Noise((224, 224)).array[:1]
    calls = {f"{name} {r}": partial(run, image) for (name, r), run in opened.items()}
    found = {name: seconds[:, 1] for name, seconds in interleaved(calls, given.rounds).items()}
    print(f"{detect_machine()['cpu']}, threads: {given.threads}, load {os.getloadavg()[0]:.1f}")
    print(f"ONNX Runtime {onnxruntime.__version__}, {given.rounds} rounds\n")
    print(f"| rotation | ms | MACs, {given.tokens} merged ÷ 0 | time, {given.tokens} merged ÷ 0 |")
    print("| --- | --- | --- | --- |")
    for name in ROTATIONS:
        before, after = found[f"{name} 0"], found[f"{name} {given.tokens}"]
        share = macs[name, given.tokens] / macs[name, 0]
        cells = [f"{1e3 * np.median(before):.1f}", f"{share:.3f}", quartiles(after / before)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
