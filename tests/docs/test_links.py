"""Links and words: each link leads somewhere, each house word to its meaning."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import PAGES, ROOT, read_page
from tests.support.children import run_child

LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
# Words of the house that mean nothing else, so that the first use can be found
WORDS = (
    *("adapter", "backbone", "bundle", "engine", "bank", "baked", "island", "golden answers"),
    *("multilabel", "threshold"),
)
# Pages of figures keep their words; the glossary is where the links lead
FIGURES = ("docs/benchmarks.md", "docs/results.md", "docs/coverage.md", "docs/glossary.md")


def anchors(name: str) -> set[str]:
    """What `#…` can point at in a page."""
    text = (ROOT / name).read_text(encoding="utf-8")
    titles = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    slugs = (re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)
    return set(slugs)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    page = read_page(name)
    missing = []
    for target in (link["target"] for link in LINK.finditer(page.prose)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        if not file.exists() or (anchor and anchor not in anchors(str(file.relative_to(ROOT)))):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("name", [name for name in PAGES if name not in FIGURES])
def test_a_house_word_is_linked_where_it_first_occurs(name):
    def blank(match: re.Match[str]) -> str:
        return " " * len(match[0])

    prose = re.sub(r"^#.*$|`[^`\n]*`", blank, read_page(name).prose, flags=re.MULTILINE)
    visible = re.sub(r"(?<=\])\([^)\s]+\)", blank, prose)
    links = [(link.start(), link.end(), link["target"]) for link in LINK.finditer(prose)]
    unlinked = []
    for word in WORDS:
        first = re.search(rf"\b{word}s?\b", visible, flags=re.IGNORECASE)
        if first is None:
            continue
        anchor = f"glossary.md#{word.replace(' ', '-')}"
        inside = (target for start, end, target in links if start <= first.start() < end)
        if not any(target.endswith(anchor) for target in inside):
            unlinked.append(f"{word}: {visible[first.start() - 40 : first.end() + 20]!r}")
    assert unlinked == []


def test_the_glossary_is_in_order_and_says_each_word_once():
    titles = re.findall(r"^## (.+)$", (ROOT / "docs/glossary.md").read_text(), flags=re.MULTILINE)
    assert titles == sorted(titles, key=str.lower)
    assert len(titles) == len(set(titles))
    assert set(WORDS) <= set(titles)


def test_every_page_is_reached_from_the_front_page():
    front = (ROOT / "docs" / "index.md").read_text()
    pages = {p.name for p in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert {name for name in pages if f"({name}" not in front} == set()


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 100] == []


def test_ci_runs_the_readme_as_written():
    ci = (ROOT / ".ci" / "run").read_text()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ('pip install -e ".[all]" && vptkit demo', 'pip install -e ".[all,test]"'):
        assert command in readme
        assert command.replace("pip install", "pip install -q") in ci
    assert "pytest -n 2" in readme
    assert "pytest -n 2" in ci
    assert "<!-- after the demo -->" in ci
    assert "<!-- after the demo -->" in readme


def test_no_place_of_one_machine_and_no_package_index_is_committed():
    tracked = run_child(["git", "ls-files", "-z"], cwd=ROOT, check=False).stdout.split("\0")
    if tracked == [""]:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(^|[^A-Za-z0-9_.])/(work|root|farm)/|(py" + r"pi|pythonhosted)\.org")
    hits = [
        f"{name}: {line.strip()[:80]}"
        for name in tracked
        if name and (ROOT / name).is_file() and not name.endswith((".safetensors", ".png"))
        for line in (ROOT / name).read_text(encoding="utf-8", errors="ignore").splitlines()
        if pattern.search(line)
    ]
    assert hits == []
