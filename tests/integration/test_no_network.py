"""No command asks for a network unless it shall load weights from a hub.

Every Python process that a command starts notes what it wants of the network: a connection other than on
this machine's own sockets, or the address of a name.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

for module in ("torch", "timm", "onnx", "onnxruntime"):
    pytest.importorskip(module)

from tests.support import architecture  # noqa: E402
from tests.support.children import run_child  # noqa: E402

NOTED = """
import os, socket, sys
def note(event, arguments):
    if event == "socket.getaddrinfo" or (
        event in ("socket.connect", "socket.sendto") and arguments[0].family != socket.AF_UNIX
    ):
        with open(os.environ["NOTED"], "a") as file:
            file.write(f"{sys.argv} {event} {arguments[1:]}\\n")
sys.addaudithook(note)
"""
SETTINGS = """
backbone = "vit_tiny_patch16_224"
backbone_args = {img_size = 32, patch_size = 4, embed_dim = 128, depth = 6, num_heads = 4}
method = "linear"
"""
WEIGHTS = architecture.ROOT / "vptkit" / "assets" / "demo_backbone.safetensors"
# All in one process, as each that imports torch takes seconds; those that it starts are heard, too.
SEVERAL = """
import json, sys
from vptkit.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["vptkit", *words]
    try:
        main()
    except SystemExit as error:
        if error.code not in (None, 0, 5):
            sys.exit(f"{words}: exit code {error.code}")
"""
COMMANDS = (
    ("tune", "data", "--config", "c.toml", "--weights", WEIGHTS, "-o", "a.safetensors"),
    ("export", "a.safetensors", "--weights", WEIGHTS, "-o", "a.vptk"),
    ("check", "a.vptk"),
    ("check", "a.vptk", "--backend", "openvino"),
    ("run", "a.vptk", "data"),
    ("eval", "a.vptk", "data"),
    ("profile", "a.vptk", "--rounds", "3"),
    ("doctor",),
    ("backbones", "dinov2"),
)


@pytest.fixture
def place(tmp_path):
    random = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            pixels = random.integers(0, 60, (32, 32, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "c.toml").write_text(SETTINGS)
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(NOTED)
    return tmp_path


def environment(place):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    paths = (place / "hook", architecture.ROOT, os.environ.get("PYTHONPATH"))
    own = {"NOTED": place / "noted", "XDG_CACHE_HOME": place / "cache", "OMP_NUM_THREADS": "1"}
    own |= {"HF_HOME": place / "hf", "PYTHONPATH": os.pathsep.join(str(p) for p in paths if p)}
    return {**kept, **{key: str(value) for key, value in own.items()}}


@pytest.mark.long
def test_no_command_asks_for_a_network(place):
    commands = json.dumps([[str(word) for word in command] for command in COMMANDS])
    run_child(
        [sys.executable, "-c", SEVERAL, commands], cwd=place, env=environment(place), limit=300
    )
    assert not (place / "noted").exists(), (place / "noted").read_text()


def test_the_hook_sees_what_asks(place):
    line = "import socket; socket.create_connection(('localhost', 9), timeout=1)"
    run_child([sys.executable, "-c", line], cwd=place, env=environment(place), check=False)
    assert "socket.getaddrinfo" in (place / "noted").read_text()
