"""`vptkit import`: an adapter file from what other code trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

import vptkit
from vptkit.atomic_files import require_absent, require_writable, sha256_of_file
from vptkit.checkpoints.published_names import HUGGING_FACE
from vptkit.errors import AdapterError, BackboneError, OutputError, VptkitError
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.pooling import head_inputs
from vptkit.images.preprocess import Preprocess, normalize
from vptkit.regular_files import read_regular
from vptkit.shown_text import tell
from vptkit.tune.backbone.published_model import with_norm_eps
from vptkit.tune.backbone.reference import adapter_logits
from vptkit.tune.backbone.spec_from_timm import spec_from_model, weights_from_model
from vptkit.tune.backbone.timm_backbone import load_backbone, preprocess_of
from vptkit.tune.foreign_tensors.imported_tensors import require_same_backbone
from vptkit.tune.peft_adapters.adapter_folder import is_peft, peft_config, peft_file
from vptkit.tune.peft_adapters.peft_adapter import from_peft

from .checkpoint_reader import read_state
from .e2vpt_layout import from_e2vpt
from .linear_head import from_linear_head, weight_and_bias
from .merged_layouts import from_repadapter, from_ssf
from .vpt_bpt_layouts import from_bpt, from_vpt

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.tune.backbone.timm_backbone import Loaded
    from vptkit.tune.foreign_tensors.imported_tensors import Foreign

__all__ = ["LAYOUTS", "ImportConfig", "import_adapter"]

LAYOUTS = ("vpt", "bpt", "e2vpt", "peft", "linear", "ssf", "repadapter")
_OF_VPT = ("vpt", "e2vpt")  # one code base
_AUTHORS = (*_OF_VPT, "bpt")
_POOLS = ("token", "avg_prompts", "avg", "token+avg", None)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NOISE_IMAGES = 4
_MOST_LABELS = 2**24  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportConfig:
    """What the file does not say by itself.

    Attributes:
        layout: whose names the file has, one of LAYOUTS; None: a folder of PEFT is recognised.
        backbone, backbone_args, weights: of `vptkit.tune.backbone.timm_backbone.create_backbone`.
        head: a file with the classifier's weight [C, d] and bias [C], if FILE has none.
        labels: a text file with one class name a line; None names classes by their number.
        pool: "token" or "avg_prompts" (the mean over all but the class token, as the authors'
            MAE models), "avg" or "token+avg"; None: what the file tells. BPT's do not tell; of a
            linear head that is not 2 d wide, the model's.
        preprocess: "authors": as VPT's, BPT's and DINOv2's code prepares images (ImageNet's mean
            and deviation, 256 → 224); "model": timm's for this backbone. None: "authors" for vpt,
            e2vpt and bpt, "model" for the others.
        name: of the adapter; None takes the output file's.
        scale: s of RepAdapter, which its configurations have and its files lack.
    """

    backbone: str
    layout: Literal["vpt", "bpt", "e2vpt", "peft", "linear", "ssf", "repadapter"] | None = None
    backbone_args: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    head: Path | None = None
    labels: Path | None = None
    pool: Literal["token", "avg_prompts", "avg", "token+avg"] | None = None
    preprocess: Literal["authors", "model"] | None = None
    name: str | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        """Check the choices.

        Raises:
            VptkitError: one is not known, or does not go with the layout.
        """
        for flag, value, known in (
            ("format", self.layout, (*LAYOUTS, None)),
            ("pool", self.pool, _POOLS),
            ("preprocess", self.preprocess, ("authors", "model", None)),
        ):
            if value not in known:
                choices = ", ".join(choice for choice in known if choice)
                raise VptkitError(f"--{flag} {value!r}: expected one of {choices}")
        if (self.scale is not None) != (self.layout == "repadapter"):
            raise VptkitError(
                "--scale goes with --format repadapter alone"
                if self.scale is not None
                else "--scale: RepAdapter's files do not tell it; its configs/*/*.yaml do"
            )
        if self.layout == "peft" and self.preprocess == "authors":
            raise VptkitError("--preprocess authors: PEFT prescribes none; leave it out")
        if self.layout in _AUTHORS and self.pool == "token+avg":
            raise VptkitError(
                f"--pool token+avg: no model of {self.layout.upper()}'s code pools so"
            )


def import_adapter(
    file: Path, output: Path, config: ImportConfig, *, force: bool = False
) -> dict[str, Any]:
    """Read a file of another project, check it against the backbone, write an adapter.

    The golden answers of the adapter are the reference's for four images of noise: they test an
    export, and say nothing about accuracy.

    Args:
        file: of the layout; of PEFT the folder that `save_pretrained` wrote, or its
            adapter_model.safetensors with adapter_config.json beside it.
        output: the adapter, ending in .safetensors.
        config: what the file does not say.
        force: replace an existing adapter.

    Returns:
        What was imported, ready for JSON.

    Raises:
        VptkitError: bad input; every message says what to do.
    """
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: an adapter's file name ends in .safetensors")
    require_absent(output, force=force)
    require_writable(output)
    config = _recognised(file, config)
    loaded = load_backbone(config.backbone, config.backbone_args, config.weights)
    model = loaded.model
    spec = spec_from_model(model, config.backbone)
    weights = weights_from_model(model)
    file = peft_file(file) if config.layout == "peft" else file
    state = read_state(file)
    try:
        foreign = _foreign(state, file, config, spec, weights)
        require_same_backbone(foreign, weights)
        pool = _pool(foreign, config, spec)
        head = _head(foreign, config, head_inputs(pool, spec.width))
        if config.layout in _OF_VPT and pool != "token":
            _add_fresh_norm(foreign, spec)
        loaded = _followed(loaded, foreign, spec)
        spec = spec_from_model(model, config.backbone)
    except (AdapterError, BackboneError) as error:
        raise type(error)(f"{file}: {error}") from error
    adapter = Adapter(
        name=config.name or output.stem,
        backbone=BackboneRef(
            name=config.backbone,
            args=loaded.args,
            spec=spec,
            sha256=digest_of_weights(weights),
        ),
        method=foreign.method,
        insert=foreign.insert,
        prompt_length=foreign.prompt_length,
        pool=pool,  # type: ignore[arg-type]  # checked by the configuration
        norm=_norm(foreign, pool, spec),
        labels=_labels(config.labels, len(head["bias"])),
        preprocess=_preprocess(model, config),
        train={
            "weights": loaded.origin,
            "imported": {
                "layout": config.layout,
                "file": file.name,
                "sha256": sha256_of_file(file),
                "golden": "noise",
            },
            "versions": {"vptkit": vptkit.__version__, "torch": torch.__version__},
        },
        tensors={
            **foreign.tensors,
            "head.weight": head["weight"].astype(np.float32),
            "head.bias": head["bias"].astype(np.float32),
        },
    )
    adapter.tensors.update(_golden(model, adapter))
    write_adapter(output, adapter)
    return {
        "adapter": str(output),
        "format": config.layout,
        "method": adapter.method,
        "insert": adapter.insert,
        "prompts": adapter.prompt_length,
        "layer_norms": len(adapter.layer_norms()),
        "changed_tensors": len(adapter.weight_deltas()),
        "learned_keys_values": sum(adapter.learned_counts().values()),
        "classes": len(adapter.labels),
        "pool": adapter.pool,
        "norm": adapter.norm,
        "backbone_compared": len(foreign.frozen),
    }


def _followed(loaded: Loaded, foreign: Foreign, spec: BackboneSpec) -> Loaded:
    """The backbone with the epsilon that the file's model has, where neither user nor weights say."""
    eps = foreign.norm_eps
    said = loaded.origin.get("names") == HUGGING_FACE or "norm_eps" in loaded.args
    if eps is None or eps == spec.norm_eps or said:
        return loaded
    tell(
        f"its norms get an epsilon of {eps:g}, as transformers' model of these names has (timm's: "
        f"{spec.norm_eps:g}); norm_eps among the backbone's arguments sets another"
    )
    more = {"norm_eps": eps}
    return loaded._replace(model=with_norm_eps(loaded.model, more), args={**loaded.args, **more})


