"""What a publisher's model does otherwise than timm's of the same tensors: followed, and said.

No tensor tells the epsilon of a norm, an activation, or how an image is prepared. They change
answers in silence: transformers' ViT has an epsilon of 1e-12, timm's has 1e-6; OpenAI's CLIP has
another GELU; a fine-tuned MAE pools the mean, which only the name of its last norm says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vptkit.checkpoints.read_weights import Published
    from vptkit.checkpoints.snapshot import Pixels
    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["followed", "line_of", "take_pixels", "way_of_positions", "with_norm_eps"]

_WORDS = {
    "norm_eps": "an epsilon of {} in its norms",
    "act_layer": "the activation {}",
    "global_pool": "the pool {}",
    "positions": "positions resized as {} does",
}


def with_norm_eps(model: Any, args: Mapping[str, Any]) -> Any:
    """The same model, its norms with the epsilon of the arguments, if they name one."""
    eps = args.get("norm_eps")
    if eps is not None:
        for module in model.modules():
            if hasattr(module, "eps"):
                module.eps = float(eps)
    return model


def followed(
    published: Published, model: Any, spec: BackboneSpec, args: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments that make a backbone what the weights' publisher has.

    Args:
        published: the weights.
        model: the backbone as its name and arguments make it; may be without numbers.
        spec: of it.
        args: those that were asked for, which are left as they are.

    Returns:
        Arguments to add; none where timm does the same.
    """
    found: dict[str, Any] = {}
    if published.norm_eps is not None and published.norm_eps != spec.norm_eps:
        found["norm_eps"] = published.norm_eps
    if published.activation is not None and published.activation != spec.activation:
        found["act_layer"] = published.activation
    mean = not isinstance(getattr(model, "fc_norm", nn.Identity()), nn.Identity)
    has = {name: f"{name}.weight" in published.arrays for name in ("norm", "fc_norm")}
    if has["fc_norm"] and not has["norm"] and not mean:
        found["global_pool"] = "avg"
    elif has["norm"] and not has["fc_norm"] and mean:
        found["global_pool"] = "token"
    return {name: value for name, value in found.items() if args.get(name) is None}


def way_of_positions(published: Published, args: Mapping[str, Any], *, follow: bool) -> str:
    """Whose way of resizing positions is taken: the asked one, else the publisher's."""
    return str(args.get("positions") or (published.positions if follow else "timm"))


def take_pixels(model: Any, pixels: Pixels) -> None:
    """Prepare images as the folder's documents say, not as timm's weights of this name."""
    config = dict(model.pretrained_cfg)
    config |= {"mean": pixels.mean, "std": pixels.std, "interpolation": pixels.interpolation}
    model.pretrained_cfg = config | {"crop_pct": pixels.crop_pct, "crop_mode": "center"}


def line_of(published: Published, more: Mapping[str, Any], args: Mapping[str, Any]) -> str:
    """What was recognised, and what of it is followed, in one line."""
    shown = dict(more)
    if "positions" in args:
        shown["positions"] = args["positions"]
    followed = [_WORDS[name].format(value) for name, value in shown.items() if name in _WORDS]
    pixels = None if published.snapshot is None else published.snapshot.pixels
    if pixels is not None:
        mean, std = (" ".join(f"{v:g}" for v in values) for values in (pixels.mean, pixels.std))
        followed.append(f"pixels with mean {mean} and deviation {std}")
    line = published.said()
    return f"{line}; followed: {', '.join(followed)}" if followed else line
