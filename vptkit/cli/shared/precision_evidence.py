"""What the command line assembles for precisions below fp32: images, a runner, parity.

No future import of annotations here: typer reads them at run time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vptkit.errors import MissingExtraError, TargetError, VptkitError
from vptkit.formats.manifest_schema import LOGITS
from vptkit.shown_text import tell

__all__ = [
    "golden_parity",
    "lowering_of",
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
