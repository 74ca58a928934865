"""`vptkit backbones`: which backbones there are, how large, and what to try first.

No future import of annotations here: typer reads them at run time.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vptkit.cli.shared.options import AsJson
from vptkit.cli.shared.output import emit
from vptkit.cli.shared.verdict import next_command
from vptkit.errors import BackboneError

if TYPE_CHECKING:
    from vptkit.backbones.backbone_table import Backbone

__all__ = ["backbones"]

_NAME = 30  # letters of a name that stands in the line of its figures
_WIDTHS = (6, 8, 5, 4, 5)
# Licences whose names are longer than their column; --json has them whole
_SHORT = {
    "cc-by-nc-4.0": "cc-by-nc",
    "dinov3-license": "dinov3",
    "fair-noncommercial-research-license": "fair-nc",
    "nvidia-open-model-license": "nvidia",
    "sapiens2-license": "sapiens2",
}


def backbones(
    word: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORD...]", help="Parts of a name, as dinov2, ViT-B/16, 'deit tiny' [all]."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the backbones that vptkit exports: size, input, licence, work for one image."""
    from vptkit.backbones.backbone_names import matching, near_names

    asked = " ".join(word or ())
    found = matching(asked)
    if not found:
        near = near_names(asked)
        meant = f" Did you mean {', '.join(near)}?" if near else ""
        raise BackboneError(f"{asked}: no backbone that vptkit exports is called so.{meant}")
    document = {"asked": asked, "backbones": [_row(one) for one in found], "first": _first()}
    emit(document, as_json, text=_text(found, asked))


def _row(one: "Backbone") -> dict[str, Any]:
    from vptkit.backbones.backbone_table import MEASURED

    return {
        "name": one.name,
        "parameters": one.parameters,
        "macs": one.macs,
        "image": list(one.image),
        "patch": list(one.patch),
        "width": one.width,
        "depth": one.depth,
        "repository": one.repository,
        "licence": one.licence,
        "tags": list(one.tags),
        "measured_cpu_ms": MEASURED.get(one.name),
    }


def _first() -> dict[str, str]:
    from vptkit.backbones.backbone_table import FIRST_CHOICES

    return dict(FIRST_CHOICES)


def _text(found: list["Backbone"], asked: str) -> str:
    """A table of at most 80 columns, the first choices, and what the figures mean."""
    from vptkit.backbones.backbone_table import FIRST_CHOICES, MEASURED

    header = ["name", "size", "input", "width", "deep", "GMAC", "licence"]
    lines = [*_lines([header, *map(_cells, found)]), ""]
    shown = {one.name for one in found}
    lines += [
        f"measured: {name} {MEASURED[name]} ms an image (fp32, bare, 2 EPYC threads)"
        for name in sorted(shown & set(MEASURED))
    ]
    if not asked:
        lines += [f"first choice for {place}: {name}" for place, name in FIRST_CHOICES.items()]
    first = found[0].name if asked else FIRST_CHOICES["CPU"]
    lines += [
        "size: parameters; input: pixels; GMAC: 10^9 multiply-accumulates of the blocks.",
        "licence: of the weights, - if timm notes none; --json has their repository, too.",
        next_command("tune", "DATA", "--backbone", first, "-o", "NAME.safetensors"),
    ]
    return "\n".join(lines)


def _cells(one: "Backbone") -> list[str]:
    height, width = one.image
    numbers, licence = one.parameters / 1e6, one.licence or "-"
    return [
        one.name,
        f"{_figure(numbers)} M" if numbers < 999 else f"{numbers / 1000:.2g} G",
        f"{height}" if height == width else f"{height}x{width}",
        str(one.width),
        str(one.depth),
        _figure(one.macs / 1e9),
        "no weights" if one.repository is None else _SHORT.get(licence, licence)[:10],
    ]


def _figure(value: float) -> str:
    """Three digits, or two behind the point; large ones whole."""
    return f"{value:.2f}" if value < 1 else f"{value:.3g}" if value < 999 else f"{value:.0f}"


def _lines(rows: list[list[str]]) -> list[str]:
    """A table; a name that is longer than its column has a line of its own."""
    lines = []
    longest = max(len(name) for name, *_ in rows)
    column = min(longest, _NAME)
    for name, *cells in rows:
        figures = "  ".join(c.rjust(n) for c, n in zip(cells[:-1], _WIDTHS, strict=True))
        if len(name) > column:
            lines.append(name)
        lines.append(f"{name if len(name) <= column else '':{column}}  {figures}  {cells[-1]}")
    return lines
