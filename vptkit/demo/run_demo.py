"""`vptkit demo`: the whole line on one machine, and a report that can be looked at.

The default, and four methods alone, are tuned on the same images, exported, checked against the
torch reference, and profiled side by side with the bare backbone and the unfolded graph. Offline by default: the images
are scikit-learn's handwritten digits, the backbone is a small ViT of our own
(`vptkit/assets/README.md`).
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_folder
from vptkit.plot_text import require_matplotlib
from vptkit.progress import progress
from vptkit.report.page import require_jinja

from .digits import write_digits
from .report import DemoSettings, report_rows, write_report

if TYPE_CHECKING:
    from vptkit.tune import TuneResult

__all__ = ["run_demo"]

BACKBONE = "vit_tiny_patch16_224"
BACKBONE_ARGS = {"img_size": 32, "patch_size": 4, "embed_dim": 128, "depth": 6, "num_heads": 4}
# For digits on the embedded backbone; chosen on their validation split (docs/results.md)
DIGITS = {"augment": "none", "prompts": 20, "rank": 20}
METHODS: dict[str, dict[str, Any]] = {
    "default": {"method": "auto"},
    "linear": {"method": "linear"},
    "vpt-deep": {"method": "vpt"},
    "bpt-deep": {"method": "bpt"},
}


def run_demo(settings: DemoSettings, *, force: bool = False) -> dict[str, Any]:
    """Run everything; progress goes to standard error.

    Args:
        settings: what to run.
        force: replace an existing output folder.

    Returns:
        {"rows": one a method and baseline, "report": path of report.html, ...}.

    Raises:
        MissingExtraError: Jinja or matplotlib is not installed.
        VptkitError: bad input, or a parity gate that does not hold.
    """
    import torch

    from vptkit.export import export
    from vptkit.runtime import open_session
    from vptkit.runtime.evaluation.parity import check_logits, require_parity
    from vptkit.tune.backbone.reference import reference_logits
    from vptkit.tune.backbone.timm_backbone import described_weights

    require_jinja()  # before the minutes, not after them
    require_matplotlib("report", "a report")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    with atomic_folder(settings.output, force=force) as folder:
        data = settings.data or write_digits(folder / "digits")
        weights = weights_file(settings, folder)
        tuned: dict[str, TuneResult] = {}
        parity: dict[str, Any] = {}
        for name in METHODS:
            tuned[name] = _tune(name, data, weights, folder, settings)
            adapter, bundle = tuned[name].adapter, folder / f"{name}.vptk"
            from_timm = partial(described_weights, weights=weights)
            export(adapter, bundle, weights=weights, from_timm=from_timm)
            session = open_session(bundle, "cpu")
            golden = session.bundle.golden()
            assert golden is not None  # noqa: S101 - tune always writes some
            expected = reference_logits(adapter, weights, golden[0])
            result = check_logits(session, golden[0], expected)
            require_parity(session, result)
            parity[name] = result.to_json()
        document = _profile(folder, settings)
        for row in document["rows"]:
            if row["path"]:  # as it will be when the folder is in its place
                row["path"] = str(settings.output / Path(row["path"]).name)
        rows = report_rows(document, tuned, parity)
        write_report(folder, rows, tuned, document, settings)
    report = settings.output / "report.html"
    return {"rows": rows, "report": str(report), "machine": document["machine"]}


def weights_file(settings: DemoSettings, folder: Path) -> Path | None:
    """The given file, else a copy of the embedded backbone; None where timm shall fetch its own."""
    if settings.weights is not None or settings.backbone is not None:
        return settings.weights
    asset = resources.files("vptkit") / "assets" / "demo_backbone.safetensors"
    copy = folder / "backbone.safetensors"
    copy.write_bytes(asset.read_bytes())
    return copy


def _tune(
    name: str, data: Path, weights: Path | None, folder: Path, settings: DemoSettings
) -> TuneResult:
    from vptkit.tune import config_from_mapping, tune

    given = _settings(name, settings)
    # paths of a TOML hold from its folder; the copy of the embedded weights lies beside it
    given_place = None if settings.weights is None else settings.weights.absolute()
    place = given_place or (weights.name if weights else None)
    (folder / f"{name}.toml").write_text(_toml({**given, "weights": place}), encoding="utf-8")
    asked = {
        "weights": weights,
        "allow_outside": settings.allow_outside,
        "columns": settings.columns,
        "skip_broken": settings.skip_broken,
    }
    config = config_from_mapping({**given, **asked})
    with progress(name) as bar:
        return tune(data, folder / f"{name}.safetensors", config, progress=bar)


def _settings(name: str, settings: DemoSettings) -> dict[str, Any]:
    from vptkit.tune.idle_settings import without_idle

    embedded = settings.backbone is None
    args: dict[str, Any] = dict(BACKBONE_ARGS) if embedded else {}
    if settings.image_size is not None:
        args["img_size"] = settings.image_size
    chosen = DIGITS if embedded and settings.data is None else {}
    given = {
        **METHODS[name],
        "backbone": settings.backbone or BACKBONE,
        "backbone_args": args,
        "epochs": settings.epochs,
        **chosen,
    }
    return without_idle(given)


def _toml(settings: dict[str, Any]) -> str:
    """A configuration file that `vptkit tune --config` reads; paths as seen from here."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {text(item)}" for key, item in value.items()) + "}"
        return json.dumps(str(value) if isinstance(value, Path) else value)

    return "".join(
        f"{key} = {text(value)}\n" for key, value in settings.items() if value is not None
    )


def _profile(folder: Path, settings: DemoSettings) -> dict[str, Any]:
    """Latency at batch 1, all bundles and their baselines interleaved."""
    from vptkit.export.bundle.baselines import export_baselines
    from vptkit.runtime.measure.timing import Budget
    from vptkit.runtime.profile.benchmark import profile
    from vptkit.runtime.profile.profiled_sessions import open_candidates

    bundles = [folder / f"{name}.vptk" for name in METHODS]
    with tempfile.TemporaryDirectory(prefix="vptkit-") as place:
        baselines = []
        for bundle in bundles:
            target = Path(place) / bundle.stem
            target.mkdir()
            baselines.append(export_baselines(bundle, target))
        candidates = open_candidates(bundles, baselines, threads=settings.threads)
        with progress("profile") as bar:
            return profile(candidates, batches=[1], budget=Budget(seconds=8.0), progress=bar)
