"""The whole way, as a person sees it: every command in a terminal, held as a transcript.

journey/80.txt and journey/60.txt are what a reviewer reads, by the width of the window. Numbers may differ
from machine to machine, words may not. After a change of words:
`VPTKIT_WRITE_JOURNEY=1 pytest tests/integration/test_journey.py`, then read what git says.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

for module in ("torch", "timm", "onnx", "onnxruntime", "pyte"):
    pytest.importorskip(module)

from tests.docs.scenes import Scenery, fill_hub  # noqa: E402
from tests.support.terminal import Seen, drawn, in_a_terminal  # noqa: E402

HELD = Path(__file__).parent / "journey"
WAY = """\
vptkit tune flowers/ --backbone vit_tiny_patch16_224 --image-size 64 --epochs 2 --threads 1
vptkit export flowers.safetensors
vptkit check flowers.vptk
vptkit eval flowers.vptk flowers/
vptkit run flowers.vptk photos/
vptkit run flowers.vptk photos/ --save answers.csv
vptkit inspect flowers.vptk
vptkit run flowers.safetensors photos/
vptkit export flowers.safetensors
"""
# All in one process, as each that imports torch takes seconds; behind each command its status.
SEVERAL = """
import json, os, sys
from vptkit.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv, code = words, 0
    try:
        main()
    except SystemExit as error:
        code = error.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(1, f"\\x1e{code}\\x1e".encode())
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A folder with flowers/ and photos/ of coloured noise, and a hub of random weights beside it."""
    place = tmp_path_factory.mktemp("journey")
    fill_hub(place / "hub", None)
    (place / "kept").mkdir()
    (place / "here").mkdir()
    scenery = Scenery(place / "kept", None, None)
    for name in ("flowers", "photos"):
        scenery.put(name, place / "here")
    return place


@pytest.mark.long
@pytest.mark.parametrize(("columns", "plain"), [(80, False), (60, True)])
def test_the_way_reads_as_it_is_held(start, tmp_path, columns, plain):
    shutil.copytree(start / "here", tmp_path / "here")
    told, coloured = [], False
    lines = WAY.splitlines()
    for line, seen in zip(lines, _typed(lines, start, tmp_path, columns, plain), strict=True):
        assert b"Traceback" not in seen.raw, seen.text
        assert plain or seen.status in (0, 2)
        end = "" if seen.status == 0 else f"(exit code {seen.status})\n"
        told.append(f"$ {line}\n{seen.text.rstrip()}\n{end}".replace("\n\n(exit", "\n(exit"))
        coloured |= seen.coloured
    text = "\n".join(told)
    held = HELD / f"{columns}.txt"
    if os.environ.get("VPTKIT_WRITE_JOURNEY"):
        held.write_text(text, encoding="utf-8")
    assert not (plain and coloured)
    assert max(map(len, text.splitlines())) <= max(columns, len(max(WAY.splitlines(), key=len)) + 2)
    assert _words(text) == _words(held.read_text(encoding="utf-8"))


def test_words_are_compared_without_their_numbers():
    assert _words("test 86.8 % in 2.31 s\n  x   4e-06\n") == ["test # % in # s", "x #"]
    assert _words("test 86.8 %") != _words("val 86.8 %")


def _typed(lines: list[str], start: Path, folder: Path, columns: int, plain: bool) -> list[Seen]:
    """What is seen of each command."""
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    env |= {
        "TERM": "xterm-256color",
        "HF_HUB_CACHE": str(start / "hub"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "MPLCONFIGDIR": str(folder / "cache"),
    }
    if plain:
        env["NO_COLOR"] = "1"
    words = [sys.executable, "-c", SEVERAL, json.dumps([shlex.split(line) for line in lines])]
    seen = in_a_terminal(words, columns=columns, cwd=folder / "here", env=env, limit=300)
    *parts, rest = seen.raw.split(b"\x1e")
    assert (rest, seen.status) == (b"", 0), seen.text
    told = zip(parts[::2], parts[1::2], strict=True)
    return [drawn(text, columns=columns, status=int(status)) for text, status in told]


def _words(text: str) -> list[str]:
    """Lines without numbers and without the spaces that stand for their widths."""
    masked = re.sub(r"\d[\d,]*(\.\d+)?(e[-+]?\d+)?", "#", text)
    return [" ".join(line.split()) for line in masked.splitlines()]
