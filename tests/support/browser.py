"""A headless Chromium for tests of pages: Playwright's, with the system's browser."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["another", "browser", "expect", "violations"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A browser with a fake camera; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: apt install chromium")
    with (
        sync_api.sync_playwright() as playwright,
        _launched(playwright.chromium, found, _CAMERA) as opened,
    ):
        yield opened


@contextlib.contextmanager
def another(opened: Any, *flags: str) -> Iterator[Any]:
    """A second browser beside one that is open, with further flags."""
    found = next(path for name in _NAMES if (path := shutil.which(name)))
    with _launched(opened.browser_type, found, flags) as launched:
        yield launched


@contextlib.contextmanager
def _launched(kind: Any, program: str, flags: Sequence[str]) -> Iterator[Any]:
    always = ("--no-sandbox", "--disable-dev-shm-usage")
    launched = kind.launch(executable_path=program, args=[*always, *flags])
    try:
        yield launched
    finally:
        launched.close()


def expect(locator: Any) -> Any:
    """What waits until something on a page is so; of functions that poll, the page's policy allows none."""
    from playwright.sync_api import expect as wait_for

    return wait_for(locator)


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong with a page for people who use it otherwise; empty if nothing."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]
