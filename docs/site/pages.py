"""Pages of the site that are not written by hand: the reference, and files above docs/.

MkDocs calls `on_config`, `on_files` and `on_page_markdown`. In the checkout the documents link to
files, as GitHub shows them; in the site such a link leads to the page made of that file.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

__all__ = ["modules", "on_config", "on_files", "on_page_markdown", "site_target"]

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("vptkit", "tune", "export", "runtime", "devices")
# Files above docs/ → the pages made of them
FILES = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "vptkit/assets/README.md": "demo_backbone.md",
}
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?(?=\))")


def modules() -> dict[str, str]:
    """Source file below the checkout → dotted name, for every public module and package."""
    found: dict[str, str] = {}
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            linked = room == "vptkit" and len(parts) > 2 and parts[1] in ROOMS  # seen by its room
            if linked or any(part[0] == "_" and part != "__init__" for part in parts):
                continue
            named = parts[:-1] if parts[-1] == "__init__" else parts
            dotted = named if room == "vptkit" else ("vptkit", *named)
            found[file.relative_to(ROOT).as_posix()] = ".".join(dotted)
    return found


def page_of(source: str) -> str:
    """The page of a module: `tune/run/__init__.py` → `api/tune/run/index.md`."""
    return "api/" + source.removesuffix(".py").replace("__init__", "index") + ".md"


def site_target(source: str, target: str) -> str | None:
    """Where a link of a file leads in the site.

    Args:
        source: the file, seen from the checkout.
        target: as written there.

    Returns:
        A page seen from docs/, or None where nothing stands in the site.
    """
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path in FILES:
        return FILES[path]
    if path in modules():
        return page_of(path)
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def _relinked(markdown: str, source: str, page: str) -> str:
    def lead(match: re.Match[str]) -> str:
        target = site_target(source, match["path"])
        if target is None:
            return match[0]
        shown = posixpath.relpath(target, posixpath.dirname(page) or ".")
        return shown + (match["anchor"] or "")

    return _LINK.sub(lead, markdown)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the tree of the reference to the navigation."""
    tree: dict[str, Any] = {}
    for source in modules():
        *folders, name = source.removesuffix(".py").split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name.replace("__init__", "")] = page_of(source)
    assert config.nav is not None  # noqa: S101 - mkdocs.yml has one
    config.nav.append({"Reference": _nav(tree)})
    return config


def _nav(tree: dict[str, Any]) -> list[Any]:
    """A package first shows its own page, then its modules, then its packages."""
    own = [page for name, page in tree.items() if name == ""]
    leaves = [{name: page} for name, page in tree.items() if name and isinstance(page, str)]
    inner = [{name: _nav(page)} for name, page in tree.items() if isinstance(page, dict)]
    return [*own, *leaves, *inner]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for source, name in modules().items():
        text = f"# {name.rsplit('.', 1)[-1]}\n\n`{name}`\n\n::: {name}\n"
        files.append(File.generated(config, page_of(source), content=text))
    for source, page in FILES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_relinked(text, source, page)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead links that leave docs/ to the pages of those files."""
    source = page.file.src_uri
    if source in FILES.values() or source.startswith("api/"):
        return markdown
    return _relinked(markdown, f"docs/{source}", source)
