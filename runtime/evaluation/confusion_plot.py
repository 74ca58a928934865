"""Which classes are taken for which, as a picture: rows are the true classes, columns the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vptkit.plot_text import (
    FAINT,
    GREY,
    INK,
    LINE,
    PAGE,
    hover,
    in_plot,
    new_figure,
    plain_pictures,
    write_figure,
)

from .evaluation_text import short_name, verdict

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from .evaluation_result import Evaluation

__all__ = ["confusion_figure", "confusion_in_page", "plot_confusion"]

_RIGHT, _WRONG = (0x2A, 0x6F, 0x97), (0xC8, 0x55, 0x1B)
_MOST = 100  # classes
_NUMBERED = 40  # classes: up to so many, cells have numbers
_FITTING = 12  # classes: up to so many, a page shows them as wide as a telephone is
_EXPLAINED = 400  # cells with a text of their own: each takes a quarter of a kB of a page
_LONGEST, _SHORT = 28, 14  # characters of a class name


def plot_confusion(result: Evaluation, path: Path, name: str = "") -> None:
    """Draw the confusion matrix and write it atomically; an existing file is replaced.

    Blue is right, orange is wrong, the deeper the larger the share of the row. Classes without images
    that nothing was taken for are left out. Of more than 100 classes those with the most mistakes are
    drawn.

    Args:
        result: of `vptkit.runtime.evaluation.accuracy.evaluate`.
        path: of the picture, .png, .svg or .pdf.
        name: of the bundle, for the title.

    Raises:
        OutputError: another suffix, or the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    write_figure(confusion_figure(result, name), path)


@plain_pictures()
def confusion_in_page(result: Evaluation) -> tuple[Figure, int | None, str]:
    """The same for `vptkit.plot_text.inline_svg`: cells say what they are, the page says the rest.

    Up to 12 classes fit into a telephone. More are drawn at a size at which their names are read; of more than 40
    only the mistakes say what they are.

    Args:
        result: of `plot_confusion`.

    Returns:
        The picture; below how many pixels its letters are too small, None where it always fits; and
        which classes are drawn, "" if all are.
    """
    drawn, left_out, counts, of_class = _counted(result.confusion)
    fits = len(drawn) <= _FITTING
    cell = (PAGE - 1.3) / max(len(drawn), 3) if fits else 0.3 if len(drawn) <= _NUMBERED else 0.17
    width = PAGE if fits else cell * len(drawn) + 2.2
    figure = new_figure(width, width)
    axes = figure.subplots()
    longest = _SHORT if fits else _LONGEST
    _draw(axes, counts, of_class, [short_name(result.labels[i], longest) for i in drawn], cell)
    shown = counts if len(drawn) <= _NUMBERED else counts - np.diag(np.diagonal(counts))
    _explain_cells(axes, shown, of_class, [short_name(result.labels[i]) for i in drawn])
    told = f"The {len(drawn)} of {len(result.labels)} classes with the most mistakes." * left_out
    return figure, None if fits else round(72 * width), told


@plain_pictures()
def confusion_figure(result: Evaluation, name: str = "") -> Figure:
    """The picture of `plot_confusion`."""
    drawn, left_out, counts, of_class = _counted(result.confusion)
    cell = _inches(len(drawn))
    side = cell * len(drawn)
    figure = new_figure(max(side + 3.4, 6.2), max(side + 2.9, 4.2))
    axes = figure.subplots()
    size = _draw(
        axes, counts, of_class, [short_name(result.labels[i], _LONGEST) for i in drawn], cell
    )
    _tell_accuracies(axes, np.diagonal(counts), of_class, size)
    title = f"{in_plot(name, 60)}\n{in_plot(verdict(result))}" if name else in_plot(verdict(result))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    figure.supxlabel(
        "Blue: right. Orange: wrong. The deeper, the larger the share of the row's images."
        + (
            f"\nThe {len(drawn)} of {len(result.labels)} classes with the most mistakes." * left_out
        ),
        x=0.01,
        ha="left",
        fontsize=8,
        color=FAINT,
    )
    return figure


def _draw(
    axes: Axes,
    counts: NDArray[np.intp],
    of_class: NDArray[np.intp],
    names: list[str],
    cell: float,
) -> float:
    """The matrix with the names of its rows and columns, and with numbers where there is room.

    Args:
        axes: where.
        counts: [C, C].
        of_class: [C], images of each class.
        names: of the classes.
        cell: inches, the side of a cell.

    Returns:
        The size of the letters in points.
    """
    axes.imshow(_colours(counts, of_class), aspect="equal", interpolation="none")
    size = min(10.0, 72 * 0.72 * cell)
    _name_classes(axes, [in_plot(name) for name in names], size)
    if len(counts) <= _NUMBERED:
        _number_cells(axes, counts, of_class, min(11.0, 72 * 0.36 * cell))
    return size


