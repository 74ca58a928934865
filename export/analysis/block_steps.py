"""One block before and after the folds, step by step: what a diagram shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.backbones.merge_schedule import tokens_of_blocks

if TYPE_CHECKING:
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.formats.bundle import Bundle

__all__ = ["block_steps"]

KEPT, GONE, CHANGED, NEW = "kept", "gone", "changed", "new"


def block_steps(bundle: Bundle) -> dict[str, Any] | None:
    """A block in the middle, as it was tuned and as it is computed.

    Args:
        bundle: an opened one.

    Returns:
        {"before", "after": [{"name", "detail", "state"}]}; the state is "kept", "gone" (before only),
        "changed" or "new" (after only). None of a graph that is not folded, a bank, or a block that is
        not x + f(norm x).
    """
    spec, entry = bundle.spec, bundle.manifest["adapters"][0]
    folded = bundle.manifest["fold"] == "all" and bundle.layout == "baked"
    if not folded or spec.block != "pre" or not bundle.manifest["folds"]:
        return None
    prompts = entry.get("prompt_length") or 0
    deep = prompts if entry.get("insert") == "deep" else 0
    shallow = prompts if entry.get("insert") == "shallow" else 0
    folds = " ".join(bundle.manifest["folds"])
    learned = "learned keys" in folds
    merging = bundle.manifest.get("merging")
    tokens = whole = (spec.tokens, spec.tokens)
    if merging is not None:
        tokens = tokens_of_blocks(merging["schedule"], spec)[(spec.depth - 1) // 2]
    tuned = merging is not None and merging["tuned"]
    scaled = "LayerScale" in folds
    return {
        "before": _before(spec, tokens if tuned else whole, deep, shallow, learned=learned),
        "after": _after(
            spec,
            tokens,
            deep,
            shallow,
            learned=learned,
            scaled=scaled,
            merge=KEPT if tuned else NEW,
        ),
    }


def _step(name: str, detail: str, state: str = KEPT) -> dict[str, str]:
    return {"name": name, "detail": detail, "state": state}


def _merge(tokens: tuple[int, int], state: str) -> list[dict[str, str]]:
    """What merging does in this block: tokens that attend, and tokens that its MLP sees."""
    attending, kept = tokens
    if attending == kept:
        return []
    return [_step("merge", f"{attending - kept} tokens into those most like them: {kept}", state)]


def _before(
    spec: BackboneSpec, tokens: tuple[int, int], deep: int, shallow: int, *, learned: bool
) -> list[dict[str, str]]:
    rows = tokens[0] + shallow
    all_rows = rows + deep
    steps = [_step("tokens", f"{rows} × {spec.width}")]
    if deep:
        steps.append(_step("prompts", f"+ {deep} × {spec.width}, queries, keys and values", GONE))
    norm = "γ x̂ + β" if spec.norm == "layer" else "γ x̂"
    steps += [
        _step("norm", norm, GONE),
        _step("query, key, value", f"linear of {all_rows} rows" + _bias(spec.qkv_bias)),
        _step("scale", "queries × 1/√head width", GONE),
        _attention(spec, all_rows, f"{all_rows} keys" + (" and those learned" if learned else "")),
        _step("projection", f"linear of {all_rows} rows" + _bias(spec.proj_bias)),
        *([_step("LayerScale", "× λ₁", GONE)] if spec.layer_scale else []),
        _step("add", "x + …"),
        *_merge(tokens, KEPT),
        _step("norm", norm, GONE),
        _step("MLP", f"{spec.width} → {spec.mlp_width} → {spec.width}, {spec.activation}"),
        *([_step("LayerScale", "× λ₂", GONE)] if spec.layer_scale and spec.mlp_scale else []),
        _step("add", "x + …"),
    ]
    return steps


def _after(
    spec: BackboneSpec,
    tokens: tuple[int, int],
    deep: int,
    shallow: int,
    *,
    learned: bool,
    scaled: bool,
    merge: str,
) -> list[dict[str, str]]:
    rows = tokens[0] + shallow
    gamma = "γ, β and the scale in its weights" if spec.norm == "layer" else "γ and the scale in W"
    inside = "λ₁ in its weights" if scaled else "value bias in its bias" if spec.qkv_bias else ""
    steps = [
        _step("tokens", f"{rows} × {spec.width}"),
        _step("norm", "x̂", CHANGED),
        _step("query, key, value", f"linear of {rows} rows; {gamma}", CHANGED),
    ]
    if deep or learned:
        count = f"{deep} rows" if deep else "learned rows"
        steps.append(_step("constants", f"keys and values: {count}, computed at export", NEW))
    more = f" + {deep} constant keys" if deep else " + learned keys" if learned else " keys"
    return [
        *steps,
        _attention(spec, rows, f"{rows}{more}"),
        _step("projection", f"linear of {rows} rows" + (f"; {inside}" if inside else ""), CHANGED),
        _step("add", "x + …"),
        *_merge(tokens, merge),
        _step("norm", "x̂", CHANGED),
        _step(
            "MLP",
            f"{spec.width} → {spec.mlp_width} → {spec.width}, {spec.activation}; γ and β in it",
            CHANGED,
        ),
        _step("add", "x + …"),
    ]


def _attention(spec: BackboneSpec, queries: int, keys: str) -> dict[str, str]:
    return _step("attention", f"{queries} queries × {keys}, {spec.heads} heads")


def _bias(there: bool) -> str:
    return ", with bias" if there else ""
