"""Pages that stand alone: templates of Jinja's, filled with plain data, and what they let through.

Everything in the data is a stranger's: names, labels, paths. Jinja escapes each text for HTML, and
before that each is shown on one line (`vptkit.shown_text.shown`). Only pictures that were drawn here
go in as they are, by the filter `drawn`. Head, style and common parts lie in templates/: a page has no
script, and tells the browser to load nothing (Content-Security-Policy `default-src 'none'`, pictures
as data: only).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import MissingExtraError
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["filled_page", "require_jinja"]

_PARTS = Path(__file__).parent / "templates"


def require_jinja(purpose: str = "a report") -> None:
    """Name the extra if Jinja is missing.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import jinja2  # noqa: F401 -- whether it is there
    except ModuleNotFoundError as error:
        raise MissingExtraError("jinja2", "report", purpose) from error


def filled_page(
    folder: Path,
    template: str,
    document: Mapping[str, Any],
    filters: Mapping[str, Callable[..., str]] | None = None,
) -> str:
    """A template with data.

    Args:
        folder: of the templates; they may include those of this package.
        template: the name of one.
        document: names of the template → plain data.
        filters: of the templates, besides `drawn`.

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
        loader=jinja2.FileSystemLoader([folder, _PARTS]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"drawn": markupsafe.Markup, **(filters or {})}
    return environment.get_template(template).render(document)
