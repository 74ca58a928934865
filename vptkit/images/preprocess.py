"""From a decoded image to the pixels a network sees: resize, centre crop, normalise.

Byte for byte timm's evaluation transform (`timm.data.transforms_imagenet_eval`, crop mode
"center"), without torch; tests hold the two together. Pillow stands inside the functions that need
it: a bundle opens, and runs on prepared pixels, without it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.errors import AdapterError, DataError, VptkitError
from vptkit.schema import abridged, integer, list_of, number, record, require, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from PIL import Image

    from vptkit.schema import Kind

__all__ = ["DECODE", "DECODINGS", "Preprocess", "normalize", "prepare", "resized"]

# Of the whole image after it was resized, of which the centre is cut out: so many may be read, too.
MAX_RESIZED_PIXELS = 89_478_485
DECODINGS: tuple[Literal["exact", "fast"], ...] = ("exact", "fast")
DECODE: Literal["exact", "fast"] = "exact"  # unless asked for; why: docs/benchmarks.md
_FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
_SIDE = 8192  # pixels of the longer side, at most
_CROP = 0.1  # of timm's models the least is 0.875
_RESIZED = 1 << 26  # pixels before the crop, at most: 200 MB
# What a document may hold; whether it fits together is the constructor's question.
_KINDS: dict[str, Kind] = {
    "input_size": list_of(integer(-1 << 31, 1 << 31), 8),
    "mean": list_of(number(-1e6, 1e6), 8),
    "std": list_of(number(-1e6, 1e6), 8),
    "interpolation": text(100),
    "crop_pct": number(-1e6, 1e6),
}
_DOCUMENT = record(_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """What must happen to an image before the network sees it.

    Attributes:
        input_size: (3, H, W).
        mean, std: per channel, for pixels in 0..1.
        interpolation: the resampling filter; always antialiased.
        crop_pct: the shorter side is resized to input / crop_pct, then the centre is cut out.
        decode: how files are decoded (`vptkit.images.image_pixels`). A choice of whoever reads
            them: no part of an adapter or a bundle, nor of what makes two of these equal.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    crop_pct: float = 0.875
    decode: Literal["exact", "fast"] = field(default=DECODE, compare=False)

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            AdapterError: a field is out of range.
        """
        problems = []
        channels, *size = self.input_size
        if channels != 3 or len(size) != 2 or min(size) < 1:
            problems.append(f"input_size is {self.input_size}, expected (3, H, W)")
        counts = [len(values) for values in (self.mean, self.std)]
        if counts != [3, 3] or not np.isfinite([*self.mean, *self.std]).all():
            problems.append(f"mean {self.mean} and std {self.std} need 3 finite values each")
        elif min(self.std) <= 0:
            problems.append(f"std is {self.std}, expected values above 0")
        if self.interpolation not in _FILTERS:
            problems.append(f"interpolation {self.interpolation!r}, expected {', '.join(_FILTERS)}")
        if not _CROP <= self.crop_pct <= 1:
            problems.append(f"crop_pct is {self.crop_pct}, expected a number from {_CROP} to 1")
        problems = problems or self._size_problems()
        if problems:
            raise AdapterError("preprocess: " + "; ".join(problems))

    def _size_problems(self) -> list[str]:
        """What would take more memory than an image of a network can."""
        height, width = self.size
        area = height * width / self.crop_pct**2
        if max(height, width) <= _SIDE and area <= _RESIZED:
            return []
        made = f"input_size {self.input_size} with crop_pct {self.crop_pct} makes {area:.0f} pixels"
        return [f"{made} of an image, expected sides up to {_SIDE} and {_RESIZED} pixels at most"]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.input_size[1], self.input_size[2]

    def reading(self, decode: str | None) -> Preprocess:
        """The same with files decoded in this way, or as they are where none is given.

        Raises:
            VptkitError: it is none of DECODINGS.
        """
        if decode is None:
            return self
        if decode not in DECODINGS:
            raise VptkitError(f"decode is {decode!r}, expected one of {', '.join(DECODINGS)}")
        return replace(self, decode=decode)

    def to_json(self) -> dict[str, Any]:
        """As the adapter file and the manifest write it."""
        fields = asdict(self)
        del fields["decode"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Preprocess:
        """Read what `to_json` wrote.

        Raises:
            AdapterError: keys are missing or unknown, or a value is out of range.
        """
        if not hasattr(document, "keys") or set(document) != set(_KINDS):
            found = sorted(document)[:20] if hasattr(document, "keys") else document
            raise AdapterError(
                f"preprocess: expected the keys {sorted(_KINDS)}, found {abridged(found)}"
            )
        require(document, _DOCUMENT, "preprocess", AdapterError)
        try:
            return cls(
                input_size=tuple(int(v) for v in document["input_size"]),  # type: ignore[arg-type]
                mean=tuple(float(v) for v in document["mean"]),  # type: ignore[arg-type]
                std=tuple(float(v) for v in document["std"]),  # type: ignore[arg-type]
                interpolation=document["interpolation"],
                crop_pct=float(document["crop_pct"]),
            )
        except (TypeError, ValueError) as error:
            raise AdapterError(f"preprocess: {error}") from error


def prepare(
    image: Image.Image,
    preprocess: Preprocess,
    source: object = "the image",
    *,
    whole: tuple[int, int] | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> NDArray[np.uint8]:
    """Resize and cut out the centre, as timm does in evaluation.

    Args:
        image: an RGB image of any size.
        preprocess: the target size, filter and crop share.
        source: the image's name, for the message.
        whole: (W, H) of the picture, where `image` is a smaller copy of it.
        box: the part of `image` that is the picture: left, upper, right, lower, in pixels; all of it
            unless given.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DataError: so long and thin an image that it would be huge when its shorter side is resized.
    """
    from PIL import Image

    height, width = preprocess.size
    size = resized(whole or image.size, preprocess)
    if size[0] * size[1] > MAX_RESIZED_PIXELS:
        raise DataError(
            f"{source}: {image.width} x {image.height} pixels would be resized to {size[0]} x "
            f"{size[1]}, more than {MAX_RESIZED_PIXELS:,} pixels. Cut the image into parts first."
        )
    if image.size != size:
        image = image.resize(size, Image.Resampling[preprocess.interpolation.upper()], box)
    return np.asarray(_centre(image, height, width), dtype=np.uint8)


def normalize(images: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.float32]:
    """(x / 255 - mean) / std, channels first, rounded as torchvision rounds it.

    Args:
        images: uint8 [B, H, W, 3].
        preprocess: mean and std.

    Returns:
        float32 [B, 3, H, W].
    """
    mean = np.asarray(preprocess.mean, dtype=np.float32)
    std = np.asarray(preprocess.std, dtype=np.float32)
    scaled = (images.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def resized(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """(W, H) to which a picture of (W, H) is resized, before the centre is cut out."""
    height, width = preprocess.size
    target_h = math.floor(height / preprocess.crop_pct)
    target_w = math.floor(width / preprocess.crop_pct)
    if target_h == target_w:
        return _shorter_side(size, target_h)
    return _cover(size, target_h, target_w)


def _shorter_side(size: tuple[int, int], target: int) -> tuple[int, int]:
    """torchvision.transforms.Resize with one number: the longer side is rounded down."""
    width, height = size
    if width <= height:
        return target, int(target * height / width)
    return int(target * width / height), target


def _cover(size: tuple[int, int], target_h: int, target_w: int) -> tuple[int, int]:
    """timm.data.ResizeKeepRatio: the smaller ratio decides, both sides are rounded."""
    width, height = size
    ratio = min(height / target_h, width / target_w)
    return round(width / ratio), round(height / ratio)


def _centre(image: Image.Image, height: int, width: int) -> Image.Image:
    """torchvision.transforms.CenterCrop, black padding where the image is too small."""
    if image.width < width or image.height < height:
        more_w, more_h = max(width - image.width, 0), max(height - image.height, 0)
        from PIL import ImageOps

        border = (more_w // 2, more_h // 2, (more_w + 1) // 2, (more_h + 1) // 2)
        image = ImageOps.expand(image, border=border, fill=0)
    top = round((image.height - height) / 2.0)
    left = round((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))
