"""Which options and commands stand together on a help page, and examples.

Tables only. An option or a command that stands in none of them is listed all the same, in the last
group; tests/vptkit/cli/command_line/test_groups.py holds that there is no such one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMMANDS", "EXAMPLES", "LAST_COMMANDS", "LAST_OPTIONS", "OPTIONS"]

LAST_OPTIONS = "Output and help"
LAST_COMMANDS = "More"

# Heading → commands, in their order on the page
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "Make a model": ("tune", "export", "build"),
    "Use it": ("run", "serve", "eval", "check", "inspect", "profile", "report"),
    "What there is": ("backbones", "devices", "doctor"),
    LAST_COMMANDS: ("demo", "bank", "bisect", "sweep", "analyze", "import"),
}

_COMMON = "Common options"

# Command → heading → options by their long name, without the dashes. The first group is what nearly
# everybody needs. What is the same everywhere stands in LAST_OPTIONS without being listed.
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "tune": {
        _COMMON: "output backbone weights method budget epochs shots image-size device config resume"
        " force",
        "Prompts": "insert form prompts rank b-init tune-b-last whiten-images whiten-floor tap compat"
        " dropout lr wd",
        "Low-rank factors (LoRA)": "lora-rank lora-alpha lora-targets lr-lora",
        "LayerNorms": "lr-ln cycles head-epochs ln-epochs",
        "Head": "head-init lr-head wd-head pool norm class-weights calibrate",
        "Training": "batch warmup clip patience select rescale refit-epochs augment crop-scale seed",
        "Backbone": "merge merge-attention positions",
        "Data": "task val-share test-share full-data columns skip-broken strict allow-outside",
        "Hardware": "precision accumulate recompute compile threads",
        LAST_OPTIONS: "name golden pictures tensorboard allow-chance",
    },
    "export": {
        _COMMON: "output weights precision calibration gate format target force",
        "Precision": "calibration-images island islands min-agreement",
        "Data": "columns skip-broken decode allow-outside",
        "Graph": "input batch normalize-features reject-from fold last-block verify threads",
        "Token merging": "merge merge-attention min-merge-agreement",
        "Banks of adapters": "layout bank-prompts bank-classes bank-rank bank-layer-norms tables",
        "In a browser": "onnxruntime-web",
    },
    "build": {
        _COMMON: "backend batch workspace forecast force clean",
        "Hardware": "board sm opt-level tf32 expect timing-cache",
        "Banks of adapters": "bank-max",
        "Trust": "trust-engines",
        LAST_OPTIONS: "layers",
    },
    "bisect": {
        _COMMON: "precision target images island min-agreement",
        "Data": "calibration calibration-images columns skip-broken decode allow-outside",
        "Hardware": "threads",
    },
    "check": {
        _COMMON: "backend reference weights tolerance",
        "What TensorRT makes of it": "oracle sm trt layers",
        "Overflow": "overflow columns skip-broken decode allow-outside",
        "Banks of adapters": "adapter",
        "Hardware": "threads",
        "Trust": "trust-engines",
    },
    "eval": {
        _COMMON: "split save plot backend batch reject ood columns skip-broken decode force",
        "Banks of adapters": "adapter",
        "Hardware": "threads",
        "Trust": "allow-outside trust-engines",
    },
    "run": {
        _COMMON: "top-k save features reject decode resume backend batch force",
        "Data": "columns allow-outside",
        "Cluster": "ray-address actors",
        "Banks of adapters": "adapter",
        "Videos and cameras": "every fps all-frames max-staleness max-wait-ms smooth on-change"
        " duration frames annotate webhook",
        "Hardware": "threads",
        "Trust": "trust-engines",
    },
    "serve": {
        _COMMON: "ui host port backend decode max-batch max-wait-ms queue-size timeout-ms log-requests"
        " force",
        "Who may ask": "token-file open admin-token-file",
        "Bounds": "max-body-mb decode-threads",
        "NVIDIA Triton": "triton triton-backend instances print-k8s k8s-image",
        "Hardware": "threads",
        "Trust": "trust-engines",
    },
    "profile": {
        _COMMON: "baseline backend batch seconds plot force",
        "What is measured": "rounds streams memory energy cuda-graph seed threads",
        "From files to labels": "parts decode",
        "Time by layer": "layers trace export-profile export-times export-layer-info",
        "MLPerf": "loadgen loadgen-logs accuracy data latency-bound-ms queries min-duration target-qps",
        "Jetson": "power pin-clocks",
        "Another machine": "on python ssh-option clean",
        "Banks of adapters": "adapter",
        "Trust": "trust-engines",
    },
    "report": {
        _COMMON: "output data split mistakes profile profiles layers backend batch force",
        "What is measured": "seconds batches energy boards",
        "Data": "columns skip-broken decode allow-outside",
        "Banks of adapters": "adapter",
        "Hardware": "threads",
        "Trust": "trust-engines",
    },
    "demo": {
        _COMMON: "output data backbone weights image-size epochs force",
        "Hardware": "threads",
        "Data": "columns skip-broken allow-outside",
    },
    "sweep": {
        _COMMON: "output data tensorboard force",
        "Cluster": "ray-address storage cpus",
        "Data": "allow-outside",
    },
    "analyze": {
        _COMMON: "output weights adapter images image-size config force",
        "Whitening": "tap whiten-floor",
        "Data": "seed columns skip-broken allow-outside",
        "Hardware": "threads",
    },
    "import": {
        _COMMON: "output format backbone weights labels head force",
        "Backbone": "config image-size pool preprocess",
        LAST_OPTIONS: "name scale",
    },
    "inspect": {_COMMON: "all"},
    "bank add": {_COMMON: "name"},
    "bank replace": {_COMMON: "name"},
}

# Command → lines that begin with the command's name. "" is vptkit itself.
EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "": (
        "tune flowers/ --backbone vit_small_patch14_dinov2 -o flowers.safetensors",
        "export flowers.safetensors -o flowers.vptk",
        "run flowers.vptk photos/",
    ),
    "tune": (
        "tune flowers/ --backbone vit_small_patch14_dinov2 -o flowers.safetensors",
        "tune flowers/ --backbone vit_tiny_patch16_224 --method ln --epochs 50 -o ln.safetensors",
        "tune flowers/ --config run.toml --shots 10 --resume -o ten.safetensors",
    ),
    "export": (
        "export flowers.safetensors -o flowers.vptk",
        "export flowers.safetensors --precision int8 --calibration flowers/ -o int8.vptk",
        "export birds.safetensors flowers.safetensors --layout bank -o bank.vptk",
        "export flowers.safetensors --output both -o flowers.vptk",
    ),
    "build": (
        "build flowers.vptk",
        "build flowers.vptk --forecast --board orin-nano-8gb",
        "build flowers.vptk --batch 1,8,32 --workspace 512",
    ),
    "bisect": (
        "bisect flowers.vptk flowers/",
        "bisect flowers.vptk flowers/ --precision int8",
        "bisect flowers.vptk flowers/ --island blocks.3.mlp --images 500",
    ),
    "check": (
        "check flowers.vptk",
        "check flowers.vptk --reference",
        "check flowers.vptk --overflow photos/",
    ),
    "eval": (
        "eval flowers.vptk flowers/",
        "eval flowers.vptk flowers/ --split val --save mistakes.csv --plot confusion.png",
        "eval sure.vptk flowers/ --reject 0.05 --ood photos/",
    ),
    "run": (
        "run flowers.vptk photos/",
        "run flowers.vptk photos/ --save answers.csv --top-k 3",
        "run flowers.vptk photo.jpg --json",
        "run both.vptk photos/ --features photos.npy",
        "run bank.vptk cam1=rtsp://10.0.0.7/live cam2=0 --adapter cam1=birds,cam2=cars",
    ),
    "serve": (
        "serve flowers.vptk --ui",
        "serve bank.vptk --admin-token-file admin.txt",
        "serve bank.vptk --triton models/ --print-k8s > k.yaml",
        "serve bank.vptk flowers.vptk --host 0.0.0.0 --token-file tokens.txt --log-requests",
    ),
    "inspect": (
        "inspect flowers.safetensors",
        "inspect flowers.vptk",
        "inspect flowers.vptk --json",
    ),
    "profile": (
        "profile flowers.vptk --baseline",
        "profile flowers.vptk int8.vptk --batch 1,8 --plot latency.png",
        "profile flowers.vptk --on user@board",
    ),
    "report": (
        "report flowers.vptk",
        "report flowers.vptk --data flowers/ -o report.html",
        "report flowers.vptk int8.vptk --data flowers/ --profile -o both.html",
    ),
    "doctor": ("doctor", "doctor flowers.vptk", "doctor --json"),
    "demo": (
        "demo",
        "demo --data flowers/ --epochs 20 -o demo-flowers",
        "demo --backbone vit_small_patch14_dinov2 --weights w.safetensors",
    ),
    "sweep": (
        "sweep sweep.toml -o sweep/",
        "sweep sweep.toml --data flowers/ --cpus 4 -o sweep/",
        "sweep sweep.toml --ray-address auto --storage /mnt/shared -o sweep/",
    ),
    "analyze": (
        "analyze vit_small_patch14_dinov2 flowers/",
        "analyze vit_small_patch14_dinov2 flowers/ --adapter flowers.safetensors -o figures/",
        "analyze vit_small_patch14_dinov2 flowers/ --images 200 --tap post_ln1",
    ),
    "import": (
        "import prompts.pth --format vpt --backbone vit_base_patch16_224 -o vpt.safetensors",
        "import peft/ --backbone vit_base_patch16_224 -o lora.safetensors",
        "import head.pth --format linear --backbone vit_small_patch14_dinov2 -o h.safetensors",
    ),
    "backbones": ("backbones", "backbones dinov2", "backbones ViT-B/16"),
    "devices": ("devices list", "devices show orin-nano-8gb", "devices detect"),
    "devices list": ("devices list", "devices list --json"),
    "devices show": ("devices show orin-nano-8gb", "devices show l4 --json"),
    "devices detect": ("devices detect", "devices detect --json"),
    "bank": (
        "bank list bank.vptk",
        "bank add bank.vptk birds.safetensors",
        "bank remove bank.vptk birds",
    ),
    "bank add": (
        "bank add bank.vptk birds.safetensors",
        "bank add bank.vptk birds.safetensors --name garden-birds",
    ),
    "bank replace": (
        "bank replace bank.vptk birds.safetensors",
        "bank replace bank.vptk new.safetensors --name birds",
    ),
    "bank remove": ("bank remove bank.vptk birds",),
    "bank list": ("bank list bank.vptk", "bank list bank.vptk --json"),
}
