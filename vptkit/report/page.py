"""The page: a template of Jinja's, filled with plain data, and what it lets through.

Everything in the data is a stranger's: names, labels, paths. Jinja escapes each text for HTML, and
before that each is shown on one line (`vptkit.shown_text.shown`). Only pictures that were drawn here
go in as they are, by the filter `drawn`. The page has no script, and tells the browser to load
nothing: Content-Security-Policy `default-src 'none'`, pictures as data: only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.cli.shared.output import needs_extra
from vptkit.scores.score_interval import interval_text, percent
from vptkit.shown_text import shown
from vptkit.text_table import milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["filled", "require_jinja"]

_TEMPLATES = Path(__file__).parent / "templates"


def require_jinja() -> None:
    """Name the extra if Jinja is missing.

    Raises:
        MissingExtraError: it is not installed.
    """
    with needs_extra("report", "a report"):
        import jinja2  # noqa: F401 -- whether it is there


def filled(template: str, document: Mapping[str, Any]) -> str:
    """A template with data.

    Args:
        template: name of a file in templates/.
        document: names of the template → plain data.

    Raises:
        MissingExtraError: Jinja is not installed.
    """
    require_jinja()
    import jinja2
    import markupsafe

    def visible(value: Any) -> Any:
        plain = isinstance(value, str) and not isinstance(value, markupsafe.Markup)
        return shown(value) if plain else value

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "drawn": markupsafe.Markup,
        "interval": interval_text,
        "ms": milliseconds,
        "percent": percent,
    }
    return environment.get_template(template).render(document)
