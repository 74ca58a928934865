"""`vptkit analyze`: burstiness of a backbone on some images, as a picture and a document."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import timm
import torch

import vptkit
from vptkit.atomic_files import atomic_folder
from vptkit.errors import AdapterError, DataError, VptkitError
from vptkit.formats.adapter import read_adapter, require_backbone, with_spec
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.images.broken_images import require_whole, skipped_text
from vptkit.images.preprocess import normalize
from vptkit.plot_text import can_draw
from vptkit.progress import SILENT, keep_line
from vptkit.shown_text import tell
from vptkit.strict_json import json_text
from vptkit.tune.backbone.spec_from_timm import spec_from_model, weights_from_model
from vptkit.tune.backbone.timm_backbone import create_backbone, preprocess_of
from vptkit.tune.data.dataset import DataSet
from vptkit.tune.data.splits import load_splits, splits_line

from .block_burstiness import measure
from .burstiness_plot import plot_burstiness

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.progress import Progress

    from .block_burstiness import BlockTails

__all__ = ["AnalyzeConfig", "analyze"]

FORMAT = "vptkit.burstiness/1"
_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeConfig:
    """What is measured, and on what.

    Attributes:
        backbone, backbone_args, weights: of `vptkit.tune.backbone.timm_backbone.create_backbone`.
        images: training images, drawn as `tune` draws those of the whitening.
        tap: X is the block's input, or its first LayerNorm's output.
        floor: relative floor of Σ's eigenvalues.
        seed: of the images, and of a random split.
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        columns: of `vptkit.datasets.table_columns.parse_columns`.
        skip_broken: go on without images that cannot be read; else all of them are named.
    """

    backbone: str
    backbone_args: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    images: int = 100
    tap: Literal["pre_ln1", "post_ln1"] = "pre_ln1"
    floor: float = 1e-6
    seed: int = 0
    allow_outside: bool = False
    columns: str | None = None
    skip_broken: bool = False

    def __post_init__(self) -> None:
        """Check every number.

        Raises:
            VptkitError: a value is out of range.
        """
        if self.images < 1:
            raise VptkitError(f"images is {self.images}, expected at least 1")
        if self.tap not in ("pre_ln1", "post_ln1"):
            raise VptkitError(f"tap is {self.tap!r}, expected pre_ln1 or post_ln1")
        if not 0 < self.floor < 1:
            raise VptkitError(f"floor is {self.floor}, expected a share in (0, 1)")
        if self.seed < 0:
            raise VptkitError(f"seed is {self.seed}, expected 0 or more")


def analyze(
    data: Path,
    output: Path,
    config: AnalyzeConfig,
    adapters: Sequence[Path] = (),
    *,
    force: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measure, and write burstiness.json and (with matplotlib) burstiness.png.

    Args:
        data: images, see `vptkit.tune.data.splits.load_splits`; its training split is used.
        output: folder to write.
        config: every setting.
        adapters: files tuned on this backbone, with prompts. Tuned LayerNorms of theirs are left
            out: tokens are those of the backbone as it came.
        force: replace an existing folder.
        progress: told about each batch; there are two passes over the images.

    Returns:
        The document of burstiness.json.

    Raises:
        VptkitError: bad input; every message says what to do.
    """
    labels, splits = load_splits(
        data,
        config.seed,
        0.15,
        0.15,
        allow_outside=config.allow_outside,
        columns=config.columns,
    )
    keep_line(progress, splits_line(data, labels, splits))
    model = create_backbone(config.backbone, config.backbone_args, config.weights)
    spec = spec_from_model(model, config.backbone)
    digest = digest_of_weights(weights_from_model(model))
    read = _read(adapters, digest, spec, config)
    images = DataSet(splits["train"], preprocess_of(model))
    count = min(config.images, len(images))
    # the same draw as the whitening's: the matrices are those of a tuning run with this seed
    order = np.random.default_rng([config.seed, 1]).permutation(len(images))
    chosen = _readable(data, images, np.sort(order[:count]), config)
    count = len(chosen)
    progress.total = 2 * count

    def batches() -> Iterator[Tensor]:
        for part in np.array_split(chosen, -(-count // _BATCH)):
            yield torch.from_numpy(normalize(images.prepared(part), images.preprocess))
            progress.update(len(part))

    with atomic_folder(output, force=force) as folder:
        blocks = measure(model, batches, read, tap=config.tap, floor=config.floor)
        document = {
            "format": FORMAT,
            "backbone": config.backbone,
            "backbone_args": config.backbone_args,
            "sha256": digest,
            "image_size": list(images.preprocess.size),
            "images": count,
            "tap": config.tap,
            "floor": config.floor,
            "seed": config.seed,
            "versions": {
                "vptkit": vptkit.__version__,
                "torch": torch.__version__,
                "timm": timm.__version__,
            },
            "blocks": [block.to_json() for block in blocks],
        }
        text = json_text(document, indent=1)
        (folder / "burstiness.json").write_text(text + "\n", encoding="utf-8")
        drawn = _plot(blocks, f"{config.backbone}, {count} images", folder / "burstiness.png")
    document["files"] = [
        str(output / name) for name in ("burstiness.json", "burstiness.png")[: 1 + drawn]
    ]
    return document


def _readable(
    data: Path, images: DataSet, chosen: NDArray[np.int64], config: AnalyzeConfig
) -> NDArray[np.int64]:
    """Those of the chosen images that can be read.

    Raises:
        DataError: some cannot and none may be skipped, or none is left; all are named.
    """
    reasons = {int(i): _why_broken(images, i) for i in chosen}
    broken = {i: why for i, why in reasons.items() if why is not None}
    if not config.skip_broken:
        require_whole(data, [*broken.values()], len(chosen))
    elif len(broken) == len(chosen):
        require_whole(data, [*broken.values()], len(chosen), cure=" None is left")
    elif broken:
        tell(f"note: {skipped_text(data, [images.split.images[i] for i in broken])}")
    return np.setdiff1d(chosen, [*broken]).astype(np.int64)


def _why_broken(images: DataSet, index: np.int64) -> str | None:
    try:
        images.prepared(np.array([index]))
    except DataError as error:
        return str(error)
    return None


def _read(
    paths: Sequence[Path], digest: str, spec: BackboneSpec, config: AnalyzeConfig
) -> dict[str, Adapter]:
    """Adapters by name; a second one of the same name gets its file's."""
    found: dict[str, Adapter] = {}
    for path in paths:
        adapter = read_adapter(path)
        require_backbone(adapter.backbone, digest, config.weights or config.backbone)
        # its image size may be another one
        with_spec(adapter, replace(spec, image_size=adapter.preprocess.size))
        if adapter.insert == "none":
            raise AdapterError(f"{path}: has no prompts (method {adapter.method})")
        name = adapter.name if adapter.name not in found else str(path)
        found[name] = adapter
    return found


def _plot(blocks: list[BlockTails], title: str, path: Path) -> bool:
    if not can_draw():
        return False
    plot_burstiness(blocks, title, path)
    return True
