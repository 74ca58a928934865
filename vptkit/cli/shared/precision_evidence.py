"""What the command line assembles for precisions below fp32: images, a runner, parity.

And what is said of lossy steps: precisions, and merged tokens.

No future import of annotations here: typer reads them at run time.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from vptkit.errors import MissingExtraError, TargetError, VptkitError
from vptkit.formats.manifest_schema import LOGITS
from vptkit.scores.score_interval import percent, share_text
from vptkit.shown_text import tell

__all__ = [
    "golden_parity",
    "lowering_of",
    "merging_text",
    "note_merging",
    "note_missing_gate",
    "open_or_simulate",
    "require_fp32",
    "runner",
    "warn_of_kindness",
]


def lowering_of(**settings: Any) -> Any:
    """`export.lower.Lowering` of the command line's settings.

    Raises:
        VptkitError: an island that is no part of a network, or a bound outside 0..1.
    """
    import re

    from vptkit.export.precision.lowering import Lowering

    for name in settings["islands"]:
        if not re.fullmatch(r"patch|head|blocks|blocks\.\d+(\.(attn|mlp|residual))?", name):
            raise VptkitError(
                f"--island {name!r}: expected patch, head, blocks, blocks.N, blocks.N.attn, "
                "blocks.N.mlp or blocks.N.residual"
            )
    bound = settings["min_agreement"]
    if bound is not None and not 0 <= bound <= 1:
        raise VptkitError(f"--min-agreement {bound}: expected a share from 0 to 1")
    return Lowering(**settings)


def runner(preprocess: Any, threads: int | None) -> Callable[[Any], Any]:
    """What opens graphs for the exporter: ONNX Runtime on the processor.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """

    def run(model: Any) -> Any:
        from vptkit.export.graph.onnx_file import write_model

        try:
            from vptkit.runtime.backends.onnxruntime_probe import OrtProbe
        except ModuleNotFoundError as error:
            if error.name != "onnxruntime":
                raise
            raise MissingExtraError("onnxruntime", "cpu", "judging a precision") from error
        return OrtProbe(lambda path: write_model(model, path), preprocess, threads=threads)

    return run


def open_or_simulate(
    bundle: Path,
    backend: str | None = "cpu",
    threads: int | None = None,
    *,
    trust_engines: bool = False,
) -> Any:
    """A session, and whether it simulates types that the CPU provider cannot compute.

    Raises:
        MissingExtraError: the simulation needs onnx, which is not installed.
    """
    import tempfile
    from dataclasses import replace

    from vptkit.formats.bundle import open_bundle
    from vptkit.runtime.backends.selection import means_cpu
    from vptkit.runtime.session.factory import open_session

    low = open_bundle(bundle, verify=False).precision in ("bf16", "fp8")
    if not (low and means_cpu(backend)):
        return open_session(bundle, backend, threads, trust_engines=trust_engines), False
    opened = open_bundle(bundle)
    try:
        from vptkit.export.numerics.precision_simulation import write_simulated
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise MissingExtraError("onnx", "export", "simulating a precision") from error
    with tempfile.TemporaryDirectory(prefix="vptkit-") as folder:
        write_simulated(opened, Path(folder))
        session: Any = open_session(folder, backend, threads)
    return replace(session, bundle=opened), True


def warn_of_kindness(gate: dict[str, Any] | None) -> None:
    """Say so where the gate's images flatter."""
    if gate is not None and gate["too_kind"]:
        tell(
            f"warning: {gate['too_kind_because']}: too kind. Pass --gate DIR with images that the "
            "adapter was not trained on."
        )


def note_missing_gate(manifest: dict[str, Any]) -> None:
    """Say so where a lower precision was not judged on real images, or too kindly."""
    if manifest["precision"] != "fp32" and manifest["gate"] is None:
        tell(
            f"note: {manifest['precision']} was not compared with fp32 on real images; "
            "--gate DIR does that"
        )
    warn_of_kindness(manifest["gate"])
    plan = manifest["lowering"] or {}
    if plan.get("islands"):
        tell(f"note: kept in fp32: {', '.join(plan['islands'])}")
    for finding in plan.get("placement", ())[:3]:
        tell(f"note: {finding}")


