"""Tiny Vision Transformers with random weights, and tiny generated image folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from tests.support.timms import create_model  # noqa: E402
from vptkit.tune import TuneConfig, config_from_mapping  # noqa: E402
from vptkit.tune.idle_settings import idle_settings  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME = "vit_tiny_patch16_224"
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
COLOURS = {"blue": (40, 60, 190), "green": (50, 170, 60), "red": (190, 50, 40)}


def randomize(model: Any, seed: int = 0) -> Any:
    """Random values for every parameter, so that none of them is a zero or a one by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            norm = "norm" in name and name.endswith("weight")
            value.copy_(1 + 0.3 * noise if norm else 0.2 * noise)
    return model


@pytest.fixture(scope="module", autouse=True)
def quiet_threads() -> Iterator[None]:
    """One thread: threads that wait for each other are slow on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_vit() -> Callable[..., Any]:
    """A function: a frozen timm model of a few thousand random parameters, in evaluation mode."""

    def make(name: str = NAME, seed: int = 0, **overrides: Any) -> Any:
        model = create_model(name, num_classes=0, **{**TINY, **overrides})
        return randomize(model, seed).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, make_vit: Callable[..., Any]) -> Path:
    """The weights of `make_vit()` as a file."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(make_vit().state_dict(), path)
    return path


@pytest.fixture(scope="session")
def make_folders() -> Callable[..., Path]:
    """A function: class folders of coloured noise, easy to tell apart."""

    def make(root: Path, count: int = 8, seed: int = 0, classes: int = 3) -> Path:
        random = np.random.default_rng(seed)
        for name in sorted(COLOURS)[:classes]:
            (root / name).mkdir(parents=True)
            for i in range(count):
                shape = (int(random.integers(30, 50)), int(random.integers(30, 50)), 3)
                pixels = random.normal(COLOURS[name], 40, shape).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / name / f"{i}.png")
        return root

    return make


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory, make_folders: Callable[..., Path]) -> Path:
    """train/ (24 images), val/ (15) and test/ (12), three classes. Read only."""
    root = tmp_path_factory.mktemp("images")
    for seed, (name, count) in enumerate({"train": 8, "val": 5, "test": 4}.items()):
        make_folders(root / name, count, seed)
    return root


@pytest.fixture(scope="session")
def make_config(weights: Path) -> Callable[..., TuneConfig]:
    """A function: a configuration of a short run on `weights`."""

    def make(**overrides: Any) -> TuneConfig:
        settings: dict[str, Any] = {
            "backbone": NAME,
            "backbone_args": dict(TINY),
            "weights": weights,
            "method": "bpt",
            "epochs": 2,
            "select": "loss",
            "batch_size": 8,
            "prompts": 3,
            "rank": 5,
            "golden": 3,
            "whiten_images": 12,
        }
        given = {**settings, **overrides}
        idle = set(idle_settings(given)) - set(overrides)
        return config_from_mapping({k: v for k, v in given.items() if k not in idle})

    return make
