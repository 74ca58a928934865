"""What tests of several commands are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """weights.safetensors, other.safetensors, run.toml, data/ and a tuned adapter. Read only."""
    from tests.support.tuned_inputs import make_inputs  # needs torch and timm

    return make_inputs(tmp_path_factory.mktemp("inputs"))
