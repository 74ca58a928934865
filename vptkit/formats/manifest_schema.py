"""What a manifest may say, whole: fields, kinds, ranges, and what must agree within it.

Bounds are generous: every Vision Transformer of timm, ImageNet-21k's labels, and banks of thousands
of adapters fit. What decides memory together is bounded together.
"""

from __future__ import annotations

import itertools
import math
import re
import struct
from typing import TYPE_CHECKING, Any, Literal, get_args

from vptkit.backbones.merge_schedule import MERGE_ATTENTIONS
from vptkit.errors import BundleError
from vptkit.regular_files import is_plain_name
from vptkit.schema import (
    anything,
    choice,
    flag,
    integer,
    list_of,
    mapping,
    null_or,
    number,
    one_of,
    record,
    require,
    text,
)

from .pooling import POOLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vptkit.schema import Kind

__all__ = [
    "ADAPTERS",
    "CLASSES",
    "DIGEST",
    "ENGINES",
    "FEATURES",
    "FIELDS",
    "FORMAT",
    "LOGITS",
    "MANIFEST",
    "MODEL",
    "MODEL_DATA",
    "MULTILABEL",
    "NAME",
    "NOTES",
    "OPTIONAL",
    "OUTPUTS",
    "OUTPUT_CHOICES",
    "PROMPTS",
    "SCORES",
    "SINGLE",
    "TASKS",
    "Task",
    "outputs_of",
    "require_manifest",
]

# What a graph may give, in this order: logits [B, C]; with several labels an image their scores
# [B, C]; and the vector that the head reads [B, f]
LOGITS, SCORES, FEATURES = OUTPUTS = ("logits", "scores", "features")
OUTPUT_CHOICES = (LOGITS, FEATURES, "both")  # what `export --output` takes
# What an image may have: one label, or any number. Files without a task are of the first.
Task = Literal["single", "multilabel"]
SINGLE, MULTILABEL = TASKS = get_args(Task)
FORMAT = "vptkit.bundle/1"
MANIFEST = "manifest.json"
MODEL = "model.onnx"
MODEL_DATA = f"{MODEL}.data"  # constants of a graph that protobuf's 2 GB do not hold
ENGINES = "engines"  # a cache of one machine, no part of what the manifest vouches for
ADAPTERS = "adapters"  # the folder of a bank's rows
_TABLES = "bank."  # begin the names of a bank's tables

PROMPTS = 4096  # of an adapter, at most
CLASSES = 1_000_000
_ADAPTERS, _BATCH = 100_000, 65_536
_BATCH_NUMBERS = 1 << 29  # of one batch of a fixed size
_FEATURES = 1 << 17  # twice the widest backbone that `backbone_spec` takes
_BYTES = 1 << 50

NAME = text(1000, least=1)
# What is only passed on: training notes, the gate's and the passes' figures.
NOTES = anything(values=100_000, depth=16, letters=100_000)
_WORD = text(200)


def _is_file(name: str) -> bool:
    """Whether a manifest may list it: one level, or a bank's `adapters/NAME.safetensors`."""
    if not is_plain_name(name, levels=2) or name.startswith("."):
        return False
    folder, slash, file = name.rpartition("/")
    if slash:
        return folder == ADAPTERS and file.endswith(".safetensors") and not file.startswith(".")
    return name not in (MANIFEST, ENGINES, ADAPTERS)


def _version(value: str) -> Any:
    return re.fullmatch(r"\d{1,4}(\.\d{1,6}){0,3}", value, re.ASCII)


