"""The page in a real browser: files, the camera, other adapters under it, tokens, the keyboard.

What is the same with a graph instead of a server (`vptkit export --target web`) is tried with both.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("tests.support.serving")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from tests.support.bank_cases import family, write_family
from tests.support.browser import browser, expect, violations
from tests.support.children import PIPE, Child
from tests.support.exported_banks import export_family
from tests.support.serving import encoded
from tests.support.web_pages import static_host, web_package
from vptkit.export.bank import edit_bank
from vptkit.runtime import open_session
from vptkit.runtime.web.web_folder import write_web

pytestmark = pytest.mark.long
TOKEN = "0123456789abcdef0123456789abcdef"
KINDS = ("bilinear", "norms", "linear")
SECOND = 60_000  # milliseconds that anything may take


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@contextlib.contextmanager
def serving(folder):
    """A bank of two adapters behind `vptkit serve --ui`, the file of a third, and an image."""
    members = family(kinds=KINDS)
    for name in ("adapters", "live"):
        (folder / name).mkdir()
    paths = write_family(members, folder / "adapters")
    two = replace(members, adapters={kind: members.adapters[kind] for kind in KINDS[:2]})
    bank = export_family(folder / "live", two)
    (folder / "admin.txt").write_text(f"{TOKEN}\n")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    (folder / "cat.png").write_bytes(encoded(pixels))
    command = ["vptkit", "serve", bank, "--ui", "--port", "0", "--backend", "cpu", "--threads", "1"]
    with Child([*command, "--admin-token-file", folder / "admin.txt"], stdout=PIPE) as child:
        yield SimpleNamespace(
            address=address_of(child), bank=bank, image=folder / "cat.png", adapters=paths
        )
        child.end()


def address_of(child):
    """Of the page, as the server prints it."""
    while line := child.stdout.readline():
        if found := re.match(r"page: (\S+)", line):
            return found[1]
    raise AssertionError("it ended")


@contextlib.contextmanager
def hosting(folder):
    """The same bank in a folder for browsers, behind a host of static files."""
    members = family(kinds=KINDS[:2])
    bank = export_family(folder, members)
    write_web([bank], folder / "web", onnxruntime_web=web_package())
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    (folder / "cat.png").write_bytes(encoded(pixels))
    with static_host(folder / "web") as host:
        yield SimpleNamespace(address=host.address, bank=bank, image=folder / "cat.png")


@pytest.fixture(scope="module", params=["server", "graph"])
def server(request, tmp_path_factory):
    way = serving if request.param == "server" else hosting
    with way(tmp_path_factory.mktemp("page")) as made:
        yield made


@pytest.fixture
def own_server(tmp_path):
    """One whose adapters may be changed."""
    with serving(tmp_path) as made:
        yield made


@contextlib.contextmanager
def opened(chromium, address):
    """The page; nothing in it may fail or leave its own server."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(SECOND)
    page, told = context.new_page(), []
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("console", lambda m: told.append(m.text) if "Content Security" in m.text else None)
    page.goto(address)
    page.wait_for_selector("#adapters input")
    yield page
    assert told == []
    context.close()


@pytest.fixture
def page(chromium, server):
    with opened(chromium, server.address) as found:
        yield found


@pytest.fixture
def own_page(chromium, own_server):
    with opened(chromium, own_server.address) as found:
        yield found


def names(page):
    return page.locator("#adapters label").all_inner_texts()


def ticked(page):
    return [box.is_checked() for box in page.locator("#adapters input").all()]


def answers(page):
    """Adapter → best label, when those of the question are there."""
    page.wait_for_selector(".answer li")
    cards = page.locator(".answer").all()
    return {c.locator("h3").inner_text(): c.locator("li span").first.inner_text() for c in cards}


def expected(server, kinds):
    with open_session(server.bank, "cpu", threads=1) as session:
        return {k: next(session.predict(server.image, adapter=k)).label for k in kinds}


def drop(page, content, name, kind):
    page.evaluate(
        """([bytes, name, type]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, {type}));
            const event = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
            document.getElementById("drop").dispatchEvent(event);
        }""",
        [list(content), name, kind],
    )


def test_a_file_that_is_dropped_is_answered_by_each_adapter(page, server):
    assert names(page) == ["bilinear", "norms"]
    drop(page, server.image.read_bytes(), "cat.png", "image/png")
    assert answers(page) == expected(server, KINDS[:2])
    assert page.locator(".time").all_inner_texts()[0].endswith(" ms")
    expect(page.locator("#state")).to_contain_text(re.compile(r"[1-9]\d* in the"), timeout=SECOND)
    page.click("#none")
    expect(page.locator("#summary")).to_contain_text("No adapter")
    assert page.locator(".answer").count() == 0


