"""`vptkit run`: classify images.

No future import of annotations here: typer reads them at run time.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from vptkit.cli.shared.options import (
    AllowOutside,
    Backend,
    BundleArgument,
    Columns,
    Decode,
    Force,
    Threads,
    TrustEngines,
)
from vptkit.cli.shared.output import announce
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.shown_text import tell

__all__ = ["run"]

# What the first image needs, imported while the graph is loaded
_SOON = (
    *("vptkit.runtime.session.baked_session", "vptkit.runtime.session.bank_session"),
    *("PIL.JpegImagePlugin", "vptkit.runtime.bulk.named_sources"),
    "vptkit.runtime.bulk.prediction_writers",
)


def run(
    bundle: BundleArgument,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Images, folders, globs; lists (.csv, .json, .jsonl), shards (.tar), .parquet; "
            "s3://…, https://…; - reads names, one a line. Or videos and cameras: clip.mp4, "
            "rtsp://…, /dev/video0, csi://0, gst:PIPELINE; NAME=SOURCE names one.",
        ),
    ],
    adapter: Annotated[
        str | None,
        typer.Option(
            help="Which adapter of the bundle; of several videos also SOURCE=ADAPTER,SOURCE=ADAPTER."
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Labels for each image.")] = 5,
    save: Annotated[
        Path | None,
        typer.Option(
            "-o", "--save", "--output", help="Write to this .jsonl, .csv or .parquet file."
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Write what the head reads to this .npy or .parquet file."),
    ] = None,
    reject: Annotated[
        float | None,
        typer.Option(help="Say 'none of these', at most of this share of images like val's."),
    ] = None,
    decode: Decode = None,
    columns: Columns = None,
    allow_outside: AllowOutside = False,
    resume: Annotated[
        bool,
        typer.Option(help="Go on where a run of the same command was killed, or begin anew."),
    ] = True,
    force: Force = False,
    backend: Backend = None,
    batch: Annotated[int, typer.Option(min=1, help="Images for each run.")] = 8,
    threads: Threads = None,
    trust_engines: TrustEngines = False,
    every: Annotated[
        int | None, typer.Option(min=1, help="Of the frames each N-th.", show_default=False)
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="At most so many frames a second of each source.")
    ] = None,
    all_frames: Annotated[
        bool,
        typer.Option("--all-frames", help="Drop no frame of live sources, however old it gets."),
    ] = False,
    max_staleness: Annotated[
        str | None, typer.Option(help="A live frame that is older is dropped [500ms].")
    ] = None,
    max_wait_ms: Annotated[
        float | None,
        typer.Option(
            min=0, max=1000, help="A batch waits so long for frames of other sources [5]."
        ),
    ] = None,
    smooth: Annotated[
        str | None, typer.Option(help="Mean of a source's answers over such a time, as 0.5s.")
    ] = None,
    on_change: Annotated[
        bool, typer.Option("--on-change", help="Tell only frames with another label than before.")
    ] = False,
    duration: Annotated[str | None, typer.Option(help="End after such a time, as 10s.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="End after so many frames.")] = None,
    annotate: Annotated[
        Path | None, typer.Option(help="Write the frames, labels drawn on them, to this .mp4.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(help="Post each answer as JSON to this URL.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Run on a Ray cluster: HOST:PORT, auto, or local to start Ray here."),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, help="Sessions on the cluster [one for each GPU, else for each CPU]."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Classify images and videos, or write features; a broken one is reported, the others go on."""
    options = dict(locals())
    from vptkit.runtime.session.background_imports import importing
    from vptkit.runtime.session.factory import open_session

    from .found_images import FoundImages
    from .run_cores import cores_of_run
    from .run_outcome import require_all, require_outputs, verdict
    from .stream_run import any_stream, run_on_streams

    if ray_address is not None or actors is not None:
        from .ray_run import require_ray_options, run_on_ray  # Ray's options load its room

        require_ray_options(options)
        found = FoundImages(sources, columns, allow_outside=allow_outside)
        run_on_ray(bundle, found, options, as_json=as_json)
        return
    streams = any_stream(sources, options)
    cores = cores_of_run(sources, threads, streams=streams)
    with importing(*_SOON):
        session = open_session(bundle, backend, cores.threads, trust_engines=trust_engines)
    announce(session, backend)
    if streams:
        run_on_streams(session, sources, options, as_json=as_json)
        return
    require_outputs(session.bundle, save, features, as_json=as_json)
    asked = _Asked(adapter, top_k, session.bundle.batch or batch, reject, decode, cores.runs)
    files = _Files(save, features, force=force, resume=resume)
    printed = as_json or not files.written
    begun = time.perf_counter()
    with contextlib.ExitStack() as stack:
        found = FoundImages(sources, columns, allow_outside=allow_outside)
        journal = _journal(stack, session, found, asked, files)
        predictions = _answers(stack, session, found, asked, journal, printed=printed)
        delivered = _deliver(predictions, _printer(as_json=as_json) if printed else None)
        if journal is not None:
            _write(session, asked, files, journal)
    seconds = time.perf_counter() - begun
    found.tell()
    if not as_json:
        line = verdict(delivered, seconds, session.backend, files.written)
        tell(line, sys.stderr if printed else sys.stdout)
    require_all(found.faults, delivered, shown_above=printed and not as_json)


