"""The page of a run, or its pictures as files; those of an adapter that it replaces go."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import vptkit
from vptkit.atomic_files import atomic_file
from vptkit.errors import MissingExtraError
from vptkit.pages.html_page import filled_page, require_jinja
from vptkit.pages.page_file import write_page
from vptkit.pages.page_parts import section_document
from vptkit.plot_text import plain_pictures, require_matplotlib
from vptkit.tune.training.run_files import SUFFIXES

from .chosen_facts import chosen_facts, headline, score_rows
from .hardest_images import cards
from .run_sections import run_sections

if TYPE_CHECKING:
    from vptkit.tune.training.run_files import RunFiles

    from .trained_run import TrainedRun

__all__ = ["MARK", "Pictures", "page_text", "require_drawing", "write_pictures"]

_TEMPLATES = Path(__file__).parent / "templates"
MARK = b'<meta name="description" content="a training of vptkit">'  # stands in the template


class Pictures(NamedTuple):
    """What was written: the page, or pictures; and why there is none, a sentence."""

    page: Path | None = None
    plots: tuple[Path, ...] = ()
    missing: str | None = None


def require_drawing(kind: str) -> None:
    """Find out before the training whether pictures that were asked for as files can be drawn.

    Args:
        kind: of `write_pictures`.

    Raises:
        MissingExtraError: matplotlib is not installed. The page, which nobody asked for, may be
            left out.
    """
    if kind in SUFFIXES:
        require_matplotlib("plot", f"--pictures {kind}")


def write_pictures(run: TrainedRun, files: RunFiles, kind: str) -> Pictures:
    """Write them beside the adapter. Nothing that goes wrong here costs the run.

    Args:
        run: what is shown.
        files: of the run.
        kind: "page" for NAME.html; "png", "svg" or "pdf" for a file a picture; "none".
    """
    written = _written(run, files, kind)
    kept = {written.page, *written.plots}
    page = [files.page] if _is_ours(files.page) else []
    for old in (*page, *files.pictures()):
        if old not in kept:
            with contextlib.suppress(OSError):  # a folder of that name, say
                old.unlink()  # of an adapter that this one replaces
    return written


def _written(run: TrainedRun, files: RunFiles, kind: str) -> Pictures:
    if kind == "none":
        return Pictures()
    try:
        if kind == "page":
            if files.page.exists() and not _is_ours(files.page):
                told = (
                    "a file of this name is there that is no page of a training: it stays as it is"
                )
                return Pictures(missing=f"{files.page}: {told}")
            write_page(page_text(run), files.page)
            return Pictures(files.page)
        return Pictures(plots=_as_files(run, files, kind))
    except MissingExtraError as error:
        return Pictures(missing=str(error))
    except Exception as error:  # the adapter is worth more than its pictures
        told = str(error) or type(error).__name__
        return Pictures(missing=f"the pictures of the training were not written: {told}")


def _is_ours(page: Path) -> bool:
    """Whether a page of a training stands there, which may be replaced or removed."""
    if not page.is_file():
        return False
    with page.open("rb") as file:
        return MARK in file.read(1024)


def page_text(run: TrainedRun) -> str:
    """The page: HTML that stands alone, the same for the same run.

    Raises:
        MissingExtraError: Jinja or matplotlib is not installed.
    """
    purpose = "the page of the training"
    require_jinja(purpose)
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "report", purpose)
    return filled_page(_TEMPLATES, "training.html.jinja", _document(run))


def _document(run: TrainedRun) -> dict[str, Any]:
    return {
        "title": run.name,
        "version": vptkit.__version__,
        "headline": headline(run),
        "scores": score_rows(run),
        "facts": chosen_facts(run),
        "warnings": list(run.record.get("warnings") or ()),
        "several": run.several,
        "judge": run.judge,
        "judges": run.judges,
        "sections": [section_document(one, run.name) for one in run_sections(run)],
        "hardest": cards(run.hardest),
    }


@plain_pictures()
def _as_files(run: TrainedRun, files: RunFiles, suffix: str) -> tuple[Path, ...]:
    paths = []
    for section in run_sections(run):
        for picture in section.pictures:
            path = files.beside(f"{picture.name}.{suffix}")
            with atomic_file(path) as part:
                picture.figure.savefig(part, format=suffix)
            paths.append(path)
    return tuple(paths)
