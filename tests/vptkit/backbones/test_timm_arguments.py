"""What of a file may reach `timm.create_model`: architecture, within bounds, and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vptkit.backbones.timm_arguments import require_timm_arguments, require_timm_name
from vptkit.errors import AdapterError, BackboneError
from vptkit.formats.adapter import BackboneRef, read_adapter
from vptkit.formats.tensor_file import read_tensor_file, write_tensors

OUTSIDE = {
    "pretrained_cfg": {"url": "http://example.org/w.pth", "file": "/etc/passwd"},
    "pretrained_cfg_overlay": {"url": "http://example.org/w.pth"},
    "cache_dir": "/home/user/.config",
    "checkpoint_path": "/home/user/w.pth",
    "pretrained": True,
    "pretrained_strict": False,
    "pretrained_model_args": {},
    "kwargs_filter": ["img_size"],
    "features_only": True,
    "feature_cfg": {"feature_cls": "fx"},
    "pruned": True,
    "scriptable": True,
    "exportable": True,
    "no_jit": True,
    "model_cfg": {},
    "num_classes": 10**9,
    "embed_layer": "os.system",
    "block_fn": "os.system",
    "weight_init": "jax",
    "device": "cuda",
    "dtype": "float16",
    "Img_size": 32,
    "img_size ": 32,
    "": 1,
}


def forged(path, **backbone):
    """The adapter file with other fields in its backbone."""
    metadata, tensors = read_tensor_file(path, AdapterError)
    document = json.loads(metadata["vptkit"])
    document["backbone"] |= backbone
    tensors = {name: np.array(value) for name, value in tensors.items()}
    write_tensors(path, tensors, ("vptkit", json.dumps(document)))
    return path


@pytest.mark.parametrize("spec", [True, False], ids=["spec", "no spec"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_no_architecture_is_refused_by_name(tiny_adapter, name, spec):
    with_spec = {} if spec else {"spec": None}
    path = forged(tiny_adapter, args={"img_size": 24, name: OUTSIDE[name]}, **with_spec)
    with pytest.raises(AdapterError, match=r"which is no argument of an arch.*act_layer,") as told:
        read_adapter(path)
    assert str(told.value).startswith(f"{path}: backbone: args has {name!r}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("img_size", v) for v in (0, -32, 10**6, "32", 32.0, True, [32], [32, 32, 32], [32, -1])],
        *[("patch_size", v) for v in (0, 10**6, [[1, 1], 1], {"a": 1})],
        *[("depth", v) for v in (0, 10**9, 1e9, True, [1])],
        *[("embed_dim", v) for v in (0, 10**7)],
        *[("num_heads", v) for v in (0, 10**7)],
        *[("num_kv_heads", v) for v in (0, [], [1] * 1000, [10**9], "1")],
        *[("mlp_ratio", v) for v in (0, -1, 10**7, float("nan"), float("inf"), "4", True)],
        ("init_values", float("nan")),
        ("reg_tokens", 10**9),
        ("rel_pos_dim", 10**9),
        ("in_chans", 10**9),
        ("class_token", 1),
        ("qkv_bias", "yes"),
        *[("act_layer", v) for v in ("os.system", ["gelu"], 3, {"gelu": 1}, "GELU")],
        *[("norm_layer", v) for v in ("batchnorm", "torch.nn.LayerNorm")],
        ("global_pool", "hf-hub:a/b"),
        ("drop_rate", 1.0),
    ],
)
def test_a_value_out_of_range(name, value):
    with pytest.raises(BackboneError, match=f"args: {name} is .*, expected ") as told:
        require_timm_arguments({name: value})
    assert len(str(told.value)) < 400


@pytest.mark.parametrize(
    "args",
    [
        {"embed_dim": 8192, "depth": 256},
        {"embed_dim": 8192, "mlp_ratio": 64},
        {"patch_size": 1},
        {"img_size": 4096},
        {"img_size": [4096, 2000], "patch_size": [8, 4]},
    ],
)
def test_numbers_that_are_too_much_together(args):
    with pytest.raises(BackboneError, match="the most is"):
        require_timm_arguments(args)


@pytest.mark.parametrize("args", [None, [], "img_size=32", [["img_size", 32]], 3])
def test_arguments_are_by_name(tiny_adapter, args):
    with pytest.raises(AdapterError, match=r"backbone: args is .*, expected arguments by name"):
        read_adapter(forged(tiny_adapter, args=args))


def test_what_honest_files_say():
    require_timm_arguments({})
    require_timm_arguments(
        {
            "img_size": [112, 96],
            "patch_size": (8, 8),
            "depth": 12,
            "mlp_ratio": 4,
            "init_values": None,
            "class_token": False,
            "act_layer": "gelu_tanh",
            "num_kv_heads": [1, 2],
            "fc_norm": None,
        }
    )


@pytest.mark.parametrize(
    "name",
    [
        "hf-hub:timm/vit_tiny_patch16_224",
        "hf_hub:somebody/evil",
        "local-dir:/tmp/evil",
        "somebody/evil",
        "/tmp/evil",
        "../evil",
        "https://example.org/vit",
        "vit_tiny_patch16_224.",
        "vit_tiny_patch16_224.a.b",
        "vit_tiny_patch16_224\n",
        "vit_tiny_patch16_224\0",
        "vit tiny",
        "víť",
        "",
        "a" * 10_000,
        None,
        3,
        ["vit_tiny_patch16_224"],
    ],
)
def test_names_that_timm_would_look_up_elsewhere(tiny_adapter, name):
    with pytest.raises(BackboneError, match="Repositories, folders and URLs are not taken"):
        require_timm_name(name)
    with pytest.raises(
        AdapterError, match=r"backbone: the name is |backbone is .*texts of at most 1000"
    ):
        read_adapter(forged(tiny_adapter, name=name))


def test_an_integer_that_python_does_not_write():
    """TOML's 0xfff… has no limit of digits, where Python's decimals have one."""
    with pytest.raises(BackboneError, match="depth is an integer too long to show, expected"):
        require_timm_arguments({"depth": 16**6000})


def test_names_of_timm():
    for name in ("vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2.lvd142m", "x.a_b-c"):
        require_timm_name(name)


def test_no_reference_is_made_that_could_not_be_read():
    """So nothing is written, either."""
    with pytest.raises(BackboneError, match="checkpoint_path"):
        BackboneRef(name="vit_tiny_patch16_224", args={"checkpoint_path": "w.pth"})
    with pytest.raises(BackboneError, match="the name is"):
        BackboneRef(name="hf-hub:a/b")
