"""Talks with the process that builds engines (`build_worker`), however that ends."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vptkit.python_child import PIPE, python_command, start_python

from .engine_layers import last_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO

    Event = dict[str, Any]

__all__ = ["COMMAND", "Outcome", "converse"]

COMMAND = python_command("vptkit.runtime.engine_build.build_worker")
_BEAT_S = 5.0  # between signs of life
_PATIENCE_S = 10.0  # for a process that was told to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a request.

    Attributes:
        result: the child's answer, or None if there was none.
        missing: what the child misses (a library, a GPU), or None.
        log: the library's messages, one "SEVERITY: text" each.
        ended: without an answer: "crash", "start" or "timeout", and a sentence; or None.
    """

    result: dict[str, Any] | None = None
    missing: str | None = None
    log: str = ""
    ended: tuple[str, str] | None = None


def converse(
    request: dict[str, Any],
    *,
    listen: Callable[[Event], None] | None = None,
    command: Sequence[str] = COMMAND,
    timeout_s: float | None = None,
    beat_s: float = _BEAT_S,
) -> Outcome:
    """Have a request done; the child is gone when this returns or raises.

    Args:
        request: see `build_worker`.
        listen: told of each event, and every `beat_s` of {"event": "beat", "seconds": since the
            start}. What it raises ends the child.
        command: the child.
        timeout_s: end the child after this time.
        beat_s: seconds between beats.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        child = start_python(
            command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        log: list[str] = []
        answers: dict[str, Event] = {}
        try:
            for event in _events(child, request, timeout_s, beat_s):
                if event["event"] == "log":
                    log.append(f"{event['severity']}: {event['text']}")
                elif event["event"] in ("result", "missing"):
                    answers[event["event"]] = event
                if listen is not None:
                    listen(event)
            timely = answers or child.poll() is not None
            code = _end(child, kill=not timely)
        except BaseException:
            _end(child, kill=True)
            raise
        errors.seek(0)
        printed = errors.read()
    text = "\n".join(log)
    if answers:
        missing = answers.get("missing", {}).get("message")
        return Outcome(result=answers.get("result"), missing=missing, log=text)
    ended = (
        _ended(code, text, printed) if timely else ("timeout", f"no answer after {timeout_s:g} s")
    )
    return Outcome(log=text, ended=ended)


def _events(
    child: subprocess.Popen[str],
    request: dict[str, Any],
    timeout_s: float | None,
    beat_s: float,
) -> Iterator[Event]:
    """What the child says, until it ends, has answered, or the time is up."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
    if child.stdin is not None:
        # its input stays open: a child whose parent is gone sees it close, and ends
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
    start = time.monotonic()
    due = start + beat_s
    while True:
        now = time.monotonic()
        if timeout_s is not None and now - start >= timeout_s:
            return
        if now >= due:
            due = now + beat_s
            yield {"event": "beat", "seconds": now - start}
        until = due if timeout_s is None else min(due, start + timeout_s)
        try:
            line = lines.get(timeout=max(until - now, 0))
        except queue.Empty:
            continue
        if line is None:
            child.wait()
            return
        event = json.loads(line)
        yield event
        if event["event"] in ("result", "missing"):
            return


def _read(stream: IO[str] | None, lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream or ():
        if line.endswith("\n"):  # else the child ended in the middle of it
            lines.put(line)
    lines.put(None)


def _end(child: subprocess.Popen[str], *, kill: bool) -> int:
    """Wait for the child, or end it; returns its exit status."""
    if kill:
        child.kill()
    with contextlib.suppress(BrokenPipeError):
        if child.stdin is not None:
            child.stdin.close()
    try:
        code = child.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    if child.stdout is not None:
        child.stdout.close()
    return code


def _ended(code: int, log: str, printed: str) -> tuple[str, str]:
    """The child gave no answer: what its exit status and its log tell."""
    if code >= 0:
        lines = printed.strip().splitlines() or ["no message"]
        return "start", f"exit status {code}: {lines[-1]}"
    message = f"the library ended with {signal.Signals(-code).name}"
    node = last_node(log)
    if node is not None:
        message += f"; the last node that it parsed is {node[0]} [{node[1]}]"
    return "crash", message
