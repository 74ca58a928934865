"""The report's own templates, with the filters that they use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.pages.html_page import filled_page, require_jinja
from vptkit.scores.score_interval import interval_text, percent
from vptkit.text_table import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["filled", "require_jinja"]

_TEMPLATES = Path(__file__).parent / "templates"
_FILTERS: dict[str, Callable[..., str]] = {
    "interval": interval_text,
    "ms": milliseconds,
    "percent": percent,
}


def filled(template: str, document: Mapping[str, Any]) -> str:
    """A template with data.

    Args:
        template: name of a file in templates/.
        document: names of the template → plain data.

    Raises:
        MissingExtraError: Jinja is not installed.
    """
    return filled_page(_TEMPLATES, template, document, _FILTERS)
