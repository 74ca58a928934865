from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.children import PIPE, Child
from vptkit.errors import DataError, MissingExtraError
from vptkit.python_child import python_command
from vptkit.runtime.ray_data.batch_worker import WorkOrder
from vptkit.runtime.ray_data.driver_process import main, order_of, request_of

ORDER = WorkOrder(
    bundle=Path("/b\udcff.vptk"),
    digest="abc",
    parts=Path("/p"),
    batches=3,
    folder=Path("/f"),
    batch=2,
    adapter="a",
    top_k=1,
    reject=0.1,
    decode=None,
    backend="cpu",
    threads=1,
    trust_engines=False,
)


def test_an_order_comes_back_as_it_was():
    line = request_of(ORDER, address="auto", threads=None)
    assert line.count("\n") == 1
    request = json.loads(line)
    assert order_of(request.pop("order")) == ORDER
    assert request == {"address": "auto", "threads": None}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, {"done": True}),
        (DataError("node a: gone"), {"error": "DataError", "text": "node a: gone"}),
        (
            MissingExtraError("x", "y", "z"),
            {"error": "MissingError", "text": "z needs the package x"},
        ),
    ],
)
def test_what_it_says(monkeypatch, capsys, error, said):
    asked = []

    def run_dataset(order, **named):
        asked.append((order, named))
        if error is not None:
            raise error

    place = "vptkit.runtime.ray_data.dataset_run"
    monkeypatch.setitem(sys.modules, place, SimpleNamespace(run_dataset=run_dataset))
    monkeypatch.setattr("vptkit.runtime.ray_data.driver_process._end_with", lambda stream: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO(request_of(ORDER, address="auto", actors=3)))
    main()
    answer = json.loads(capsys.readouterr().out)
    assert asked == [(ORDER, {"address": "auto", "actors": 3})]
    assert answer.get("text", "").startswith(said.pop("text", ""))
    assert {name: value for name, value in answer.items() if name != "text"} == said


@pytest.mark.long
def test_it_ends_when_nobody_waits():
    pytest.importorskip("ray")
    command = python_command("vptkit.runtime.ray_data.driver_process")
    with Child(command, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        process.stdin.write(request_of(ORDER, address="local", threads=1, actors=1))
        process.stdin.close()
        assert process.wait() == 1
