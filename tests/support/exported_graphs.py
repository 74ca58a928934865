"""Graphs of a case, run by ONNX Runtime, and how far two answers are apart."""

from __future__ import annotations

import numpy as np
import onnxruntime

from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions


def graph_of(case, **options):
    """The folded graph of a case, with some `GraphOptions`."""
    adapter = case.adapter
    return folded_graph(
        case.spec,
        fold(case.spec, case.weights, adapter),
        adapter.insert,
        adapter.pool,
        adapter.norm,
        GraphOptions(**options),
    )


def run(model, case):
    """The logits of a case's images: float32 [B, C]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"images": case.images}
    if session.get_inputs()[0].name == "pixels":
        feed = {"pixels": case.pixels.astype(np.float32)}
    return session.run(["logits"], feed)[0]


def error(found, expected):
    """The largest difference, by the largest magnitude expected."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
