"""`vptkit analyze`: two files in a folder, the images of `tune`, and what is refused."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from PIL import Image  # noqa: E402

from vptkit.errors import AdapterError, BackboneError, OutputError, VptkitError  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.burstiness import analyze_burstiness  # noqa: E402
from vptkit.tune.burstiness.analyze_burstiness import AnalyzeConfig, analyze  # noqa: E402

NAME = "vit_tiny_patch16_224"
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture
def settings(weights):
    def make(**overrides):
        base = {"backbone": NAME, "backbone_args": dict(TINY), "weights": weights, "images": 12}
        return AnalyzeConfig(**{**base, **overrides})

    return make


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, splits, make_config):
    """Adapters: whitened prompts, and none."""
    folder = tmp_path_factory.mktemp("tuned")
    runs = {"white": {"form": "fwhiten", "epochs": 1}, "plain": {"method": "linear"}}
    for name, more in runs.items():
        tune(splits, folder / f"{name}.safetensors", make_config(**more))
    return folder


def test_the_folder(tmp_path, splits, settings, tuned, monkeypatch):
    pytest.importorskip("matplotlib")
    paths = [tuned / "white.safetensors"]
    document = analyze(splits, tmp_path / "out", settings(), paths)
    written = json.loads((tmp_path / "out" / "burstiness.json").read_text())
    assert document.pop("files") == [
        str(tmp_path / "out" / name) for name in ("burstiness.json", "burstiness.png")
    ]
    assert written == document
    assert written["images"] == 12
    assert [block["block"] for block in written["blocks"]] == [0, 1]
    assert set(written["blocks"][1]["prompts"]) == {"white"}
    with Image.open(tmp_path / "out" / "burstiness.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50  # something is drawn
    with pytest.raises(OutputError, match="exists already"):
        analyze(splits, tmp_path / "out", settings())
    monkeypatch.setattr(analyze_burstiness, "can_draw", lambda: False)
    analyze(splits, tmp_path / "out", settings(images=3), force=True)
    assert json.loads((tmp_path / "out" / "burstiness.json").read_text())["images"] == 3


def test_the_whitening_is_that_of_tuning(tmp_path, splits, settings, tuned, monkeypatch):
    """Same images, same matrices: rank, condition and row norm stand in the adapter too."""
    monkeypatch.setattr(analyze_burstiness, "can_draw", lambda: False)
    from vptkit.formats.adapter import read_adapter

    notes = read_adapter(tuned / "white.safetensors").train["whitening"]
    document = analyze(splits, tmp_path / "out", settings())
    found = [block["sigma"] for block in document["blocks"]]
    for one, other in zip(found, notes, strict=True):
        assert one["row_norm"] == pytest.approx(other["row_norm"], rel=1e-4)
        assert one["rank"] == other["rank"]
    others = analyze(splits, tmp_path / "seed", settings(seed=1))
    twin = others["blocks"][1]["sigma"]["row_norm"]
    assert twin != pytest.approx(notes[1]["row_norm"], rel=1e-4)


def test_without_matplotlib(tmp_path, splits, settings, monkeypatch):
    monkeypatch.setattr(analyze_burstiness, "can_draw", lambda: False)
    document = analyze(splits, tmp_path / "out", settings(images=2))
    assert document["files"] == [str(tmp_path / "out" / "burstiness.json")]


def test_what_is_refused(tmp_path, splits, settings, tuned, make_vit):
    from safetensors.torch import save_file

    with pytest.raises(AdapterError, match=r"plain\.safetensors: has no prompts"):
        analyze(splits, tmp_path / "out", settings(), [tuned / "plain.safetensors"])
    save_file(make_vit(seed=5).state_dict(), tmp_path / "other.safetensors")
    other = settings(weights=tmp_path / "other.safetensors")
    with pytest.raises(BackboneError, match="another backbone than the one that was tuned"):
        analyze(splits, tmp_path / "out", other, [tuned / "white.safetensors"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": 0}, "images is 0"),
        ({"tap": "mid"}, "tap is 'mid'"),
        ({"floor": 0.0}, "floor is 0.0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range(wrong, message):
    with pytest.raises(VptkitError, match=message):
        AnalyzeConfig(backbone=NAME, **wrong)
