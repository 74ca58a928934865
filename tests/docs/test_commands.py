"""Every command that README and docs show is run as it stands, or says why it is not."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.docs.cli_options import all_options, commands, complaint
from tests.docs.pages import PAGES, ROOT, commands_in_prose, read_page, shell_lines
from tests.docs.reader import Reader
from tests.docs.scenes import Scenery, fill_hub
from tests.support.fakes.gpu import ORIN

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED = Path(__file__).resolve().parents[3] / "shared"
READ = [read_page(name) for name in PAGES]
RUN = [page for page in READ if any(block.is_run for block in page.blocks)]
FAKES = [page for page in READ if any("on the fakes" in b.notes for b in page.blocks)]


@pytest.fixture(scope="session")
def kept(tmp_path_factory) -> Path:
    """What is made once for all pages."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def scenery(kept, vptkit, monkeypatch, tmp_path) -> Iterator[Scenery]:
    """Things to begin with, the hub's cache, and profiles of three rounds instead of seconds."""
    for module in ("torch", "timm", "onnx", "onnxruntime", "matplotlib", "sklearn"):
        pytest.importorskip(module)
    import torch
    from huggingface_hub import constants

    from tests.support.serial_cluster import SerialCluster
    from tests.support.serial_runner import Serial
    from vptkit.runtime.measure.timing import Budget

    shared = SHARED if (SHARED / "data").is_dir() else None
    if not (kept / "hub").exists():
        fill_hub(kept / "hub", shared)
    monkeypatch.setenv("HF_HUB_CACHE", str(kept / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(kept / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    whole = Budget.__init__
    short = {"rounds": 3, "warm_up_least": 0.01, "warm_up_calls": 2}
    monkeypatch.setattr(Budget, "__init__", lambda self, **_: whole(self, **short))
    # In this process: Ray takes a minute to start; tests/tune/sweep and runtime/ray_data have it.
    serial = SimpleNamespace(RayRunner=lambda **_: Serial(tmp_path / "trials"))
    monkeypatch.setitem(sys.modules, "vptkit.tune.sweep.ray_runner", serial)
    monkeypatch.setitem(sys.modules, "vptkit.runtime.ray_data.driver_child", SerialCluster())
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so few images are not worth two
    yield Scenery(kept, shared, vptkit)
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_a_page_can_be_followed(page, scenery, vptkit, tmp_path):
    for name in page.begins_with:
        scenery.put(name, tmp_path)
    ran = Reader(tmp_path, vptkit).follow(page)
    assert ran >= sum(
        b.is_run and not {"on the fakes", "needs"} & set(b.notes) for b in page.blocks
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", FAKES, ids=lambda page: page.name)
def test_a_page_for_a_gpu_can_be_followed_on_the_fakes(
    page, scenery, vptkit, tmp_path, request, monkeypatch
):
    for name in page.begins_with:
        scenery.put(name, tmp_path)
    monkeypatch.setattr(request, "param", ORIN, raising=False)
    request.getfixturevalue("fake_gpu")
    assert Reader(tmp_path, vptkit).follow(page, on_the_fakes=True) > 0


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    lines = [line for b in page.blocks if b.kind == "sh" for line in shell_lines(b.text)]
    prose = [code for code in commands_in_prose(page) if code.startswith("vptkit ")]
    options = [re.split(r"[ =|]", code)[0] for code in commands_in_prose(page) if code[0] == "-"]
    wrong = [text for line in (*lines, *prose) if (text := complaint(line))]
    others = [line for line in (*lines, *page.prose.splitlines()) if "vptkit " not in line]
    theirs = re.findall(r"--[a-z-]+", "\n".join(line for line in others if "python" in line))
    known = all_options() | set(theirs)
    assert wrong + [f"no command has {o}" for o in options if o not in known] == []


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_a_script_that_is_named_exists_and_has_its_options(page):
    text = "\n".join([page.prose, *(block.text for block in page.blocks)])
    for script, rest in re.findall(r"python (tests/\S+\.py)([^`\n#]*)", text):
        source = (ROOT / script).read_text()
        for option in re.findall(r"--[a-z-]+", rest):
            assert f'"{option}"' in source, f"{script} has no {option}"


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_what_is_not_run_says_why(page):
    for block in page.blocks:
        if block.kind in ("sh", "python") and not block.is_run:
            assert len(block.notes["not run"]) > 5, f"{page.name}:{block.line}"
        if block.kind == "python":
            compile(block.text, page.name, "exec")


def test_a_wrong_command_or_option_would_be_noticed():
    assert complaint("vptkit tune DATA --epochs 3 -o a.safetensors  # quick") is None
    assert complaint("sudo ~/vpt/bin/vptkit profile a.vptk --power all") is None
    assert complaint("vptkit bank add all.vptk trucks.safetensors | head -3") is None
    assert "no --epoch:" in complaint("vptkit tune DATA --epoch 3")
    assert "no command 'train'" in complaint("vptkit train DATA")
    assert "vptkit bank add has no --weights" in complaint("vptkit bank add a b --weights c")
    assert complaint("pip install -e ./vptkit --no-such-option") is None
    assert len(commands()) > 20
    assert len(RUN) > 5


def test_a_page_is_taken_apart():
    page = read_page(
        "page.md",
        "<!-- begins with: a b -->\n# Title\n\n<!-- not run: needs a board -->\n```sh\nx \\\n  y\n"
        '# only a word\n```\n\n```toml title="c.toml"\nk = 1\n```\nUse `--k` or `vptkit z`.\n',
    )
    first, second = page.blocks
    assert page.begins_with == ("a", "b")
    assert (first.kind, first.line, first.is_run) == ("sh", 6, False)
    assert shell_lines(first.text) == ["x    y"]
    assert (second.title, second.text) == ("c.toml", "k = 1")
    assert list(commands_in_prose(page)) == ["--k", "vptkit z"]
    with pytest.raises(ValueError, match="not closed"):
        read_page("page.md", "```sh\n")
    with pytest.raises(ValueError, match="a fence of 'bash'"):
        read_page("page.md", "```bash\n```\n")


def test_a_failing_command_or_another_output_is_noticed(tmp_path, vptkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path, vptkit)
    with pytest.raises(AssertionError, match=r"page.md:2: exit code 2 of: vptkit inspect none"):
        reader.follow(read_page("page.md", "```sh\nvptkit inspect none\n```\n"))
    words = "```sh\necho seen 1 && touch 'a file'\n```\n\n```text\n{}  2\n```\n"
    assert reader.follow(read_page("page.md", words.format("seen"))) == 1
    assert (tmp_path / "a file").exists()
    with pytest.raises(AssertionError, match="'unseen' is not in"):
        reader.follow(read_page("page.md", words.format("unseen")))
    python = "```python\nfrom pathlib import Path\n```\n\n```python\nPath('made').touch()\n```\n"
    assert reader.follow(read_page("page.md", python)) == 2
    assert (tmp_path / "made").exists()
