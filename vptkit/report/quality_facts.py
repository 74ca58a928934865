"""How good a bundle is on labelled images: what the page says of it, as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import DataError
from vptkit.progress import SILENT

from .quality_plots import calibration_figure, class_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vptkit.progress import Progress
    from vptkit.runtime.evaluation.evaluation_result import Evaluation, Mistake
    from vptkit.runtime.evaluation.multilabel_result import MultilabelEvaluation
    from vptkit.runtime.session.session_protocol import Session

    from .report_settings import ReportSettings

__all__ = ["noted_scores", "quality_facts"]

_PAIRS = 10  # of classes that are confused
_ROWS = 500  # of a table, so that a page of ImageNet-21k stays small; the worst come first
_OOD = "ood"  # the split of the same classes, from elsewhere


def noted_scores(train: dict[str, Any]) -> list[list[str]]:
    """Rows split, accuracy: what the adapter noted when it was made; a stranger may have written it.

    Args:
        train: of `vptkit.cli.texts.inspect_text.made_of`.
    """
    from vptkit.scores.score_interval import percent

    names = {"val_top1": "val", "test_top1": "test (ID)", "ood_top1": "ood (OOD)"}
    found = [(name, train.get(key)) for key, name in names.items()]
    return [
        [name, percent(share)]
        for name, share in found
        if isinstance(share, (int, float)) and 0 <= share <= 1
    ]


def quality_facts(
    session: Session, data: Path, settings: ReportSettings, *, progress: Progress = SILENT
) -> dict[str, Any]:
    """Judge a bundle, and gather what is shown.

    Args:
        session: an open one.
        data: labelled images.
        settings: which split, and how it is read.
        progress: told about each portion.

    Returns:
        "several"; "split", "headline", "scores", "notes"; "table" and "pairs", heading and rows;
        "confusion", "classes", "calibration": pictures as SVG; "confusion_width", "confusion_of" of
        `vptkit.runtime.evaluation.confusion_plot.confusion_in_page`; "mistakes" with thumbnails;
        "splits", rows of split and accuracy; "top1" with its interval, None of several labels.

    Raises:
        DataError, BundleError, GateError: as `vptkit.runtime.evaluation.accuracy.evaluate`.
    """
    from vptkit.runtime.evaluation.multilabel_result import MultilabelEvaluation

    result = _judged(session, data, settings, settings.split, progress)
    if isinstance(result, MultilabelEvaluation):
        return _of_several(result)
    from vptkit.plot_text import inline_svg
    from vptkit.runtime.evaluation.confusion_plot import confusion_in_page
    from vptkit.runtime.evaluation.evaluation_text import (
        class_rows,
        pair_rows,
        score_lines,
        verdict,
    )

    head, rows = class_rows(result)
    name = settings.adapter or session.bundle.name
    confusion, least, drawn = confusion_in_page(result)
    return {
        "several": False,
        "split": result.split,
        "headline": verdict(result),
        "scores": score_lines(result)[:-1],
        "notes": result.notes,
        "table": _table(head, rows),
        "pairs": pair_rows(result, _PAIRS),
        "confusion": inline_svg(confusion, f"confusion matrix of {name}"),
        "confusion_width": least,
        "confusion_of": drawn,
        "classes": inline_svg(class_figure(result), f"accuracy by class of {name}"),
        "calibration": inline_svg(calibration_figure(result), f"calibration of {name}"),
        "splits": _splits(session, data, settings, result, progress),
        "top1": [result.top1, *_interval(result)],
        **_mistakes(session, data, settings, result),
    }


def _judged(
    session: Session, data: Path, settings: ReportSettings, split: str | None, progress: Progress
) -> Evaluation | MultilabelEvaluation:
    from vptkit.runtime.evaluation.accuracy import evaluate

    return evaluate(
        session,
        data,
        adapter=settings.adapter,
        split=split,
        allow_outside=settings.allow_outside,
        skip_broken=settings.skip_broken,
        columns=settings.columns,
        decode=settings.decode,
        batch=settings.batch,
        progress=progress,
    )


def _interval(result: Evaluation) -> tuple[float, float]:
    from vptkit.scores.score_interval import wilson

    return wilson(result.right, result.count)


def _splits(
    session: Session, data: Path, settings: ReportSettings, result: Evaluation, progress: Progress
) -> list[list[str]]:
    """Rows split, accuracy: what was judged, and the split `ood` where the data has one."""
    from vptkit.scores.score_interval import share_text

    rows = [[result.split or "all images", share_text(result.right, result.count)]]
    if result.split in (None, _OOD):
        return rows
    try:
        other = _judged(session, data, settings, _OOD, progress)
    except DataError:  # there is none, or it has other classes
        return rows
    rows[0][0] += " (ID)"
    return [*rows, [f"{_OOD} (OOD)", share_text(getattr(other, "right", 0), other.count)]]


def _mistakes(
    session: Session, data: Path, settings: ReportSettings, result: Evaluation
) -> dict[str, Any]:
    """The most confident ones as thumbnails, each with the nearest training image where that is known."""
    from vptkit.datasets.dataset_bounds import inside_of
    from vptkit.images.thumbnails import thumbnail
    from vptkit.runtime.evaluation.evaluation_text import short_name, within
    from vptkit.scores.score_interval import percent

    chosen = result.mistakes[: settings.mistakes]
    beside, compared, why = _nearest(session, data, settings, chosen)
    inside = inside_of(data, allow_outside=settings.allow_outside)
    shown = [
        {
            "image": thumbnail(mistake.image, inside=inside),
            "name": within(mistake.image, result.data),
            "truth": short_name(mistake.truth),
            "answered": short_name(mistake.answered),
            "probability": percent(mistake.probability),
            "nearest": None
            if near is None
            else {
                "image": thumbnail(near.image, inside=inside),
                "label": short_name(near.label),
                "name": within(near.image, data),
                "cosine": f"{near.cosine:.3f}",
            },
        }
        for mistake, near in zip(chosen, beside, strict=True)
    ]
    return {
        "mistakes": shown,
        "mistakes_in_all": len(result.mistakes),
        "compared": compared,
        "no_nearest": why,
    }


def _nearest(
    session: Session, data: Path, settings: ReportSettings, chosen: Sequence[Mistake]
) -> tuple[Sequence[Any], int, str | None]:
    """The nearest training images, how many were compared, and why there are none."""
    from vptkit.formats.manifest_schema import FEATURES

    from .nearest_images import nearest_training_images

    if FEATURES not in session.bundle.outputs:
        return [None] * len(chosen), 0, "the bundle gives no features (export --output both)"
    try:
        found, compared = nearest_training_images(
            session,
            [mistake.image for mistake in chosen],
            data,
            adapter=settings.adapter,
            decode=settings.decode,
        )
    except DataError:
        return [None] * len(chosen), 0, "the data has no training images"
    return found, compared, None


def _of_several(result: MultilabelEvaluation) -> dict[str, Any]:
    """Of several labels an image: a row a label and the figures."""
    from vptkit.runtime.evaluation.multilabel_text import label_rows, multilabel_scores

    head, rows = label_rows(result)
    *scores, headline = multilabel_scores(result)
    return {
        "several": True,
        "split": result.split,
        "headline": headline,
        "scores": scores,
        "notes": result.notes,
        "table": _table(head, rows),
        "top1": None,
    }


def _table(head: list[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"head": head, "rows": rows[:_ROWS], "left_out": max(0, len(rows) - _ROWS)}