def _recognised(file: Path, config: ImportConfig) -> ImportConfig:
    """The configuration with a layout: PEFT's is known by its adapter_config.json."""
    if config.layout is not None:
        return config
    if not is_peft(file):
        raise VptkitError(
            f"{file}: no folder of PEFT (adapter_config.json): pass --format, one of "
            f"{', '.join(LAYOUTS)}"
        )
    return replace(config, layout="peft")


def _foreign(
    state: dict[str, NDArray[Any]],
    file: Path,
    config: ImportConfig,
    spec: BackboneSpec,
    weights: dict[str, NDArray[np.float32]],
) -> Foreign:
    if config.layout == "peft":
        settings = peft_config(file.with_name("adapter_config.json"))
        return from_peft(state, settings, spec, weights)
    if config.layout == "linear":
        return from_linear_head(state, spec)
    if config.layout == "ssf":
        return from_ssf(state, spec, weights)
    if config.layout == "repadapter":
        return from_repadapter(state, spec, weights, float(config.scale or 0))
    if not spec.class_token:
        raise AdapterError(f"{config.backbone} has no class token, as every model of this code has")
    layouts = {"vpt": from_vpt, "e2vpt": from_e2vpt, "bpt": from_bpt}
    return layouts[str(config.layout)](state, spec)


