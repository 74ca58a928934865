"""What `vptkit tune` and `vptkit export` are given: weights, images, settings, a tuned adapter."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from safetensors.torch import save_file  # noqa: E402

from vptkit.tune import TuneConfig  # noqa: E402
from vptkit.tune import tune as run_tune  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.children import Child


NAME = "vit_tiny_patch16_224"
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
COLOURS = {"blue": (40, 60, 190), "green": (50, 170, 60), "red": (190, 50, 40)}
MAIN = [sys.executable, "-c", "from vptkit.cli import main; main()"]


def make_weights(path: Path, seed: int = 0, **arguments: object) -> Path:
    """Write random weights of a tiny ViT, whose timm arguments may differ."""
    model = timm.create_model(NAME, num_classes=0, **{**TINY, **arguments})
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: value + 0.2 * torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
    }
    save_file(state, path)
    return path


def make_folders(root: Path, count: int = 4, seed: int = 0) -> Path:
    """Write class folders of coloured noise."""
    random = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.normal(colour, 40, (36, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def names(folder: Path) -> set[str]:
    """Of what is in a folder."""
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_inputs(folder: Path) -> Path:
    """Write weights.safetensors, other.safetensors, run.toml, data/ and a tuned adapter."""
    weights = make_weights(folder / "weights.safetensors")
    make_weights(folder / "other.safetensors", seed=1)
    make_folders(folder / "data", 6)
    arguments = ", ".join(f"{key} = {value}" for key, value in TINY.items())
    (folder / "run.toml").write_text(
        f'backbone = "{NAME}"\nbackbone_args = {{ {arguments} }}\n'
        "method = 'bpt'\nepochs = 1\nbatch_size = 8\nprompts = 3\nrank = 4\ngolden = 3\n"
    )
    config = TuneConfig(
        backbone=NAME,
        backbone_args=TINY,
        weights=weights,
        method="bpt",
        epochs=1,
        batch_size=8,
        prompts=3,
        rank=4,
        golden=3,
    )
    run_tune(folder / "data", folder / "adapter.safetensors", config)
    return folder


def assert_only_error(result: tuple[int, str, str], code: int, *parts: str) -> None:
    """One line of error at the end of standard error, no traceback, no document."""
    assert result[0] == code, result[2]
    assert result[1] == ""
    lines = result[2].strip().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    for part in parts:
        assert part in lines[-1]
    assert "Traceback" not in result[2]


def no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def wait_for(path: Path, process: Child) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
