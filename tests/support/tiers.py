"""Which tests are slow and which are long: measured, not guessed.

- quick: `pytest -m "not slow"`, a minute or two.
- the suite: `pytest`, all but the long ones.
- long: `pytest --long` runs them too, as `.ci/run` does; `pytest -m long` runs them alone.
- one case: `pytest --one-case -m "not slow"`, for other versions of the packages (`.ci/lowest`): of
  each quick test the first case, as the others make the same calls with other numbers. Only where
  cases are names of models, which a release may lack, all are run.

`tests/durations.tsv` holds the seconds of each test that is not quick;
`python -m tests.support.tiers REPORT.xml…` writes it, of what `pytest -n 2 --long --junitxml` wrote.
A test that it does not know is quick unless it is marked by hand. By hand, too, are marked the tests
that share something costly: its cost is counted to whichever of them comes first.
"""

from __future__ import annotations

import functools
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DURATIONS", "LONG", "SLOW", "durations", "pytest_addoption"]
__all__ += ["pytest_collection_modifyitems", "pytest_configure"]

DURATIONS = Path(__file__).resolve().parents[1] / "durations.tsv"
ALL_CASES = ("tests/integration/", "tests/tune/backbone/")  # where they are names of models
SLOW, LONG = 0.15, 1.5  # seconds of one of two workers on two cores, setup included


@functools.cache
def durations() -> dict[str, float]:
    """Node id → seconds, of the tests that are not quick."""
    lines = DURATIONS.read_text(encoding="utf-8").splitlines()
    return {name: float(seconds) for seconds, name in (line.split("\t", 1) for line in lines)}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long`, `--one-case`."""
    parser.addoption("--long", action="store_true", help="also the tests that take minutes in all")
    parser.addoption("--one-case", action="store_true", help="of quick tests the first case alone")


def pytest_configure(config: pytest.Config) -> None:
    """Whoever names files or marks gets what was named; xdist hands the option to its workers."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    if named or config.option.markexpr or config.option.keyword:
        config.option.long = True


@pytest.hookimpl(tryfirst=True)  # before pytest looks at -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark by what was measured; leave the long ones out."""
    for item in items:
        seconds = durations().get(item.nodeid, 0)
        if seconds > LONG:
            item.add_marker(pytest.mark.long)
        if seconds > SLOW or item.get_closest_marker("long"):
            item.add_marker(pytest.mark.slow)
    if not config.option.long:
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    if config.option.one_case:
        seen: set[str] = set()
        further = [item for item in items if _is_further_case(item, seen)]
        config.hook.pytest_deselected(items=further)
        left = set(further)
        items[:] = [item for item in items if item not in left]


def _is_further_case(item: pytest.Item, seen: set[str]) -> bool:
    """Whether a quick case of the same test was seen, and only one is run."""
    test = item.nodeid.partition("[")[0]
    if item.get_closest_marker("slow") or test.startswith(ALL_CASES):
        return False
    if test in seen:
        return True
    seen.add(test)
    return False


def measured(reports: Iterable[Path]) -> dict[str, float]:
    """Node id → seconds of JUnit reports, the longest of several; quick tests are left out."""
    found: dict[str, float] = {}
    for report in reports:
        for case in ET.parse(report).getroot().iter("testcase"):
            module, test = case.attrib["classname"], case.attrib["name"]
            name = f"{module.replace('.', '/')}.py::{test}"
            seconds = float(case.attrib["time"])
            if seconds > SLOW:
                found[name] = max(seconds, found.get(name, 0))
    return found


if __name__ == "__main__":
    rows = sorted(measured(map(Path, sys.argv[1:])).items())
    DURATIONS.write_text("".join(f"{seconds:.1f}\t{name}\n" for name, seconds in rows), "utf-8")
