"""How the exporting commands end: what came out, how good it is, what to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.cli.shared.verdict import next_command, wrote
from vptkit.cli.texts.merging_text import merging_text
from vptkit.scores.score_interval import interval_text, percent, share_text
from vptkit.shown_text import shown, tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = [
    "bundle_verdict",
    "confidence_of",
    "gate_text",
    "note_bank_precision",
    "onnx_verdict",
    "parity_text",
    "rejection_report",
]


def parity_text(parity: Mapping[str, Any] | None, *, asked: bool = True) -> str:
    """As "OK: 8 golden images, largest difference 4e-06 (allowed 1e-04), same top-1".

    Args:
        parity: of the manifest.
        asked: whether it was to be compared at all.
    """
    if not asked:
        return "not compared with golden answers (--no-verify); vptkit check does that"
    if parity is None:
        return "not compared: the adapter has no golden answers"
    count, top1 = parity["count"], ""
    if parity["top1_agreement"] is not None:
        same = round(parity["top1_agreement"] * count)
        top1 = ", same top-1" if same == count else f", same top-1 on {same} of them"
    if parity.get("scores_max_diff") is not None:
        share = parity["top1_agreement"]
        kept = "same labels" if share == 1 else f"{percent(share)} of the labels the same"
        top1 = f", scores to {parity['scores_max_diff']:.0e}, {kept}"
    simulated = " (simulated on the CPU)" if parity.get("simulated") else ""
    return (
        f"OK: {count} golden images, largest difference {parity['max_rel_diff']:.0e} "
        f"(allowed {parity['tolerance']:.0e}){top1}{simulated}{_features_text(parity)}"
    )


def gate_text(precision: str, gate: Mapping[str, Any] | None) -> str:
    """What the gate found, with accuracy before → after where the classes are known."""
    if gate is None:
        return f"{precision}: not judged on images"
    count = gate["count"]
    on = f" of {gate['split']}" if gate["split"] else ""
    same = share_text(round(gate["agreement"] * count), count)
    wanted = f"at least {percent(gate['min_agreement'])} wanted"
    text = f"fp32's label{on} kept on {same}, {wanted}"
    if gate.get("multilabel"):
        low, high = gate["agreement_low"], gate["agreement_high"]
        text = (
            f"fp32's labels of {count} images{on} kept to {percent(gate['agreement'])} (F1; 95 % "
            f"interval {interval_text([low, high])}), {wanted}"
        )
    if gate["top1"] is not None:
        before, after = percent(gate["top1_fp32"]), share_text(round(gate["top1"] * count), count)
        text = f"accuracy{on} {before} → {after}; fp32's label kept on {same}, {wanted}"
    text += _features_text(gate)
    if gate["too_kind"]:
        text += f". Too kind: {gate['too_kind_because']}"
    return f"{precision}: {text}{' (simulated on the CPU)' if gate['simulated'] else ''}"


def _features_text(judged: Mapping[str, Any]) -> str:
    """As "; features: cosine 0.99996 on average, 0.99989 at least"; "" without any."""
    found = judged.get("features")
    if found is None:
        return ""
    if found["cosine"] is None:
        return "; features: NaN or Inf"
    return (
        f"; features: cosine {found['cosine']:.5f} on average, {found['min_cosine']:.5f} at least"
    )


def confidence_of(path: Path) -> dict[str, Any] | None:
    """The temperature in an adapter's head, and what it was fitted on."""
    from vptkit.formats.adapter import read_adapter

    noted = read_adapter(path).train.get("confidence")
    known = isinstance(noted, dict) and isinstance(noted.get("temperature"), float)
    return noted if known else None


def rejection_report(bundle: Path) -> dict[str, Any]:
    """How well a bundle that was exported with --reject-from tells images of other classes."""
    from vptkit.errors import BundleError
    from vptkit.formats.bundle import REJECTION
    from vptkit.formats.tensor_file import read_tensor_file
    from vptkit.strict_json import parse_json

    metadata = read_tensor_file(bundle / REJECTION, BundleError)[0]
    report: dict[str, Any] = parse_json(metadata["vptkit"].encode(), bundle, BundleError)
    return report


def rejection_text(report: Mapping[str, Any]) -> str:
    """As "--reject 0.05 accepts 58.0 % of a class that it does not know (20 classes of val, …)"."""
    count = report["val"]["count"]
    if report["false_accept"] is None:
        return f"--reject: measured by {count} images of val; no class could be left out"
    return (
        f"--reject {report['rate']:g} accepts {percent(report['false_accept'])} of the images of a "
        f"class that it does not know ({report['classes_left_out']} classes of val, each left out "
        "in its turn)"
    )


