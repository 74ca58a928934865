"""What options of export and bisect go with: the tables for `vptkit.cli.shared.option_effect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.cli.shared.option_effect import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BISECT_RULES", "EXPORT_RULES"]


def _lowered(settings: Mapping[str, Any]) -> bool:
    return bool(settings["precision"] != "fp32")


def _merges(settings: Mapping[str, Any]) -> bool:
    """Whether tokens are merged: as asked for, or as the adapter was tuned."""
    if settings["merge"] is not None:
        return bool(settings["merge"] != "0")
    from vptkit.formats.adapter import read_adapter

    files = (path for path in settings["adapters"] if path.is_file())
    return any(read_adapter(path).merging is not None for path in files)


def _judged(settings: Mapping[str, Any]) -> bool:
    return settings["calibration"] is not None or settings["gate"] is not None


def _holds_fp16(settings: Mapping[str, Any]) -> bool:
    on_gpu = settings["target"] == "tensorrt"
    return settings["precision"] in ("fp16", "fp8") or (settings["precision"] == "int8" and on_gpu)


EXPORT_RULES = (
    Rule(
        ("calibration", "island", "min_agreement"), "--precision fp16, bf16, int8 or fp8", _lowered
    ),
    Rule(
        ("gate",),
        "--precision fp16, bf16, int8 or fp8, or --merge",
        lambda s: _lowered(s) or _merges(s),
    ),
    Rule(("min_merge_agreement",), "--merge", _merges),
    Rule(("min_merge_agreement",), "--gate or --calibration", _judged),
    Rule(
        ("merge", "merge_attention"),
        "--fold all",
        lambda s: s["fold"] == "all" or s["merge"] == "0",  # which an adapter tuned so needs there
    ),
    Rule(("islands",), "--precision fp16, fp8, or int8 with --target tensorrt", _holds_fp16),
    Rule(("islands", "min_agreement"), "--gate or --calibration", _judged),
    Rule(
        ("allow_outside", "columns", "skip_broken", "decode"),
        "--gate, --calibration or --reject-from",
        lambda s: _judged(s) or s["reject_from"] is not None,
    ),
    Rule(("calibration_images",), "--calibration", lambda s: s["calibration"] is not None),
    Rule(("threads",), "--verify, --gate or --calibration", lambda s: s["verify"] or _judged(s)),
    Rule(
        ("normalize_features", "reject_from"),
        "--output features or both",
        lambda s: s["gives"] != "logits",
    ),
    Rule(("onnxruntime_web",), "--target web", lambda s: s["target"] == "web"),
    Rule(("last_block",), "--fold all", lambda s: s["fold"] == "all"),
    Rule(
        ("bank_prompts", "bank_classes", "bank_rank", "bank_layer_norms", "tables"),
        "--layout bank",
        lambda s: s["layout"] == "bank",
    ),
)
BISECT_RULES = (
    Rule(
        ("calibration", "calibration_images"),
        "--precision int8 or fp8, whose ranges are measured",
        lambda s: s["precision"] in ("int8", "fp8"),
    ),
    Rule(("target",), "--precision int8", lambda s: s["precision"] == "int8"),
)
