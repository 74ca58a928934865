"""What runs on a board is run: the command line and ONNX Runtime for aarch64, by QEMU.

The answers of this machine are the expected ones. Nothing here is about speed, nor about a GPU.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.support.adapter_files import files_of
from tests.support.arm64 import board
from tests.support.downloads import Unavailable
from tests.support.strategies import Setup
from tests.support.tolerances import AARCH64, CLEARLY, largest_difference
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.bundle import open_bundle, write_manifest
from vptkit.formats.tensor_file import write_tensors
from vptkit.images.image_file import open_image
from vptkit.images.preprocess import prepare
from vptkit.runtime.session.factory import open_session

if TYPE_CHECKING:
    from pathlib import Path

# Commands, then sessions: in one process, as Python and its packages take QEMU ten seconds to load.
SEVERAL = """
import contextlib, io, json, sys, traceback
import numpy as np
from vptkit.cli import main
from vptkit.runtime.session.factory import open_session
commands, sessions = json.loads(sys.argv[1])
told = {}
for name, arguments in commands.items():
    sys.argv, code = ["vptkit", *arguments], 0
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                main()
            except SystemExit as error:
                code = error.code or 0
            except Exception:
                traceback.print_exc()
                code = 1
    told[name] = code, out.getvalue(), err.getvalue()
for name, (bundle, images) in sessions.items():
    told[name] = open_session(bundle).run(np.load(images)).tolist()
sys.stdout.write(json.dumps(told))
"""
# what a board imports; the parents of child processes, and whatever needs a package of its own, too
IMPORTS = """
import importlib, json, pathlib, sys, vptkit
home = pathlib.Path(vptkit.__file__).parent
names = [".".join(("vptkit", *path.relative_to(home).with_suffix("").parts))
         for room in ("runtime", "devices")
         for path in sorted((home / room).rglob("*.py"))
         if path.stem != "__init__"
         and path.parent.name not in ("http_server", "serving", "ray_data")  # extras serve, ray
         and path.stem != "openvino_graph"]  # extra openvino
for name in names:
    importlib.import_module(name)
from vptkit.devices.drivers.cuda import probe
from vptkit.errors import MissingError
try:
    found = str(probe())
except MissingError as error:
    found = f"MissingError: {error}"
sys.stdout.write(json.dumps({"names": names, "gpu": found}))
"""


@pytest.fixture(scope="module")
def arm():
    try:
        return board()
    except Unavailable as reason:
        pytest.skip(f"no Python for aarch64: {reason}")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A tiny ViT with prompts and golden answers, exported here."""
    files = files_of(tmp_path_factory.mktemp("arm"), Setup())
    export(files.adapter, files.out, weights=files.weights)
    return files.out


@pytest.fixture(scope="module")
def real_bundle(shared, tmp_path_factory) -> Path:
    """ViT-Ti/16 with its real weights and eight prompts a block; golden answers of a real image."""
    from vptkit.tune.backbone.reference import reference_logits
    from vptkit.tune.backbone.spec_from_timm import spec_from_model, weights_from_model
    from vptkit.tune.backbone.timm_backbone import create_backbone, described_weights, preprocess_of

    name = "vit_tiny_patch16_224"
    weights = shared / "weights" / f"{name}.augreg_in21k_ft_in1k" / "model.safetensors"
    model = create_backbone(name, {}, weights)
    spec, random = spec_from_model(model), np.random.default_rng(0)
    tensors: dict[str, Any] = {
        "head.weight": random.standard_normal((10, spec.width)) / np.sqrt(spec.width),
        "head.bias": random.standard_normal(10),
    }
    for i in range(spec.depth):
        tensors[f"prompt.{i}"] = random.standard_normal((8, spec.width))
    folder = tmp_path_factory.mktemp("real")
    adapter = Adapter(
        name="real",
        backbone=BackboneRef(
            name=name, spec=spec, sha256=digest_of_weights(weights_from_model(model))
        ),
        method="vpt",
        insert="deep",
        prompt_length=8,
        pool="token",
        norm="before_pool",
        labels=tuple(f"class {i}" for i in range(10)),
        preprocess=preprocess_of(model),
        tensors={key: np.asarray(value, dtype=np.float32) for key, value in tensors.items()},
    )
    write_adapter(folder / "a.safetensors", adapter)
    photos = sorted((shared / "data").glob("*/test/*/*.jp*g"))[:1]
    images = np.stack([prepare(open_image(photo), adapter.preprocess) for photo in photos])
    export(
        folder / "a.safetensors",
        folder / "a.vptk",
        weights=weights,
        options=ExportOptions(),
        from_timm=lambda one: described_weights(one, weights),
    )
    answers = reference_logits(folder / "a.safetensors", weights, images)
    return with_golden(folder / "a.vptk", images, answers)


def with_golden(path: Path, images, logits) -> Path:
    """Put other golden answers into a bundle, digests and all."""
    manifest = {
        key: value
        for key, value in open_bundle(path).manifest.items()
        if key not in ("format", "files")
    }
    tensors = {"images": images, "logits": np.asarray(logits, dtype=np.float32)}
    write_tensors(path / "golden.safetensors", tensors)
    write_manifest(path, manifest)
    return path


