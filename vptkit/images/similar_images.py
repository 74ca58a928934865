"""The same picture twice, also after another program has written it: a hash to find it, thumbnails to be sure.

The hash is a difference hash of 64 bits (N. Krawetz, "Kind of like that", 2013): whether the picture becomes
brighter from each of 8 x 9 fields to the next. It only proposes: pictures of one kind, as tissues or
products on white, have equal hashes too. So thumbnails decide. A mirrored or otherwise cropped copy is
not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["SMALL", "difference", "look_of", "near_pairs", "one_is_the_same"]

_MARGIN = 1  # grey levels: in flat fields encoders make noise
# Measured on 2,445 photographs, drawings and slides of tissue, against themselves as JPEG of quality 30
# to 75, WebP, and at half the size: 99.9 % of the hashes differ in 6 bits or fewer, 99 % of the thumbnails
# in 0.1 of the variance or less; of all 800,000 pairs of two pictures the nearest differs in 0.23.
_MOST_BITS = 6  # that differ
_MOST_RESIDUAL = 0.1  # share of a picture's variance
# Where all look alike, as X-rays do, the nearest is no copy: a copy is much nearer than the next.
_CERTAIN, _NEARER = 0.02, 3.0
# Pixels, of the shorter side of a file. Pictures below it show little, and much that differs looks alike: of
# scikit-learn's 8 x 8 digits 370 of 997 differ from one of 800 others in less than 0.1, one in less than
# 0.02, none in less than 0.01.
SMALL, _MOST_OF_SMALL = 64, 0.005
_MOST_PROPOSED = 20  # for one image: the nearest
_MOST_WORK = 1 << 31  # comparisons, some seconds; of larger sets only equal hashes are proposed
_BLOCK = 1 << 22  # comparisons at once
_THUMBNAIL = 32  # pixels
_FLAT = 3.0  # standard deviation, grey levels: a flatter picture is the same only if every pixel is


def look_of(pixels: NDArray[np.uint8]) -> int:
    """The hash of a prepared image, uint8 [H, W, 3]: 64 bits."""
    from PIL import Image

    grey = Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX)
    fields = np.asarray(grey, dtype=np.int16)
    brighter = np.diff(fields, axis=1) > _MARGIN
    return int.from_bytes(np.packbits(brighter).tobytes(), "big")


def near_pairs(some: NDArray[np.uint64], others: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Indices of images whose hashes nearly agree, at most 20 for each: of one set and of another.

    Args:
        some: hashes, [n].
        others: hashes, [m].
    """
    if some.size * others.size > _MOST_WORK:
        yield from _equal_pairs(some, others)
        return
    rows = max(1, _BLOCK // max(1, others.size))
    for start in range(0, some.size, rows):
        differing = _count_bits(some[start : start + rows, None] ^ others[None])
        near = differing <= _MOST_BITS
        for row in np.flatnonzero(near.any(axis=1)):
            columns = np.flatnonzero(near[row])
            nearest = np.argsort(differing[row, columns], kind="stable")[:_MOST_PROPOSED]
            yield from ((start + int(row), int(column)) for column in columns[nearest])


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Of the thumbnails of two prepared images, uint8 [H, W, 3], as a share of their variance.

    Returns:
        0 or infinity of flat pictures: equal to the pixel, or not.
    """
    a, b = _thumbnail(one), _thumbnail(other)
    contrast = min(float(a.var(axis=(0, 1)).mean()), float(b.var(axis=(0, 1)).mean()))
    if contrast < _FLAT**2:
        return 0.0 if np.array_equal(one, other) else float("inf")
    return float(np.square(a - b).mean()) / contrast


def one_is_the_same(differences: Sequence[float], *, small: bool = False) -> bool:
    """Whether the nearest of some pictures is the same one, and not only one that looks alike.

    Args:
        differences: of `difference`, at least one.
        small: one of the two files is smaller than `SMALL`.
    """
    nearest, *others = sorted(differences)
    if small:
        return nearest <= _MOST_OF_SMALL
    if nearest <= _CERTAIN:
        return True
    return nearest <= _MOST_RESIDUAL and all(other >= _NEARER * nearest for other in others)


def _equal_pairs(some: NDArray[np.uint64], others: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    first, end = (np.searchsorted(ordered, some, side=side) for side in ("left", "right"))
    for row in np.flatnonzero(first < end):
        for place in range(first[row], min(end[row], first[row] + _MOST_PROPOSED)):
            yield int(row), int(order[place])


def _count_bits(numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.asarray(np.bitwise_count(numbers), dtype=np.uint8)
    parts = _BITS_OF_16[numbers.view(np.uint16).reshape(*numbers.shape, 4)]
    return np.asarray(parts.sum(axis=-1), dtype=np.uint8)


_BITS_OF_16 = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    from PIL import Image

    size = (_THUMBNAIL, _THUMBNAIL)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)
