"""`vptkit.tune`, `vptkit.export` and `vptkit.report` are packages, and functions."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import sys
from types import ModuleType

import pytest

import vptkit
import vptkit.tune.config
from tests.support.children import run_child
from vptkit.api import compiling, tuning
from vptkit.api.callable_rooms import CallableRoom
from vptkit.report import make_report

ROOMS = {"tune": tuning.tune, "export": compiling.export, "report": make_report.report}


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_is_a_package_and_its_function(name, monkeypatch):
    room, function = getattr(vptkit, name), ROOMS[name]
    assert isinstance(room, ModuleType)
    assert room is importlib.import_module(f"vptkit.{name}") is sys.modules[f"vptkit.{name}"]
    assert getattr(room, name) is function
    assert inspect.signature(room) == inspect.signature(function)
    monkeypatch.setattr(room, name, lambda *a, **b: (a, b), raising=False)
    assert room("in", "out", force=True) == (("in", "out"), {"force": True})


@pytest.mark.parametrize("name", ROOMS)
def test_help_shows_the_package_with_its_function(name):
    text = pydoc.plain(pydoc.render_doc(getattr(vptkit, name)))
    assert f"package vptkit.{name}" in text
    assert f"    {name}(" in text


def test_every_way_to_a_name_leads_to_the_same():
    from vptkit.tune import TuneConfig, tune

    assert TuneConfig is vptkit.TuneConfig is vptkit.tune.TuneConfig
    assert TuneConfig is vptkit.tune.config.TuneConfig
    assert tune is vptkit.tune.tune


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    ["import vptkit", "import vptkit.tune.config", "from vptkit.tune import tune as t", ""],
)
def test_the_order_of_imports_does_not_matter(first):
    code = "import vptkit, vptkit.tune.recipe\nassert callable(vptkit.tune) and vptkit.tune.config"
    run_child([sys.executable, "-c", f"{first}\n{code}"])


def test_a_room_can_be_reloaded():
    assert isinstance(importlib.reload(vptkit.tune), CallableRoom)
