"""What a run skipped and why, at its end: a line a reason, however many tests it took."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["pytest_terminal_summary", "reasons"]


def reasons(reports: Iterable[Any]) -> list[tuple[int, str]]:
    """How often each reason was given, the most frequent first; a whole module counts as one."""
    found = {(report.nodeid, report.when): report for report in reports}  # workers repeat modules
    counts = Counter(_reason(report.longrepr) for report in found.values())
    return sorted(((count, text) for text, count in counts.items()), key=lambda p: (-p[0], p[1]))


def _reason(skip: Any) -> str:
    # (file, line, "Skipped: why")
    text = skip[2] if isinstance(skip, (tuple, list)) else str(skip)
    return " ".join(text.removeprefix("Skipped:").split()) or "no reason given"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Before pytest's closing line."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and "s" not in terminalreporter.reportchars:  # -rs says it place by place
        terminalreporter.ensure_newline()
        terminalreporter.section("skipped, and why")
        for count, reason in reasons(skipped):
            terminalreporter.write_line(f"{count:5}  {reason}")
