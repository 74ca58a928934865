"""What PEFT trains, imported: its own forward pass and ours agree, kind by kind and model by model."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
# Imported by the tests alone: that takes ten seconds, and each worker collects each file.
for module in ("peft", "transformers"):
    if importlib.util.find_spec(module) is None:
        pytest.skip(
            f"{module} is not installed: its adapters are not compared", allow_module_level=True
        )

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.support.peft_adapters import (  # noqa: E402
    HEADS,
    MLP,
    PATCH,
    QV,
    SHAPE,
    SIZES,
    TIMM_NAMES,
    adapted,
    answers,
    make_base,
    pixels_of,
    randomized,
    require_close,
    saved,
    timm_state,
)
from vptkit import export, open_session  # noqa: E402
from vptkit.export.bank.linear_rows import delta_problems, rooms_for  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune.importers.import_adapter import ImportConfig, import_adapter  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

_NORM = {"vit": "layernorm", "dinov2": "layernorm", "timm": "norm"}


def all_of(model: str) -> list[str]:
    return QV[model] + MLP[model]


# name → PEFT's configuration, its arguments for a model, and what the adapter holds of it
NATIVE: dict[str, tuple[str, Callable[[str], dict[str, Any]], set[str]]] = {
    "lora": ("Lora", lambda m: {"r": 2, "target_modules": QV[m]}, {"delta.a", "delta.b"}),
    "rslora": (
        "Lora",
        lambda m: {
            "r": 4,
            "use_rslora": True,
            "target_modules": all_of(m),
            "rank_pattern": {"fc1": 2},
            "alpha_pattern": {r".*\.1\..*fc2": 3},
        },
        {"delta.a", "delta.b"},
    ),
    "lora-pattern": (
        "Lora",
        lambda m: {
            "r": 2,
            "target_modules": r".*\.\d+\..*(qkv|[qv]_proj|fc1)",
            "exclude_modules": r".*\.0\..*fc1",
        },
        {"delta.a", "delta.b"},
    ),
    "lora-of-a-block": (
        "Lora",
        lambda m: {
            "r": 2,
            "target_modules": QV[m],
            "layers_to_transform": [1],
            "layers_pattern": ["layers", "layer", "blocks"],
        },
        {"delta.a", "delta.b"},
    ),
    "all-biases": (
        "Lora",
        lambda m: {"r": 2, "bias": "all", "target_modules": QV[m]},
        {"delta.a", "delta.b", "delta.bias", "ln.bias"},
    ),
    "lora-biases": (
        "Lora",
        lambda m: {"r": 2, "bias": "lora_only", "target_modules": all_of(m)},
        {"delta.a", "delta.b", "delta.bias"},
    ),
    "lora-bias": (
        "Lora",
        lambda m: {"r": 2, "lora_bias": True, "target_modules": all_of(m)},
        {"delta.a", "delta.b", "delta.bias"},
    ),
    "dora": (
        "Lora",
        lambda m: {"r": 2, "use_dora": True, "target_modules": [*all_of(m), PATCH[m]]},
        {"delta.a", "delta.b", "scale.out"},
    ),
    "convolution": (
        "Lora",
        lambda m: {"r": 2, "target_modules": [PATCH[m], *QV[m]]},
        {"delta.a", "delta.b"},
    ),
    "fan-in-fan-out": (
        "Lora",
        lambda m: {"r": 2, "fan_in_fan_out": True, "target_modules": QV[m]},
        {"delta.a", "delta.b"},
    ),
    "saved-norm": (
        "Lora",
        lambda m: {"r": 2, "target_modules": QV[m], "modules_to_save": [HEADS[m], _NORM[m]]},
        {"delta.a", "delta.b", "ln.bias", "ln.weight"},
    ),
    "ia3": (
        "IA3",
        lambda m: {"target_modules": [*QV[m], "fc2"], "feedforward_modules": ["fc2"]},
        {"scale.out", "scale.in", "delta.bias"},
    ),
    "ia3-patches": (
        "IA3",
        lambda m: {"target_modules": [PATCH[m]], "feedforward_modules": [PATCH[m]]},
        {"scale.in"},
    ),
    "beft": ("Beft", lambda m: {"target_modules": all_of(m)}, {"delta.bias"}),
    "shira": ("Shira", lambda m: {"r": 1, "target_modules": all_of(m)}, {"delta.weight"}),
    "norms": (
        "LNTuning",
        lambda m: {"target_modules": r".*\.(norm[12]|layernorm(_before|_after)?)|norm"},
        {"ln.bias", "ln.weight"},
    ),
}
BY_PEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "pissa": ("Lora", {"r": 2, "init_lora_weights": "pissa"}),
    "olora": ("Lora", {"r": 2, "init_lora_weights": "olora"}),
    "vera": ("Vera", {"r": 4}),
    "pvera": ("Pvera", {"r": 4}),
    "oft": ("OFT", {"r": 4, "oft_block_size": 0}),
    "oft-cayley": ("OFT", {"r": 0, "oft_block_size": 8, "use_cayley_neumann": False}),
    "oft-shared": ("OFT", {"r": 4, "oft_block_size": 0, "block_share": True, "coft": True}),
    "boft": ("BOFT", {"boft_block_size": 8}),
    "loha": ("LoHa", {"r": 2}),
    "lokr": ("LoKr", {"r": 2}),
    "adalora": ("AdaLora", {"init_r": 4, "total_step": 10}),
    "hra": ("HRA", {"r": 2, "apply_GS": True, "bias": "hra_only"}),
    "miss": ("Miss", {"r": 2}),
    "road": ("Road", {"group_size": 8}),
    "randlora": ("RandLora", {"r": 4}),
    "fourierft": ("FourierFT", {"n_frequency": 20}),
    "waveft": ("WaveFT", {"n_frequency": 20}),
    "psoft": ("Psoft", {"r": 4}),
    "c3a": ("C3A", {"block_size": 8}),
    "gralora": ("Gralora", {"r": 4, "gralora_k": 2}),
    "delora": ("Delora", {"r": 4}),
    "hira": ("Hira", {"r": 4}),
    "tinylora": ("TinyLora", {"r": 2, "u": 8}),
    "vblora": ("VBLoRA", {"r": 2, "num_vectors": 20, "vector_length": 8}),
    "unilora": ("UniLora", {"r": 2, "theta_d_length": 64, "save_indices": True}),
    "adamss": ("Adamss", {"r": 8, "num_subspaces": 2, "subspace_rank": 1}),
    "frod": ("Frod", {"progressbar": False}),
    "glora": ("Glora", {"r": 2}),
    "peanut": ("Peanut", {"r": 2}),
    "deft": ("Deft", {"r": 2}),
    "osf": ("OSF", {"effective_rank": 4}),
    "supertuning": ("Supertuning", {}),
}
FACTORED = {"vera", "adalora", "loha"}
MODELS = ("vit", "dinov2", "timm")
# PEFT merges them whatever the model; models differ in names, which the kinds above have on all.
ONE_MODEL_EACH = list(zip(BY_PEFT, itertools.cycle(MODELS), strict=False))


class Trained:
    """A model, an adapter that PEFT put on it, and the import of that."""

    def __init__(self, folder: Path, model: str, kind: str, **settings: Any) -> None:
        self.folder, self.model, self.args = folder, model, {}
        base = make_base(model)
        save_file(timm_state(base), folder / "weights.safetensors")
        settings = {"modules_to_save": [HEADS[model]], **settings}
        peft = importlib.import_module("peft")
        self.peft = adapted(base, getattr(peft, f"{kind}Config")(**settings))
        self.adapter_folder = saved(self.peft, folder / "peft")

    def imported(self) -> Any:
        config = ImportConfig(
            backbone=TIMM_NAMES[self.model],
            backbone_args={**SIZES, **self.args},
            weights=self.folder / "weights.safetensors",
        )
        output = self.folder / "adapter.safetensors"
        import_adapter(self.adapter_folder, output, config, force=True)
        return read_adapter(output)

    def require_parity(self, adapter: Any) -> None:
        """PEFT's own forward and ours; without the adapter it would be another answer."""
        pixels = pixels_of(adapter)
        require_close(adapter.golden()[1], answers(self.peft, pixels))
        with self.peft.disable_adapter(), pytest.raises(AssertionError):
            require_close(adapter.golden()[1], answers(self.peft, pixels))


