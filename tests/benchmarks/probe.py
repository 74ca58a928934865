"""How long the linear probe takes: its search over strengths, and its share of a run.

Features are drawn: classes that overlap, axes of very different size. Wanted: 400 x 192 x 5 in a
second, 50,000 x 768 x 100 in a minute on two cores, 2,000 x 384 x 1,000 (two images a class) in a
minute on one, with the whole search; up to 2,000 rows parts are held out beside val, as
`start_from_probe` does. Times are those of the processor's threads together ("cpu") and of the clock.

    python tests/benchmarks/probe.py --threads 2
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import torch

from vptkit.tune.data.cross_validation_parts import cross_validation_parts
from vptkit.tune.probe.fit_probe import Rows, fit_probe
from vptkit.tune.probe.nearest_neighbours import knn_top1

SIZES = {"small": (400, 192, 5), "large": (50_000, 768, 100), "classes": (2000, 384, 1000)}
FEW = 2000  # rows, as in `start_from_probe`


def drawn(count: int, width: int, classes: int, seed: int, centres: torch.Tensor) -> Rows:
    """Features around the centres of classes, float32 [count, width]."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % classes
    sizes = 3 * torch.logspace(0.5, -0.3, width)
    noise = torch.randn(count, width, generator=generator)
    return Rows(2 + sizes * noise + 0.6 * centres[targets], targets)


def measured(count: int, width: int, classes: int) -> dict[str, Any]:
    """One search, and what it used."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    val = drawn(max(100, count // 4, min(classes, count)), width, classes, 1, centres)
    train, parts = drawn(count, width, classes, 0, centres), None
    if count <= FEW:
        parts = torch.from_numpy(cross_validation_parts(train.targets.numpy(), 0))
    clock, cpu = time.perf_counter(), time.process_time()
    neighbours = knn_top1(train, val, classes, 10)
    between = time.perf_counter()
    probe = fit_probe(train, classes, val=val, parts=parts)
    return {
        "rows": count,
        "width": width,
        "classes": classes,
        "strengths": len(probe.points),
        "strength": probe.chosen.strength,
        "val_top1": round(probe.chosen.val_top1, 4),
        "knn_top1": round(neighbours, 4),
        "seconds": round(time.perf_counter() - between, 2),
        "knn_seconds": round(between - clock, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def main() -> None:
    """Measure and print one line of JSON a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=SIZES)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    measured(50, 8, 2)  # what is imported and started once
    for name, size in SIZES.items():
        if asked.only in (None, name):
            found = {"size": name, "threads": asked.threads, **measured(*size)}
            found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
