"""The demo's images: scikit-learn's handwritten digits, as a folder of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.errors import MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path


def write_digits(folder: Path) -> Path:
    """scikit-learn's 1,797 handwritten digits as class folders train/ val/ test/ of 8 x 8 PNGs.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "demo", "the demo's images") from error
    import numpy as np
    from PIL import Image

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    cuts = {"train": order[:800], "val": order[800:1000], "test": order[1000:]}
    for split, indices in cuts.items():
        for index in indices:
            place = folder / split / str(digits.target[index])
            place.mkdir(parents=True, exist_ok=True)
            pixels = np.rint(digits.images[index] * (255 / 16)).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{index:04d}.png")
    return folder
