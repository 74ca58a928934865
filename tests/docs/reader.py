"""Somebody who types a page's commands: each line as it stands, in a folder of its own.

A line that calls vptkit alone runs in this process, which saves three seconds of importing torch;
the shell still makes its words. Any other line goes to bash.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.docs.pages import shell_lines
from tests.support.children import run_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.docs.pages import Block, Page

__all__ = ["Reader"]

_COMPOUND = re.compile(r"[|;&<>`]|\$\(")
_LIMIT_S = 120


class Reader:
    """Goes through a page.

    Args:
        folder: where the commands are typed; the present folder.
        vptkit: runs the command line in this process.
    """

    def __init__(self, folder: Path, vptkit: Callable[..., Any]) -> None:
        self.folder, self.vptkit = folder, vptkit
        self.names: dict[str, Any] = {"__name__": "__page__"}
        self.output = ""  # of the last block

    def follow(self, page: Page, *, on_the_fakes: bool = False) -> int:
        """Run the blocks of a page in order; the number of those that ran.

        Args:
            page: what to follow.
            on_the_fakes: run those for a GPU instead of the others; all files are written.

        Raises:
            AssertionError: a command that fails, or an output that a reader does not see.
        """
        count, shown = 0, False
        for block in page.blocks:
            where = f"{page.name}:{block.line}"
            if block.kind == "toml" and block.title is not None:
                (self.folder / block.title).write_text(block.text + "\n")
            elif block.kind == "text" and shown:
                self._compare(block, where)
            elif block.is_run and ("on the fakes" in block.notes) == on_the_fakes:
                if shown := _is_there(block.notes.get("needs")):
                    self._run(block, where)
                    count += 1
                continue
            shown = False
        return count

    def _run(self, block: Block, where: str) -> None:
        self.output = ""
        if block.kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block.text, where, "exec"), self.names)
            self.output = out.getvalue()
            return
        lines = shell_lines(block.text)
        for number, line in enumerate(lines):
            last = number == len(lines) - 1
            said = block.notes.get("exit code", "0") if last else "0"
            expected = {int(number) for number in said.split(" or ")}
            code, out, err = self._type(line)
            self.output += out + err
            assert code in expected, (
                f"{where}: exit code {code} of: {line}\n{out[-1500:]}\n{err[-3000:]}"
            )

    def _type(self, line: str) -> tuple[int, str, str]:
        command = line.split("  #")[0].strip()
        if not command.startswith("vptkit ") or _COMPOUND.search(command):
            return _bash(command)
        code, words, err = _bash(f"vptkit() {{ printf '%s\\0' \"$@\"; }}; {command}")
        assert code == 0, err
        code, out, err = self.vptkit(*words.split("\0")[:-1])
        return code, out, err

    def _compare(self, block: Block, where: str) -> None:
        """Each line that a page shows begins with a word of the real output."""
        for line in block.text.splitlines():
            word = line.split()[0] if line.split() else "…"
            if word != "…" and not re.fullmatch(r"[\d.,%-]+", word):
                assert word in self.output, f"{where}: {word!r} is not in\n{self.output[-3000:]}"


def _is_there(module: str | None) -> bool:
    return module is None or importlib.util.find_spec(module) is not None


def _bash(command: str) -> tuple[int, str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {**os.environ, "PATH": path}
    done = run_child(["bash", "-c", command], limit=_LIMIT_S, check=False, env=settings)
    return done.returncode, done.stdout, done.stderr