DIGEST = text(
    64, least=64, means="64 hexadecimal digits", fits=re.compile("[0-9a-f]{64}").fullmatch
)
_FILE = text(500, least=1, means="the plain name of a file of the bundle", fits=_is_file)
_VALUE = record(
    {
        "name": text(100, least=1),
        "dtype": choice("uint8", "int32", "float16", "bfloat16", "float32"),
        "shape": list_of(one_of(integer(1, 1 << 31), text(40, least=1)), 8, least=1),
    },
    # of features: their length is one; of a bank's tables: they are constants of the graph
    {"normalized": flag(), "constant": flag()},
)
_ADAPTER = record(
    {"name": NAME, "labels": list_of(text(10_000), CLASSES, least=1)},
    {
        "method": _WORD,
        "insert": choice("deep", "shallow", "none"),
        "prompt_length": integer(0, PROMPTS),
        "pool": choice(*POOLS),
        "norm": choice("before_pool", "after_pool"),
        "file": _FILE,
        "sha256": DIGEST,
        "thresholds": list_of(number(0, 1), CLASSES, least=1),  # scores, of each label
    },
)
_OF_BANKS = {"method", "insert", "prompt_length", "pool", "norm", "file", "sha256"}
_INPUTS = 20_000  # of a bank five for each linear of each block
_LEAST = text(20, means="a version", fits=_version)
_LOWERING = record(
    {},
    {
        "target": _WORD,
        "islands": list_of(_WORD, 10_000),
        "placement": list_of(text(1000), 10_000),
        "requires": record({}, {"tensorrt": _LEAST, "compute_capability": _LEAST}),
    },
    others=NOTES,
)
_SIZE = integer(0, _BYTES)
_NOTE = mapping(_WORD, NOTES, 1000)
FIELDS: Mapping[str, Kind] = {
    "format": choice(FORMAT),
    "name": NAME,
    "files": mapping(_FILE, DIGEST, _ADAPTERS),
    "backbone": record(
        {
            "name": text(200),
            "args": _NOTE,
            "spec": _NOTE,  # read by `backbone_spec`
            "sha256": null_or(DIGEST),
        }
    ),
    "adapters": list_of(_ADAPTER, _ADAPTERS, least=1),
    "preprocess": _NOTE,  # read by `preprocess`
    "inputs": list_of(_VALUE, _INPUTS, least=1),
    "outputs": list_of(_VALUE, len(OUTPUTS), least=1),
    "precision": choice("fp32", "fp16", "bf16", "int8", "fp8"),
    "lowering": null_or(_LOWERING),
    "gate": null_or(_NOTE),
    "layout": choice("baked", "bank"),
    "batch": one_of(choice("dynamic"), integer(1, _BATCH)),
    "fold": choice("all", "none"),
    "folds": list_of(_WORD, 1000),
    "macs": mapping(_WORD, integer(0, 1 << 62), 100),
    "memory": record(
        {
            "weights_bytes": _SIZE,
            "activation_bytes": record({"fixed": _SIZE, "per_image": _SIZE}),
        }
    ),
    "parity": null_or(_NOTE),
    "versions": mapping(_WORD, one_of(text(200), integer(0, 1 << 31)), 100),
}
OPTIONAL: Mapping[str, Kind] = {
    "task": choice(MULTILABEL),  # one label an image without it
    # how tokens are merged; not at all without it
    "merging": record(
        {
            "schedule": list_of(integer(0, 1 << 18), 512, least=1),  # r of each block
            "attention": choice(*MERGE_ATTENTIONS),
            "asked": null_or(text(10_000)),
            "tuned": flag(),  # the adapter was tuned so
            "gate": null_or(_NOTE),
        }
    ),
}
_MANIFEST = record(FIELDS, OPTIONAL)


def require_manifest(manifest: dict[str, Any], source: object) -> None:
    """Refuse a manifest that says what none can.

    Args:
        manifest: its JSON.
        source: the file, for messages.

    Raises:
        BundleError: the first field that is not of its kind, or does not agree with others.
    """
    require(manifest, _MANIFEST, source, BundleError)
    problems = _file_problems(manifest), _task_problems(manifest), _graph_problems(manifest)
    for problem in itertools.chain(*problems, _merging_problems(manifest)):
        raise BundleError(f"{source}: {problem}. Export the bundle again.")


def _file_problems(manifest: Mapping[str, Any]) -> list[str]:
    files, problems = manifest["files"], []
    if MODEL not in files:
        problems.append(f"files lists no {MODEL}")
    names = [entry["name"] for entry in manifest["adapters"]]
    problems += [f"two adapters have the name {name[:60]!r}" for name in _twice(names)]
    bank = manifest["layout"] == "bank"
    if not bank and len(names) > 1:
        problems.append(f"layout is 'baked' with {len(names)} adapters, expected one")
    wanted = _OF_BANKS if bank else set()
    for entry in manifest["adapters"]:
        name, file = entry["name"][:60], entry.get("file")
        if not wanted <= set(entry) or (not bank and {"file", "sha256"} & set(entry)):
            problems.append(f"the adapter {name!r} is not one of the layout {manifest['layout']!r}")
        elif bank and (not file.startswith(f"{ADAPTERS}/") or files.get(file) != entry["sha256"]):
            problems.append(
                f"the adapter {name!r} has the file {file!r}, which files does not list"
            )
    named = {entry.get("file") for entry in manifest["adapters"]}
    for file in files:
        if file.startswith(f"{ADAPTERS}/") and file not in named:
            problems.append(f"files lists {file!r}, which is no adapter's")
    return problems


def outputs_of(asked: Sequence[str], task: str) -> tuple[str, ...]:
    """Names of a graph's outputs: those asked for, and behind the logits the scores of a task."""
    scored = task == MULTILABEL and LOGITS in asked
    return tuple(name for name in OUTPUTS if name in asked or (scored and name == SCORES))


