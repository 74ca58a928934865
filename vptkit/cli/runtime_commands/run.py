"""`vptkit run`: classify images.

No future import of annotations here: typer reads them at run time.
"""

import contextlib
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.shared.options import Backend, BundleArgument, Force, Threads, TrustEngines
from vptkit.cli.shared.output import announce
from vptkit.errors import BundleError, DataError
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.shown_text import shown, tell

__all__ = ["run"]


def run(
    bundle: BundleArgument,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Images, folders, globs; - reads names, one a line. Or videos and cameras: "
            "clip.mp4, rtsp://…, /dev/video0, csi://0, gst:PIPELINE; NAME=SOURCE names one.",
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
        typer.Option("-o", "--save", "--output", help="Write to this .jsonl or .csv file."),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Write what the head reads to this .npy or .parquet file."),
    ] = None,
    reject: Annotated[
        float | None,
        typer.Option(help="Say 'none of these', at most of this share of images like val's."),
    ] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Classify images and videos, or write features; a broken one is reported, the others go on."""
    options = dict(locals())
    from vptkit.runtime.session.factory import open_session
    from vptkit.runtime.session.feature_files import saving_features
    from vptkit.runtime.session.prediction import predict
    from vptkit.runtime.session.prediction_writers import deliver, jsonl_writer, saving, text_writer

    from .stream_run import any_stream, run_on_streams

    streams = any_stream(sources, options)
    session = open_session(bundle, backend, threads, trust_engines=trust_engines)
    announce(session, backend)
    if streams:
        run_on_streams(session, sources, options, as_json=as_json)
        return
    _require_outputs(session.bundle, save, features, as_json=as_json)
    several = session.bundle.task == MULTILABEL
    written = [path for path in (save, features) if path is not None]
    printed = as_json or not written
    with contextlib.ExitStack() as stack:
        writers = []
        if features is not None:
            width = session.bundle.features or 0
            writers.append(
                stack.enter_context(
                    saving_features(features, width=width, several=several, force=force)
                )
            )
        if save is not None:
            writers.append(
                stack.enter_context(
                    saving(
                        save,
                        top_k=top_k,
                        rejects=reject is not None,
                        several=several,
                        force=force,
                    )
                )
            )
        if printed:
            writers.append(jsonl_writer(sys.stdout) if as_json else text_writer(sys.stdout))
        found = _look_up(sources)
        predictions = predict(
            session, found.images, adapter=adapter, top_k=top_k, batch=batch, reject=reject
        )
        if (bar := _bar(stack, len(found.images), printed=printed)) is not None:
            writers.append(lambda _: bar.update())
        begun = time.perf_counter()
        broken, count = deliver(predictions, writers)
        seconds = time.perf_counter() - begun
    if not as_json:
        verdict = _verdict(count, len(broken), seconds, session.backend, written)
        tell(verdict, sys.stderr if printed else sys.stdout)
    _require_all(found.missing, broken, count, shown_above=printed and not as_json)


def _require_outputs(
    bundle: Any, save: Path | None, features: Path | None, *, as_json: bool
) -> None:
    """Refuse what a bundle does not give, before an image is read."""
    if features is not None:
        bundle.require_output("features")
    if features is None and "logits" not in bundle.outputs:
        raise BundleError(
            f"{bundle.path}: gives features and no logits, so no labels: --features FILE.npy (or "
            ".parquet) writes them. Export with --output both for labels, too."
        )
    if save is not None or as_json:
        bundle.require_output("logits")


def _look_up(sources: list[str]) -> Any:
    """The images, with a line on standard error for what gave none."""
    from vptkit.datasets.dataset_summary import skipped_text
    from vptkit.runtime.session.named_sources import name_images

    found = name_images(sources, getattr(sys.stdin, "buffer", None))
    for fault in (*found.missing, *found.empty):
        tell(f"warning: {fault}; the others are done")
    if found.skipped:
        phones = sum(found.skipped[kind] for kind in (".heic", ".heif"))
        hint = "; HEIC is not read, convert it to JPEG first" if phones else ""
        tell(f"note: {skipped_text(found.skipped)}{hint}")
    return found


def _bar(stack: contextlib.ExitStack, total: int, *, printed: bool) -> Any:
    """A bar where it does not run into the results: they go to a file, or this is one of them."""
    from vptkit.progress import progress

    if total < 2 or (printed and (sys.stdout.isatty() or not sys.stderr.isatty())):
        return None
    return stack.enter_context(progress("run", total=total))


def _verdict(count: int, broken: int, seconds: float, backend: str, written: list[Path]) -> str:
    """As "750 images in 2.3 s (3.1 ms each, cpu), 0 broken → p.csv"."""
    images = f"{count:,} image{'s' if count != 1 else ''}"
    each = f"{_short(1000 * seconds / max(count, 1))} ms each, {backend}"
    place = f" → {', '.join(map(shown, written))}" if written else ""
    return f"{images} in {_short(seconds)} s ({each}), {broken} broken{place}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _require_all(missing: list[str], broken: list[Any], count: int, *, shown_above: bool) -> None:
    """Fail at the end if a source was missing or an image broken; the results are out by now."""
    faults = []
    if broken:
        first = broken[0].path if shown_above else broken[0].error
        faults.append(f"{len(broken)} of {count} images failed; the first: {first}")
    if missing:
        faults.append(f"{len(missing)} of the sources is missing: {missing[0]}")
    if faults:
        raise DataError("; ".join(faults))
