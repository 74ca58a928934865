"""A Markdown page as its commands: fenced blocks, what is said of them, and commands in prose.

A page says what it needs in HTML comments, which no reader sees:

    <!-- begins with: flowers photos -->   what lies in the folder (`tests.docs.scenes`)
    <!-- not run: needs a Jetson -->       before a fence: its commands and options are checked only
    <!-- on the fakes -->                  before a fence: run on the GPU of tests/support/fakes
    <!-- exit code 3 -->                   before a fence: how its last command ends
    <!-- exit code: 0 or 3 -->             the same, where it depends on the images
    <!-- needs: ray -->                    before a fence: run where this module is installed

A fence of `toml title="NAME"` is written to NAME. A fence of `text` right behind a run one is what a
reader sees: each line's first word must be in the real output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PAGES", "ROOT", "Block", "Page", "commands_in_prose", "read_page", "shell_lines"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
_NOTE = re.compile(r"<!-- *(?P<key>[a-z ]+?)(?:: *(?P<value>.*?)| (?P<number>\d+))? *-->")
_TITLE = re.compile(r'title="([^"]+)"')
_KINDS = frozenset(("sh", "python", "toml", "text", "cpp", ""))


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        kind: sh, python, toml, cpp or text; "" is a picture of letters.
        text: its lines.
        line: number of its first line in the page.
        notes: the comments on the lines before it.
        title: the file that it is written to.
    """

    kind: str
    text: str
    line: int
    notes: dict[str, str]
    title: str | None = None

    @property
    def is_run(self) -> bool:
        """Whether it is run as it stands."""
        return self.kind in ("sh", "python") and "not run" not in self.notes


@dataclass(frozen=True)
class Page:
    """A page, taken apart.

    Attributes:
        name: its path in the checkout.
        blocks: in order.
        prose: everything else.
        begins_with: names of things that its reader has (`tests.docs.scenes`).
    """

    name: str
    blocks: tuple[Block, ...]
    prose: str
    begins_with: tuple[str, ...]


def read_page(name: str, text: str | None = None) -> Page:
    """Take a page apart.

    Raises:
        ValueError: a fence that is not closed or of an unknown kind.
    """
    lines = (text or (ROOT / name).read_text(encoding="utf-8")).splitlines()
    blocks: list[Block] = []
    prose: list[str] = []
    begins: tuple[str, ...] = ()
    notes: dict[str, str] = {}
    numbers = iter(range(len(lines)))
    for i in numbers:
        if (fence := _FENCE.match(lines[i])) is not None:
            closing = fence["indent"] + "```"
            end = next((k for k in range(i + 1, len(lines)) if lines[k] == closing), None)
            if end is None:
                raise ValueError(f"{name}:{i + 1}: this fence is not closed")
            blocks.append(_block(name, fence["info"], lines[i + 1 : end], i + 2, notes))
            notes = {}
            for _ in range(i, end):
                next(numbers)
        elif found := _NOTE.findall(lines[i]):
            notes |= {key: value or number for key, value, number in found}
            begins = tuple(notes.pop("begins with", "").split()) or begins
        elif lines[i].strip():
            notes = {}
            prose.append(lines[i])
    return Page(name, tuple(blocks), "\n".join(prose), begins)


def _block(name: str, info: str, lines: list[str], number: int, notes: dict[str, str]) -> Block:
    kind = info.split(" ")[0]
    if kind not in _KINDS:
        raise ValueError(f"{name}:{number - 1}: a fence of {kind!r}, expected {sorted(_KINDS)}")
    title = _TITLE.search(info)
    return Block(kind, "\n".join(lines), number, dict(notes), title[1] if title else None)


def shell_lines(text: str) -> list[str]:
    """The commands of a shell block: continued lines joined, comments and blank lines left out."""
    joined = text.replace("\\\n", " ")
    return [line for line in map(str.strip, joined.splitlines()) if line and line[0] != "#"]


def commands_in_prose(page: Page) -> Iterator[str]:
    """Code in backticks that begins with `vptkit`, or is an option on its own."""
    for code in re.findall(r"`([^`\n]+)`", page.prose):
        if code.startswith(("vptkit ", "--")):
            yield code
