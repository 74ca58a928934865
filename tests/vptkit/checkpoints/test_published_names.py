"""Names of publishers whose code is not here: the same model's tensors, renamed and wrapped."""

from __future__ import annotations

import argparse
import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from vptkit.checkpoints.published_names import in_timm_names, recognised  # noqa: E402
from vptkit.checkpoints.read_weights import read_published  # noqa: E402
from vptkit.checkpoints.tensor_source import is_torch_file, read_tensors_of  # noqa: E402
from vptkit.errors import BackboneError  # noqa: E402
from vptkit.formats.tensor_file import write_tensors  # noqa: E402

D, L = 8, 2


def model(**extra: Any) -> dict[str, Any]:
    """Tensors of a tiny ViT under timm's names, each with other numbers."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, D),
        "pos_embed": (1, 10, D),
        "patch_embed.proj.weight": (D, 3, 4, 4),
        "patch_embed.proj.bias": (D,),
        "norm.weight": (D,),
        "norm.bias": (D,),
    }
    for i in range(L):
        for name, shape in {
            "norm1.weight": (D,),
            "attn.qkv.weight": (3 * D, D),
            "attn.proj.weight": (D, D),
            "mlp.fc1.weight": (2 * D, D),
            "mlp.fc2.weight": (D, 2 * D),
        }.items():
            shapes[f"blocks.{i}.{name}"] = shape
    shapes |= extra
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def other() -> dict[str, Any]:
    """The student's tensors, or the momentum encoder's: not the ones to take."""
    return {name: value + 1 for name, value in model().items()}


DECODER = {"decoder_embed.weight": (4, D), "decoder_blocks.0.norm1.weight": (4,)}
HEAD = {"head.weight": (5, D), "head.bias": (5,)}
ARGS = argparse.Namespace(model="vit", lr=0.1)
# what was saved → container, prefix that are named, words of the line
FILES: dict[str, tuple[Any, str, str, str]] = {
    "flat": (model(), "", "", "timm's names"),
    "MAE": ({"model": model(**DECODER, mask_token=(1, 1, 4)), "args": ARGS}, "model", "", "MAE"),
    "DINO, flat": (model(), "", "", "timm"),
    "DINO": (
        {
            "student": under("module.backbone.", other()),
            "teacher": under("backbone.", model()) | {"head.mlp.0.weight": torch.ones(4, D)},
            "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
            "epoch": 100,
            "args": ARGS,
        },
        *("teacher", "backbone.", "'backbone.' taken off"),
    ),
    "MoCo v3": (
        {
            "state_dict": under("module.base_encoder.", model(**{"head.0.weight": (9, D)}))
            | under("module.momentum_encoder.", other())
            | under("module.predictor.", {"0.weight": torch.ones(2)}),
            "arch": "vit_small",
        },
        *("state_dict", "module.base_encoder.", "momentum_encoder"),
    ),
    "timm's train.py": (
        {
            "state_dict": under("module._orig_mod.", other()),
            "state_dict_ema": under("_orig_mod.", model(**HEAD)),
            "arch": "vit_small_patch16_224",
            "metric": 81.5,
        },
        *("state_dict_ema", "_orig_mod.", "a classifier of 5 classes left out"),
    ),
    "an average": ({"model": other(), "model_ema": model()}, "model_ema", "", "model_ema"),
    "Lightning": ({"state_dict": under("model.", model(**HEAD))}, "state_dict", "model.", ""),
    "a wrapper of timm": (under("timm_model.", model()), "", "timm_model.", "timm_model."),
    "OpenCLIP's trunk": (
        under("visual.trunk.", model()) | {"text.token_embedding.weight": torch.ones(3, 2)},
        *("", "visual.trunk.", "left out text"),
    ),
    "within two": ({"checkpoint": 3, "model": {"state_dict": model()}}, "model.state_dict", "", ""),
    "PEFT's": (under("base_model.model.", model()), "", "base_model.model.", ""),
    "a segmenter's": (
        under("backbone.", model()) | {"decode_head.conv.weight": torch.ones(3, 3)},
        *("", "backbone.", "decode_head"),
    ),
}


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_containers_and_prefixes(tmp_path, form, old):
    document, container, prefix, words = FILES[form]
    path = tmp_path / "weights.pth.tar"
    torch.save(document, path, _use_new_zipfile_serialization=not old)
    found = read_published(path)
    wanted = {name: value.numpy() for name, value in model().items()}
    assert set(found.arrays) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found.arrays[name], value)
    assert (found.container, found.prefix) == (container, prefix)
    assert words in found.said()


def test_safetensors_with_a_prefix_and_any_ending(tmp_path):
    arrays = {f"module.{name}": value.numpy() for name, value in model().items()}
    write_tensors(tmp_path / "w.safetensors", arrays)
    (tmp_path / "w.safetensors").rename(tmp_path / "w.bin")
    with (tmp_path / "w.bin").open("rb") as stream:
        assert not is_torch_file(stream, tmp_path / "w.bin")
        assert read_tensors_of(stream, tmp_path / "w.bin", BackboneError).container == ""
    assert read_published(tmp_path / "w.bin").prefix == "module."


def test_dinov2_with_chunks_and_registers():
    """Of its training; blocks are counted over all chunks, and the class token takes its position."""
    plain = {name: value.numpy() for name, value in model().items()}
    theirs = {"mask_token": np.zeros((1, D), np.float32), "register_tokens": plain["cls_token"] * 3}
    for name, value in plain.items():
        theirs[re.sub(r"^blocks\.(\d+)\.", r"blocks.\1.\1.", name)] = value
    for i in range(L):
        theirs[f"blocks.{i}.{i}.ls1.gamma"] = np.ones(D, np.float32)
        for ours, swiglu in (("fc1", "w12"), ("fc2", "w3")):
            value = theirs.pop(f"blocks.{i}.{i}.mlp.{ours}.weight")
            theirs[f"blocks.{i}.{i}.mlp.{swiglu}.weight"] = value
    found = in_timm_names({f"backbone.{name}": value for name, value in theirs.items()})
    assert (found.project, found.positions, found.prefix) == ("DINOv2", "hub", "backbone.")
    for name in plain.keys() - {"pos_embed", "cls_token"}:
        np.testing.assert_array_equal(found.arrays[name], plain[name])
    np.testing.assert_array_equal(found.arrays["pos_embed"], plain["pos_embed"][:, 1:])
    first = plain["cls_token"] + plain["pos_embed"][:, :1]
    np.testing.assert_array_equal(found.arrays["cls_token"], first)
    np.testing.assert_array_equal(found.arrays["reg_token"], theirs["register_tokens"])
    assert "mask_token" not in found.arrays


def test_what_timm_tells_an_eva_by_stays():
    arrays = {name: value.numpy() for name, value in model().items()}
    arrays |= {"mask_token": np.zeros(D), "lm_head.weight": np.zeros((3, D))}
    assert "mask_token" in in_timm_names(arrays).arrays
    del arrays["lm_head.weight"]
    assert "mask_token" not in in_timm_names(arrays).arrays


def test_two_models_of_equal_rank_are_a_question():
    arrays = {f"{eye}.{n}": v.numpy() for eye in ("left", "right") for n, v in model().items()}
    with pytest.raises(BackboneError, match=r"several models in one file, under left\., right\."):
        in_timm_names(arrays)


def test_two_blocks_of_one_number_are_no_chunks():
    value = np.zeros(D, np.float32)
    arrays = {"patch_embed.proj.weight": value, "blocks.0.1.x": value, "blocks.1.1.x": value}
    with pytest.raises(BackboneError, match=r"blocks\.1\.x is there twice"):
        in_timm_names(arrays)


def test_a_part_that_is_missing():
    value = np.zeros((D, D), np.float32)
    arrays = {
        "vit.embeddings.patch_embeddings.projection.weight": np.zeros((D, 3, 4, 4), np.float32),
        "vit.encoder.layer.0.attention.attention.query.weight": value,
        "vit.encoder.layer.0.attention.attention.value.weight": value,
    }
    with pytest.raises(BackboneError, match=r"blocks\.0\.attn\.qkv\.weight only 2 of 3 parts"):
        in_timm_names(arrays)


def test_names_of_nobody_stay_as_they_are():
    assert not recognised({"conv1.weight", "layer1.0.conv1.weight"})  # a ResNet's
    assert in_timm_names({"layer1.0.conv1.weight": np.zeros(1)}).project == ""
