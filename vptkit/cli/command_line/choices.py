"""The values that an option knows, for help pages and completion.

A table, so that neither loads a room; tests/vptkit/cli/command_line/test_choices.py holds it
equal to what the rooms accept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CHOICES", "TEXTS", "choices_of"]

_METHODS = (
    *("auto", "ln", "vpt", "bpt", "lora", "ln+vpt", "ln+bpt", "ln+lora", "lora+vpt", "lora+bpt"),
    *("ln+lora+vpt", "ln+lora+bpt", "linear"),
)
_BACKENDS = (
    *("auto", "cpu", "cuda", "openvino", "openvino-bf16", "openvino-gpu", "openvino-npu"),
    *("ort-tensorrt", "tensorrt", "tensorrt-rtx"),
)
_POOLS = ("token", "avg", "token+avg", "avg_prompts", "map")
_TAPS = ("pre_ln1", "post_ln1")
_TARGETS = ("auto", "cpu", "tensorrt")

# Command and option → values
CHOICES: Mapping[str, tuple[str, ...]] = {
    "tune --method": _METHODS,
    "tune --task": ("single", "multilabel"),
    "tune --insert": ("deep", "shallow"),
    "tune --form": ("bilinear", "fwhiten", "twhiten"),
    "tune --b-init": ("whiten", "random"),
    "tune --tap": _TAPS,
    "tune --compat": ("paper", "released"),
    "tune --pool": _POOLS,
    "tune --norm": ("before_pool", "after_pool"),
    "tune --merge-attention": ("proportional", "plain"),
    "tune --positions": ("timm", "hf", "hub"),
    "tune --head-init": ("probe", "zero"),
    "tune --select": ("soup", "loss", "top1", "last"),
    "tune --rescale": ("none", "gamma", "beta", "both", "all"),
    "tune --class-weights": ("none", "balanced"),
    "tune --precision": ("fp32", "bf16", "fp16"),
    "tune --device": ("auto", "cpu", "cuda"),
    "tune --augment": ("flip", "none", "crop"),
    "tune --calibrate": ("temperature", "none"),
    "tune --pictures": ("page", "png", "svg", "pdf", "none"),
    "export --format": ("bundle", "onnx"),
    "export --layout": ("baked", "bank"),
    "export --precision": ("fp32", "fp16", "bf16", "int8", "fp8"),
    "export --target": (*_TARGETS, "web"),
    "export --input": ("uint8", "float32"),
    "export --fold": ("all", "none"),
    "export --last-block": ("auto", "absorbed", "query", "full"),
    "export --merge-attention": ("proportional", "plain"),
    "export --bank-layer-norms": ("auto", "yes", "no"),
    "export --tables": ("inputs", "constant"),
    "build --backend": ("tensorrt", "tensorrt-rtx"),
    "bisect --precision": ("fp16", "bf16", "int8", "fp8"),
    "bisect --target": _TARGETS,
    "check --backend": _BACKENDS,
    "check --oracle": ("trt-rtx", "rules"),
    "eval --backend": _BACKENDS,
    "eval --split": ("test", "val", "train", "ood"),
    "run --backend": _BACKENDS,
    "serve --backend": _BACKENDS,
    "report --backend": _BACKENDS,
    "serve --triton-backend": ("python", "onnxruntime", "tensorrt"),
    "profile --backend": _BACKENDS,
    "profile --cuda-graph": ("on", "off", "both"),
    "analyze --tap": _TAPS,
    "import --format": ("vpt", "bpt", "e2vpt", "peft", "linear", "ssf", "repadapter"),
    "import --pool": ("token", "avg_prompts", "avg", "token+avg"),
    "import --preprocess": ("authors", "model"),
}

_BACKEND = (
    "What runs the graph: ONNX Runtime (cpu, cuda, ort-tensorrt), OpenVINO (openvino on the processor, "
    "…), or an engine of vptkit build (tensorrt, tensorrt-rtx)."
)

# Command and option → its text where the declared one would list the values once more
TEXTS: Mapping[str, str] = {
    "tune --method": "What is learned beside the head [auto].",
    "tune --task": "An image has a single label, or any number [single].",
    "tune --insert": "Prompts at every block, or before the first alone [deep].",
    "tune --form": "Of bpt: how the prompts are made [bilinear].",
    "tune --b-init": "Of bilinear: how B starts [whiten].",
    "tune --tap": "Which tokens are whitened [pre_ln1].",
    "tune --pool": "What the head reads [the model's].",
    "tune --norm": "Where the last LayerNorm stands [the model's].",
    "tune --merge-attention": "A merged token counts once a patch, or once [proportional].",
    "tune --positions": "Whose way of resizing positions to another size [the weights'].",
    "tune --head-init": "The head begins as the linear probe, or knowing nothing [probe].",
    "tune --class-weights": "balanced: rare classes count more in the loss [none].",
    "tune --precision": "Of the backbone; what is learned stays fp32 [fp32].",
    "tune --device": "Also cuda:N [auto: a GPU if any].",
    "tune --augment": "What training images go through [flip].",
    "tune --calibrate": "temperature: probabilities fitted on val [temperature].",
    "tune --pictures": "Of the training: a page, NAME.html, or a file each [page].",
    "export --precision": "Numbers of the graph; all but fp32 have a gate.",
    "export --target": "What will run it; auto: cpu for fp32 and int8, else tensorrt; web: browsers.",
    "export --last-block": "With token pooling: how the last block is computed.",
    "export --merge-attention": "Whether a merged token counts by its size.",
    "export --bank-layer-norms": "Whether a bank looks up LayerNorms.",
    "build --backend": "Whose engine.",
    "bisect --precision": "Numbers of the graph.",
    "bisect --target": "What will run it.",
    "check --backend": _BACKEND,
    "check --oracle": "Ask what TensorRT makes of the graph instead.",
    "eval --backend": _BACKEND,
    "run --backend": _BACKEND,
    "serve --backend": _BACKEND,
    "report --backend": _BACKEND,
    "profile --backend": f"{_BACKEND} Several beside each other: cpu,openvino.",
    "profile --cuda-graph": "Of TensorRT; both: side by side [on].",
    "import --pool": "What the head reads [what FILE tells].",
}


def choices_of(command: str, options: list[str]) -> tuple[str, ...]:
    """The values of an option by any of its spellings; none if it takes others, too.

    Args:
        command: as "tune" or "bank add".
        options: all spellings, with their dashes.
    """
    found = (CHOICES.get(f"{command} {option}") for option in options)
    return next((values for values in found if values), ())
