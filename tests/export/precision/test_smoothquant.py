"""SmoothQuant is exact, and flattens activations."""

from __future__ import annotations

import numpy as np

from tests.support.exported_graphs import error, run
from vptkit.export.numerics.calibration import observe
from vptkit.export.precision.smoothquant import smooth


def test_smoothing_is_exact_and_flattens(case, centred, evidence):
    before = run(centred, case)
    names = [
        n.input[0] for n in centred.graph.node if n.name.split("/")[0].endswith(("fc1", "fc2"))
    ]
    names = [name for name in names if name.endswith(("norm2", "act"))]
    spreads = observe(centred, names, evidence.run, evidence.calibration)
    assert smooth(centred, spreads, 0.5) == 2 * case.spec.depth
    assert error(run(centred, case), before) < 2e-6
    again = [f"{name}/smooth" if name.endswith("act") else name for name in names]
    after = observe(centred, again, evidence.run, evidence.calibration)

    def unevenness(spread):
        return spread.channel_max.max() / np.median(spread.channel_max)

    act = [(a, b) for a, b in zip(names, again, strict=True) if a.endswith("act")]
    assert all(unevenness(after[b]) < unevenness(spreads[a]) for a, b in act)