def kinds_in(adapter: Any) -> set[str]:
    names = [n.split(".") for n in adapter.tensors if n.startswith(("delta.", "scale.", "ln."))]
    return {f"{parts[0]}.{parts[-1]}" for parts in names}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", NATIVE)
def test_a_kind_with_a_formula(tmp_path, name, model):
    kind, settings, expected = NATIVE[name]
    trained = Trained(tmp_path, model, kind, **settings(model))
    adapter = trained.imported()
    trained.require_parity(adapter)
    assert kinds_in(adapter) == expected
    assert adapter.pool == ("token+avg" if model == "dinov2" else "token")


@pytest.mark.long
@pytest.mark.parametrize(("name", "model"), ONE_MODEL_EACH)
def test_a_kind_that_peft_merges(tmp_path, name, model):
    kind, settings = BY_PEFT[name]
    trained = Trained(tmp_path, model, kind, target_modules=all_of(model), **settings)
    adapter = trained.imported()
    trained.require_parity(adapter)
    if name in FACTORED:  # what was merged whole is factors again, so that banks take it
        assert kinds_in(adapter) - {"delta.bias"} == {"delta.a", "delta.b"}
        spec, deltas = adapter.backbone.spec, adapter.weight_deltas().values()
        assert all(len(d.low_rank.a) <= 4 * 3 for d in deltas if d.low_rank)  # of q, k and v
        assert not delta_problems(adapter, spec, rooms_for([adapter], spec))


