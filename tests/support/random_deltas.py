"""Weight deltas of every form for any backbone, random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.formats.backbone_weights import norm_shapes, tensor_shapes
from vptkit.formats.bank_tables import bank_linears

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

RANK = 2


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a timm tensor takes factors and scales."""
    return name.endswith(".weight") and len(shape) >= 2


def deltas_of(
    name: str, shape: tuple[int, ...], form: str, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Tensors of an adapter that change one tensor.

    Args:
        name, shape: of the backbone's tensor.
        form: "whole", "low", "out", "in", or several joined by "+".
        rng: source of the numbers, which are a fifth of a weight's ordinary size and more.
    """
    module, inner = name.removesuffix(".weight"), int(np.prod(shape[1:]))

    def draw(*size: int, around: float = 0.0, spread: float = 0.3) -> NDArray[Any]:
        return (around + spread * rng.standard_normal(size)).astype(np.float32)

    found: dict[str, NDArray[Any]] = {}
    for part in form.split("+"):
        if part == "whole":
            found[f"delta.{name}"] = draw(*shape, spread=0.1)
        elif part == "low":
            found[f"delta.{module}.a"] = draw(RANK, inner)
            found[f"delta.{module}.b"] = draw(shape[0], RANK)
        else:
            found[f"scale.{module}.{part}"] = draw(shape[0] if part == "out" else inner, around=1.0)
    return found


def random_deltas(
    spec: BackboneSpec, rng: np.random.Generator, form: str = "mixed"
) -> dict[str, NDArray[Any]]:
    """A change of every tensor of a backbone but its norms.

    Args:
        spec: of the backbone.
        rng: source of the numbers.
        form: of linears' weights, as `deltas_of` takes it; "mixed" has them all by turns. Other
            tensors are changed whole.
    """
    forms = ("low", "whole", "low+out+in", "out", "whole+in", "in")
    norms, found = norm_shapes(spec), {}
    names = [n for n in tensor_shapes(spec).items() if n[0] not in norms]
    for n, (name, shape) in enumerate(names):
        linear = is_linear(name, shape)
        one = (forms[n % len(forms)] if form == "mixed" else form) if linear else "whole"
        found |= deltas_of(name, shape, one, rng)
    return found


def bank_deltas(
    spec: BackboneSpec,
    rng: np.random.Generator,
    forms: tuple[str, ...] = ("low", "low+out", "out+in", "low+out+in"),
    parts: tuple[str, ...] = ("",),
) -> dict[str, NDArray[Any]]:
    """What a bank can look up: changes of blocks' linears by turns, and of their biases.

    Args:
        spec: of the backbone.
        rng: source of the numbers.
        forms: of weights, by turns; as `deltas_of` takes them, but not whole.
        parts: only linears whose timm name holds one of these.
    """
    linears = bank_linears(spec).values()
    weights = sorted({linear.weight for linear in linears})
    biases = sorted({bias[0] for linear in linears for bias in linear.biases})
    shapes, found = tensor_shapes(spec), {}
    for n, name in enumerate(weights):
        if any(part in name for part in parts):
            found |= deltas_of(name, shapes[name], forms[n % len(forms)], rng)
    for name in biases:
        if any(part in name for part in parts):
            found |= deltas_of(name, shapes[name], "whole", rng)
    return found
