"""A training's page in a real browser: it loads nothing, fits a telephone, and all can use it."""

from __future__ import annotations

import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from tests.support.browser import browser, violations
from tests.support.trained_runs import run_with_all
from vptkit.tune.training.run_files import run_files
from vptkit.tune.training_page.run_pictures import write_pictures

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("pictures"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def test_a_training_in_a_browser(tmp_path):
    Image.new("RGB", (400, 300), "red").save(tmp_path / "hard.jpg")
    files = run_files(tmp_path / "a.safetensors")
    assert write_pictures(run_with_all(tmp_path / "hard.jpg"), files, "page").missing is None
    with browser() as opened:
        for width, scheme in ((1100, "light"), (360, "dark")):
            look_at(opened, files.page.as_uri(), width, scheme)


def look_at(opened, address, width, scheme):
    context = opened.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(address)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    texts = "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
    assert min(page.evaluate(texts)) >= 6  # of one line, in pixels: small, and read
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    context.close()
    context = opened.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()  # axe is a script, which the page forbids
    page.goto(address)
    assert violations(page) == []
    context.close()