OLD = (  # transformers 5's names of a ViT → those of its version 4
    ("vit.layers.", "vit.encoder.layer."),
    (".attention.q_proj", ".attention.attention.query"),
    (".attention.k_proj", ".attention.attention.key"),
    (".attention.v_proj", ".attention.attention.value"),
    (".attention.o_proj", ".attention.output.dense"),
    (".mlp.fc1", ".intermediate.dense"),
    (".mlp.fc2", ".output.dense"),
)


def renamed(folder: Path, table: Iterable[tuple[str, str]], targets: Any) -> None:
    """The same adapter, as if its model had had other names."""
    state = load_file(folder / "adapter_model.safetensors")
    new = {}
    for name, value in state.items():
        for theirs, other in table:
            name = name.replace(theirs, other)  # noqa: PLW2901
        new[name] = value
    assert set(new) != set(state)
    save_file(new, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = targets
    (folder / "adapter_config.json").write_text(json.dumps(config))


def test_the_epsilon_of_the_model_that_was_trained(tmp_path, capsys):
    """transformers' ViT has another epsilon than timm's; where tokens are small it matters."""
    trained = Trained(tmp_path, "vit", "Lora", r=2, target_modules=QV["vit"])
    with torch.no_grad():
        for name, value in trained.peft.named_parameters():
            if "embeddings" in name:
                value.mul_(1e-3)
            elif name.endswith(("o_proj.weight", "o_proj.bias", "fc2.weight", "fc2.bias")):
                value.mul_(1e-2)
    save_file(timm_state(trained.peft.unload()), tmp_path / "weights.safetensors")
    peft_model = importlib.import_module("peft").PeftModel
    base = trained.peft.get_base_model()
    trained.peft = peft_model.from_pretrained(base, trained.adapter_folder).eval()
    adapter = trained.imported()
    trained.require_parity(adapter)
    assert (adapter.backbone.args["norm_eps"], adapter.backbone.spec.norm_eps) == (1e-12, 1e-12)
    assert "an epsilon of 1e-12" in capsys.readouterr().err
    trained.args = {"norm_eps": 1e-6}
    with pytest.raises(AssertionError):
        trained.require_parity(trained.imported())


@pytest.mark.parametrize("kind", ["Lora", "OFT"])
def test_names_of_transformers_4(tmp_path, kind):
    """PEFT itself reads such an adapter no more, where transformers has the new names."""
    rank = {"r": 2} if kind == "Lora" else {"r": 4, "oft_block_size": 0}
    trained = Trained(tmp_path, "vit", kind, target_modules=all_of("vit"), **rank)
    renamed(trained.adapter_folder, OLD, ["query", "value", "intermediate.dense", "output.dense"])
    trained.require_parity(trained.imported())


def test_names_of_the_wrapper_of_timm_models(tmp_path):
    trained = Trained(tmp_path, "timm", "Lora", r=2, target_modules=["qkv"], bias="all")
    table = [("base_model.model.", "base_model.model.timm_model.")]
    renamed(trained.adapter_folder, table, ["qkv"])
    trained.require_parity(trained.imported())


def test_ranks_that_adalora_took_away(tmp_path):
    trained = Trained(tmp_path, "vit", "AdaLora", init_r=4, total_step=10, target_modules=QV["vit"])
    inner = trained.peft.base_model.model
    layers = [n for n, _ in inner.named_parameters() if ".lora_E." in n]
    kept = {n: [True, False, i % 2 == 0, True] for i, n in enumerate(layers)}
    trained.peft.base_model.resize_modules_by_rank_pattern(kept, "default")
    trained.peft.peft_config["default"].rank_pattern = kept
    saved(trained.peft, trained.adapter_folder)
    trained.require_parity(trained.imported())


@pytest.mark.parametrize(
    ("model", "kind", "settings"),
    [
        ("vit", "Lora", {"r": 2, "use_dora": True, "bias": "all"}),
        ("dinov2", "IA3", {"feedforward_modules": ["fc2"]}),
        ("dinov2", "Vera", {"r": 4}),
        ("timm", "Lora", {"r": 2}),
    ],
)
def test_the_graph(tmp_path, model, kind, settings):
    """What ONNX Runtime computes is PEFT's own answer."""
    pytest.importorskip("onnxruntime")
    trained = Trained(tmp_path, model, kind, target_modules=all_of(model), **settings)
    adapter = trained.imported()
    export(
        tmp_path / "adapter.safetensors",
        tmp_path / "adapter.vptk",
        weights=tmp_path / "weights.safetensors",
    )
    with open_session(tmp_path / "adapter.vptk") as session:
        logits = session.run(adapter.golden()[0])
    require_close(logits, answers(trained.peft, pixels_of(adapter)))


def published(name: str) -> tuple[Any, str]:
    """A tiny classifier of transformers, random, and timm's name of its backbone."""
    shape = dict(SHAPE, intermediate_size=128)
    tower = {key: value for key, value in shape.items() if key != "num_labels"}
    siglip = {"vision_config": tower, "num_labels": 3}
    beit = dict(shape, use_relative_position_bias=True, layer_scale_init_value=0.1)
    kinds = {
        "DeiT": ("deit_tiny_distilled_patch16_224", shape),
        "Dinov2WithRegisters": ("vit_small_patch14_reg4_dinov2", dict(SHAPE, mlp_ratio=4)),
        "Beit": ("beit_base_patch16_224", beit),
        "Siglip": ("vit_base_patch16_siglip_224", siglip),
    }
    backbone, settings = kinds[name]
    transformers = importlib.import_module("transformers")
    config = getattr(transformers, f"{name}Config")(**settings)
    return randomized(getattr(transformers, f"{name}ForImageClassification")(config)), backbone


@pytest.mark.long
@pytest.mark.parametrize("name", ["DeiT", "Dinov2WithRegisters", "Beit", "Siglip"])
def test_other_models_of_transformers(tmp_path, name):
    """Weights and adapter both as transformers and PEFT write them."""
    base, backbone = published(name)
    base.save_pretrained(tmp_path / "weights")
    settings = {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"]}
    config = importlib.import_module("peft").LoraConfig(r=2, bias="all", **settings)
    model = adapted(base, config)
    saved(model, tmp_path / "peft")
    config = ImportConfig(
        backbone=backbone, backbone_args=dict(SIZES), weights=tmp_path / "weights"
    )
    import_adapter(tmp_path / "peft", tmp_path / "a.safetensors", config)
    adapter = read_adapter(tmp_path / "a.safetensors")
    require_close(adapter.golden()[1], answers(model, pixels_of(adapter)))
    with model.disable_adapter(), pytest.raises(AssertionError):
        require_close(adapter.golden()[1], answers(model, pixels_of(adapter)))
