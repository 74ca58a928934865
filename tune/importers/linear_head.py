"""A linear head alone, as DINOv2 publishes them: one weight [C, f] and one bias [C].

`dinov2_vit*14[_reg4]_linear_head.pth` take the class token and the mean of the patches side by side,
behind the final norm; registers are not in the mean (facebookresearch/dinov2,
dinov2/hub/classifiers.py). That is pool "token+avg". Their `linear4` heads read four blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import AdapterError
from vptkit.formats.pooling import head_inputs
from vptkit.tune.foreign_tensors.imported_tensors import Foreign, require_shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.tune.foreign_tensors.imported_tensors import State

__all__ = ["from_linear_head", "weight_and_bias"]

_LINEAR4 = 5  # rows side by side: the class token of four blocks, and the mean patch


def weight_and_bias(state: State) -> State:
    """A file's only two tensors as `weight` and `bias`, whatever stands before these names.

    Raises:
        AdapterError: there are others, or one is missing.
    """
    ends = {name.rpartition(".")[2]: value for name, value in state.items()}
    if set(ends) != {"weight", "bias"} or len(state) != 2:
        raise AdapterError(f"expected one weight and one bias, found {sorted(state)[:8]}")
    return ends


def from_linear_head(state: Mapping[str, NDArray[Any]], spec: BackboneSpec) -> Foreign:
    """A file that holds a head and nothing else; its width tells DINOv2's pool.

    Raises:
        AdapterError: there is more in it, or the head is none of this backbone.
    """
    head = weight_and_bias(dict(state))
    require_shape("the head's weight", head["weight"], (None, None))
    found, width = Foreign("linear", head=head), head["weight"].shape[1]
    if width == head_inputs("token+avg", spec.width):
        found.pool = "token+avg"
    elif width == _LINEAR4 * spec.width:
        raise AdapterError(
            f"the head takes 5 x {spec.width} numbers, as DINOv2's linear4 heads, which read four "
            "blocks: take the file that ends in _linear_head.pth"
        )
    return found
