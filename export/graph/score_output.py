"""The output `scores` of graphs for several labels an image: the logistic function of each logit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import helper

from vptkit.formats.manifest_schema import LOGITS, SCORES

if TYPE_CHECKING:
    import onnx

__all__ = ["add_scores"]


def add_scores(model: onnx.ModelProto) -> None:
    """Add `scores` [B, C] = sigmoid(`logits`) behind the output `logits`, in place.

    It is added to the lowered graph and reads the logits as they come out, in float32 at every
    precision: in float16 a score above 0.9998 would be 1, and no threshold could stand there.
    """
    graph = model.graph
    graph.node.append(helper.make_node("Sigmoid", [LOGITS], [SCORES], name=SCORES))
    outputs = []
    for value in graph.output:
        outputs.append(value)
        if value.name == LOGITS:
            scores = type(value)()
            scores.CopyFrom(value)
            scores.name = SCORES
            outputs.append(scores)
    kept = [value.SerializeToString() for value in outputs]
    del graph.output[:]
    for content in kept:
        graph.output.add().ParseFromString(content)
