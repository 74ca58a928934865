"""Runs that a Ctrl-C stops after so many images."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vptkit.runtime.bulk.run_journal import RunJournal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from vptkit.runtime.session.session_protocol import Prediction

__all__ = ["stopped_after"]


@contextlib.contextmanager
def stopped_after(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block a run is interrupted as soon as its journal holds so many images."""
    add = RunJournal.add

    def stop(journal: RunJournal, prediction: Prediction) -> None:
        add(journal, prediction)
        if journal.count == count:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunJournal, "add", stop)
        yield
