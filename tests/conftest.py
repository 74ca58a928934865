"""What many tests need: real data if it is there, images of every mode, and a tiny bundle."""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.support.children import hearing
from tests.support.fakes.gpu import fake_driver, fake_gpu  # noqa: F401 -- fixtures
from tests.support.plain_vit import plain_vit
from tests.support.skips import pytest_terminal_summary  # noqa: F401 -- a hook
from tests.support.tiers import (  # noqa: F401 -- hooks
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
)
from vptkit.cli import entry
from vptkit.devices.probes.machine import visible_gpu
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.bundle import write_manifest
from vptkit.formats.tensor_file import write_tensors
from vptkit.images.preprocess import Preprocess, normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

if "PYTEST_XDIST_WORKER" in os.environ:  # as many threads as workers, not their square
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What whoever starts the tests has set for a terminal or for runs of their own is not for them.
FOREIGN = (
    *("CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "PY_COLORS"),
    *("GITHUB_ACTIONS", "TERMINAL_WIDTH", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),  # of typer, rich
    *("LOCAL_RANK", "RANK", "WORLD_SIZE"),  # of torchrun
    *("VPTKIT_BACKEND", "VPTKIT_CACHE"),
)
for variable in FOREIGN:
    os.environ.pop(variable, None)
if visible_gpu() is not None:  # where tests name no backend, they mean the processor
    os.environ["VPTKIT_BACKEND"] = "cpu"


def _not_waiting(handle: int) -> None:
    os.fstat(handle)  # what is no open file is an error, as ever


# What tests write need not outlive a power failure, and thousands of times the disk is waited for.
# Who tests what happens there puts a function of its own in this place; children have the real one.
os.fsync = _not_waiting

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files stay together as far as they can, so that what a module shares is made once.

    By default tests are dealt out one by one, and each worker makes it.
    """
    if config.getoption("dist") != "load":
        return None  # asked for something else
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collection_finish() -> None:
    """What is imported by now stays: no search for garbage needs to look at it again.

    hypothesis searches before each test that it runs, which took a third of a second each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keys and caches of whoever runs the tests stay as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SUDO_UID", raising=False)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """As from a terminal, also where the tests were started with some of them ignored."""
    with hearing():
        yield


@pytest.fixture
def pictures() -> None:
    """For a test whose runs draw their page as a user's do; without it the page is a word.

    To draw takes four times as long as a tiny model trains.
    """


@pytest.fixture(autouse=True)
def _words(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "vptkit.api.tuning" in sys.modules and "pictures" not in request.fixturenames:
        from vptkit.tune.training_page import run_pictures

        text = run_pictures.MARK.decode()  # else it would be somebody else's
        monkeypatch.setattr(run_pictures, "page_text", lambda _: text)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real images and weights at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_spec() -> BackboneSpec:
    """A backbone that exists on paper only."""
    return replace(plain_vit((24, 16), 8, width=8, depth=2, heads=2), mlp_width=16)


@pytest.fixture
def vptkit(capsys, monkeypatch):
    """A function that runs the command line here: (exit code, standard output, error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vptkit", *map(str, arguments)])
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as caught:
            entry.main()
        signal.signal(signal.SIGTERM, before)
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """A linear classifier of mean colours: simple enough to be right by inspection."""

    preprocess: Preprocess
    weight: NDArray[np.float32]  # [3, C]
    bias: NDArray[np.float32]  # [C]

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The answer in numpy: uint8 [B, H, W, 3] → float32 [B, C]."""
        return (self.features(images) @ self.weight + self.bias).astype(np.float32)

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Each label's own probability: float32 [B, C]."""
        return (1 / (1 + np.exp(-self.logits(images).astype(np.float64)))).astype(np.float32)

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the head reads: the mean colours, float32 [B, 3]."""
        pixels = normalize(images, self.preprocess).astype(np.float64)
        return pixels.mean(axis=(2, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_model() -> TinyModel:
    """Three classes: the reddest, the greenest, the bluest image."""
    preprocess = Preprocess(
        input_size=(3, 24, 16),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
        interpolation="bicubic",
        crop_pct=0.9,
    )
    weight = (4 * np.eye(3) - 1).astype(np.float32)
    return TinyModel(preprocess=preprocess, weight=weight, bias=np.float32([0.0, 0.1, -0.1]))


@pytest.fixture
def make_bundle(
    tmp_path: Path, tiny_spec: BackboneSpec, tiny_model: TinyModel
) -> Callable[..., Path]:
    """A function that writes a bundle around `tiny_model`, without the exporter.

    With thresholds it is one of several labels an image.
    """
    numbers = itertools.count()

    def make(
        name: str = "tiny",
        *,
        labels: tuple[str, ...] = ("red", "green", "blue"),
        feed: str = "images",
        batch: int | str = "dynamic",
        golden: bool = True,
        shift: float = 0.0,
        gives: tuple[str, ...] = ("logits",),
        thresholds: tuple[float, ...] | None = None,
        **manifest: Any,
    ) -> Path:
        if thresholds is not None and gives == ("logits",):
            gives = ("logits", "scores")
        path = tmp_path / f"{name}-{next(numbers)}.vptk"
        path.mkdir()
        (path / "model.onnx").write_bytes(_graph(tiny_model, feed, batch, shift, gives))
        if golden:
            images = np.random.default_rng(0).integers(0, 256, (5, 24, 16, 3), dtype=np.uint8)
            tensors = {"images": images, "logits": tiny_model.logits(images)}
            if "features" in gives:
                tensors["features"] = tiny_model.features(images)
            write_tensors(path / "golden.safetensors", tensors)
        document = _manifest(name, labels, feed, batch, tiny_spec, tiny_model)
        if thresholds is not None:
            document["task"] = "multilabel"
            document["adapters"][0]["thresholds"] = list(thresholds)
        sizes = {"logits": len(labels), "scores": len(labels), "features": 3}
        document["outputs"] = [
            {"name": one, "dtype": "float32", "shape": [_size(batch), sizes[one]]} for one in gives
        ]
        write_manifest(path, document | manifest)
        return path

    return make


@pytest.fixture
def tiny_adapter(tmp_path: Path, tiny_spec: BackboneSpec, tiny_model: TinyModel) -> Path:
    """An adapter file of two bilinear prompts a block."""
    random = np.random.default_rng(0)
    tensors: dict[str, Any] = {"head.weight": random.normal(size=(3, 8)).astype(np.float32)}
    tensors["head.bias"] = np.zeros(3, dtype=np.float32)
    for i in range(2):
        tensors[f"prompt.{i}.a"] = random.normal(size=(2, 4)).astype(np.float32)
        tensors[f"prompt.{i}.b"] = random.normal(size=(8, 4)).astype(np.float32)
    adapter = Adapter(
        name="tiny",
        backbone=BackboneRef(name="paper_vit", spec=tiny_spec),
        method="bpt",
        insert="deep",
        prompt_length=2,
        pool="token",
        norm="before_pool",
        labels=("red", "green", "blue"),
        preprocess=tiny_model.preprocess,
        tensors=tensors,
    )
    write_adapter(tmp_path / "tiny.safetensors", adapter)
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def colour_folders(tmp_path: Path) -> Path:
    """red/ green/ blue/, four noisy images each; one of green is blue at heart."""
    random = np.random.default_rng(1)
    folder = tmp_path / "colours"
    for i, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for k in range(4):
            pixels = random.integers(0, 90, (40, 33, 3), dtype=np.uint8)
            pixels[..., 2 if (name, k) == ("green", 3) else i] += 150
            Image.fromarray(pixels).save(folder / name / f"{k}.png")
    return folder


def _size(batch: int | str) -> int | str:
    return "B" if batch == "dynamic" else batch


def _graph(
    model: TinyModel, feed: str, batch: int | str, shift: float, gives: tuple[str, ...]
) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    height, width = model.preprocess.size
    size = _size(batch)
    mean = np.float32(model.preprocess.mean)
    std = np.float32(model.preprocess.std)
    uint8 = feed == "images"
    shape = [size, height, width, 3] if uint8 else [size, 3, height, width]
    tensors = {
        "scale": np.float32(1 / 255 / std) if uint8 else np.ones(3, np.float32),
        "offset": np.float32(-mean / std) if uint8 else np.zeros(3, np.float32),
        "weight": model.weight,
        "bias": model.bias + np.float32(shift),
    }
    nodes = [
        helper.make_node("Cast", [feed], ["float"], to=TensorProto.FLOAT),
        helper.make_node(
            "ReduceMean", ["float"], ["colour"], axes=[1, 2] if uint8 else [2, 3], keepdims=0
        ),
        helper.make_node("Mul", ["colour", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["normal"]),
        helper.make_node("MatMul", ["normal", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Identity", ["normal"], ["features"]),
    ]
    nodes += [helper.make_node("Sigmoid", ["logits"], ["scores"])] * ("scores" in gives)
    sizes = {"logits": model.bias.size, "scores": model.bias.size, "features": 3}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(
                feed, TensorProto.UINT8 if uint8 else TensorProto.FLOAT, shape
            )
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [size, sizes[n]]) for n in gives],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(onnx_model.SerializeToString())


def _manifest(
    name: str,
    labels: tuple[str, ...],
    feed: str,
    batch: int | str,
    spec: BackboneSpec,
    model: TinyModel,
) -> dict[str, Any]:
    height, width = model.preprocess.size
    size = _size(batch)
    shape = [size, height, width, 3] if feed == "images" else [size, 3, height, width]
    dtype = "uint8" if feed == "images" else "float32"
    return {
        "name": name,
        "backbone": {"name": "paper_vit", "args": {}, "spec": spec.to_json(), "sha256": None},
        "adapters": [{"name": name, "labels": list(labels)}],
        "preprocess": model.preprocess.to_json(),
        "inputs": [{"name": feed, "dtype": dtype, "shape": shape}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": [size, len(labels)]}],
        "precision": "fp32",
        "lowering": None,
        "gate": None,
        "layout": "baked",
        "batch": batch,
        "fold": "all",
        "folds": [],
        "macs": {"before": 2, "after": 1},
        "memory": {"weights_bytes": 72, "activation_bytes": {"fixed": 0, "per_image": 4608}},
        "parity": None,
        "versions": {},
    }


@pytest.fixture
def edit_manifest() -> Callable[..., None]:
    """A function that changes fields of a bundle's manifest."""

    def edit(bundle: Path, **fields: Any) -> None:
        file = bundle / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return edit
