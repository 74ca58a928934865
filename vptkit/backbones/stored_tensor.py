"""Tensors that stay in their file: shapes are known, numbers are read when they are asked for.

Weights may be larger than the memory of the machine that compiles them, and each tensor is needed
once or twice, for a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Overlaid", "StoredTensor", "StoredTensors", "joined", "shapes_of"]


class StoredTensor:
    """One tensor in an open file.

    NumPy takes it as an array (`np.asarray`), which reads it; nothing that was read is kept.

    Attributes:
        shape: of what is read.
    """

    __slots__ = ("_read", "shape")

    def __init__(self, shape: tuple[int, ...], read: Callable[[], NDArray[Any]]) -> None:
        """Note where it is.

        Args:
            shape: of what `read` gives.
            read: reads the numbers, as often as it is called; raises what its file's reader raises.
        """
        self.shape, self._read = shape, read

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        """Size of the first dimension."""
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The numbers."""
        value = self._read()
        return value if dtype is None else np.asarray(value, dtype=dtype)


def shapes_of(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name → shape of arrays or of stored tensors, of which nothing is read."""
    if isinstance(tensors, StoredTensors):
        return dict(tensors.shapes)
    return {name: value.shape for name, value in tensors.items()}


def joined(parts: Sequence[Any]) -> Any:
    """Tensors of one width below one another (`np.concatenate`); stored ones stay stored.

    Raises:
        ValueError: their shapes do not go together.
    """
    shapes = [part.shape for part in parts]
    fit = all(shapes) and len({shape[1:] for shape in shapes}) == 1
    if not (fit and any(isinstance(part, StoredTensor) for part in parts)):
        return np.concatenate([np.asarray(part) for part in parts])
    rows = sum(shape[0] for shape in shapes)
    return StoredTensor(
        (rows, *shapes[0][1:]), lambda: np.concatenate([np.asarray(part) for part in parts])
    )


class StoredTensors(Mapping[str, "NDArray[Any]"]):
    """Tensors by name; asking for one reads it.

    Attributes:
        shapes: name → shape, for which nothing is read.
    """

    def __init__(
        self,
        tensors: Mapping[str, Any],
        checked: Callable[[str, NDArray[Any]], NDArray[Any]] = lambda _, value: value,
    ) -> None:
        """Hold the tensors.

        Args:
            tensors: arrays or stored tensors.
            checked: what is done to each that was read: refuse it, or cast it.
        """
        self._tensors, self._checked = tensors, checked
        self.shapes = shapes_of(tensors)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read one."""
        return self._checked(name, np.asarray(self._tensors[name]))

    def __contains__(self, name: object) -> bool:
        """Whether there is one of this name; nothing is read."""
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """How many."""
        return len(self._tensors)


class Overlaid(Mapping[str, "NDArray[Any]"]):
    """A table of tensors over another one: of a name in both, the upper one's stands."""

    def __init__(
        self, upper: Mapping[str, NDArray[Any]], lower: Mapping[str, NDArray[Any]]
    ) -> None:
        """Hold both; nothing is read or copied."""
        self._upper, self._lower = upper, lower

    def __getitem__(self, name: str) -> NDArray[Any]:
        """One tensor."""
        return self._upper[name] if name in self._upper else self._lower[name]

    def __contains__(self, name: object) -> bool:
        """Whether one of the two has it; nothing is read."""
        return name in self._upper or name in self._lower

    def __iter__(self) -> Iterator[str]:
        """The names: the lower table's, then what only the upper one has."""
        yield from self._lower
        yield from (name for name in self._upper if name not in self._lower)

    def __len__(self) -> int:
        """How many names."""
        return len(set(self._upper) | set(self._lower))
