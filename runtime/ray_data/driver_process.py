"""The process that talks with Ray, as a program: one JSON request from standard input, one answer.

A process of its own, because Ray may end it: an interrupt while tasks are under way can crash its
C++, and so it is killed rather than asked. It ends when its input is closed, as whoever waits for it
is gone then.

The request: {"order": fields of `batch_worker.WorkOrder`, "address", "threads", "actors"}. The answer,
a line: {"done": true}, or {"error": a class of `vptkit.errors`, "text"}.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from pathlib import Path
from typing import IO, Any

from vptkit.errors import MissingError, MissingExtraError, VptkitError

from .batch_worker import WorkOrder

__all__ = ["main", "order_of", "request_of"]

_PATHS = ("bundle", "parts", "folder")


def request_of(order: WorkOrder, **asked: Any) -> str:
    """The request as a line."""
    fields = {f.name: getattr(order, f.name) for f in dataclasses.fields(order)}
    fields |= {name: str(fields[name]) for name in _PATHS}
    return json.dumps({"order": fields, **asked}) + "\n"


def order_of(fields: dict[str, Any]) -> WorkOrder:
    """The order of a request."""
    return WorkOrder(**fields | {name: Path(fields[name]) for name in _PATHS})


def main() -> None:
    """Answer a request."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    answer: dict[str, Any] = {"done": True}
    try:
        from .dataset_run import run_dataset

        run_dataset(order_of(request.pop("order")), **request)
    except VptkitError as error:
        kind = MissingError if isinstance(error, MissingExtraError) else type(error)
        answer = {"error": kind.__name__, "text": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _end_with(stream: IO[str]) -> None:
    stream.read()
    os._exit(1)


if __name__ == "__main__":
    main()
