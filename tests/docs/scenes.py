"""What the reader of a page has in the folder where its commands are typed.

Weights come from a Hugging Face cache of ours, without a network: the real ones of the team's
folder where it is there, else random ones of the same network.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vptkit.formats.adapter import read_adapter, write_adapter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["BACKBONE", "SCENES", "Scenery", "fill_hub"]

BACKBONE = "vit_tiny_patch16_224"  # of all examples: the smallest pretrained one there is
_REPOSITORY = f"{BACKBONE}.augreg_in21k_ft_in1k"
_CLASSES = ("daisy", "roses", "tulips")
_COUNTS = {"train": 2, "val": 5, "test": 1}
_PROMPTS = 4


class Scenery:
    """Makes things once, and copies of them for each page.

    Args:
        kept: folder for what is made once.
        shared: the team's folder of images and weights, if there is one.
        vptkit: runs the command line here, in the present folder.
    """

    def __init__(self, kept: Path, shared: Path | None, vptkit: Callable[..., Any]) -> None:
        self.kept, self.shared, self.vptkit = kept, shared, vptkit

    def put(self, name: str, folder: Path) -> None:
        """Put a thing of `SCENES` into a folder.

        Raises:
            KeyError: there is none of that name.
        """
        made = self.kept / name
        if not made.exists():
            SCENES[name](self, made)
        if made.is_dir():
            shutil.copytree(made, folder / name)
        else:
            shutil.copy(made, folder / name)

    def need(self, name: str) -> Path:
        """A thing that another one is made of."""
        if not (self.kept / name).exists():
            SCENES[name](self, self.kept / name)
        return self.kept / name

    def run(self, *words: object) -> None:
        """A command that makes something."""
        code, _, err = self.vptkit(*words)
        assert code == 0, err


def fill_hub(hub: Path, shared: Path | None) -> None:
    """A cache as the hub's client leaves it, with the weights of `BACKBONE`."""
    place = hub / f"models--timm--{_REPOSITORY}"
    revision = "0" * 40
    snapshot = place / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(revision)
    target = snapshot / "model.safetensors"
    real = shared / "weights" / _REPOSITORY / "model.safetensors" if shared else None
    if real is not None and real.is_file():
        target.symlink_to(real)
        return
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model(BACKBONE, pretrained=False).state_dict(), target)


def _flowers(scenery: Scenery, made: Path) -> None:
    """A few photographs a class in train/ val/ test/; coloured noise where there are none."""
    random = np.random.default_rng(0)
    for split, count in _COUNTS.items():
        for i, name in enumerate(_CLASSES):
            folder = made / split / name
            folder.mkdir(parents=True)
            real = scenery.shared / "data" / "flowers5" / split / name if scenery.shared else None
            found = sorted(real.glob("*.jpg"))[:count] if real is not None else []
            for photo in found:
                shutil.copyfile(photo, folder / photo.name)
            for k in range(count - len(found)):
                pixels = random.integers(0, 90, (96, 128, 3), dtype=np.uint8)
                pixels[..., i] += 150
                Image.fromarray(pixels).save(folder / f"{k}.jpg")


def _photos(scenery: Scenery, made: Path) -> None:
    made.mkdir()
    flowers = scenery.need("flowers")
    for i, photo in enumerate(sorted((flowers / "test").rglob("*.jpg"))[:3]):
        shutil.copy(photo, made / f"{i}.jpg")


def _adapter(scenery: Scenery, made: Path) -> None:
    """flowers.safetensors: LayerNorms, the default method, of two epochs."""
    flowers = scenery.need("flowers")
    settings = ("--backbone", BACKBONE, "--image-size", 64, "--epochs", 2, "--threads", 1)
    scenery.run("tune", flowers, *settings, "-o", made)


def _prompted(scenery: Scenery, made: Path) -> None:
    """vpt.safetensors: an adapter with prompts."""
    flowers = scenery.need("flowers")
    settings = ("--backbone", BACKBONE, "--image-size", 64, "--method", "vpt")
    scenery.run("tune", flowers, *settings, "--prompts", 4, "--epochs", 1, "-o", made)


def _renamed(scenery: Scenery, made: Path) -> None:
    """The same adapter under another name, as tuned on other images."""
    adapter = read_adapter(scenery.need("flowers.safetensors"))
    write_adapter(made, replace(adapter, name=made.stem))


def _bundle(scenery: Scenery, made: Path) -> None:
    scenery.run("export", scenery.need("flowers.safetensors"), "-o", made)


def _half(scenery: Scenery, made: Path) -> None:
    adapter = scenery.need("flowers.safetensors")
    scenery.run("export", adapter, "--precision", "fp16", "-o", made)


def _bank(scenery: Scenery, made: Path) -> None:
    names = ("flowers", "birds", "cars")
    adapters = [scenery.need(f"{name}.safetensors") for name in names]
    scenery.run("export", *adapters, "--layout", "bank", "-o", made)


def _demo(scenery: Scenery, made: Path) -> None:
    """What the demo leaves behind, after one epoch on a few digits.

    With five of each in val: with fewer, parts of train would be held out, five trainings for one.
    """
    from vptkit.demo.digits import write_digits

    digits = scenery.kept / "digits"
    write_digits(digits)
    for folder in digits.glob("*/*"):
        for image in sorted(folder.iterdir())[_COUNTS[folder.parent.name] :]:
            image.unlink()
    scenery.run("demo", "--data", digits, "--epochs", 1, "--threads", 1, "-o", made)
    shutil.move(digits, made / "digits")
    for toml in made.glob("*.toml"):  # the weights lie where the reader's demo put them
        text = toml.read_text().replace(str(made), "vptkit-demo")
        toml.write_text(text)


def _foreign(scenery: Scenery, made: Path) -> None:
    """A checkpoint as VPT's trainer saves it: prompts for 12 blocks of 192, a head of 3 classes."""
    import torch

    torch.manual_seed(0)
    prompts = {
        "enc.transformer.prompt_embeddings": torch.randn(1, _PROMPTS, 192),
        "enc.transformer.deep_prompt_embeddings": torch.randn(11, _PROMPTS, 192),
        "head.last_layer.weight": torch.randn(len(_CLASSES), 192),
        "head.last_layer.bias": torch.randn(len(_CLASSES)),
    }
    torch.save({"model": prompts}, made)


SCENES: dict[str, Callable[[Scenery, Path], None]] = {
    "flowers": _flowers,
    "photos": _photos,
    "flowers.safetensors": _adapter,
    "vpt.safetensors": _prompted,
    "birds.safetensors": _renamed,
    "cars.safetensors": _renamed,
    "trucks.safetensors": _renamed,
    "flowers.vptk": _bundle,
    "flowers-fp16.vptk": _half,
    "all.vptk": _bank,
    "vptkit-demo": _demo,
    "vpt.pth": _foreign,
}
