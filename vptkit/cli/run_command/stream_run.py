"""`vptkit run` on videos and cameras: what it prints, writes, and how it ends."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING, Any

from vptkit.cli.shared.option_effect import Rule, require_effect
from vptkit.errors import DataError, MissingError, VptkitError
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.progress import keep_line, progress
from vptkit.shown_text import shown_lines, tell
from vptkit.strict_json import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vptkit.runtime.frame_answers.frame_answer import FrameAnswer
    from vptkit.runtime.frame_answers.stream_run import StreamRun
    from vptkit.runtime.frame_answers.webhook import Webhook

__all__ = ["STREAM_OPTIONS", "any_stream", "run_on_streams", "seconds_of"]

STREAM_OPTIONS = (
    *("all_frames", "annotate", "duration", "every", "fps", "frames", "max_staleness"),
    *("max_wait_ms", "on_change", "smooth", "webhook"),
)
_RULES = (
    Rule(
        STREAM_OPTIONS,
        "a video or a camera as SOURCE (clip.mp4, rtsp://…, /dev/video0)",
        lambda settings: settings["streams"],
    ),
    Rule(
        ("allow_outside", "columns", "features", "reject"),
        "images as SOURCE",
        lambda settings: not settings["streams"],
    ),
    Rule(("max_staleness",), "live sources without --all-frames", lambda s: not s["all_frames"]),
)
_SECONDS = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def any_stream(sources: list[str], settings: Mapping[str, Any]) -> bool:
    """Whether the sources are videos and cameras; refuses options that have no effect on them.

    Args:
        sources: as on the command line.
        settings: the command's options by name, None or False where they were not given.

    Raises:
        VptkitError: such an option; or videos and images side by side.
        StreamError: a source begins like a stream, and isn't one.
    """
    from vptkit.paths.hidden_secrets import redacted
    from vptkit.runtime.streams.source_address import source_address

    others = [text for text in sources if source_address(text) is None]
    streams = len(others) < len(sources)
    if streams and others:
        raise VptkitError(
            f"{redacted(others[0])}: no video and no camera, as others of the sources are. Run images "
            "and videos one after the other."
        )
    given = {name for name, value in settings.items() if value is not None and value is not False}
    require_effect(given, {**settings, "streams": streams}, _RULES)
    return streams


def seconds_of(flag: str, text: str | None) -> float | None:
    """0.5 of "0.5s", "500ms" or "0.5"; minutes and hours, too.

    Raises:
        VptkitError: no such duration, or not above 0.
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(ms|s|min|m|h|)\s*", text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds < 1e9:
        raise VptkitError(f"{flag} {text!r}: expected a duration above 0, as 0.5s, 500ms or 2m")
    return seconds


def run_on_streams(
    session: Any, sources: list[str], settings: Mapping[str, Any], *, as_json: bool
) -> None:
    """Answer frames until the sources end, a bound is reached, or Ctrl-C.

    Args:
        session: an open bundle.
        sources: videos and cameras.
        settings: the command's options by name.
        as_json: answers as JSON lines; the last one holds the counts of the sources.

    Raises:
        DataError: a source failed, or frames are broken; the others were answered.
        VptkitError: an option's value, a source, an output; see `vptkit.run_streams`.
    """
    with contextlib.ExitStack() as stack:
        display: list[Any] = []
        run = stack.enter_context(_open(session, sources, settings, display))
        writers, written, hook = _writers(stack, run, settings, several=_several(session))
        printed = as_json or not written
        if printed:
            writers.append(_printer(as_json=as_json))
        stack.callback(_tell_reports, run, hook, as_json=as_json)  # below the bar's last line
        if not printed or (not sys.stdout.isatty() and sys.stderr.isatty()):
            display.append(stack.enter_context(progress("run")))
            writers.append(lambda answer: display[0].update(1, _status(answer)))
        for answer in stack.enter_context(contextlib.closing(iter(run))):
            for write in writers:
                write(answer)
    _require_all(run)


