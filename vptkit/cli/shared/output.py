"""What commands print, and how they name an extra that is missing."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from vptkit.errors import MissingExtraError
from vptkit.shown_text import fitted, shown_lines, tell
from vptkit.strict_json import json_text

__all__ = ["announce", "emit", "needs_extra", "require_onnx", "require_tune"]


def announce(session: Any, asked: str | None) -> None:
    """Say which backend was taken, and why, unless the command line names it."""
    if asked in (None, "auto"):
        tell(f"backend {session.backend}: {session.choice}")


def require_tune(purpose: str) -> None:
    """Name the extra if torch or timm is missing; called before torch is first imported."""
    # Read once, when torch starts its threads: waiting threads shall sleep. By default they spin,
    # which on a busy machine of few cores made a training step up to ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _saying("loading torch and timm", unless="torch" in sys.modules):
            for package in ("torch", "torchvision", "timm"):
                importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "tune", purpose) from error


@contextlib.contextmanager
def _saying(what: str, *, unless: bool) -> Iterator[None]:
    """A sign of life while the block runs, which a terminal forgets; a file gets none."""
    said = not unless and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if said:
        sys.stderr.write(f"{what} …")
        sys.stderr.flush()
    try:
        yield
    finally:
        if said:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


@contextlib.contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Name the extra that a failing import needs."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "vptkit").partition(".")[0]
        if package == "vptkit":
            raise
        raise MissingExtraError(package, extra, purpose) from error


def emit(
    document: dict[str, Any], as_json: bool, *, text: str | None = None, verbose: bool = False
) -> None:
    """Print a result: one JSON document, or text (name-value lines unless given).

    Args:
        document: the result.
        as_json: print it as it is.
        text: for people.
        verbose: name-value lines behind the text.

    In a text that is given, lines are what they seem: newlines of names were shown when it was made
    (`vptkit.shown_text.shown`, `vptkit.text_table`). All else is shown here.
    """
    from vptkit.text_table import fields

    if as_json:
        print(json_text(document), flush=True)
    else:
        limit = 100 if sys.stdout.isatty() else None  # a file or a pipe gets all of it
        every = [fields(document, limit=limit)] if text is None or verbose else []
        parts = [*([] if text is None else [text]), *every]
        print(fitted(shown_lines("\n\n".join(parts)), sys.stdout), flush=True)


def require_onnx(purpose: str) -> Any:
    """The module `onnx`.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    with needs_extra("export", purpose):
        import onnx
    return onnx