def _head(foreign: Foreign, config: ImportConfig, inputs: int) -> dict[str, NDArray[Any]]:
    head = foreign.head
    if config.head is not None:
        if head:
            raise AdapterError("has a head of its own: leave --head out")
        state = read_state(config.head)
        try:
            head = weight_and_bias(state)
        except AdapterError as error:
            raise AdapterError(f"--head {config.head}: {error}") from error
    if set(head) != {"weight", "bias"}:
        missing = sorted({"weight", "bias"} - set(head))
        raise AdapterError(f"the head's {' and '.join(missing)} is missing: pass --head FILE")
    weight, bias = head["weight"], head["bias"]
    for name, value in (("weight", weight), ("bias", bias)):
        if value.dtype.kind != "f":
            raise AdapterError(f"the head's {name} is of {value.dtype.name}, not floating point")
    if weight.ndim != 2 or weight.shape[1] != inputs or bias.shape != weight.shape[:1]:
        raise AdapterError(
            f"the head is {weight.shape} with a bias {bias.shape}, expected (C, {inputs}) and (C,), "
            "as the backbone and --pool want it"
        )
    return head


def _pool(foreign: Foreign, config: ImportConfig, spec: BackboneSpec) -> str:
    if config.layout not in _AUTHORS:
        return config.pool or foreign.pool or spec.pool
    pool = config.pool or foreign.pool
    if foreign.pool and (pool == "token") != (foreign.pool == "token"):
        own = "the class token" if foreign.pool == "token" else "a mean, with an fc_norm behind it"
        raise AdapterError(f"--pool {pool}: the file's model pools by {own}. Leave it out.")
    if pool is None:
        raise AdapterError(
            "the file does not say how its model pools: pass --pool avg_prompts (the authors' MAE "
            "models) or --pool token (their MoCo-v3 and supervised ones)"
        )
    return pool


def _add_fresh_norm(foreign: Foreign, spec: BackboneSpec) -> None:
    """VPT's MAE model ends in a new norm that is never trained: γ 1, β 0 (`methods` 1.6)."""
    if spec.final_norm is None:
        raise AdapterError("this backbone has no final norm, as the authors' MAE models have")
    foreign.tensors.setdefault(f"ln.{spec.final_norm}.weight", np.ones(spec.width, np.float32))
    foreign.tensors.setdefault(f"ln.{spec.final_norm}.bias", np.zeros(spec.width, np.float32))


def _norm(foreign: Foreign, pool: str, spec: BackboneSpec) -> Literal["before_pool", "after_pool"]:
    """VPT's and BPT's means are taken before the final norm, their class tokens after it."""
    if foreign.method not in _AUTHORS:
        return "after_pool" if spec.final_norm == "fc_norm" else "before_pool"
    return "before_pool" if pool == "token" else "after_pool"


def _labels(path: Path | None, classes: int) -> tuple[str, ...]:
    if path is None:
        return tuple(str(i) for i in range(classes))
    try:
        text = read_regular(path, AdapterError, limit=_MOST_LABELS).decode("utf-8")
    except (AdapterError, UnicodeDecodeError) as error:
        raise AdapterError(f"--labels {path}: not readable: {error}") from error
    lines = text.splitlines()
    labels = tuple(line.strip() for line in lines if line.strip())
    if len(labels) != classes:
        raise AdapterError(f"--labels {path}: {len(labels)} names for a head of {classes} classes")
    return labels


def _preprocess(model: Any, config: ImportConfig) -> Preprocess:
    own = preprocess_of(model)
    theirs = config.preprocess or ("authors" if config.layout in _AUTHORS else "model")
    if theirs == "model":
        return own
    mean, std = _IMAGENET
    kind: Literal["bilinear", "bicubic"] = "bilinear" if config.layout in _OF_VPT else "bicubic"
    return replace(own, mean=mean, std=std, interpolation=kind, crop_pct=224 / 256)


@torch.no_grad()
def _golden(model: Any, adapter: Adapter) -> dict[str, NDArray[Any]]:
    shape = (_NOISE_IMAGES, *adapter.preprocess.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pixels = torch.from_numpy(normalize(images, adapter.preprocess))
    return {
        "golden.images": images,
        "golden.logits": adapter_logits(model, adapter, pixels).numpy(),
    }
