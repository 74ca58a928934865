"""Checkpoints of VPT's and BPT's code and of PEFT: made here in their layouts, their formulas."""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from torch.nn import functional as F  # noqa: E402

from vptkit.errors import AdapterError, BackboneError, OutputError, VptkitError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.images.preprocess import normalize  # noqa: E402
from vptkit.tune.importers.import_adapter import ImportConfig, import_adapter  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "vit_tiny_patch16_224"
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
D, L, M, P, C = 32, 2, 4, 5, 3


def draw(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


HEAD = {"weight": draw(C, D, seed=90), "bias": draw(C, seed=91)}


@pytest.fixture
def bring(tmp_path: Path, weights: Path) -> Callable[..., Any]:
    """A function: save a checkpoint, import it, and return the adapter."""

    def run(state: Any, layout: str, **options: Any) -> Any:
        file = tmp_path / "foreign.pth"
        torch.save(state, file)
        config = ImportConfig(
            layout=layout, backbone=NAME, backbone_args=dict(TINY), weights=weights, **options
        )
        output = tmp_path / "imported.safetensors"
        run.document = import_adapter(file, output, config, force=True)
        return read_adapter(output)

    return run


@pytest.fixture
def head_file(tmp_path: Path) -> Path:
    path = tmp_path / "head.pth"
    torch.save({f"head.{name}": value for name, value in HEAD.items()}, path)
    return path


def forward(model: Any, pixels: Any, rows: list[Any], *, mean: bool, norm: Any) -> Any:
    """The authors' forward pass: prompts join behind the class token, deep ones replace."""
    b, m = len(pixels), rows[0].shape[0]
    x = model.patch_embed(pixels)
    x = torch.cat((model.cls_token.expand(b, -1, -1), x), dim=1) + model.pos_embed
    x = torch.cat((x[:, :1], rows[0].expand(b, -1, -1), x[:, 1:]), dim=1)
    for i, block in enumerate(model.blocks):
        if i and len(rows) > 1:
            x = torch.cat((x[:, :1], rows[i].expand(b, -1, -1), x[:, 1 + m :]), dim=1)
        x = block(x)
    f = norm(x[:, 1:].mean(dim=1)) if mean else norm(x)[:, 0]
    return f @ HEAD["weight"].T + HEAD["bias"]


def pixels_of(adapter: Any) -> Any:
    return torch.from_numpy(normalize(adapter.golden()[0], adapter.preprocess))


def require_parity(adapter: Any, logits: Any) -> None:
    """The reference's answers in the adapter are those of the formulas."""
    torch.testing.assert_close(torch.from_numpy(adapter.golden()[1]), logits, rtol=0, atol=2e-5)


# ---- VPT ----------------------------------------------------------------------------------------


def supervised_names(model: Any) -> dict[str, Any]:
    """The backbone as VPT's supervised ViT names it: separate query, key and value."""
    state = {}
    for name, value in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks":
            kind = {"norm1": "attention_norm", "norm2": "ffn_norm", "mlp": "ffn"}.get(parts[2])
            head = f"enc.transformer.encoder.layer.{parts[1]}"
            if parts[2] == "attn" and parts[3] == "qkv":
                for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    state[f"{head}.attn.{part}.{parts[4]}"] = piece.clone()
            elif parts[2] == "attn":
                state[f"{head}.attn.out.{parts[4]}"] = value
            else:
                state[".".join([head, str(kind), *parts[3:]])] = value
        elif parts[0] == "norm":
            state[f"enc.transformer.encoder.encoder_norm.{parts[1]}"] = value
        else:
            other = {
                "pos_embed": "position_embeddings",
                "cls_token": "cls_token",
                "patch_embed.proj.weight": "patch_embeddings.weight",
                "patch_embed.proj.bias": "patch_embeddings.bias",
            }[name]
            state[f"enc.transformer.embeddings.{other}"] = value
    return state


def vpt_state(model: Any, *, deep: bool = True, project: int = 0) -> tuple[dict[str, Any], Any]:
    """A supervised VPT checkpoint, and the prompts that it means."""
    width = project or D
    state = supervised_names(model)
    first, later = draw(1, M, width, seed=1), draw(L - 1, M, width, seed=2)
    state["enc.transformer.prompt_embeddings"] = first
    rows = [first[0]]
    if deep:
        state["enc.transformer.deep_prompt_embeddings"] = later
        rows += list(later)
    if project:
        linear = torch.nn.Linear(project, D).requires_grad_(False)
        linear.weight.copy_(draw(D, project, seed=3))
        linear.bias.copy_(draw(D, seed=4))
        state |= {f"enc.transformer.prompt_proj.{k}": v for k, v in linear.state_dict().items()}
        rows = [linear(row) for row in rows]
    state |= {f"head.last_layer.{k}": v for k, v in HEAD.items()}
    return state, rows


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("project", [0, 7])
def test_supervised_vpt(bring, make_vit, deep, project):
    model = make_vit()
    state, rows = vpt_state(model, deep=deep, project=project)
    adapter = bring({"model": state, "epoch": 100}, "vpt")
    pixels = pixels_of(adapter)
    require_parity(adapter, forward(model, pixels, rows, mean=False, norm=model.norm))
    assert (adapter.method, adapter.insert) == ("vpt", "deep" if deep else "shallow")
    assert (adapter.pool, adapter.norm, adapter.labels) == ("token", "before_pool", ("0", "1", "2"))
    assert adapter.preprocess.interpolation == "bilinear"
    assert adapter.preprocess.mean == (0.485, 0.456, 0.406)
    assert bring.document["backbone_compared"] == len(model.state_dict())
    for pool in ("avg", "avg_prompts"):  # its norm would be replaced by the MAE models' new one
        with pytest.raises(AdapterError, match=f"--pool {pool}: .* pools by the class token"):
            bring(state, "vpt", pool=pool)
    wrong = rows[::-1] if deep else [2 * rows[0]]  # the twin
    with pytest.raises(AssertionError):
        require_parity(adapter, forward(model, pixels, wrong, mean=False, norm=model.norm))


def test_vpt_on_mae(bring, make_vit):
    """The mean takes the prompts in; behind it stands a new norm, not the backbone's."""
    model = make_vit()
    rows = [*draw(L, M, D, seed=5)]
    state = {f"enc.{k}": v for k, v in model.state_dict().items() if not k.startswith("norm.")}
    state |= {"enc.fc_norm.weight": torch.ones(D), "enc.fc_norm.bias": torch.zeros(D)}
    state["enc.prompt_embeddings"] = rows[0][None]
    state["enc.deep_prompt_embeddings"] = torch.stack(rows[1:])
    state |= {f"head.last_layer.{k}": v for k, v in HEAD.items()}
    adapter = bring({"module." + k: v for k, v in state.items()}, "vpt")
    pixels = pixels_of(adapter)

    def fresh(x: Any) -> Any:
        return F.layer_norm(x, (D,), eps=1e-6)

    require_parity(adapter, forward(model, pixels, rows, mean=True, norm=fresh))
    with pytest.raises(AssertionError):
        require_parity(adapter, forward(model, pixels, rows, mean=True, norm=model.norm))
    assert (adapter.pool, adapter.norm) == ("avg_prompts", "after_pool")
    with pytest.raises(AdapterError, match="pools by a mean"):
        bring(state, "vpt", pool="token")
    alone = {k: v for k, v in state.items() if "prompt" in k or k.startswith("head")}
    again = bring(alone, "vpt", pool="avg_prompts")  # without the backbone: the same norm
    np.testing.assert_array_equal(again.golden()[1], adapter.golden()[1])
    with pytest.raises(AdapterError, match="does not say how its model pools"):
        bring(alone, "vpt")


def test_prompts_as_the_vpt_trainer_saves_them(bring, make_vit, head_file, tmp_path):
    """prompt_ep100.pth: NumPy arrays, no head, no backbone; also of NumPy before 2.0."""
    model = make_vit()
    _, rows = vpt_state(model)
    state = {
        "shallow_prompt": rows[0][None].numpy(),
        "deep_prompt": torch.stack(rows[1:]).numpy(),
    }
    adapter = bring(state, "vpt", head=head_file)
    pixels = pixels_of(adapter)
    require_parity(adapter, forward(model, pixels, rows, mean=False, norm=model.norm))
    with pytest.raises(AdapterError, match=r"weight.*is missing: pass --head"):
        bring(state, "vpt")

    from vptkit.tune.importers.checkpoint_reader import read_state

    names = {b"numpy._core.multiarray", b"numpy.core.multiarray"}
    seen = set()
    for name in names:
        with zipfile.ZipFile(tmp_path / "foreign.pth") as old:
            contents = {n: old.read(n) for n in old.namelist()}
        pickled = next(n for n in contents if n.endswith("data.pkl"))
        contents[pickled] = re.sub(rb"numpy\.(_?)core\.multiarray", name, contents[pickled])
        with zipfile.ZipFile(tmp_path / "other.pth", "w") as new:
            for n, data in contents.items():
                new.writestr(n, data)
        seen.add(name in contents[pickled])
        np.testing.assert_array_equal(
            read_state(tmp_path / "other.pth")["shallow_prompt"], state["shallow_prompt"]
        )
    assert seen == {True}


# ---- BPT ----------------------------------------------------------------------------------------


def bpt_prompts(vectors: Any, kernels: list[Any]) -> list[Any]:
    """As the authors make them: a 1x1 convolution over prompts laid out as a square."""
    side = int(M**0.5)
    rows = []
    for a, kernel in zip(vectors, kernels, strict=True):
        if kernel.ndim == 2:
            rows.append(F.linear(a, kernel))
        else:
            grid = a[None].transpose(1, 2).reshape(1, P, side, side)
            rows.append(F.conv2d(grid, kernel).reshape(1, D, -1).transpose(1, 2)[0])
    return rows


@pytest.mark.parametrize("pool", ["token", "avg_prompts"])
@pytest.mark.parametrize("variant", ["shallow", "deep", "linear"])
def test_bpt(bring, make_vit, variant, pool):
    model = make_vit()
    sites = 1 if variant == "shallow" else L
    vectors = draw(sites, M, P, seed=7)
    shape = (D, P) if variant == "linear" else (D, P, 1, 1)
    kernels = [draw(*shape, seed=20 + i) for i in range(sites)]
    state = dict(model.state_dict()) | {f"head.{k}": v for k, v in HEAD.items()}
    state["random_vectors"] = vectors
    if variant == "shallow":
        state["conv1x1.weight"] = kernels[0]
    else:
        state |= {f"conv1x1.{i}.weight": kernel for i, kernel in enumerate(kernels)}
    whole = {"epoch": 3, "model": state, "best_acc": 0.5, "train_acc": [0.1], "optimizer": {}}
    adapter = bring(whole, "bpt", pool=pool)
    pixels = pixels_of(adapter)
    rows = bpt_prompts(vectors, kernels)
    mean = pool == "avg_prompts"
    require_parity(adapter, forward(model, pixels, rows, mean=mean, norm=model.norm))
    with pytest.raises(AssertionError):
        require_parity(adapter, forward(model, pixels, rows, mean=not mean, norm=model.norm))
    assert adapter.insert == ("shallow" if variant == "shallow" else "deep")
    assert adapter.tensors["prompt.0.b"].shape == (D, P)
    assert adapter.preprocess.interpolation == "bicubic"
    with pytest.raises(AdapterError, match="does not say how its model pools"):
        bring(whole, "bpt")


def bpt_state(model: Any) -> dict[str, Any]:
    return {
        **model.state_dict(),
        "head.weight": HEAD["weight"],
        "head.bias": HEAD["bias"],
        "random_vectors": draw(1, M, P),
        "conv1x1.weight": draw(D, P, 1, 1),
    }


# ---- PEFT ---------------------------------------------------------------------------------------

PEFT_CONFIG = {"peft_type": "LN_TUNING", "target_modules": r"(.*\.norm[12]|norm)$"}


def transformers_name(name: str, container: str) -> str:
    name = re.sub(r"blocks\.(\d+)", rf"{container}.\1", name)
    name = name.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after")
    return "vit." + re.sub(r"^norm", "layernorm", name)


@pytest.fixture
def peft(tmp_path: Path, make_vit: Callable[..., Any]) -> Callable[..., Any]:
    """A function: write a folder as `save_pretrained` does; returns it and the tuned model."""
    from safetensors.torch import save_file

    def make(style: str = "timm", drop: str = "-", **config: Any) -> tuple[Path, Any]:
        model = make_vit()
        state = {}
        with torch.no_grad():
            for i, (name, value) in enumerate(model.named_parameters()):
                if "norm" not in name:
                    continue
                value.copy_(value + 0.5 * draw(D, seed=100 + i))
                module, _, end = name.rpartition(".")
                theirs = module if style == "timm" else transformers_name(module, style)
                state[f"base_model.model.{theirs}.ln_tuning_layers.{end}"] = value.clone()
        head = "head" if style == "timm" else "classifier"
        state |= {f"base_model.model.{head}.{k}": v for k, v in HEAD.items()}
        folder = tmp_path / "peft"
        folder.mkdir(exist_ok=True)
        state = {k: v for k, v in state.items() if drop not in k}
        save_file(state, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(PEFT_CONFIG | config))
        return folder, model

    return make


@pytest.fixture
def bring_peft(tmp_path: Path, weights: Path) -> Callable[..., Any]:
    def run(folder: Path, **options: Any) -> Any:
        config = ImportConfig(
            layout="peft-ln", backbone=NAME, backbone_args=dict(TINY), weights=weights, **options
        )
        import_adapter(folder, tmp_path / "ln.safetensors", config, force=True)
        return read_adapter(tmp_path / "ln.safetensors")

    return run


@pytest.mark.parametrize("style", ["timm", "layers", "encoder.layer"])
def test_peft_layer_norms(peft, bring_peft, make_vit, style):
    targets = ["layernorm_before", "layernorm_after", "layernorm"]
    folder, tuned = peft(style, **({} if style == "timm" else {"target_modules": targets}))
    adapter = bring_peft(folder)
    pixels = pixels_of(adapter)
    logits = tuned.forward_features(pixels)[:, 0] @ HEAD["weight"].T + HEAD["bias"]
    require_parity(adapter, logits)
    plain = make_vit().forward_features(pixels)[:, 0] @ HEAD["weight"].T + HEAD["bias"]
    with pytest.raises(AssertionError):
        require_parity(adapter, plain)
    assert (adapter.method, adapter.insert, adapter.pool) == ("ln", "none", "token")
    assert len(adapter.layer_norms()) == 2 * (2 * L + 1)
    assert adapter.preprocess.mean == (0.5, 0.5, 0.5)  # timm's for this model
    file = bring_peft(folder / "adapter_model.safetensors")
    np.testing.assert_array_equal(file.golden()[1], adapter.golden()[1])


@pytest.mark.parametrize(
    ("style", "drop", "config", "message"),
    [
        ("timm", "blocks.1.norm2.", {}, r"missing: blocks\.1\.norm2\.weight, blocks\.1\.norm2\.b"),
        ("timm", "norm1.ln_tuning_layers.bias", {"target_modules": []}, "missing: blocks.0.norm1"),
        ("layers", "layernorm_after", {"target_modules": ["layernorm_after"]}, "missing: blocks.0"),
        ("timm", "-", {"peft_type": "LORA"}, "peft_type is 'LORA'"),
        ("timm", "head.bias", {}, "head's bias is missing"),
        ("timm", "ln_tuning", {}, "names are missing"),
    ],
)
def test_peft_is_taken_strictly(peft, bring_peft, style, drop, config, message):
    folder, _ = peft(style, drop, **config)
    with pytest.raises(AdapterError, match=message):
        bring_peft(folder)


def test_peft_of_some_norms(peft, bring_peft):
    """What the configuration does not target may be absent."""
    only = {"target_modules": ["norm1", "norm2", "norm"], "exclude_modules": ["norm2"]}
    folder, _ = peft("timm", "norm2.", **only)
    assert len(bring_peft(folder).layer_norms()) == 2 * (L + 1)


def test_peft_of_another_module(peft, bring_peft):
    from safetensors.torch import load_file, save_file

    folder, _ = peft()
    state = load_file(folder / "adapter_model.safetensors")
    state["base_model.model.blocks.0.mlp.fc1.ln_tuning_layers.weight"] = draw(4, D)
    save_file(state, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"nor its head: base_model\.model\.blocks\.0\.mlp"):
        bring_peft(folder)


# ---- refusals -----------------------------------------------------------------------------------


def test_another_backbone_is_refused(bring, make_vit):
    for layout, state in (("vpt", vpt_state(make_vit())[0]), ("bpt", bpt_state(make_vit()))):
        key = next(k for k in state if "fc1.weight" in k)
        state[key] = state[key].clone()
        state[key][0, 0] += 1e-3
        with pytest.raises(BackboneError, match=r"blocks\.0\.mlp\.fc1\.weight differs"):
            bring(state, layout, pool="token")
    state = bpt_state(make_vit(img_size=40))
    with pytest.raises(BackboneError, match=r"pos_embed is .* Pass --image-size"):
        bring(state, "bpt", pool="token")


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("bpt", {"gate.weight": 3}, "does not have: gate.weight"),
        ("bpt", {"norm.weight": None}, "are missing: norm.weight"),
        ("bpt", {"random_vectors": None}, "missing: random_vectors"),
        ("bpt", {"conv1x1.weight": None}, "missing: conv1x1.0.weight, conv1x1.1.weight"),
        ("bpt", {"conv1x1.weight": (D, P + 1, 1, 1)}, "conv1x1.weight has the shape"),
        ("bpt", {"random_vectors": (M, D)}, "random_vectors has the shape"),  # the SVD variant
        ("bpt", {"head.weight": (C, D + 1)}, r"head is \(3, 33\)"),
        ("vpt", {"enc.transformer.gate": 3}, "does not have: gate"),
        ("vpt", {"gate": 3}, "VPT does not have: gate"),
        ("vpt", {"enc.transformer.prompt_embeddings": None}, "missing: prompt_embeddings"),
        ("vpt", {"enc.transformer.deep_prompt_embeddings": (L, M, D)}, r"expected \(1, 4, 32\)"),
        ("vpt", {"enc.transformer.prompt_proj.bias": (D,)}, "weight and bias must both"),
        ("vpt", {"enc.transformer.encoder.layer.0.attn.key.bias": None}, "attn.key.bias"),
        ("vpt", {"head.last_layer.bias": None}, "head's bias is missing"),
        ("vpt", {"head.projection.0.weight": (D, D)}, "VPT does not have: head.projection"),
    ],
)
def test_names_and_shapes_are_checked(bring, make_vit, layout, change, message):
    state = vpt_state(make_vit())[0] if layout == "vpt" else bpt_state(make_vit())
    bring(dict(state), layout, pool="token")  # as it is, it can be read
    for name, shape in change.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = draw(*(shape if isinstance(shape, tuple) else (shape,)))
    with pytest.raises(AdapterError, match=message):
        bring(state, layout, pool="token")


