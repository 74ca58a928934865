"""Activations that are computed again: the same gradients to the bit, the same files, less memory."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from tests.support.children import run_child  # noqa: E402
from tests.support.tuning_runs import Stop  # noqa: E402
from vptkit.errors import VptkitError  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone import prefix_forward  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned, wants_whitening  # noqa: E402
from vptkit.tune.training.device import place  # noqa: E402
from vptkit.tune.training.optimizer_step import summed_loss  # noqa: E402

CPU = torch.device("cpu")
METHODS: dict[str, dict[str, Any]] = {
    "ln": {"method": "ln"},
    "vpt": {"method": "vpt", "dropout": 0.3},
    "vpt, prompts read": {"method": "vpt", "pool": "avg_prompts"},
    "vpt-shallow": {"method": "vpt", "insert": "shallow"},
    "bpt": {"method": "bpt"},
    "bpt fwhiten": {"method": "bpt", "form": "fwhiten"},
    "bpt twhiten": {"method": "bpt", "form": "twhiten"},
    "bpt-shallow": {"method": "bpt", "insert": "shallow"},
    "lora": {"method": "lora", "lora_targets": "q,k,v,proj,fc1,fc2"},
    "all": {"method": "ln+lora+bpt"},
}
OTHERS = (  # blocks that the fast forward leaves to the reference
    "vit_base_patch16_rope_reg1_gap_256",
    "beit_base_patch16_224",
    "vit_relpos_base_patch16_224",
)


@pytest.fixture
def make_tuned(make_vit, make_config):
    """A function: a model ready to learn; its factors are not zero, so that all have gradients."""

    def make(name: str | None = None, depth: int = 4, **settings: Any) -> Tuned:
        config = make_config(**settings)
        model = make_vit(**({} if name is None else {"name": name}), depth=depth)
        spec = spec_from_model(model, "vit")
        matrices = [torch.eye(spec.width)] * spec.depth if wants_whitening(config) else None
        tuned = Tuned(model, spec, config, 3, matrices)
        place(tuned, CPU, config)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for value in tuned.parameters():
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
        return tuned.train()

    return make


def gradients(tuned: Tuned) -> dict[str, torch.Tensor]:
    """Of a loss over four images, by parameter, and the loss itself."""
    size = tuned.backbone.patch_embed.img_size
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(4, 3, *size, generator=generator)
    torch.manual_seed(5)  # of dropout
    loss = summed_loss(tuned(pixels), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    learned = {n: p.grad for n, p in tuned.named_parameters() if p.requires_grad}
    assert all(g is not None and g.abs().max() > 0 for g in learned.values())
    return {"loss": loss.detach(), **learned}


def require_the_same(make_tuned, **settings: Any) -> None:
    kept, again = (gradients(make_tuned(**settings, recompute=r)) for r in (False, True))
    for name, value in kept.items():
        assert torch.equal(value, again[name]), name


@pytest.mark.parametrize("merge", [0, 3])
@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_every_method(make_tuned, name, merge):
    require_the_same(make_tuned, **METHODS[name], merge=merge)


@pytest.mark.parametrize("name", OTHERS)
def test_gradients_of_other_backbones(make_tuned, make_vit, name):
    try:
        make_vit(name)
    except RuntimeError as error:  # an older timm
        pytest.skip(str(error))
    require_the_same(make_tuned, name=name, method="ln+vpt", dropout=0.0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_gradients_in_half_precision(make_tuned, precision):
    require_the_same(make_tuned, method="ln+lora+bpt", merge=3, precision=precision)


def test_blocks_that_forget_their_prompts_are_seen(make_tuned, monkeypatch):
    kept = gradients(make_tuned(method="vpt", dropout=0.0))

    def forgetful(function: Any, block: Any, z: Any, prompt: Any, *rest: Any) -> Any:
        return function(block, z, prompt.flip(1), *rest)

    monkeypatch.setattr(prefix_forward, "_recomputed", forgetful)
    again = gradients(make_tuned(method="vpt", dropout=0.0, recompute=True))
    assert not torch.equal(kept["prompts.a.0"], again["prompts.a.0"])


def held_bytes(tuned: Tuned) -> int:
    """What a forward pass keeps for the backward pass, parameters apart."""
    own = {p.untyped_storage().data_ptr() for p in tuned.parameters()}
    own |= {p.untyped_storage().data_ptr() for p in tuned.backbone.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def note(value: torch.Tensor) -> torch.Tensor:
        seen[value.untyped_storage().data_ptr()] = value  # held, so that no address comes twice
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        tuned(torch.zeros(4, 3, 32, 32))
    return sum(v.untyped_storage().nbytes() for key, v in seen.items() if key not in own)


def test_queries_do_not_hold_all_rows(make_tuned):
    """A view of queries would keep what keys and values were joined from."""
    tuned = make_tuned(method="vpt", prompts=8)
    t, d, m, images, blocks = 17, 32, 8, 4, 4
    kept = 4 * images * blocks * d * (10 * t + 2 * m)  # of which q, k and v are 3 t + 2 m
    assert held_bytes(tuned) < 1.1 * kept


# ---- whole runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "ln+lora+bpt", "merge": [4, 0], "accumulate": 2},
        {"method": "vpt", "insert": "shallow", "precision": "bf16", "batch_size": 9},
    ],
    ids=lambda s: s["method"],
)
def test_the_same_bytes_and_a_run_that_goes_on_with_it(splits, make_config, tmp_path, settings):
    """Begun without, gone on with: what was too large for the memory may go on."""
    settings = {**settings, "name": "x"}
    whole = tune(splits, tmp_path / "a.safetensors", make_config(**settings))
    output, config = tmp_path / "b.safetensors", make_config(**settings, recompute=True)
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, make_config(**settings), progress=Stop(30))
    resumed = tune(splits, output, config, resume=True)
    assert resumed.adapter.read_bytes() == whole.adapter.read_bytes()


def test_a_probe_has_nothing_to_compute_again(make_config):
    with pytest.raises(VptkitError, match=r"recompute is True, which does nothing with method lin"):
        make_config(method="linear", recompute=True)
    with pytest.raises(VptkitError, match=r"recompute is 'yes', expected bool"):
        make_config(recompute="yes")


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch 2.15 about itself
@pytest.mark.skipif(sys.platform != "linux", reason="torch.compile")
def test_a_compiled_forward_computes_again(make_tuned, monkeypatch):
    """As a graph that torch computes itself; g++ takes minutes."""
    settings = {"depth": 2, "method": "ln+vpt", "prompts": 2, "dropout": 0.0}
    kept = gradients(make_tuned(**settings))
    tuned = make_tuned(**settings, recompute=True)
    tuned.compute = torch.compile(tuned.compute, backend="aot_eager")
    for name, value in gradients(tuned).items():
        torch.testing.assert_close(value, kept[name], rtol=1e-4, atol=1e-5)


# Peaks of a process in MiB, above that of one image: of a step that computes again, of one that keeps
PEAKS = """
import json
import timm, torch
from vptkit.devices.probes.memory import process_memory
from vptkit.tune import TuneConfig
from vptkit.tune.backbone.spec_from_timm import spec_from_model
from vptkit.tune.methods.tuned_model import Tuned

torch.set_num_threads(1)
model = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=12, img_size=112)
spec = spec_from_model(model.eval().requires_grad_(False), "x")
pixels, peaks = torch.zeros(32, 3, 112, 112), []
for images, recompute in ((1, True), (32, True), (32, False)):  # the first loads what computes
    config = TuneConfig(backbone="x", method="ln", recompute=recompute)
    Tuned(model, spec, config, 3, None).train()(pixels[:images]).sum().backward()
    peaks.append(process_memory()[1])
print(json.dumps([peak - peaks[0] for peak in peaks[1:]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_a_process():
    fixed = {"MALLOC_MMAP_THRESHOLD_": "1048576"}  # else glibc keeps what it might need again
    ran = run_child([sys.executable, "-c", PEAKS], env=os.environ | fixed)
    again, kept = json.loads(ran.stdout)
    assert again < 0.5 * kept  # one block's activations and twelve inputs, of all of twelve blocks
