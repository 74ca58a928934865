"""The tests' children hear signals and end, and nothing is started past the helper."""

from __future__ import annotations

import ast
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.children import PIPE, Child, Failed, Late, descendants, hearing, run_child

TESTS = Path(__file__).resolve().parents[1]
HELPER = TESTS / "support" / "children.py"
FILES = sorted(
    path
    for path in TESTS.rglob("*.py")
    if path != HELPER and "benchmarks" not in path.relative_to(TESTS).parts
)
# Starts a child that holds standard output, says its number, and does something.
PARENT = """
import subprocess, sys
child = subprocess.Popen(["sleep", "600"])
print(child.pid, flush=True)
sys.stderr.write("last words\\n")
sys.stderr.flush()
{then}
"""


@pytest.fixture(params=["ignored", "blocked"])
def deaf(request):
    """SIGINT and SIGHUP as under nohup in the background, or held back."""
    numbers = (signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if request.param == "ignored":
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
    else:
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    yield lambda: ({n: signal.getsignal(n) for n in numbers}, signal.pthread_sigmask(0, ()))
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_child_hears_what_the_tests_do_not(deaf, number):
    before = deaf()
    with Child(["sleep", "600"]) as child:
        child.send_signal(number)
        assert child.wait() == -number
    assert deaf() == before


def test_a_test_hears_what_pytest_does_not(deaf):
    before = deaf()
    with pytest.raises(KeyboardInterrupt), hearing():
        signal.raise_signal(signal.SIGINT)
    assert deaf() == before


@pytest.mark.parametrize("then", ["child.wait()", "sys.exit(0)"])
def test_time_is_up_for_a_child_and_all_below_it(then):
    """Also where the child has ended and another holds its output."""
    start = time.monotonic()
    command = [sys.executable, "-c", PARENT.format(then=then)]
    child = Child(command, limit=1, stdout=PIPE, stderr=PIPE)
    below = int(child.stdout.readline())
    with pytest.raises(Late, match=r"killed after 1 s: .*python.*\n(.|\n)*last words"), child:
        child.communicate()
    assert 1 <= time.monotonic() - start < 60
    assert gone(below)


def test_a_child_whose_lines_are_read_ends_too():
    """The message comes although another assertion failed first."""
    code = "import time; print('begun', flush=True); time.sleep(600)"
    with (
        pytest.raises(Late, match="killed after 1 s"),
        Child([sys.executable, "-c", code], limit=1, stdout=PIPE) as child,
    ):
        assert list(child.stdout) == ["begun\n", "done\n"]


def test_a_test_that_fails_leaves_no_child():
    child = Child([sys.executable, "-c", PARENT.format(then="child.wait()")], stdout=PIPE)
    below = int(child.stdout.readline())
    assert descendants(child.pid) == [below]
    with pytest.raises(ZeroDivisionError), child:
        raise ZeroDivisionError
    assert child.returncode == -signal.SIGKILL
    assert gone(below)


def test_a_child_that_ends_in_time():
    done = run_child([sys.executable, "-c", "print(input()[::-1])"], input="abc\n", limit=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cba\n", "")
    code = "import sys; sys.exit(f'read {sys.stdin.read()!r}')"
    with pytest.raises(Failed, match=r"ended with 1: .*\nread ''"):
        run_child([sys.executable, "-c", code])
    assert run_child([sys.executable, "-c", code], check=False).returncode == 1


def gone(pid: int) -> bool:
    """Whether a process ends within a few seconds; init may take its time to bury it."""
    for _ in range(200):
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return True
        time.sleep(0.05)
    return False


# nothing else starts a child ----------------------------------------------------------------------

MODULES = re.compile(
    r"subprocess|multiprocessing|pty|billiard|torch\.multiprocessing|asyncio\.\w*subprocess"
)
LOOPS = re.compile(r"(create_)?subprocess_(exec|shell)")  # of asyncio, whatever it is called
CALLS = re.compile(r"(fork|forkpty|system|popen|posix_spawnp?|spawn[lv]p?e?|exec[lv]p?e?)")


def starts(tree: ast.AST) -> list[str]:
    """What starts a process in a file, or imports what does."""
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name.name}" for name in node.names] + [str(node.module)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}"]
        if isinstance(node, ast.Attribute) and LOOPS.fullmatch(node.attr):
            found.append(f"line {node.lineno}: {node.attr}")
        for name in names:
            first, _, last = name.partition(".")
            pool = name.endswith("ProcessPoolExecutor")
            if MODULES.match(name) or (first == "os" and CALLS.fullmatch(last)) or pool:
                found.append(f"line {node.lineno}: {name}")
    return found


# Without one of these words nothing is found, and most files need not be taken apart.
WORDS = re.compile(f"{MODULES.pattern}|ProcessPoolExecutor|{CALLS.pattern}")


def starts_in(text: str) -> list[str]:
    """What starts a process where this text is run, not where types are checked."""
    return starts(WithoutTypes().visit(ast.parse(text))) if WORDS.search(text) else []


class WithoutTypes(ast.NodeTransformer):
    """Takes out what only type checkers read."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if types else self.generic_visit(node)


# The fuzzer forks, as each input would import torch anew; it has limits of its own, for each input.
FORKS = next(path for path in FILES if path.parts[-2:] == ("fuzz", "campaign.py"))


def test_children_are_started_by_the_helper_alone():
    """It is what sets a limit."""
    assert len(FILES) > 50
    texts = {str(path): path.read_text(encoding="utf-8") for path in FILES}
    found = {name: starts_in(text) for name, text in texts.items()}
    forks = found.pop(str(FORKS))
    assert [line.partition(": ")[2] for line in forks] == ["os.fork"]
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess",
        "import subprocess as s",
        "from subprocess import run",
        "import multiprocessing.pool",
        "from multiprocessing import Process",
        "import torch.multiprocessing as mp",
        "from concurrent.futures import ProcessPoolExecutor",
        "import os; os.system('x')",
        "import os; os.fork()",
        "from os import posix_spawn",
        "import asyncio; asyncio.create_subprocess_exec('x')",
        "import asyncio as a; a.create_subprocess_shell('x')",
        "from asyncio import create_subprocess_exec",
        "from asyncio import subprocess",
        "loop.subprocess_exec(None, 'x')",
        "def f():\n    import os\n    os.spawnvp(0, 'x', [])",
    ],
)
def test_each_way_past_it_would_be_noticed(line):
    assert starts_in(line)


def test_a_loop_without_processes_is_none():
    assert starts(ast.parse("import asyncio\nasyncio.run(asyncio.sleep(0))")) == []


def test_what_only_types_need_is_no_way_past_it():
    code = "import os\nif TYPE_CHECKING:\n    from subprocess import CompletedProcess\nos.getpid()"
    assert starts_in(code) == []
