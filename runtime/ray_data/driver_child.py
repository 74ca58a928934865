"""Starts the process that talks with Ray (`driver_process`), tells how far it is, and ends it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING, Any

from vptkit import errors
from vptkit.errors import MissingError, VptkitError
from vptkit.python_child import PIPE, python_command, start_python
from vptkit.runtime.bulk.parquet_file import pyarrow_and_parquet

from .driver_process import request_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vptkit.progress import Progress

    from .batch_worker import WorkOrder
    from .parts_folder import PartsFolder

__all__ = ["answer_batches"]

_COMMAND = python_command("vptkit.runtime.ray_data.driver_process")
_LOOK_S = 0.5  # seconds between two looks at how far the work is


def answer_batches(
    order: WorkOrder,
    parts: PartsFolder,
    *,
    progress: Progress,
    command: Sequence[str] = _COMMAND,
    **asked: Any,
) -> None:
    """Answer the batches that are not answered yet; whatever happens, the process is gone afterwards.

    Args:
        order: what the nodes are told.
        parts: their images, and where the answers go.
        progress: is told of finished images, those of earlier runs among them.
        command: the process.
        asked: address, threads and actors of `vptkit.runtime.ray_data.dataset_run.run_dataset`.

    Raises:
        VptkitError: what that raises.
        MissingError: Ray ended the process; what was noted by then is kept.
        RuntimeError: a defect, with the process's traceback.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as answer,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as told,
    ):
        # A session of its own: a Ctrl-C of the terminal is for us, who end it.
        streams: dict[str, Any] = {"stdin": PIPE, "stdout": answer, "stderr": told}
        child = start_python(command, **streams, text=True, start_new_session=True)
        line = child.stdin
        assert line is not None  # noqa: S101 -- for mypy: it is a pipe
        try:
            with contextlib.suppress(BrokenPipeError):
                line.write(request_of(order, **asked))
                line.flush()  # and stays open: it ends when nobody waits any more
            _watch(child, parts, order.batch, progress)
        finally:
            child.kill()
            child.wait()
            with contextlib.suppress(BrokenPipeError):
                line.close()
        _require_done(child.returncode, _text(answer), _text(told), parts)


def _text(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read()


def _require_done(status: int, answer: str, told: str, parts: PartsFolder) -> None:
    """Raise what the process said, or what is to be said of its end."""
    line = answer.rstrip("\n").rpartition("\n")[2]
    if line.startswith("{"):
        said = json.loads(line)
        if "error" in said:
            kind: type[VptkitError] = getattr(errors, said["error"])
            raise kind(said["text"])
        return
    if status == 1 and "Traceback" in told:
        raise RuntimeError(told[told.rindex("Traceback") :].strip())
    last = (told.strip().splitlines() or ["it said nothing"])[-1][:300]
    raise MissingError(
        f"Ray ended with status {status}: {last}. What is done is kept in {parts.path}: the same "
        "command goes on there."
    )


def _watch(
    child: subprocess.Popen[str], parts: PartsFolder, batch: int, progress: Progress
) -> None:
    """Tell of what Ray has noted, until the process ends."""
    known: dict[str, int] = {}
    told, over = 0, False
    while not over:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_S)
            over = True
        with contextlib.suppress(OSError, ValueError):  # a note that is being written
            for file in parts.checkpoint.glob("*.parquet"):
                if file.name not in known and ".pending." not in file.name:
                    known[file.name] = _rows(file)
        done = min(sum(known.values()) * batch, parts.images)
        if done > told:
            progress.update(done - told)
            told = done


def _rows(file: Path) -> int:
    _, parquet = pyarrow_and_parquet()
    return int(parquet.read_metadata(file).num_rows)