class Trap:
    """Unpickling this would call `print`."""

    def __reduce__(self) -> Any:
        return print, ("unpickled!",)


def test_objects_are_refused(bring, tmp_path, capsys, make_vit):
    with pytest.raises(AdapterError, match=r"not a file of tensors: \S*print\. Other") as refused:
        bring({"model": {"prompt_embeddings": Trap()}}, "vpt")
    assert str(refused.value).count("foreign.pth") == 1
    with pytest.raises(AdapterError, match="not tensors of real numbers: note"):
        bring(bpt_state(make_vit()) | {"note": "hello"}, "bpt", pool="token")
    with pytest.raises(AdapterError, match="holds list"):
        bring([draw(3)], "bpt", pool="token")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(
    "change",
    [lambda x: x.to_sparse(), lambda x: x.to("meta"), lambda x: x.to(torch.complex64)],
    ids=["sparse", "meta", "complex"],
)
def test_tensors_of_other_kinds_are_refused(bring, make_vit, change):
    state = bpt_state(make_vit())
    state["conv1x1.weight"] = change(state["conv1x1.weight"])
    with pytest.raises(AdapterError, match=r"not tensors of real numbers: conv1x1\.weight"):
        bring(state, "bpt", pool="token")


def test_files_that_are_none(tmp_path, weights):
    config = ImportConfig(layout="bpt", backbone=NAME, backbone_args=dict(TINY), weights=weights)
    output = tmp_path / "a.safetensors"
    with pytest.raises(AdapterError, match="no such file"):
        import_adapter(tmp_path / "none.pth", output, config)
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(AdapterError, match="not a file of tensors"):
        import_adapter(tmp_path / "noise.pth", output, config)
    with pytest.raises(AdapterError, match="a folder"):
        import_adapter(tmp_path, output, config)
    with pytest.raises(OutputError, match=r"ends in \.safetensors"):
        import_adapter(tmp_path / "noise.pth", tmp_path / "a.pth", config)
    assert not output.exists()


