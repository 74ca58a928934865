"""`vptkit.run_streams`: videos and cameras, as by `vptkit run`."""

from __future__ import annotations

import threading
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vptkit.runtime.frame_answers.stream_run import StreamRun
    from vptkit.runtime.session.session_protocol import Session
    from vptkit.runtime.streams.capture import Event

__all__ = ["run_streams"]


def run_streams(
    session: Session,
    sources: str | Sequence[str],
    *,
    adapter: str | None = None,
    all_frames: bool = False,
    every: int = 1,
    fps: float | None = None,
    max_staleness: float = 0.5,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> StreamRun:
    """Answer the frames of videos and cameras, in one stream of batches.

    Of what is live the newest frame is answered and older ones are dropped; of files every one.

        with vptkit.run_streams(session, ["cam1=rtsp://…", "clip.mp4"]) as run:
            for answer in run:
                print(answer.frame.source, answer.prediction.label, answer.age)

    Args:
        session: an open bundle.
        sources: as the command takes them: `clip.mp4`, `rtsp://…`, `0`, `csi://0`, `NAME=SOURCE`.
        adapter: one for all, or "cam1=birds,cam2=cars"; the only one unless given.
        all_frames: drop no frame of live sources either.
        every: of the frames each N-th.
        fps: at most so many frames a second of each source.
        max_staleness: a live frame that is older is dropped, s.
        on_event: told when a source is lost, comes back, ends or fails; from another thread.
        settings: fields of `StreamSettings`, such as smooth=0.5 or on_change=True.

    Returns:
        Answers, to be iterated once, and closed.

    Raises:
        StreamError: a source is no stream.
        BundleError: no such adapter; or the bundle gives no logits.
        VptkitError: a setting that does not exist, or that means nothing.
    """
    from vptkit.runtime.frame_answers.adapter_choice import adapters_of
    from vptkit.runtime.frame_answers.stream_run import StreamRun, StreamSettings
    from vptkit.runtime.streams.capture import Capture
    from vptkit.runtime.streams.capture_policy import CapturePolicy
    from vptkit.runtime.streams.source import open_sources

    known = {field.name for field in fields(StreamSettings)}
    if unknown := sorted(set(settings) - known):
        raise VptkitError(
            f"{unknown[0]}: no such setting, expected one of {', '.join(sorted(known))}"
        )
    session.bundle.require_output("logits")
    opened = open_sources([sources] if isinstance(sources, str) else sources)
    if not opened:
        raise VptkitError("no source: expected at least one video or camera")
    adapters = adapters_of(adapter, [source.name for source in opened], session.bundle)
    chosen = StreamSettings(**settings)
    changed = threading.Condition()
    captures = [
        Capture(
            source,
            changed=changed,
            policy=CapturePolicy(
                keep="newest" if source.live and not all_frames else "all",
                max_staleness=max_staleness,
                every=every,
                fps=fps,
            ),
            on_event=on_event,
        )
        for source in opened
    ]
    return StreamRun(session, captures, changed, adapters, chosen)