def _open(
    session: Any, sources: list[str], settings: Mapping[str, Any], display: list[Any]
) -> StreamRun:
    from vptkit.api.streaming import run_streams

    def tell_event(event: Any) -> None:
        if event.kind == "ended":
            return
        line = f"{'note' if event.kind == 'back' else 'warning'}: {event.text}"
        if display:
            keep_line(display[0], line)
        else:
            tell(line)

    wait, staleness = (
        settings["max_wait_ms"],
        seconds_of("--max-staleness", settings["max_staleness"]),
    )
    return run_streams(
        session,
        sources,
        adapter=settings["adapter"],
        all_frames=settings["all_frames"],
        every=settings["every"] or 1,
        fps=settings["fps"],
        max_staleness=staleness or 0.5,
        on_event=tell_event,
        batch=settings["batch"],
        max_wait=0.005 if wait is None else wait / 1000,
        top_k=settings["top_k"],
        smooth=seconds_of("--smooth", settings["smooth"]),
        on_change=settings["on_change"],
        duration=seconds_of("--duration", settings["duration"]),
        frames=settings["frames"],
    )


def _several(session: Any) -> bool:
    return bool(session.bundle.task == MULTILABEL)


def _writers(
    stack: contextlib.ExitStack, run: StreamRun, settings: Mapping[str, Any], *, several: bool
) -> tuple[list[Callable[[FrameAnswer], None]], list[Path], Webhook | None]:
    """Whoever is told of each answer, the files among them, and the webhook."""
    from vptkit.runtime.frame_answers.annotated_video import annotated_videos
    from vptkit.runtime.frame_answers.answer_files import growing_file
    from vptkit.runtime.frame_answers.webhook import Webhook

    writers: list[Callable[[FrameAnswer], None]] = []
    save, annotate, force = settings["save"], settings["annotate"], settings["force"]
    if save is not None:
        writers.append(stack.enter_context(growing_file(save, several=several, force=force)))
    if annotate is not None:
        names = [report.name for report in run.reports()]
        writers.append(stack.enter_context(annotated_videos(annotate, names, force=force)))
    hook = None
    if settings["webhook"] is not None:
        hook = Webhook(settings["webhook"])
        stack.callback(hook.close)
        writers.append(hook)
    return writers, [path for path in (save, annotate) if path is not None], hook


def _printer(*, as_json: bool) -> Callable[[FrameAnswer], None]:
    from vptkit.runtime.frame_answers.answer_files import json_lines, text_lines

    return json_lines(sys.stdout) if as_json else text_lines(sys.stdout)


def _status(answer: FrameAnswer) -> str:
    """As "cam1 robin 0.93  24 ms old"."""
    prediction = answer.prediction
    label = f" {prediction.label} {prediction.score:.2f}" if prediction.label else ""
    return f"{answer.frame.source}{label}  {1000 * answer.age:.0f} ms old"


def _tell_reports(run: StreamRun, hook: Webhook | None, *, as_json: bool) -> None:
    """The counts of each source: a table on standard error, or one JSON object."""
    from vptkit.runtime.frame_answers.source_report import report_text
    from vptkit.shown_text import terminal_width

    reports = run.reports()
    if hook is not None:
        hook.close()
    posted = {} if hook is None else {n: getattr(hook, n) for n in ("sent", "failed", "dropped")}
    if as_json:
        document = {"sources": [report.to_json() for report in reports]}
        print(json_text(document | ({"webhook": posted} if posted else {})), flush=True)
        return
    width = terminal_width() if sys.stderr.isatty() else None
    sys.stderr.write(shown_lines(report_text(reports, width)) + "\n")
    if posted:
        tell("webhook: " + ", ".join(f"{count} {name}" for name, count in posted.items()))


def _require_all(run: StreamRun) -> None:
    """Fail at the end if a source failed or a frame is broken; the answers are out by now."""
    reports, failures = run.reports(), run.failures()
    defects = [error for error in failures if not isinstance(error, VptkitError)]
    if defects or len(failures) == len(reports) == 1:
        raise (defects or failures)[0]
    faults = []
    if failures:
        faults.append(f"{len(failures)} of {len(reports)} sources failed; the first: {failures[0]}")
    if broken := sum(report.broken for report in reports):
        faults.append(f"{broken} of {sum(report.served for report in reports)} frames failed")
    if faults and len(failures) == len(reports) and isinstance(failures[0], MissingError):
        raise failures[0]  # a package that none of them can do without
    if faults:
        raise DataError("; ".join(faults))