def test_head_and_labels_by_option(bring, make_vit, head_file, tmp_path):
    state = bpt_state(make_vit())
    with pytest.raises(AdapterError, match="leave --head out"):
        bring(state, "bpt", pool="token", head=head_file)
    names = tmp_path / "names.txt"
    names.write_text("daisy\nrose\n\ntulip\n")
    assert bring(state, "bpt", pool="token", labels=names).labels == ("daisy", "rose", "tulip")
    names.write_text("daisy\nrose\n")
    with pytest.raises(AdapterError, match="2 names for a head of 3 classes"):
        bring(state, "bpt", pool="token", labels=names)
    del state["head.weight"], state["head.bias"]
    adapter = bring(state, "bpt", pool="token", head=head_file)
    np.testing.assert_array_equal(adapter.tensors["head.weight"], HEAD["weight"].numpy())
    torch.save({"a": draw(C, D)}, head_file)
    with pytest.raises(AdapterError, match=r"expected one weight and one bias, found \['a'\]"):
        bring(state, "bpt", pool="token", head=head_file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "lora"}, "--format 'lora': expected one of vpt, bpt, peft-ln"),
        ({"pool": "max"}, "--pool 'max'"),
        ({"preprocess": "mine"}, "--preprocess 'mine'"),
        ({"layout": "peft-ln", "preprocess": "authors"}, "PEFT prescribes none"),
    ],
)
def test_choices(options, message):
    with pytest.raises(VptkitError, match=re.escape(message)):
        ImportConfig(**{"layout": "vpt", "backbone": NAME, **options})


def test_the_preprocessing_of_the_model(bring, make_vit):
    adapter = bring(bpt_state(make_vit()), "bpt", pool="token", preprocess="model")
    assert adapter.preprocess.mean == (0.5, 0.5, 0.5)
