"""A report in a real browser: it loads and runs nothing, fits a telephone, follows light and dark, takes keys."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("onnxruntime")
api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

from vptkit.report.make_report import make_report  # noqa: E402
from vptkit.report.report_settings import ReportSettings  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
EVIL = '<img src=http://x.invalid/a.png onerror="document.title=1">'

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


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
        data=colour_folders, backend="cpu", measure=0.1, batches=(1, 2), threads=1
    )
    make_report(bundles, tmp_path / "report.html", settings)
    return (tmp_path / "report.html").as_uri()


def opened(browser, report, **options):
    """A page, what it asked for, and what it complained about."""
    page = browser.new_context(**options).new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(report)
    return page, asked, said


def test_a_report_in_a_browser(browser, report):
    paper = {}
    for width in (1100, 360):
        for scheme in ("light", "dark"):
            page, asked, said = opened(
                browser, report, viewport={"width": width, "height": 800}, color_scheme=scheme
            )
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
            assert said == []
            assert page.title() != "1"
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("svg").count() > 5
            paper[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper["light"] == "rgb(255, 255, 255)"
    assert paper["dark"] != paper["light"]
    keys_work(page)


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