IMAGES = np.random.default_rng(3).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Images that are decoded, turned, resized and cropped on both machines."""
    random, folder = np.random.default_rng(4), tmp_path_factory.mktemp("pictures")
    for i, size in enumerate([(16, 24), (61, 47)]):
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def told(arm, bundle, pictures, tmp_path_factory) -> dict[str, Any]:
    """What the board says: a command's status, output and error; a session's logits."""
    folder = tmp_path_factory.mktemp("told")
    images, logits = open_bundle(bundle).golden()
    broken = shutil.copytree(bundle, folder / "broken.vptk")
    with_golden(broken, images, logits + 0.01 * np.abs(logits).max() * np.eye(5)[2])
    commands = {
        "check": ("check", bundle, "--json"),
        "check broken": ("check", broken, "--json"),
        "run": ("run", bundle, pictures, "--json"),
        "build": ("build", bundle),
        "detect": ("devices", "detect", "--json"),
        "doctor": ("doctor", "--json"),
    }
    return ask(arm, folder, commands, {"logits": (bundle, IMAGES)})


@pytest.fixture(scope="module")
def told_of_a_real_vit(arm, real_bundle, tmp_path_factory) -> dict[str, Any]:
    images, _ = open_bundle(real_bundle).golden()
    commands = {"check": ("check", real_bundle, "--json")}
    folder = tmp_path_factory.mktemp("told")
    return ask(arm, folder, commands, {"logits": (real_bundle, images)})


def ask(arm, folder: Path, commands, sessions) -> dict[str, Any]:
    for name, (_, images) in sessions.items():
        np.save(folder / f"{name}.npy", images)
    words = {name: [str(word) for word in command] for name, command in commands.items()}
    files = {name: (str(path), f"{folder / name}.npy") for name, (path, _) in sessions.items()}
    done = arm.run("-c", SEVERAL, json.dumps([words, files]))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
def test_a_board_gives_the_answers_of_this_machine(told, bundle):
    here, there = open_session(bundle).run(IMAGES), np.array(told["logits"])
    assert largest_difference(there, here) <= AARCH64
    # the broken twin: one bias of the head a little larger
    shifted = here + CLEARLY * AARCH64 * np.abs(here).max() * np.eye(5)[0]
    assert largest_difference(there, shifted) > AARCH64


@pytest.mark.long
def test_a_real_vit_gives_the_answers_of_this_machine(told_of_a_real_vit, real_bundle):
    images, _ = open_bundle(real_bundle).golden()
    here, there = open_session(real_bundle).run(images), np.array(told_of_a_real_vit["logits"])
    assert largest_difference(there, here) <= AARCH64


@pytest.mark.long
@pytest.mark.parametrize(
    ("which", "of"), [("bundle", "told"), ("real_bundle", "told_of_a_real_vit")]
)
def test_check_holds_on_a_board(which, of, request):
    code, out, err = request.getfixturevalue(of)["check"]
    assert code == 0, err
    document = json.loads(out)
    assert document["ok"]
    assert document["count"] == len(open_bundle(request.getfixturevalue(which)).golden()[0])


@pytest.mark.long
def test_check_fails_on_a_board_where_one_bias_differs(told):
    """The broken twin."""
    code, out, err = told["check broken"]
    assert code == 3, err
    assert not json.loads(out)["ok"]
    assert "differs from the golden answers" in err


@pytest.mark.long
def test_run_says_the_same_on_a_board(told, vptkit, bundle, pictures):
    code, here, err = vptkit("run", bundle, pictures, "--json")
    assert code == 0, err
    code, there, err = told["run"]
    assert code == 0, err
    lines = [[json.loads(line) for line in text.splitlines()] for text in (here, there)]
    assert len(lines[0]) == 2
    for ours, theirs in zip(*lines, strict=True):
        assert [top["label"] for top in theirs["top"]] == [top["label"] for top in ours["top"]]
        scores = [[top["score"] for top in line["top"]] for line in (theirs, ours)]
        assert len(scores[0]) == 5
        assert largest_difference(*scores) <= AARCH64


@pytest.mark.long
def test_everything_that_a_board_needs_can_be_imported(arm):
    done = arm.run("-W", "error", "-c", IMPORTS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {
        "vptkit.devices.drivers.cuda",
        "vptkit.runtime.backends.tensorrt_graph",
        "vptkit.runtime.session.factory",
    } <= {*found["names"]}
    assert found["gpu"].startswith("MissingError: ")


@pytest.mark.long
def test_doctor_and_detect_answer_on_a_board(told):
    code, out, err = told["detect"]
    assert code == 0, err
    assert json.loads(out)["machine"]["arch"] == "aarch64"
    code, out, err = told["doctor"]
    assert code in (0, 5), err
    found = {check["name"]: check["found"] for check in json.loads(out)["checks"]}
    assert found["ONNX Runtime"].startswith("1.23.2")
    assert found["ONNX Runtime CPU"] == "multiplied two matrices"


@pytest.mark.long
def test_a_build_without_a_gpu_says_so_on_a_board(told, bundle):
    """The child process of a build starts, and asks for the GPU before anything of TensorRT's."""
    code, _, err = told["build"]
    assert code == 5, err
    assert "no NVIDIA GPU" in err
    assert not (bundle / "engines").exists()


def test_the_test_of_a_board_is_not_one_of_this_machine(arm):
    """Nor are the processes that it starts."""
    code = "import platform; print(platform.machine(), flush=True)"
    child = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    )
    done = arm.run("-c", f"{code}; {child}", code)
    assert done.stdout == "aarch64\naarch64\n", done.stderr
