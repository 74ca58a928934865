"""`vptkit.tune`: what the command of that name does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError
from vptkit.progress import SILENT

if TYPE_CHECKING:
    from pathlib import Path

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.run.run_result import TuneResult

__all__ = ["tune"]


def tune(
    data: str | Path,
    output: str | Path,
    config: TuneConfig | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
    test: bool = True,
    image_size: int | None = None,
    positions: str | None = None,
    **settings: Any,
) -> TuneResult:
    """Tune on a folder of images; choose on val, report test once, write the adapter.

    Args:
        data: see `vptkit.tune.data.dataset_reader.read_splits`.
        output: where the adapter goes, ending in .safetensors.
        config: every setting, unless they are named one by one.
        resume: go on where a killed run stopped. Of an adapter that is there already, of the same
            settings, data and weights, the result is returned.
        force: replace an existing adapter, forget an interrupted run.
        progress: told about each step.
        test: also measure on test and ood; off, their results are None.
        image_size: input size in pixels; the backbone's own unless given.
        positions: whose way of resizing positions is taken where that size needs it: "timm", "hf"
            (transformers) or "hub" (DINOv2's own code); the way of whoever published the weights.
        settings: instead of `config`: fields of `vptkit.TuneConfig`, such as
            backbone="vit_tiny_patch16_224", epochs=10. Its defaults are those of the command.

    Returns:
        The adapter's path, accuracies and what was chosen.

    Raises:
        MissingExtraError: torch, torchvision or timm is not installed.
        VptkitError: bad input; every message says what to do.
    """
    from vptkit.cli.shared.output import require_tune

    require_tune("tune")
    from vptkit.tune.auto.tune_method import tune as run

    asked = {"img_size": image_size, "positions": positions}
    asked = {name: value for name, value in asked.items() if value is not None}
    chosen = _config(config, settings, asked)
    return run(data, output, chosen, resume=resume, force=force, progress=progress, test=test)


def _config(
    config: TuneConfig | None, settings: dict[str, Any], asked: dict[str, Any]
) -> TuneConfig:
    from vptkit.tune.config import TuneConfig, config_from_mapping

    if config is None:
        if asked:
            settings["backbone_args"] = {**settings.get("backbone_args", {}), **asked}
        return config_from_mapping(settings)
    if not isinstance(config, TuneConfig):
        kind = type(config).__name__  # type: ignore[unreachable]
        raise VptkitError(
            f"config: came as {kind}, expected a vptkit.TuneConfig. Of a TOML file: "
            "vptkit.tune(data, output, **tomllib.load(file))"
        )
    both = [*settings, *(name.replace("img_size", "image_size") for name in asked)]
    if both:
        raise VptkitError(
            f"config and {', '.join(both)}: give either a TuneConfig or settings one by one. Of a "
            "config, dataclasses.replace(config, epochs=3) changes some"
        )
    return config
