"""Importing a checkpoint, and a head of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.foreign_checkpoints import HEAD, NAME, TINY  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune.importers.import_adapter import ImportConfig, import_adapter  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def bring(tmp_path: Path, weights: Path) -> Callable[..., Any]:
    """A function: save a checkpoint, import it, and return the adapter."""

    def run(state: Any, layout: str, **options: Any) -> Any:
        file = tmp_path / "foreign.pth"
        torch.save(state, file)
        config = ImportConfig(
            layout=layout, backbone=NAME, backbone_args=dict(TINY), weights=weights, **options
        )
        output = tmp_path / "imported.safetensors"
        run.document = import_adapter(file, output, config, force=True)
        return read_adapter(output)

    return run


@pytest.fixture
def head_file(tmp_path: Path) -> Path:
    path = tmp_path / "head.pth"
    torch.save({f"head.{name}": value for name, value in HEAD.items()}, path)
    return path
