"""`vptkit demo`: the whole line on one machine, and a report that can be looked at.

Three methods are tuned on the same images, exported, checked against the torch reference, and
profiled side by side with the bare backbone and the unfolded graph. Offline by default: the images
are scikit-learn's handwritten digits, the backbone is a small ViT of our own
(`vptkit/assets/README.md`).
"""

from __future__ import annotations

import base64
import html
import json
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import MissingExtraError
from vptkit.files import atomic_folder
from vptkit.progress import progress
from vptkit.table import columns

if TYPE_CHECKING:
    from vptkit.tune import TuneResult

__all__ = ["DemoSettings", "demo_table", "run_demo"]

BACKBONE = "vit_tiny_patch16_224"
BACKBONE_ARGS = {"img_size": 32, "patch_size": 4, "embed_dim": 128, "depth": 6, "num_heads": 4}
# For digits on the embedded backbone; chosen on their validation split (docs/results.md)
DIGITS = {"augment": "none", "prompts": 20, "rank": 20, "lr": 2e-2, "lr_head": 5e-2}
METHODS: dict[str, dict[str, Any]] = {
    "linear": {"method": "linear"},
    "vpt-deep": {"method": "vpt"},
    "bpt-deep": {"method": "bpt"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What to run; None takes the embedded images and backbone."""

    output: Path
    data: Path | None = None
    backbone: str | None = None
    weights: Path | None = None
    image_size: int | None = None
    epochs: int = 8
    threads: int | None = None


def run_demo(settings: DemoSettings, *, force: bool = False) -> dict[str, Any]:
    """Run everything; progress goes to standard error.

    Args:
        settings: what to run.
        force: replace an existing output folder.

    Returns:
        {"rows": one a method and baseline, "report": path of report.html, ...}.

    Raises:
        VptkitError: bad input, or a parity gate that does not hold.
    """
    import torch

    from vptkit.export import export
    from vptkit.runtime import open_session
    from vptkit.runtime.check import check_logits, require_parity
    from vptkit.tune.backbone import described_weights
    from vptkit.tune.reference import reference_logits

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
            session = open_session(bundle)
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
        rows = _rows(document, tuned, parity)
        _report(folder, rows, tuned, document, settings)
    report = settings.output / "report.html"
    return {"rows": rows, "report": str(report), "machine": document["machine"]}


def demo_table(document: dict[str, Any]) -> str:
    """The one table of the demo, as text."""
    return columns(_HEADER, [_cells(row) for row in document["rows"]])


def write_digits(folder: Path) -> Path:
    """scikit-learn's 1,797 handwritten digits as class folders train/ val/ test/ of 8 x 8 PNGs.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "demo", "the demo's images") from error
    import numpy as np
    from PIL import Image

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    cuts = {"train": order[:800], "val": order[800:1000], "test": order[1000:]}
    for split, indices in cuts.items():
        for index in indices:
            place = folder / split / str(digits.target[index])
            place.mkdir(parents=True, exist_ok=True)
            pixels = np.rint(digits.images[index] * (255 / 16)).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{index:04d}.png")
    return folder


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
    # the copy of the embedded weights moves with the folder when the demo is done
    place = settings.weights or (settings.output / weights.name if weights else None)
    (folder / f"{name}.toml").write_text(_toml({**given, "weights": place}), encoding="utf-8")
    config = config_from_mapping({**given, "weights": weights})
    with progress(name) as bar:
        return tune(data, folder / f"{name}.safetensors", config, progress=bar)


def _settings(name: str, settings: DemoSettings) -> dict[str, Any]:
    embedded = settings.backbone is None
    args: dict[str, Any] = dict(BACKBONE_ARGS) if embedded else {}
    if settings.image_size is not None:
        args["img_size"] = settings.image_size
    return {
        **METHODS[name],
        "backbone": settings.backbone or BACKBONE,
        "backbone_args": args,
        "epochs": settings.epochs,
        **(DIGITS if embedded and settings.data is None else {}),
    }


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
    from vptkit.export.baseline import export_baselines
    from vptkit.runtime.candidates import open_candidates
    from vptkit.runtime.profile import profile
    from vptkit.runtime.timing import Budget

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


def _rows(
    document: dict[str, Any], tuned: dict[str, TuneResult], parity: dict[str, Any]
) -> list[dict[str, Any]]:
    backbone = next(row for row in document["rows"] if row["kind"] == "baseline")
    rows = []
    for row in document["rows"]:
        result = tuned.get(row["name"])
        rows.append(
            {
                "name": row["name"],
                "kind": row["kind"],
                "test_top1": result.test_top1 if result else None,
                "val_top1": result.val_top1 if result else None,
                "trainable": result.trainable if result else None,
                "trainable_prompts": result.trainable_prompts if result else None,
                "ms": row["ms"],
                "ratio": row["ms"]["p50"] / backbone["ms"]["p50"],
                "verdict": row["ratio"]["verdict"] if row["ratio"] else None,
                "parity": parity[row["name"]]["max_rel_diff"] if result else None,
            }
        )
    return rows


_HEADER = ["", "test top-1", "trained", "without head", "p50 ms", "÷ backbone", "parity"]


def _cells(row: dict[str, Any]) -> list[str]:
    def text(key: str, form: str) -> str:
        return "-" if row[key] is None else format(row[key], form)

    return [
        row["name"],
        text("test_top1", ".3f"),
        text("trainable", ","),
        text("trainable_prompts", ","),
        format(row["ms"]["p50"], ".2f"),
        text("ratio", ".3f"),
        text("parity", ".0e"),
    ]


def _report(
    folder: Path,
    rows: list[dict[str, Any]],
    tuned: dict[str, TuneResult],
    document: dict[str, Any],
    settings: DemoSettings,
) -> None:
    """report.html, on its own: table, learning curves, latency; profile.json beside it."""
    from vptkit.runtime.plot import plot_profile
    from vptkit.tune.curves import plot_curves

    histories = {
        name: [json.loads(line) for line in result.metrics.read_text().splitlines()]
        for name, result in tuned.items()
    }
    plot_curves(histories, folder / "curves.png")
    plot_profile(document, folder / "profile.png")
    (folder / "profile.json").write_text(json.dumps(document, indent=1) + "\n")
    page = _PAGE.format(
        data=html.escape(str(settings.data or "scikit-learn's handwritten digits")),
        backbone=html.escape(settings.backbone or "the embedded ViT of 1.2 M parameters"),
        epochs=settings.epochs,
        header="".join(f"<th>{html.escape(cell)}</th>" for cell in _HEADER),
        rows="\n".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row)) + "</tr>"
            for row in rows
        ),
        curves=_embedded(folder / "curves.png"),
        profile=_embedded(folder / "profile.png"),
        machine=html.escape(json.dumps(document["machine"])),
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>vptkit demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #22262b }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child {{ text-align: left }}
img {{ max-width: 100% }}
small {{ color: #6b7078; overflow-wrap: anywhere }}
</style>
<h1>vptkit demo</h1>
<p>Images: {data}. Backbone: {backbone}. {epochs} epochs for each method, one seed; the epoch is
chosen on the validation split, the test split is read once.</p>
<table><tr>{header}</tr>
{rows}
</table>
<p>"trained" counts the learned numbers, head included. "parity" is the largest difference between
the bundle and the torch reference, over the largest logit. Latency: ONNX Runtime on this CPU,
batch 1, all rows interleaved in one process; the first baseline is the backbone without any adapter,
exported the usual way.</p>
<h2>Learning</h2><img alt="loss and accuracy over epochs" src="{curves}">
<h2>Latency</h2><img alt="latency of each bundle" src="{profile}">
<p><small>{machine}</small></p>
</html>
"""