def _task_problems(manifest: Mapping[str, Any]) -> list[str]:
    """Thresholds are there where an image may have several labels, one for each of an adapter's."""
    several, problems = manifest.get("task") == MULTILABEL, []
    for entry in manifest["adapters"]:
        found, labels = entry.get("thresholds"), len(entry["labels"])
        whose = f"of the adapter {entry['name'][:60]!r}"
        if several != (found is not None):
            problems.append(f"thresholds {whose} {'are missing' if several else 'need a task'}")
        elif found is not None and len(found) != labels:
            problems.append(f"{len(found)} thresholds {whose}, expected {labels}, one a label")
        elif found is not None:
            problems += [
                f"a threshold {whose} is {value:g}, expected above 0 and below 1"
                for value in found
                if not _is_threshold(value)
            ][:1]
    return problems


def _is_threshold(value: float) -> bool:
    """Whether it lies between 0 and 1 in float32, too, in which scores are compared with it."""
    single = struct.unpack("f", struct.pack("f", value))[0]
    return bool(0 < single < 1)


def _merging_problems(manifest: Mapping[str, Any]) -> list[str]:
    """One number for each block of the backbone."""
    merging, depth = manifest.get("merging"), manifest["backbone"]["spec"].get("depth")
    if merging is None or len(merging["schedule"]) == depth:
        return []
    return [
        f"merging has {len(merging['schedule'])} numbers, the backbone {str(depth)[:20]} blocks"
    ]


def _graph_problems(manifest: Mapping[str, Any]) -> list[str]:
    """What inputs, outputs and batch say, held together."""
    inputs, outputs = manifest["inputs"], manifest["outputs"]
    names = [value["name"] for value in inputs]
    problems = []
    problems += [f"two inputs have the name {name!r}" for name in _twice(names)]
    if manifest["layout"] == "baked" and len(inputs) > 1:
        problems.append(f"layout is 'baked' with {len(inputs)} inputs, expected one")
    dtype = {"images": "uint8", "pixels": "float32"}.get(inputs[0]["name"])
    if dtype is None or inputs[0]["dtype"] != dtype or len(inputs[0]["shape"]) != 4:
        problems.append("inputs[0] is neither images [B, H, W, 3] nor pixels [B, 3, H, W]")
    for value in (*inputs, *outputs):
        if any(isinstance(size, str) for size in value["shape"][1:]):
            problems.append(f"{value['name'][:60]} has a free size behind the first")
    tables = [value for value in inputs if value["name"].startswith(_TABLES)]
    others = [value for value in (*inputs, *outputs) if value not in tables]
    if (
        any("constant" in value for value in others)
        or len({value.get("constant", False) for value in tables}) > 1
    ):
        problems.append("constant is for the tables of a bank, all of them or none")
    if problems:
        return problems
    free, batch = manifest["batch"] == "dynamic", inputs[0]["shape"][0]
    if isinstance(batch, str) != free or not (free or batch == manifest["batch"]):
        return [f"batch is {manifest['batch']!r}, inputs[0] has {batch!r}"]
    problems += _output_problems(manifest)
    each = math.prod(inputs[0]["shape"][1:])
    if each * (1 if free else int(batch)) > _BATCH_NUMBERS:
        problems.append(f"a batch has more than {_BATCH_NUMBERS} numbers")
    return problems


def _output_problems(manifest: Mapping[str, Any]) -> list[str]:
    """Outputs are logits, features, or both; scores are with logits, where there are several labels."""
    outputs = manifest["outputs"]
    names = [value["name"] for value in outputs]
    asked = [name for name in names if name != SCORES]
    expected = outputs_of(asked, manifest.get("task", SINGLE))
    if not asked or names != [*expected] or any(len(value["shape"]) != 2 for value in outputs):
        scores = " (and scores [B, C] behind logits)" if SCORES in expected else ""
        return [f"outputs is not logits [B, C]{scores}, features [B, f], or both"]
    if manifest["layout"] == "bank" and LOGITS not in names:
        return ["layout is 'bank' without logits, which each gives"]
    problems = []
    for name, value in zip(names, outputs, strict=True):
        if name != FEATURES:
            problems += _class_problems(manifest, value["shape"][1])
        elif value["dtype"] != "float32" or value["shape"][1] > _FEATURES:
            problems.append(f"features is not float32 [B, at most {_FEATURES}]")
    return problems


def _class_problems(manifest: Mapping[str, Any], classes: int) -> list[str]:
    most = max(len(entry["labels"]) for entry in manifest["adapters"])
    if most > classes or (manifest["layout"] == "baked" and most != classes):
        return [f"the graph has {classes} classes, an adapter {most} labels"]
    return []


def _twice(names: list[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]
