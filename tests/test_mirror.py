"""tests/ mirrors the tree: a test file has its module, and a module has a test that names it."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from tests.support import architecture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TESTS = architecture.ROOT / "tests"
MODULES = architecture.modules()
CODE = {name: m for name, m in MODULES.items() if m.path.stem not in ("__init__", "__main__")}
# In the code of a child process, or as its command
_IN_TEXT = re.compile(r"(?:from|import|-m)\s+(vptkit(?:\.\w+)+)(?:\s+import\s+\(?([\w, ]+))?")
# What a room's face shows → the module that it comes from, as vptkit.tune.tune of api.tuning
SHOWN = {
    f"{face}.{alias.asname or alias.name}": node.module
    for face in set(architecture.FACES) & set(MODULES)
    for node in ast.walk(ast.parse(MODULES[face].path.read_text(encoding="utf-8")))
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module
    for alias in node.names
}


def mirrored() -> Iterator[Path]:
    """Test files below the rooms, relative to tests/."""
    for room in architecture.ROOMS:
        for path in sorted((TESTS / room).rglob("test_*.py")):
            yield path.relative_to(TESTS)


def module_of(test: Path) -> Path:
    """tests/tune/data/test_splits.py → tune/data/splits.py."""
    return architecture.ROOT / test.with_name(test.name.removeprefix("test_"))


def imports(text: str) -> set[str]:
    """Dotted names below vptkit that a file imports, itself or in the children it starts."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"vptkit(\.\w+)+", node.value):  # what a test replaces
                found |= {node.value, node.value.rpartition(".")[0]}
            for module, names in _IN_TEXT.findall(node.value):
                found |= {module, *(f"{module}.{name}" for name in names.replace(",", " ").split())}
    found |= {SHOWN[name] for name in found & set(SHOWN)}
    return {name for name in found if name.startswith("vptkit.")}


@lru_cache(maxsize=1)
def named() -> dict[str, set[str]]:
    """Test file → what it imports. Only what pytest collects counts, not what lies beside it."""
    return {
        str(path.relative_to(TESTS)): imports(path.read_text(encoding="utf-8"))
        for path in sorted(TESTS.rglob("test_*.py"))
    }


def test_every_test_file_has_its_module():
    assert len(list(mirrored())) > 100
    assert [str(test) for test in mirrored() if not module_of(test).is_file()] == []


def test_each_names_the_module_that_it_is_about():
    of = {module.path: module.name for module in CODE.values()}
    silent = [str(t) for t in mirrored() if of[module_of(t)] not in named()[str(t)]]
    assert silent == []


def test_every_module_is_named_by_a_test():
    assert len(CODE) > 150
    known = set().union(*named().values())
    assert sorted(set(CODE) - known) == []


def test_names_are_found_wherever_they_stand():
    text = '''
from vptkit.a import b
import vptkit.c.d
CHILD = """
from vptkit.e import f, g
import vptkit.h.i
"""
COMMAND = ["-m vptkit.j.k"]
from .vptkit import l
NOTE = "vptkit.m.n is only talked of"
'''
    assert imports(text) == {
        *("vptkit.a", "vptkit.a.b", "vptkit.c.d", "vptkit.e", "vptkit.e.f", "vptkit.e.g"),
        *("vptkit.h.i", "vptkit.j.k"),
    }
    assert "vptkit.api.tuning" in imports("from vptkit.tune import tune as run")
