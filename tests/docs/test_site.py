"""The site builds without a complaint, holds every public module, and fetches nothing."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest

from tests.docs.pages import ROOT
from tests.support.children import run_child

# What a browser loads by itself when a page is opened
_LOADED = re.compile(
    r'<(?:script|img|iframe)[^>]* src="(https?:[^"]+)"|<link[^>]* href="(https?:[^"]+)"'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the built site."""
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} is not installed: pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    run_child([*command, "-f", ROOT / "docs/site/mkdocs.yml", "-d", folder], limit=600)
    return folder


@pytest.mark.long
def test_every_module_has_its_page(site):
    public = [
        file.relative_to(ROOT).with_suffix("")
        for room in ("tune", "export", "runtime", "devices")
        for file in (ROOT / room).rglob("*.py")
        if file.name[0] != "_"
    ]
    assert len(public) > 100
    missing = [path for path in public if not (site / "api" / f"{path}.html").is_file()]
    assert missing == []


@pytest.mark.long
def test_a_docstring_is_there_with_its_parameters(site):
    page = (site / "api/tune/run/tune_run.html").read_text()
    assert 'id="vptkit.tune.run.tune_run.tune"' in page
    for word in ("choose the best epoch on val", "on_epoch", "VptkitError"):
        assert word in page


@pytest.mark.long
def test_a_link_to_code_leads_to_its_page(site):
    page = (site / "export.html").read_text()
    assert 'href="api/export/fold/equations.html"' in page
    assert 'href="../' not in page
    assert 'href="docs/' not in (site / "readme.html").read_text()


@pytest.mark.long
def test_nothing_is_fetched_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 100
    found = (_LOADED.findall(page.read_text(encoding="utf-8")) for page in pages)
    assert {one or other for links in found for one, other in links} == set()
