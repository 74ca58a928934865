"""Somebody else's text for people: a label, a path, a host's message, shown and not obeyed.

A terminal obeys control characters: they move the cursor, set its title, fill the clipboard, and a
newline forges a line of results. Bidirectional overrides and invisible characters make a text look
like another. All of these are shown as escapes.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import IO, TextIO

__all__ = [
    "fitted",
    "printable",
    "shown",
    "shown_lines",
    "spreadsheet_rows",
    "tell",
    "tell_once",
    "terminal_width",
]

# Written as escapes, so that this file shows what it holds:
# - C0, DEL, C1; the soft hyphen; the line and the paragraph separator;
# - marks, embeddings, overrides and isolates of direction;
# - characters without width or ink: ZERO WIDTH SPACE, WORD JOINER and the invisible operators, the byte
#   order mark, fillers of Hangul, the braille blank, interlinear annotations, tags, deprecated ones;
# - halves of surrogates, as which Python reads names that are not UTF-8.
# The joiners U+200C and U+200D stay: Persian, Indic scripts and emoji are written with them.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_CUTS = re.compile("[;|\t\r\n]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # the wide ones are formulas in some places, too

_TOLD: set[tuple[str, str]] = set()  # lines of `tell_once`


def shown(text: object) -> str:
    """The text on one line, with what a terminal obeys or a reader cannot see as escapes."""
    return _HIDDEN.sub(_escape, str(text))


def printable(text: str) -> str:
    r"""The text as UTF-8 can write it, for files that people do not look at (CSV, Parquet, HTML).

    Python reads a name that is not UTF-8 with its odd bytes as halves of surrogates, U+DC80 to U+DCFF,
    which no file can hold. Each stands as the six letters \udcXX in all that we write; JSON too
    (`vptkit.strict_json.json_text`).
    """
    return _SURROGATES.sub(_escape, text)


def shown_lines(text: str) -> str:
    """Lines that were put together here: their newlines stay, all else is as in `shown`."""
    return "\n".join(map(shown, text.split("\n")))


def tell(text: object, stream: TextIO | None = None) -> None:
    """Write a line for people, to standard error unless a stream is given."""
    stream = sys.stderr if stream is None else stream
    stream.write(fitted(shown(text), stream) + "\n")
    stream.flush()


def tell_once(text: str, subject: object) -> None:
    """Write a line for people to standard error, unless this process wrote it already.

    Args:
        text: the line.
        subject: what it is about, as a path: of another one the same line is written, too.
    """
    key = (str(subject), text)
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes one speaks
    if first and key not in _TOLD:
        _TOLD.add(key)
        tell(text)


def fitted(lines: str, stream: IO[str]) -> str:
    """Lines for a stream: a terminal gets none that it would cut within a word.

    A command that is there to be copied (`next: …`) stays on one line, as everything does in a file.
    """
    if not stream.isatty():
        return lines
    width = terminal_width()
    return "\n".join(
        line if len(line) <= width or line.startswith("next: ") else _wrapped(line, width)
        for line in lines.split("\n")
    )


def terminal_width() -> int:
    """Characters of a line: of the terminal, or as $COLUMNS says; 80 where there is none."""
    return shutil.get_terminal_size().columns


def _wrapped(line: str, width: int) -> str:
    return textwrap.fill(
        line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def spreadsheet_rows(stream: TextIO) -> Callable[[Iterable[object]], None]:
    """A writer of rows of CSV that a spreadsheet shows and does not compute.

    A text that begins like a formula (`=`, `+`, `-`, `@`, also after spaces and what is invisible) gets
    an apostrophe before it, by which spreadsheets take it as text. Numbers stay as they are. Where a
    text holds what some spreadsheets cut a line at, as a semicolon, all texts of the row are quoted.
    """
    plain = csv.writer(stream, lineterminator="\n")
    quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)

    def write(row: Iterable[object]) -> None:
        cells = [_as_text(cell) if isinstance(cell, str) else cell for cell in row]
        cut = any(isinstance(cell, str) and _CUTS.search(cell) for cell in cells)
        (quoted if cut else plain).writerow(cells)

    return write


def _as_text(cell: str) -> str:
    cell = printable(cell)
    formula = _HIDDEN.sub("", cell).lstrip().startswith(_FORMULA) or cell[:1] in ("\t", "\r", "\n")
    return f"'{cell}" if formula else cell


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
