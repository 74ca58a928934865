"""A report in a real browser: it loads and runs nothing, fits a telephone, follows light and dark, takes keys,
and is for everybody (axe-core)."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("onnxruntime")
pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

from tests.support.browser import browser, violations
from vptkit.report.make_report import make_report
from vptkit.report.report_settings import ReportSettings

EVIL = '<img src=http://x.invalid/a.png onerror="document.title=1">'

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture
def report(make_bundle, colour_folders, tmp_path):
    """A page about two bundles, one of which calls itself something nasty, with all of its parts."""
    macs = {"backbone": 10**9, "unfolded": 2 * 10**9, "graph": 10**9}
    folds = ["deep prompts → constant key/value prefixes"]
    entry = {"insert": "deep", "prompt_length": 3, "pool": "token", "norm": "before_pool"}
    labels = ("red", "green", "blue")
    bundles = [
        make_bundle(macs=macs, folds=folds, adapters=[{"name": "tiny", "labels": labels, **entry}]),
        make_bundle("other", macs=macs),
    ]
    document = (bundles[1] / "manifest.json").read_text().replace('"other"', json.dumps(EVIL))
    (bundles[1] / "manifest.json").write_text(document)
    settings = ReportSettings(
        data=colour_folders, backend="cpu", measure=0.1, layers=0.1, batches=(1, 2), threads=1
    )
    make_report(bundles, tmp_path / "report.html", settings)
    return (tmp_path / "report.html").as_uri()


def opened(chromium, report, **options):
    """A page, what it asked for, and what it complained about."""
    page = chromium.new_context(bypass_csp=options.pop("bypass_csp", False), **options).new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(report)
    return page, asked, said


def test_a_report_in_a_browser(chromium, report):
    paper = {}
    for width in (1100, 360):
        for scheme in ("light", "dark"):
            page, asked, said = opened(
                chromium, report, viewport={"width": width, "height": 800}, color_scheme=scheme
            )
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
            assert said == []
            assert page.title() != "1"
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("svg").count() > 5
            assert too_small(page) == []
            paper[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper["light"] == "rgb(255, 255, 255)"
    assert paper["dark"] != paper["light"]
    keys_work(page)
    cells_speak(page)
    for scheme in ("light", "dark"):  # the page allows no script, and axe-core is one
        page, _, _ = opened(chromium, report, color_scheme=scheme, bypass_csp=True)
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        assert violations(page) == []


def too_small(page):
    """Pictures that are seen, in which letters of nine points are less than eight pixels high."""
    return page.evaluate(
        """[...document.querySelectorAll(".plot svg")].filter((svg) => {
            const width = svg.getBoundingClientRect().width;
            return width > 0 && 9 * width / svg.viewBox.baseVal.width < 7.8;
        }).map((svg) => svg.getAttribute("aria-label"))"""
    )


def cells_speak(page):
    """The pointer over a cell or a box finds its text, below a number and where nothing is painted."""
    found = page.evaluate(
        """[...document.querySelectorAll("svg g > title")].map((title) => {
            const box = title.parentNode.getBoundingClientRect();
            if (box.width < 4) return null;
            title.parentNode.scrollIntoView({block: "center"});
            const now = title.parentNode.getBoundingClientRect();
            const under = document.elementFromPoint(now.x + now.width / 2, now.y + now.height / 2 + 0.4);
            return [title.textContent, under?.closest("g:has(> title)")?.querySelector("title").textContent];
        }).filter(Boolean)"""
    )
    assert len(found) > 10
    alone = [pair for pair in found if not pair[0].endswith(" ms")]  # points may lie upon others
    assert [pair for pair in alone if pair[0] != pair[1]] == []


def keys_work(page):
    """The first stop skips to the report; tables that are wider than a telephone can be reached."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    stops = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        stops.add(page.evaluate("document.activeElement.tagName"))
    assert {"DIV", "SUMMARY"} <= stops
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
