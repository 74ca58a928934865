"""Every package that can be missing has a way to get it, on a Jetson and on a server."""

from __future__ import annotations

from typing import get_args

import pytest

from vptkit.runtime.backends.install_hints import Missing, mend


@pytest.mark.parametrize("jetson", [True, False])
@pytest.mark.parametrize("missing", get_args(Missing))
def test_there_is_a_hint_for_each(missing, jetson):
    assert any(word in mend(missing, jetson=jetson) for word in ("install", "use --backend"))


def test_a_jetson_is_not_sent_where_nothing_fits_it():
    """PyPI's GPU wheels have no code for it, and TensorRT-RTX is not made for it."""
    assert not mend("onnxruntime-gpu", jetson=True).startswith("pip install")
    for missing in ("onnxruntime-gpu", "tensorrt-rtx"):
        assert "--backend tensorrt" in mend(missing, jetson=True)
    assert mend("tensorrt", jetson=True).startswith("sudo apt install tensorrt")
