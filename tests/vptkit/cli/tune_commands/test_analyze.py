"""`vptkit analyze` and `vptkit import`: options reach the library, and its answer is printed."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from vptkit.cli.tune_commands.analyze import _prompts  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402

NAME, SIZE, D = "test_vit", 32, 64  # timm's own tiny model, 64 wide, 6 blocks


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=0, img_size=SIZE)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir()
        for i in range(6):
            pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def prompts(tmp_path):
    """VPT's own file of prompts, and a head."""
    random = np.random.default_rng(1)
    deep = {"shallow_prompt": (1, 4, D), "deep_prompt": (5, 4, D)}
    state = {name: random.normal(size=shape).astype("float32") for name, shape in deep.items()}
    torch.save(state, tmp_path / "prompt_ep100.pth")
    head = {"weight": torch.randn(2, D), "bias": torch.zeros(2)}
    save_file(head, tmp_path / "head.safetensors")
    return tmp_path / "prompt_ep100.pth"


def test_import_and_analyze(vptkit, tmp_path, weights, images, prompts, monkeypatch):
    # the picture is tested with the library, and slow
    monkeypatch.setattr("vptkit.tune.burstiness.analyze_burstiness.can_draw", lambda: False)
    adapter = tmp_path / "flowers.safetensors"
    (tmp_path / "names.txt").write_text("daisy\nrose\n")
    backbone = ["--backbone", NAME, "--weights", weights, "--image-size", SIZE]
    options = ["--head", tmp_path / "head.safetensors", "--labels", tmp_path / "names.txt"]
    command = ["import", prompts, "-o", adapter, "--format", "vpt", *backbone]
    code, out, err = vptkit(*command, *options, "--json")
    assert code == 0, err
    assert json.loads(out)["prompts"] == 4
    read = read_adapter(adapter)
    assert (read.labels, read.insert) == (("daisy", "rose"), "deep")
    code, _, err = vptkit(*command, *options)
    assert (code, "--force" in err) == (2, True)
    code, _, err = vptkit(*command, "--force")
    assert (code, "pass --head FILE" in err) == (2, True)
    code, _, err = vptkit(*command, *options, "--force", "--format", "lora")
    assert (code, "--format 'lora'" in err) == (2, True)

    command = ["analyze", NAME, images, "--weights", weights, "--image-size", SIZE]
    command += ["--images", 4, "--out", tmp_path / "out"]
    code, out, err = vptkit(*command, "--adapter", adapter)
    assert code == 0, err
    assert "burstiness.json" in out
    assert [line.split()[0] for line in out.splitlines()[:7]] == ["block", *map(str, range(6))]
    assert any(line.startswith("flowers ") for line in out.splitlines())
    assert any(word.startswith("≥") for word in out.split())  # 20 tokens in 64 dimensions
    code, out, err = vptkit(*command, "--force", "--json")
    assert code == 0, err
    assert len(json.loads(out)["blocks"]) == 6
    lines = [f"{path},{path.parent.name}" for path in images.rglob("*.png")]
    (tmp_path / "list.csv").write_text("\n".join(["photo,kind", *lines, f"{tmp_path}/x.png,a"]))
    (tmp_path / "x.png").write_text("broken")
    table = [word if word != images else tmp_path / "list.csv" for word in command]
    table += ["--columns", "image=photo,label=kind,split=", "--allow-outside", "--force"]
    code, _, err = vptkit(*table, "--images", 99)
    assert (code, "--skip-broken goes on" in err) == (2, True)
    code, out, err = vptkit(*table, "--images", 99, "--skip-broken", "--json")
    assert (code, "1 broken image was skipped" in err) == (0, True), err
    assert json.loads(out)["images"] == 12
    code, _, err = vptkit(*command, "--force", "--tap", "mid")
    assert (code, "tap is 'mid'" in err) == (2, True)


def test_a_backbone_with_arguments(vptkit, tmp_path, images, prompts, monkeypatch):
    """Import takes them from a file for `tune`, analyze from the adapter."""
    monkeypatch.setattr("vptkit.tune.burstiness.analyze_burstiness.can_draw", lambda: False)
    arguments = {"img_size": SIZE, "mlp_ratio": 2}
    model = timm.create_model(NAME, num_classes=0, **arguments)
    save_file(model.state_dict(), tmp_path / "narrow.safetensors")
    (tmp_path / "run.toml").write_text(f"[backbone_args]\nimg_size = {SIZE}\nmlp_ratio = 2\n")
    weights = ["--weights", tmp_path / "narrow.safetensors"]
    command = ["import", prompts, "-o", tmp_path / "a.safetensors", "--format", "vpt", *weights]
    command += ["--backbone", NAME, "--head", tmp_path / "head.safetensors"]
    code, _, err = vptkit(*command, "--image-size", SIZE)
    assert (code, "mlp.fc1" in err) == (2, True)
    code, _, err = vptkit(*command, "--config", tmp_path / "run.toml")
    assert code == 0, err
    assert read_adapter(tmp_path / "a.safetensors").backbone.args == arguments
    command = ["analyze", NAME, images, *weights, "--images", 2, "--out", tmp_path / "out"]
    for option in ("--adapter", "a.safetensors"), ("--config", "run.toml"):
        code, out, err = vptkit(*command, option[0], tmp_path / option[1], "--force", "--json")
        assert code == 0, err
        assert json.loads(out)["backbone_args"] == arguments


def test_figures_of_an_adapter_are_means_over_the_blocks_that_have_it():
    """A shallow adapter is in block 0 only; of other inserts some figures are missing."""
    deep = {"excess_kurtosis": 1.0, "max_over_rms": 2.0, "cosine": 0.5}
    blocks = [
        {"prompts": {"deep": deep, "shallow": {"excess_kurtosis": 7.0}}},
        {"prompts": {"deep": {**deep, "excess_kurtosis": 3.0}}},
    ]
    assert _prompts(blocks) == [
        ["deep", "2.00", "2.00", "0.50", "-"],
        ["shallow", "7.00", "-", "-", "-"],
    ]
