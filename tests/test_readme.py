"""The README holds what it says: its commands exist, its links lead somewhere, CI runs it."""

from __future__ import annotations

import re
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.children import run_child

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for block in SHELL for line in block.splitlines() if line.startswith("vptkit ")]


@cache
def help_of(command: str) -> str:
    done = run_child(
        [sys.executable, "-m", "vptkit", command, "--help"],
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
        cwd=ROOT,
    )
    return done.stdout


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_options_exist(line: str) -> None:
    words = shlex.split(line, comments=True)
    text = help_of(words[1])
    for word in words[2:]:
        if word.startswith("-"):
            assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text), f"{word} in: {line}"


def test_an_unknown_option_would_be_noticed() -> None:
    assert not re.search(r"(?<![\w-])--no-such-option(?![\w-])", help_of("tune"))
    assert len(COMMANDS) > 10


def test_ci_runs_the_two_commands_as_written() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    lines = [line for block in SHELL for line in block.splitlines() if "pip" in line[:4]]
    install, test, board, oracle = lines
    assert install == 'pip install -e ".[all]" && vptkit demo'
    assert test == 'pip install -e ".[all,test]" && pytest -n 2'
    assert board.startswith("pip install ./vptkit  ")  # on a board: no extra
    assert oracle.startswith('pip install -e ".[trt-rtx]" && ')
    for command in (*install.split(" && "), *test.split(" && ")):
        assert command.replace("pip install", "pip install -q") in ci
    assert "<!-- after the demo -->" in ci
    assert "<!-- after the demo -->" in README


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    missing = [t for t in targets if not t.startswith("http") and not (ROOT / t).exists()]
    assert missing == []


def test_no_place_of_one_machine_and_no_package_index_is_committed() -> None:
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