def _drawn(confusion: NDArray[np.intp]) -> tuple[NDArray[np.intp], bool]:
    """Indices of the classes that are drawn, in order, and whether others have a say, too."""
    images, answers = confusion.sum(axis=1), confusion.sum(axis=0)
    used = np.flatnonzero(images + answers)
    if len(used) <= _MOST:
        return used, False
    mistakes = images + answers - 2 * np.diagonal(confusion)
    order = used[np.argsort(-mistakes[used], kind="stable")]
    return np.sort(order[:_MOST]), True


def _counted(
    confusion: NDArray[np.intp],
) -> tuple[NDArray[np.intp], bool, NDArray[np.intp], NDArray[np.intp]]:
    """What `_drawn` gives, their counts [C, C], and how many images each of them has."""
    drawn, left_out = _drawn(confusion)
    return drawn, left_out, confusion[np.ix_(drawn, drawn)], confusion.sum(axis=1)[drawn]


def _inches(classes: int) -> float:
    """Side of a cell: large enough for its number, or for the name of its row."""
    return 0.62 if classes <= 10 else 0.4 if classes <= _NUMBERED else 0.17


def _colours(counts: NDArray[np.intp], of_class: NDArray[np.intp]) -> NDArray[np.uint8]:
    """RGBA of each cell, uint8 [C, C, 4]: the paper is seen where there is nothing."""
    share = counts / np.maximum(of_class, 1)[:, None]
    depth = np.where(counts > 0, 0.12 + 0.88 * np.sqrt(share), 0.0)[..., None]
    full = np.where(np.eye(len(counts), dtype=bool)[..., None], _RIGHT, _WRONG)
    return np.asarray(np.rint(np.concatenate([full, 255 * depth], axis=2)), dtype=np.uint8)


def _name_classes(axes: Axes, labels: list[str], size: float) -> None:
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=90 if len(labels) > 3 else 0, fontsize=size)
    axes.set_yticks(places, labels, fontsize=size)
    axes.set_xlabel("answer", color=FAINT)
    axes.set_ylabel("true class", color=FAINT)
    axes.tick_params(length=0, colors=INK)
    edges = [place - 0.5 for place in range(1, len(labels))]
    ends = (-0.5, len(labels) - 0.5)
    axes.hlines(edges, *ends, color=LINE, linewidth=0.5)
    axes.vlines(edges, *ends, color=LINE, linewidth=0.5)
    for spine in axes.spines.values():
        spine.set_color(GREY)


def _tell_accuracies(
    axes: Axes, right: NDArray[np.intp], of_class: NDArray[np.intp], size: float
) -> None:
    """At the end of each row: the class's accuracy, and of how many images."""
    for row, (k, n) in enumerate(zip(right, of_class, strict=True)):
        text = f"{100 * k / n:.0f} % of {n}" if n else "no images"
        axes.annotate(
            text,
            (len(right) - 0.5, row),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=size,
            color=FAINT,
            annotation_clip=False,
        )


def _explain_cells(
    axes: Axes, counts: NDArray[np.intp], of_class: NDArray[np.intp], names: list[str]
) -> None:
    """Over each cell that is not empty, unseen: what it counts. Of very many those that count most."""
    rows, columns = np.nonzero(counts)
    most = np.argsort(-counts[rows, columns], kind="stable")[:_EXPLAINED]
    for row, column in sorted(zip(rows[most], columns[most], strict=True)):
        count, of = counts[row, column], of_class[row]
        told = (
            f"{names[row]} answered as {names[column]}: {count} of {of}, {100 * count / of:.1f} %"
        )
        (cell,) = axes.fill(*_square(row, column), alpha=0)
        hover(cell, told)


def _square(row: int, column: int) -> tuple[list[float], list[float]]:
    """The corners of a cell: x, y."""
    left, right, top, bottom = column - 0.5, column + 0.5, row - 0.5, row + 0.5
    return [left, right, right, left], [top, top, bottom, bottom]


def _number_cells(
    axes: Axes, counts: NDArray[np.intp], of_class: NDArray[np.intp], size: float
) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        deep = counts[row, column] > 0.35 * of_class[row]
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if deep else INK,
        )