def note_bank_precision(manifest: Mapping[str, Any], name: str | None = None) -> None:
    """Say so where a bank's precision was judged on no images, as `--gate` does for one adapter."""
    if manifest["precision"] != "fp32":
        whose = "" if name is None else f" of {name}"
        tell(
            f"note: {manifest['precision']}{whose} was not compared with fp32 on real images: a bank "
            "has no gate. Export the adapter alone with --gate to judge this precision."
        )


def bundle_verdict(
    document: Mapping[str, Any], manifest: Mapping[str, Any], output: Path, *, verified: bool
) -> str:
    """The end of `export`, in lines; what `--json` prints, and the manifest."""
    bank = manifest["layout"] == "bank"
    first = manifest["adapters"][0]["name"]
    target = (manifest["lowering"] or {}).get("target")
    if target == "tensorrt":
        following = next_command("build", output)
    else:
        alone = [value["name"] for value in manifest["outputs"]] == ["features"]
        whose = ("--adapter", first) if bank else ("--features", "photos.npy") if alone else ()
        following = next_command("run", output, "photos/", *whose)
    lines = [*_quality(document, manifest, verified=verified), wrote(output), following]
    if bank:
        names = ", ".join(shown(entry["name"]) for entry in manifest["adapters"])
        count = len(manifest["adapters"])
        lines.insert(0, f"{count} adapter{'s' if count > 1 else ''}: {names}")
    return "\n".join(lines)


def onnx_verdict(
    document: Mapping[str, Any],
    manifest: Mapping[str, Any],
    output: Path,
    again: Sequence[object],
    *,
    verified: bool,
) -> str:
    """The end of `export --format onnx`: also how the graph is fed.

    Args:
        document: what `--json` prints.
        manifest: of the bundle that it was taken from.
        output: the file.
        again: the words of the command for a bundle, without its name.
        verified: whether golden answers were to be compared.
    """
    source = manifest["inputs"][0]
    results = [f"{value['name']} {value['dtype']} {_shape(value)}" for value in manifest["outputs"]]
    colours = "RGB" if source["dtype"] == "uint8" else "RGB, normalised"
    fed = (
        f"input {source['name']} {source['dtype']} {_shape(source)}, {colours}; output "
        f"{' and '.join(results)}"
    )
    return "\n".join(
        [
            *_quality(document, manifest, verified=verified),
            fed,
            "labels, and how images are resized: in its metadata, vptkit.labels, vptkit.preprocess",
            wrote(output),
            "vptkit's own commands take a bundle:",
            next_command(*again, "-o", output.with_suffix(".vptk")),
        ]
    )


def _quality(
    document: Mapping[str, Any], manifest: Mapping[str, Any], *, verified: bool
) -> list[str]:
    macs, precision = manifest["macs"], manifest["precision"]
    cost = f"{macs['graph'] / macs['backbone']:.2f} × the backbone's multiply-accumulates"
    others = {"unfolded": macs["unfolded"], "without merging": macs.get("unmerged", macs["graph"])}
    told = [f"{k}: {n / macs['backbone']:.2f} ×" for k, n in others.items() if n != macs["graph"]]
    cost += f" ({', '.join(told)})" if told else ""
    lines = [parity_text(manifest["parity"], asked=verified), f"{precision}, {cost}"]
    if manifest.get("merging") is not None:
        lines.append(f"merging: {merging_text(manifest['merging'])}")
    if precision != "fp32":
        lines.append(gate_text(precision, manifest["gate"]))
        calibration = (manifest["lowering"] or {}).get("calibration")
        if calibration is not None:
            split = calibration["split"]
            named = f"of {split}" if split else "of a folder that names no split"
            lines.append(f"calibrated on {calibration['count']} images {named}")
    rejection = document.get("rejection")
    if rejection is not None:
        lines.append(rejection_text(rejection))
    confidence = document.get("confidence") or {}
    if confidence.get("split"):
        temperature = f"{confidence['temperature']:.3g}"
        lines.append(f"temperature {temperature}, fitted on {shown(confidence['split'])}")
    return lines


def _shape(value: Mapping[str, Any]) -> str:
    sizes = ("B" if isinstance(size, str) else str(size) for size in value["shape"])
    return f"[{', '.join(sizes)}]"
