from __future__ import annotations

import sys
import types

import pytest

pytest.importorskip("onnxruntime")
from tests.support.children import run_child
from vptkit.runtime.backends.onnxruntime_library import without_telemetry

# The extension's function is replaced before our module is imported
TOLD = """
import onnxruntime
told = []
onnxruntime.disable_telemetry_events = lambda: told.append("off")
import vptkit.runtime.backends.{module}
print(told)
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["onnxruntime_graph", "onnxruntime_probe"])
def test_whoever_loads_graphs_has_switched_telemetry_off(module):
    done = run_child([sys.executable, "-c", TOLD.format(module=module)])
    assert done.stdout.strip() == "['off']"


def test_an_older_build_has_nothing_to_switch_off():
    library = types.SimpleNamespace()
    assert without_telemetry(library) is library
