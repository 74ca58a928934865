"""`vptkit.check`, `vptkit.evaluate`, `vptkit.profile`: what the commands of these names measure."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError
from vptkit.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vptkit.progress import Progress
    from vptkit.runtime.evaluation.evaluation_result import Evaluation
    from vptkit.runtime.evaluation.multilabel_result import MultilabelEvaluation
    from vptkit.runtime.evaluation.parity import Parity
    from vptkit.runtime.profile.settings import ProfileSettings
    from vptkit.runtime.session.session_protocol import Session

    Asked = str | Path | Session

__all__ = ["baselines_of", "check", "evaluate", "profile"]


def check(
    bundle: Asked,
    *,
    adapter: str | None = None,
    tolerance: float | None = None,
    backend: str | None = None,
    threads: int | None = None,
    trust_engines: bool = False,
) -> Parity:
    """Compare a bundle's answers with its golden ones.

    Args:
        bundle: its folder, or an open session. A folder is opened and closed here; types that the
            processor cannot compute are simulated, as by the command.
        adapter: one of a bank's; all that carry golden answers unless named.
        tolerance: largest difference over largest logit; by precision unless given.
        backend, threads, trust_engines: as of `vptkit.open_session`, whose defaults they have.

    Returns:
        How large the differences are.

    Raises:
        GateError: they are larger than allowed.
        BundleError: no bundle, or one without golden answers.
    """
    from vptkit.cli.shared.precision_evidence import open_or_simulate
    from vptkit.runtime.evaluation.parity import check_golden, require_parity

    def opener(place: Path, **options: Any) -> Session:
        session: Session = open_or_simulate(place, **options)[0]
        return session

    with _session(bundle, opener, backend, threads, trust_engines=trust_engines) as session:
        parity = check_golden(session, adapter=adapter, tolerance=tolerance)
        require_parity(session, parity)
        return parity


def evaluate(
    bundle: Asked,
    data: str | Path,
    *,
    adapter: str | None = None,
    split: str | None = None,
    allow_outside: bool = False,
    skip_broken: bool = False,
    columns: str | None = None,
    decode: str | None = None,
    reject: float | None = None,
    ood: str | Path | None = None,
    batch: int = 8,
    workers: int | None = None,
    progress: Progress = SILENT,
    backend: str | None = None,
    threads: int | None = None,
    trust_engines: bool = False,
) -> Evaluation | MultilabelEvaluation:
    """How often a bundle is right on a folder of classes, and where not.

    Args:
        bundle: its folder, or an open session. A folder is opened and closed here.
        data, adapter, split, allow_outside, skip_broken, columns, decode, batch, workers, progress: as of
            `vptkit.runtime.evaluation.accuracy.evaluate`.
        reject, ood: also measure what rejecting at this rate does to these images, and to those of
            other things, of `vptkit.runtime.evaluation.rejection_evaluation.evaluate_with_rejection`.
        backend, threads, trust_engines: as of `vptkit.open_session`, whose defaults they have.

    Returns:
        What was found; a `MultilabelEvaluation` where an image may have several labels.

    Raises:
        DataError: no such data, a class that is none of the labels, or broken images.
        BundleError: no bundle, no such adapter, or a bank and none named.
        GateError: the logits hold NaN or Inf.
    """
    from vptkit.runtime.evaluation.accuracy import evaluate as judge
    from vptkit.runtime.evaluation.rejection_evaluation import evaluate_with_rejection
    from vptkit.runtime.session.factory import open_session

    if reject is None and ood is not None:
        raise VptkitError("ood goes with reject: the rate at which these images are rejected")
    options = {
        "adapter": adapter,
        "split": split,
        "allow_outside": allow_outside,
        "skip_broken": skip_broken,
        "columns": columns,
        "decode": decode,
        "batch": batch,
        "workers": workers,
        "progress": progress,
    }
    with _session(bundle, open_session, backend, threads, trust_engines=trust_engines) as session:
        if reject is not None:
            return evaluate_with_rejection(session, data, reject, ood=ood, **options)
        return judge(session, data, **options)  # type: ignore[arg-type]


def profile(
    bundles: str | Path | Sequence[str | Path],
    settings: ProfileSettings | None = None,
    *,
    baseline: bool = False,
    progress: Progress = SILENT,
    **changes: Any,
) -> dict[str, Any]:
    """Measure latency, memory, throughput and energy of bundles, interleaved.

    Args:
        bundles: one or more, side by side.
        settings: how; the command's defaults unless given.
        baseline: add the bare backbone and the unfolded graph, each from onnx.
        progress: told about each round.
        changes: fields of `vptkit.ProfileSettings` in the place of those of `settings`, such as
            rounds=50, memory=False.

    Returns:
        The report: docs/profiling.md.

    Raises:
        BundleError: no bundle.
        MissingError, TargetError: see `vptkit.runtime.profile.run_profile.profile_bundles`.
        VptkitError: a setting that does not exist.
    """
    from vptkit.runtime.backends.selection import default_backend
    from vptkit.runtime.profile.run_profile import profile_bundles
    from vptkit.runtime.profile.settings import ProfileSettings

    if settings is None:
        changes = {"backend": default_backend(), **changes}
    chosen = ProfileSettings.from_json({**(settings or ProfileSettings()).to_json(), **changes})
    several = [bundles] if isinstance(bundles, str | Path) else bundles
    paths = [Path(bundle) for bundle in several]
    with baselines_of(paths if baseline else []) as named:
        return profile_bundles(paths, chosen, baselines=named, progress=progress)


@contextlib.contextmanager
def baselines_of(bundles: Sequence[Path]) -> Iterator[list[dict[str, Path]]]:
    """Yield the baselines of each bundle, in a folder that lives as long as the block.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    if not bundles:
        yield []
        return
    from vptkit.cli.shared.output import needs_extra

    with needs_extra("export", "--baseline"):
        from vptkit.export.bundle.baselines import export_baselines
    with tempfile.TemporaryDirectory(prefix="vptkit-") as folder:
        places = [Path(folder) / str(i) for i in range(len(bundles))]
        for place in places:
            place.mkdir()
        yield [export_baselines(b, place) for b, place in zip(bundles, places, strict=True)]


@contextlib.contextmanager
def _session(
    bundle: Asked,
    opener: Callable[..., Session],
    backend: str | None,
    threads: int | None,
    *,
    trust_engines: bool,
) -> Iterator[Session]:
    """Yield a session: one that is open as it is, one of a folder until the block ends."""
    given = {"backend": backend, "threads": threads, "trust_engines": trust_engines or None}
    options = {name: value for name, value in given.items() if value is not None}
    if isinstance(bundle, str | Path):
        with opener(Path(bundle), **options) as session:
            yield session
        return
    if options:
        raise VptkitError(
            f"{', '.join(options)}: goes with the folder of a bundle; this session is open already"
        )
    yield bundle