def test_a_broken_file_is_told_and_the_next_is_answered(page, server):
    drop(page, b"no image at all", "cat.png", "image/png")
    page.wait_for_selector(".answer .bad")
    assert "No answer" in page.inner_text("#summary")
    drop(page, server.image.read_bytes(), "cat.png", "image/png")
    assert answers(page) == expected(server, KINDS[:2])
    page.evaluate(
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: new DataTransfer()}))"
    )
    assert "no file" in page.inner_text("#problem")


def test_the_camera_is_answered_until_it_is_stopped(page):
    page.click("#camera")
    page.wait_for_selector("#video:visible")
    answers(page)
    expect(page.locator("#state")).to_contain_text(re.compile(r"[1-9]\d* in the"), timeout=SECOND)
    page.click("#camera")
    assert page.locator("#video").is_hidden()
    assert page.get_attribute("#camera", "aria-pressed") == "false"


def test_adapters_that_change_under_it(own_page, own_server):
    page, server = own_page, own_server
    drop(page, server.image.read_bytes(), "cat.png", "image/png")
    answers(page)
    edit_bank.add(server.bank, server.adapters["linear"], name="third")
    expect(page.locator("#adapters label")).to_have_count(3, timeout=SECOND)
    assert names(page) == ["bilinear", "norms", "third"]
    assert ticked(page) == [True, True, False]
    edit_bank.remove(server.bank, "norms")
    expect(page.locator("#adapters label")).to_have_count(2, timeout=SECOND)
    page.click("#all")
    expect(page.locator(".answer:nth-child(2) h3")).to_have_text("third", timeout=SECOND)


def test_an_admin_adds_and_removes(own_page, own_server):
    page, server = own_page, own_server
    page.fill("#admin", "1" * 32)
    page.fill("#name", "third")
    page.set_input_files("#adapter", server.adapters["linear"])
    page.click("#upload [type=submit]")
    expect(page.locator("#changed")).to_contain_text("Not done", timeout=SECOND)
    page.fill("#admin", TOKEN)
    page.click("#upload [type=submit]")
    expect(page.locator("#changed")).to_have_text("Done: 3 adapters.", timeout=SECOND)
    expect(page.locator("#adapters label")).to_have_count(3, timeout=SECOND)
    assert names(page) == ["bilinear", "norms", "third"]
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#remove")
    expect(page.locator("#changed")).to_have_text("Removed third.", timeout=SECOND)
    expect(page.locator("#adapters label")).to_have_count(2, timeout=SECOND)
    assert names(page) == ["bilinear", "norms"]


def test_with_the_keyboard_alone(page, server):
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        place = "document.activeElement.id || document.activeElement.parentElement.textContent"
        reached.append(page.evaluate(place))
    assert reached[:6] == ["file", "camera", "bilinear", "norms", "all", "none"]
    page.set_input_files("#file", server.image)
    assert set(answers(page)) == {"bilinear", "norms"}
    page.focus("#adapters input")
    page.keyboard.press("Space")
    expect(page.locator(".answer")).to_have_count(1, timeout=SECOND)
    assert set(answers(page)) == {"norms"}
    page.focus("#camera")
    page.keyboard.press("Enter")
    page.wait_for_selector("#video:visible")


def test_narrow_and_dark_it_is_whole_and_for_everybody(page, server):
    page.set_input_files("#file", server.image)
    answers(page)
    for width, scheme in ((360, "light"), (1200, "dark"), (360, "dark"), (1200, "light")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert violations(page) == []


def test_a_token_is_asked_for(chromium, own_server, tmp_path):
    server = own_server
    (tmp_path / "user.txt").write_text(f"{TOKEN}\n")
    command = ["vptkit", "serve", server.bank, "--ui", "--port", "0", "--backend", "cpu"]
    with Child([*command, "--token-file", tmp_path / "user.txt"], stdout=PIPE) as child:
        page = chromium.new_page()
        page.goto(address_of(child))
        page.wait_for_selector("#token:visible")
        assert page.locator("#adapters input").count() == 0
        page.fill("#user", TOKEN)
        page.click("#enter button")
        page.wait_for_selector("#adapters input")
        assert page.locator("#token").is_hidden()
        assert page.locator("#changes").is_hidden()
        page.set_input_files("#file", server.image)
        assert set(answers(page)) == {"bilinear", "norms"}
        page.close()
        child.end()
    (tmp_path / "user.txt").unlink()
