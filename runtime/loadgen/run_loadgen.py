"""One run of MLPerf's LoadGen against a session, and what it says of it.

LoadGen is C++ and does not hear Ctrl-C: it runs in a thread of its own, and the main thread waits.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_folder
from vptkit.datasets.dataset_bounds import inside_of
from vptkit.errors import BundleError, DataError, MissingExtraError
from vptkit.runtime.evaluation.accuracy import labelled_data
from vptkit.runtime.evaluation.evaluation_result import answers_to, judge
from vptkit.runtime.evaluation.image_batches import open_image_batches

from .loadgen_logs import read_answers, read_summary
from .query_answers import QueryAnswers
from .sample_library import FileSamples, held_samples

if TYPE_CHECKING:
    from pathlib import Path

    from vptkit.runtime.session.session_protocol import Session

    from .loadgen_settings import LoadGenSettings
    from .sample_library import SampleLibrary

__all__ = ["require_loadgen", "run_loadgen"]

_WARM_UP_SECONDS, _WARM_UP_CALLS = 0.5, 3
_BATCH = 8


def require_loadgen() -> Any:
    """The package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import mlperf_loadgen  # optional
    except ImportError as error:
        raise MissingExtraError("mlcommons-loadgen", "loadgen", "--loadgen") from error
    return mlperf_loadgen


def run_loadgen(
    session: Session,
    settings: LoadGenSettings,
    logs: Path,
    *,
    adapter: str | None = None,
    data: Path | None = None,
    split: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Have LoadGen ask a session, and keep its log files.

    Args:
        session: an open bundle.
        settings: scenario and bounds.
        logs: the folder that LoadGen's files will be in; it appears when the run has ended.
        adapter: of a bank: whom to ask; else each sample asks another one, mixed in a batch.
        data: images to ask for; the golden ones, or noise, unless given. With accuracy class folders
            or a list with labels, as for `evaluate`.
        split: of the data.
        force: replace the folder.

    Returns:
        {"scenario", "mode", "logs", "settings", "samples", "load", …}, and of `read_summary` or,
        with accuracy, "top1", "top5" and "count" as `evaluate` gives them.

    Raises:
        MissingExtraError: the package is not installed.
        OutputError: the folder exists.
        DataError: no data, or broken images.
        BundleError: no such adapter, or no logits.
    """
    loadgen = require_loadgen()
    bundle = session.bundle
    bundle.require_output("logits")
    names = _adapters(session, adapter, one=settings.accuracy)
    truth = None
    samples: SampleLibrary
    if settings.accuracy:
        if data is None:
            raise DataError("--accuracy needs --data FOLDER: images whose classes are known")
        if bundle.thresholds_of(adapter) is not None:
            raise BundleError(
                f"{bundle.path}: --accuracy is for one label an image, and this bundle has several: "
                "vptkit eval judges it."
            )
        place, part, paths, truth = labelled_data(session, data, adapter=adapter, split=split)
        samples = FileSamples(paths, bundle.preprocess, inside=inside_of(data))
    elif data is not None:
        found = open_image_batches(data, bundle.preprocess, split=split, several=True)
        samples = FileSamples(found.paths, bundle.preprocess, inside=found.inside)
    else:
        samples = held_samples(bundle, adapter)
    queued = settings.scenario in ("Server", "Offline")
    batch = (bundle.batch or settings.batch or _BATCH) if queued else None
    with atomic_folder(logs, force=force) as folder:
        answers = QueryAnswers(
            loadgen, session, samples, adapters=names, batch=batch, keep=settings.accuracy
        )
        load = round(os.getloadavg()[0], 2)
        qps = settings.expected_qps(_measured_qps(answers, samples, batch or 1))
        _start(loadgen, settings.fill(loadgen, qps), answers, samples, folder)
        answers.close()
        document = {
            "scenario": settings.scenario,
            "mode": "accuracy" if settings.accuracy else "performance",
            "logs": str(logs),
            "settings": settings.to_json(qps) | {"batch": batch},
            "samples": samples.count,
            "load": load,
        }
        if truth is None:
            return (
                document | read_summary(folder) | {"submission": not settings.shorter_than_mlperf}
            )
        logits = read_answers(folder, samples.count, len(bundle.labels_of(adapter)))
        labels = bundle.labels_of(adapter)
        judged = judge(place, part, labels, paths, truth, answers_to(logits, truth)).to_json()
        return document | {key: judged[key] for key in ("top1", "top5", "count")}


def _adapters(session: Session, adapter: str | None, *, one: bool) -> tuple[str, ...]:
    """Of a bank: whom the samples ask in turn."""
    bundle = session.bundle
    if adapter is not None or one:
        name = str(bundle.entry(adapter)["name"])
        return (name,) if bundle.layout == "bank" else ()
    return bundle.adapter_names if bundle.layout == "bank" else ()


def _measured_qps(answers: QueryAnswers, samples: SampleLibrary, batch: int) -> float:
    """Images a second, warmed up; what fails here fails before LoadGen starts."""
    numbers = [i % samples.loaded for i in range(batch)]
    samples.load(sorted(set(numbers)))
    answers.logits(numbers)
    begun, calls = time.perf_counter(), 0
    while calls < _WARM_UP_CALLS or time.perf_counter() - begun < _WARM_UP_SECONDS:
        answers.logits(numbers)
        calls += 1
    seconds = time.perf_counter() - begun
    samples.unload(sorted(set(numbers)))
    return batch * calls / max(seconds, 1e-9)


def _start(
    loadgen: Any, settings: Any, answers: QueryAnswers, samples: SampleLibrary, folder: Path
) -> None:
    logs = loadgen.LogSettings()
    output = loadgen.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = str(folder), False
    logs.log_output = output
    system = loadgen.ConstructSUT(answers.issue, lambda: None)
    library = loadgen.ConstructQSL(samples.count, samples.loaded, answers.load, answers.unload)
    # No audit.config of the current folder: it would change what is measured
    audit = str(folder / "audit.config")
    thread = threading.Thread(
        target=loadgen.StartTestWithLogSettings,
        args=(system, library, settings, logs, audit),
        daemon=True,
        name="vptkit-loadgen-clock",
    )
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(system)
