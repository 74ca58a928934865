"""With programs in the place of the process that talks with Ray."""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.runtime.ray_data.test_driver_process import ORDER
from vptkit.errors import DataError, MissingError
from vptkit.runtime.ray_data import driver_child
from vptkit.runtime.ray_data.driver_child import answer_batches
from vptkit.runtime.ray_data.parts_folder import opened_parts

parquet = pytest.importorskip("pyarrow.parquet")
arrow = pytest.importorskip("pyarrow")


class Bar:
    """Who wants to know."""

    total = None

    def __init__(self):
        self.told = []

    def update(self, advance=1, text=""):
        self.told.append(advance)


@pytest.fixture
def answer(tmp_path):
    """A function: run a program in the place of the process; what was told of images."""

    def run(program):
        bar = Bar()
        command = [sys.executable, "-c", textwrap.dedent(program)]
        with opened_parts(tmp_path / "x.csv", {}) as parts:
            parts.take_up([Path(f"{i}.png") for i in range(5)], 2)
            parts.checkpoint.mkdir(exist_ok=True)
            answer_batches(ORDER, parts, progress=bar, command=command, address="a:1", actors=2)
        return bar.told

    return run


def test_what_it_is_asked_and_what_it_has_done(answer, tmp_path):
    notes = tmp_path / "x.csv.parts" / "checkpoint"
    program = f"""
        import json, sys
        import pyarrow, pyarrow.parquet
        request = json.loads(sys.stdin.readline())
        assert request["address"] == "a:1" and request["actors"] == 2 and request["order"]
        for name, ids in (("a", [0]), ("b", [1, 2]), ("c.pending", [2])):
            table = pyarrow.table({{"id": ids}})
            pyarrow.parquet.write_table(table, {str(notes)!r} + f"/{{name}}.parquet")
        print('{{"done": true}}')
    """
    assert sum(answer(program)) == 5


def test_errors_come_through(answer):
    said = '{"error": "DataError", "text": "node a: gone"}'
    with pytest.raises(DataError, match=r"^node a: gone$"):
        answer(f"print({said!r})")


def test_however_it_ends(answer):
    with pytest.raises(RuntimeError, match=r"(?s)^Traceback.*ZeroDivisionError"):
        answer("1 / 0")
    crash = "import os, sys; print('a bug in Ray', file=sys.stderr, flush=True); os.abort()"
    with pytest.raises(MissingError, match=r"Ray ended with status -6: a bug in Ray\. What is"):
        answer(crash)
    with pytest.raises(MissingError, match="status 0: it said nothing"):
        answer("")


def test_an_interrupt_ends_it(answer, tmp_path, monkeypatch):
    mark = tmp_path / "mark"

    def interrupted(*_):
        while not mark.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(driver_child, "_watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answer(f"""
            import os, time
            open({str(mark)!r} + ".new", "w").write(str(os.getpid()))
            os.rename({str(mark)!r} + ".new", {str(mark)!r})
            time.sleep(60)
        """)
    assert not Path(f"/proc/{mark.read_text()}").exists()
