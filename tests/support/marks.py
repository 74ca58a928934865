"""Which of many variants a quick run takes, and backends that may not be installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["ON_PROCESSOR", "quick_if"]

_OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
# Backends that must answer alike
ON_PROCESSOR = ("cpu", pytest.param("openvino", marks=_OPENVINO))


def quick_if(chosen: Callable[[Any], bool], variants: Iterable[Any]) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`: those that are not chosen are slow.

    What a test shows of one variant it shows of the others in the whole run.
    """
    found = []
    for one in variants:
        values = one if isinstance(one, tuple) else (one,)
        found.append(pytest.param(*values, marks=() if chosen(one) else pytest.mark.slow))
    return found