def merging_text(merging: Mapping[str, Any]) -> str:
    """As "12 tokens a block, 132 in all, proportional attention; not tuned so; accuracy of …".

    Args:
        merging: of a manifest, or `merge` of an adapter, which has no gate. The gate's figures may be
            a stranger's, and are taken only if they are of the kind that vptkit writes.
    """
    text = f"{_schedule(merging['schedule'])}, {merging['attention']} attention"
    if "tuned" in merging:
        text += "; tuned so" if merging["tuned"] else "; the adapter was not tuned so"
    return text + _cost(merging.get("gate"))


def _schedule(schedule: Sequence[int]) -> str:
    total, first = sum(schedule), schedule[0]
    if all(r == first for r in schedule[:-1]) and not schedule[-1]:
        return f"{first} tokens a block but the last, {total} in all"
    return f"{','.join(map(str, schedule))} tokens, {total} in all"


def _cost(gate: Any) -> str:
    """What the gate found: accuracy without and with, and labels that stayed."""
    if not isinstance(gate, dict):
        return ""
    count, agreement, noise = gate.get("count"), gate.get("agreement"), gate.get("sqnr_db")
    if not (isinstance(count, int) and count > 0 and _is_share(agreement)):
        return ""
    on = f" of {gate['split']}" if isinstance(gate.get("split"), str) else ""
    text = ""
    after, before = gate.get("top1"), gate.get("top1_fp32")
    if _is_share(after) and _is_share(before):
        reached = share_text(round(after * count), count)
        text = f"; accuracy{on} without {percent(before)}, with {reached}"
    text += f"; label{on} kept on {percent(agreement)} of {count} images"
    if isinstance(noise, float):
        text += f", SQNR {noise:.1f} dB"
    return text + ("; too kind: these were trained on" if gate.get("too_kind") is True else "")


def _is_share(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 <= value <= 1


def note_merging(manifest: Mapping[str, Any]) -> None:
    """Say so where what merging costs was not judged on real images, or too kindly."""
    merging = manifest.get("merging")
    if merging is None:
        return
    gate, bank = merging["gate"], manifest["layout"] == "bank"
    if not merging["tuned"]:
        golden = (
            "ship without golden answers" if bank else "has those of the fp32 graph that merges"
        )
        who = "not all adapters were" if bank else "the adapter was not"
        tell(f"note: {who} tuned with this merging, and {golden}")
        if gate is None:
            judge = "export one alone with --gate DIR" if bank else "--gate DIR does that"
            tell(f"note: what merging costs was not judged on real images; {judge}")
    if gate is not None and manifest["gate"] is None:
        warn_of_kindness(gate)


def require_fp32(bundle: Any) -> None:
    """Refuse a bundle that does not say what the values really are."""
    if bundle.precision != "fp32":
        raise TargetError(
            f"{bundle.path}: the bundle is {bundle.precision}; expected fp32, which says what the "
            "values really are. Export it again without --precision."
        )


def golden_parity(bundle: Path, threads: int | None = None) -> dict[str, Any] | None:
    """Parity of a bundle with its golden answers, or None if it has none to compare with."""
    from vptkit.runtime.evaluation.parity import check_golden, require_parity

    session, imitated = open_or_simulate(bundle, threads=threads)
    bundled = session.bundle
    if all(bundled.golden(name) is None for name in bundled.adapter_names):
        return None
    if LOGITS not in bundled.outputs and bundled.golden_features() is None:
        return None
    parity = check_golden(session)
    require_parity(session, parity)
    return {"backend": session.backend, "simulated": imitated, **parity.to_json()}
