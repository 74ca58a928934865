"""The table of backbones that ships: what timm says of each name that exports.

`python -m tests.integration.backbone_rows vptkit/assets/backbones.json` writes it;
`tests/vptkit/backbones/test_backbone_table.py` holds it to timm. Nothing is downloaded: models are
made without memory for their numbers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import timm
import torch

from tests.integration.coverage import names
from vptkit.errors import BackboneError
from vptkit.export.analysis.macs import unfolded_macs
from vptkit.formats.backbone_weights import tensor_shapes
from vptkit.tune.backbone.spec_from_timm import spec_from_model


def row_of(name: str) -> dict[str, Any] | None:
    """What the table says of a backbone, or None if vptkit refuses it."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    try:
        spec = spec_from_model(model, name)
    except BackboneError:
        return None
    weights = timm.get_pretrained_cfg(name, allow_unregistered=False)
    tagged = timm.list_models(f"{name}.*", pretrained=True)
    repository = getattr(weights, "hf_hub_id", None) if tagged else None
    return {
        "name": name,
        "parameters": sum(value.numel() for value in model.parameters()),
        "macs": unfolded_macs(spec, 0),
        "image": list(spec.image_size),
        "patch": list(spec.patch_size),
        "width": spec.width,
        "depth": spec.depth,
        "tokens": spec.tokens,
        "tensors": len(tensor_shapes(spec)),
        "repository": repository,
        "licence": getattr(weights, "license", None) if repository else None,
        "tags": [one.partition(".")[2] for one in tagged],
    }


def document() -> str:
    """The whole file, one backbone a line."""
    rows = [row for _, name in names() if (row := row_of(name)) is not None]
    lines = ",\n".join(json.dumps(row) for row in sorted(rows, key=lambda row: row["name"]))
    return f'{{"timm": {json.dumps(timm.__version__)}, "backbones": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="ascii")
