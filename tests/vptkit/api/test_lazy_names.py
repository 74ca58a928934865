"""Names that are imported when they are asked for: found, shown, and nothing else."""

from __future__ import annotations

import importlib
import sys

import pytest

import vptkit
from tests.support.children import run_child
from vptkit.api.lazy_names import lazy_names
from vptkit.errors import MissingExtraError

LAZY = ("vptkit", "vptkit.tune", "vptkit.export")


@pytest.mark.parametrize("name", LAZY)
def test_every_name_is_there_and_dir_shows_it(name):
    package = importlib.import_module(name)
    for public in package.__all__:
        assert getattr(package, public) is not None
    assert set(package.__all__) <= set(dir(package))
    assert dir(package) == sorted(set(dir(package)))
    assert "lazy_names" not in dir(package)


@pytest.mark.parametrize("name", LAZY)
def test_another_name_is_an_attribute_error(name):
    package = importlib.import_module(name)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing
    with pytest.raises(ImportError, match="nothing"):
        exec(f"from {name} import nothing")


@pytest.mark.slow
def test_all_of_them_need_neither_torch_nor_onnx():
    """`from vptkit import *` and `help(vptkit)` on a board."""
    code = (
        "import sys\nsys.modules |= dict.fromkeys(('torch', 'timm', 'onnx', 'onnxruntime'))\n"
        "from vptkit import *\nimport vptkit, pydoc\n"
        "text = pydoc.plain(pydoc.render_doc(vptkit))\n"
        "assert 'open_session(path' in text and 'evaluate(bundle' in text\n"
        "pydoc.render_doc(vptkit.tune)\n"
    )
    run_child([sys.executable, "-c", code])


def test_a_name_that_needs_an_extra_says_which_and_is_not_shown(monkeypatch):
    get, names = lazy_names("vptkit", {"x": "no_such.module", "y": "math"}, {"x": ("no_such", "e")})
    with pytest.raises(
        MissingExtraError, match=r'vptkit.x needs the package no_such.*"vptkit\[e\]"'
    ):
        get("x")
    assert "y" in names()
    assert "x" not in names()


def test_a_fault_of_our_own_is_not_taken_for_a_missing_extra():
    get, _ = lazy_names("vptkit", {"x": "vptkit.no_such"}, {"x": ("onnx", "export")})
    with pytest.raises(ModuleNotFoundError) as caught:
        get("x")
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.slow
def test_the_rooms_are_there_without_importing_them_by_name():
    code = "import vptkit; vptkit.runtime.open_session, vptkit.devices, vptkit.errors.DataError"
    run_child([sys.executable, "-c", code])
    assert vptkit.VptkitError is vptkit.errors.VptkitError