class _Asked(NamedTuple):
    """What is asked of each image."""

    adapter: str | None
    top_k: int
    batch: int
    reject: float | None
    decode: str | None
    runs: int


class _Files:
    """What is written."""

    def __init__(
        self, save: Path | None, features: Path | None, *, force: bool, resume: bool
    ) -> None:
        self.save, self.features, self.force, self.resume = save, features, force, resume
        self.written = [path for path in (save, features) if path is not None]

    def require(self) -> None:
        """Refuse early what cannot be written."""
        from vptkit.runtime.bulk.feature_files import require_features_file
        from vptkit.runtime.bulk.prediction_writers import require_predictions_file

        if self.save is not None:
            require_predictions_file(self.save)
        if self.features is not None:
            require_features_file(self.features, force=True)


def _journal(
    stack: contextlib.ExitStack, session: Any, found: Any, asked: _Asked, files: _Files
) -> Any:
    """Where finished images are kept until the outputs are written; None where none is."""
    from vptkit.atomic_files import require_absent
    from vptkit.runtime.bulk.run_journal import opened_journal

    if not files.written:
        return None
    files.require()
    folder = str(Path.cwd())
    run = {"bundle": session.bundle.digest, **found.described(), "folder": folder}
    run |= {"adapter": str(session.bundle.entry(asked.adapter)["name"]), "top_k": asked.top_k}
    run |= {"reject": asked.reject, "batch": asked.batch, "backend": session.backend}
    run |= {"decode": session.bundle.preprocess.reading(asked.decode).decode}
    run |= {"outputs": [str(path) for path in files.written]}
    journal = stack.enter_context(
        opened_journal(
            files.written[0],
            run,
            batch=asked.batch,
            features=files.features is not None,
            resume=files.resume,
            force=files.force,
        )
    )
    for path in files.written:
        require_absent(path, force=files.force or journal.ended)
    if journal.count:
        tell(f"note: {journal.path}: {journal.count:,} images are done, the run goes on there")
    return journal


def _answers(
    stack: contextlib.ExitStack,
    session: Any,
    found: Any,
    asked: _Asked,
    journal: Any,
    *,
    printed: bool,
) -> Iterator[Any]:
    """What an earlier run finished, then the rest, which is kept as it comes."""
    from vptkit.runtime.bulk.seen_paths import SeenPaths
    from vptkit.runtime.session.image_inputs import FoundImages
    from vptkit.runtime.session.prediction import predict

    passed = stack.enter_context(contextlib.closing(SeenPaths()))
    done = 0 if journal is None else journal.count
    if done:
        for prediction in journal.finished():
            passed.add(prediction.source)
            yield prediction
    if journal is not None and journal.ended:
        return
    images, total = found.look(passed)
    given = asked._asdict()
    bar = _bar(stack, total, printed=printed)
    if bar is not None and total is None:
        found.count(bar, done)
    for prediction in predict(session, FoundImages(images), **given):
        if journal is not None:
            journal.add(prediction)
        if bar is not None:
            bar.update()
        yield prediction
    if journal is not None:
        journal.end()


def _printer(*, as_json: bool) -> Any:
    from vptkit.runtime.bulk.prediction_writers import jsonl_writer, text_writer

    return jsonl_writer(sys.stdout) if as_json else text_writer(sys.stdout)


def _deliver(predictions: Iterator[Any], printer: Any) -> Any:
    from vptkit.runtime.bulk.prediction_writers import deliver

    return deliver(predictions, [] if printer is None else [printer])


def _write(session: Any, asked: _Asked, files: _Files, journal: Any) -> None:
    """The outputs, whole, of all that is finished; then the journal goes."""
    from vptkit.runtime.bulk.feature_files import saving_features
    from vptkit.runtime.bulk.prediction_writers import saving

    several, force = session.bundle.task == MULTILABEL, True  # `_journal` looked whether they may
    with contextlib.ExitStack() as stack:
        writers = []
        if files.features is not None:
            width = session.bundle.features or 0
            features = saving_features(files.features, width=width, several=several, force=force)
            writers.append(stack.enter_context(features))
        if files.save is not None:
            rejects, about = asked.reject is not None, _about(session, asked)
            saved = saving(
                files.save,
                top_k=asked.top_k,
                rejects=rejects,
                several=several,
                force=force,
                about=about,
            )
            writers.append(stack.enter_context(saved))
        for prediction in journal.finished():
            for write in writers:
                write(prediction)
    journal.remove()


def _about(session: Any, asked: _Asked) -> dict[str, Any]:
    """What a Parquet file says of the run that wrote it."""
    adapter = str(session.bundle.entry(asked.adapter)["name"])
    return {
        "bundle": session.bundle.digest,
        "adapter": adapter,
        "labels": list(session.bundle.labels_of(adapter)),
        "backend": session.backend,
        "reject": asked.reject,
        "decode": session.bundle.preprocess.reading(asked.decode).decode,
    }


def _bar(stack: contextlib.ExitStack, total: int | None, *, printed: bool) -> Any:
    """A bar where it does not run into the results: they go to a file, or this is one of them."""
    from vptkit.progress import progress

    if (total is not None and total < 2) or (
        printed and (sys.stdout.isatty() or not sys.stderr.isatty())
    ):
        return None
    return stack.enter_context(progress("run", total=total))
