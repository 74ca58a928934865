from __future__ import annotations

import sys
import types

import pytest

pytest.importorskip("onnxruntime")
from tests.support.children import run_child
from vptkit.runtime.backends import onnxruntime_library
from vptkit.runtime.backends.onnxruntime_library import rest_soon, without_telemetry

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


@pytest.mark.parametrize(
    ("version", "spins", "microseconds"),
    [("1.20.1", "0", None), ("1.25.0", "0", None), ("1.26.0", "1", "30"), ("2.0.0rc1", "1", "30")],
)
def test_threads_spin_only_where_that_is_bounded(monkeypatch, version, spins, microseconds):
    entries: dict[str, str] = {}
    options = types.SimpleNamespace(add_session_config_entry=entries.__setitem__)
    monkeypatch.setattr(onnxruntime_library.onnxruntime, "__version__", version)
    rest_soon(options)
    assert entries.pop("session.intra_op.allow_spinning") == spins
    assert entries.pop("session.intra_op.spin_duration_us", None) == microseconds
    assert entries == {}


def test_an_older_build_has_nothing_to_switch_off():
    library = types.SimpleNamespace()
    assert without_telemetry(library) is library
