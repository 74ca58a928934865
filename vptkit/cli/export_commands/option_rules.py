"""Options without effect are refused, by one rule: a table of what each of them goes with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["BISECT_RULES", "EXPORT_RULES", "Rule", "given_options", "require_effect"]


class Rule(NamedTuple):
    """What some options need to have any effect.

    Attributes:
        options: parameters of the command.
        goes_with: what they need, in words.
        holds: whether the other settings have it.
    """

    options: tuple[str, ...]
    goes_with: str
    holds: Callable[[Mapping[str, Any]], bool]


def _lowered(settings: Mapping[str, Any]) -> bool:
    return bool(settings["precision"] != "fp32")


def _judged(settings: Mapping[str, Any]) -> bool:
    return settings["calibration"] is not None or settings["gate"] is not None


def _holds_fp16(settings: Mapping[str, Any]) -> bool:
    on_gpu = settings["target"] == "tensorrt"
    return settings["precision"] in ("fp16", "fp8") or (settings["precision"] == "int8" and on_gpu)


EXPORT_RULES = (
    Rule(
        ("calibration", "gate", "island", "min_agreement"),
        "--precision fp16, bf16, int8 or fp8",
        _lowered,
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


def given_options(context: Any) -> set[str]:
    """Parameters that stand on the command line (or in the environment), by name."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {
        name
        for name, source in sources.items()
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
    }


def require_effect(
    given: Collection[str], settings: Mapping[str, Any], rules: Collection[Rule]
) -> None:
    """Refuse the first option that was given and does nothing.

    Args:
        given: parameters, by name.
        settings: of all parameters, the defaults among them.
        rules: what goes with what.

    Raises:
        VptkitError: an option has no effect.
    """
    for rule in rules:
        for name in rule.options:
            if name in given and not rule.holds(settings):
                flag = f"--{'no-' if settings[name] is False else ''}{name.replace('_', '-')}"
                raise VptkitError(
                    f"{flag} has no effect here: it goes with {rule.goes_with}. Leave it away, or "
                    f"add {rule.goes_with}."
                )
