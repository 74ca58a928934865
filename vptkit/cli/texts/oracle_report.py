"""`vptkit check --oracle`: what TensorRT makes of a bundle's graph, asked or told by rules."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vptkit.cli.shared.output import emit
from vptkit.errors import GateError, MissingExtraError, TargetError, VptkitError
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ORACLES", "consult"]

ORACLES = ("trt-rtx", "rules")


def consult(
    bundle: Path, oracle: str, *, sm: str | None, trt: str | None, layers: bool, as_json: bool
) -> None:
    """Ask, print, and end with what was found.

    Args:
        bundle: the bundle.
        oracle: one of ORACLES.
        sm: for trt-rtx: compute capabilities, as "86,89".
        trt: for rules: versions of TensorRT, as "8.6,10.3". Without it all are reported, and one
            that takes the graph is enough.
        layers: print every layer.
        as_json: one document instead of a table.

    Raises:
        VptkitError: an option that is not known, or does not go with the oracle.
        TargetError: no engine, or a version that does not take the graph.
        GateError: an engine whose structure is not what its precision promises.
        MissingExtraError: TensorRT-RTX, or onnx, is not installed.
    """
    if oracle not in ORACLES:
        raise VptkitError(f"--oracle {oracle!r}: expected {' or '.join(ORACLES)}")
    wrong = {"trt-rtx": ("--trt", trt), "rules": ("--sm", sm)}[oracle]
    if wrong[1] is not None:
        raise VptkitError(f"{wrong[0]} does not go with --oracle {oracle}")
    if oracle == "rules":
        _by_rules(bundle, trt, as_json)
    else:
        _by_library(bundle, sm, layers, as_json)


def _by_library(path: Path, sm: str | None, layers: bool, as_json: bool) -> None:
    from vptkit.formats.bundle import open_bundle
    from vptkit.runtime.engine_build.trt_rtx_oracle import SMS, ask_oracle
    from vptkit.shown_text import terminal_width
    from vptkit.text_table import columns

    bundle = open_bundle(path)
    known = tuple(n for n in SMS if n >= 89) if bundle.precision == "fp8" else SMS
    with bundle.graph() as model:
        opinions = ask_oracle(model, known if sm is None else _numbers(sm))
    shortfalls = [
        f"sm{o.sm}: {text}"
        for o in opinions
        if o.structure is not None and bundle.precision != "fp32"
        for text in _shortfalls(o.structure)
    ]
    failed = [o for o in opinions if not o.ok]
    rows = [o.to_json(layers=layers) for o in opinions]
    document = {
        "bundle": str(path),
        "oracle": "trt-rtx",
        "version": next((o.version for o in opinions if o.version), None),
        "precision": bundle.precision,
        "ok": not failed and not shortfalls,
        "shortfalls": shortfalls,
        "rows": rows,
    }
    header = ["sm", "result", "layers", "fused", "softmax", "norms", "GEMMs", "plan MB"]
    header += ["weights MB", "activations MB"]
    text = [columns(header, [_row(row) for row in rows], width=terminal_width(), keys=2)]
    for row in rows:
        text += [shown(f"sm{row['sm']}: {error['message']}") for error in row["errors"]]
        text += [shown(_layer_line(row["sm"], layer)) for layer in row.get("layer_list", ())]
    emit(document, as_json, text="\n".join([*text, *map(shown, shortfalls)]))
    if failed:
        first = failed[0]
        raise TargetError(
            f"{path}: TensorRT-RTX made no engine for sm{first.sm} ({first.stage}): "
            f"{first.errors[0]['message'] if first.errors else 'no message'}"
        )
    if shortfalls:
        raise GateError(
            f"{path}: {shortfalls[0]}. A graph for TensorRT comes of --target tensorrt "
            "(with --last-block query or full)."
        )


def _shortfalls(structure: Any) -> list[str]:
    """What a bundle of low precision promises, and this engine does not hold."""
    found = []
    if structure.unfused:
        nodes = ", ".join(structure.unfused)
        found.append(f"{len(structure.unfused)} attentions are not fused: {nodes}")
    if structure.dequantized:
        nodes = ", ".join(structure.dequantized)
        found.append(f"{len(structure.dequantized)} quantized linears run dequantized: {nodes}")
    return found


def _row(row: dict[str, Any]) -> list[str]:
    """One line of the table."""
    sizes = [row["plan_bytes"], row["weights_bytes"], row["activation_bytes"]]
    found = row["structure"]
    if found is None:
        return [str(row["sm"]), f"no engine ({row['stage']})", *("-" for _ in range(8))]
    gemms = ", ".join(f"{count} {kind}" for kind, count in found["gemms"].items())
    if found["dequantized_gemms"]:
        gemms += f" ({len(found['dequantized_gemms'])} dequantized)"
    return [
        str(row["sm"]),
        "ok",
        str(found["layers"]),
        str(found["fused_attentions"]),
        str(len(found["unfused_softmax"])),
        str(found["norms"]),
        gemms or "-",
        *("-" if size is None else f"{size / 1e6:.1f}" for size in sizes),
    ]


def _layer_line(sm: int, layer: dict[str, Any]) -> str:
    return (
        f"sm{sm}  {layer['role']:9}  {layer['type']:5}  {layer['name']}  <- "
        f"{', '.join(layer['nodes']) or '-'}"
    )


def _by_rules(path: Path, trt: str | None, as_json: bool) -> None:
    from vptkit.formats.bundle import MODEL, open_bundle
    from vptkit.text_table import columns

    try:
        onnx = importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", "export", "the oracle rules") from error
    from vptkit.export.analysis.tensorrt_rules import VERSIONS, check_rules

    model = onnx.load_from_string(open_bundle(path).read(MODEL))
    versions = VERSIONS if trt is None else tuple(trt.split(","))
    verdicts = check_rules(model, versions)
    rows = [verdict.to_json() for verdict in verdicts]
    refused = [row for row in rows if not row["ok"]]
    ok = len(refused) < len(rows) if trt is None else not refused
    document = {"bundle": str(path), "oracle": "rules", "ok": ok, "rows": rows}
    table = [
        [row["trt"], "ok" if row["ok"] else "refused", *_counts(row["findings"])] for row in rows
    ]
    text = [columns(["TensorRT", "result", "errors", "warnings"], table)]
    for row in rows:
        text += [shown(f"{row['trt']}: {line}") for line in _finding_lines(row["findings"])]
    emit(document, as_json, text="\n".join(text))
    if not ok:
        lines = _finding_lines([f for f in refused[0]["findings"] if f["level"] == "error"])
        raise TargetError(f"{path}: TensorRT {refused[0]['trt']} does not take it: {lines[0]}")


def _counts(findings: list[dict[str, Any]]) -> list[str]:
    return [str(sum(f["level"] == level for f in findings)) for level in ("error", "warning")]


def _finding_lines(findings: list[dict[str, Any]]) -> list[str]:
    """Equal messages once, with the first node that has each."""
    merged: dict[str, list[dict[str, Any]]] = {}
    for finding in findings:
        merged.setdefault(f"{finding['level']}: {finding['message']}", []).append(finding)
    lines = []
    for message, same in merged.items():
        place = "" if same[0]["node"] is None else f" ({same[0]['node']}"
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        lines.append(f"{message}{place}{more}{')' if place else ''}")
    return lines


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise VptkitError(f"--sm {text!r}: expected numbers, as 86,89") from error
