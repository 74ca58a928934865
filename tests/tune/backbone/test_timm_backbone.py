"""A backbone by its name and arguments: nothing is fetched or loaded that the user did not ask for."""

from __future__ import annotations

import inspect
import json
import socket
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

from tests.support.foreign_checkpoints import NAME, TINY  # noqa: E402
from tests.support.timms import OLDER, REASON  # noqa: E402
from vptkit.backbones.timm_arguments import _ARGUMENTS  # noqa: E402
from vptkit.errors import AdapterError, BackboneError  # noqa: E402
from vptkit.formats.adapter import read_adapter, with_spec  # noqa: E402
from vptkit.formats.bundle import write_manifest  # noqa: E402
from vptkit.formats.tensor_file import read_tensor_file, write_tensors  # noqa: E402
from vptkit.tune.backbone import timm_backbone  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import _MODELS, spec_from_model  # noqa: E402
from vptkit.tune.backbone.timm_backbone import (  # noqa: E402
    create_backbone,
    described_weights,
    require_whole_patches,
)

URL = "http://127.0.0.1:9/weights.pth"


@pytest.fixture
def touched(monkeypatch, tmp_path):
    """What timm or torch tried: the network, or a file of weights."""
    import huggingface_hub
    from timm.models import _builder, _helpers, _hub

    found: list[str] = []

    def trap(name):
        def act(*_, **__):
            found.append(name)
            raise OSError(f"{name} was called")

        return act

    for place, name in (
        (socket.socket, "connect"),
        (urllib.request, "urlopen"),
        (torch.hub, "download_url_to_file"),
        (torch.hub, "load_state_dict_from_url"),
        (torch, "load"),
        (huggingface_hub, "hf_hub_download"),
        (_hub, "hf_hub_download"),
        (_hub, "download_cached_file"),
        (_builder, "load_state_dict_from_url"),
        (_builder, "load_state_dict_from_hf"),
        (_builder, "load_state_dict"),
        (_helpers, "load_state_dict"),
    ):
        monkeypatch.setattr(place, name, trap(name), raising=False)
    (tmp_path / "w.pth").write_bytes(b"a file of the user")
    return found


@pytest.fixture
def forged(tmp_path, make_vit, tiny_adapter):
    """A function: an adapter for a tiny backbone, without a spec, with these arguments or name."""

    def make(name=NAME, **args):
        adapter = read_adapter(tiny_adapter).without_prompts()
        document = adapter.to_json()
        document["backbone"] = {"name": name, "args": TINY | args, "spec": None, "sha256": None}
        document["preprocess"]["input_size"] = [3, 32, 32]
        tensors = {"head.weight": np.zeros((3, 32), np.float32), "head.bias": np.zeros(3, "f4")}
        path = tmp_path / "forged.safetensors"
        write_tensors(path, tensors, ("vptkit", json.dumps(document)))
        return path

    return make


ATTACKS = [
    {"pretrained_cfg": {"url": URL}, "cache_dir": "here"},
    {"pretrained_cfg": {"url": URL}},
    {"pretrained_cfg": {"hf_hub_id": "somebody/evil", "source": "hf-hub"}},
    {"pretrained_cfg": {"file": "w.pth"}},
    {"pretrained_cfg_overlay": {"url": URL, "source": "url"}},
    {"pretrained_cfg": "in21k"},
    {"checkpoint_path": "w.pth"},
    {"name": f"hf-hub:somebody/{NAME}"},
    {"name": "local-dir:."},
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_adapter_makes_nobody_fetch_or_load(
    vptkit, forged, touched, attack, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    path = forged(**attack)
    code, _, err = vptkit("export", path, "-o", tmp_path / "out.vptk")
    assert code == 2
    assert "forged.safetensors: backbone: " in err.replace("\n", "")
    assert touched == []
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


@pytest.mark.parametrize("attack", [ATTACKS[0], ATTACKS[6]])
def test_a_bundle_makes_nobody_fetch_or_load(
    vptkit, forged, touched, attack, make_bundle, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    bundle = make_bundle()
    (bundle / "adapter.safetensors").write_bytes(forged(**attack).read_bytes())
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["format"], manifest["files"]
    write_manifest(bundle, manifest)
    code, _, err = vptkit("check", bundle, "--reference")
    assert code == 2
    assert "no argument of an architecture" in " ".join(err.split())
    assert touched == []


def test_the_traps_hold(forged, touched):
    """What the adapter's own name means is fetched if no weights are given: as the user asked."""
    if OLDER:  # it may know no newer client of the hub
        pytest.skip(REASON)
    with pytest.raises(BackboneError, match="could not be fetched"):
        described_weights(read_adapter(forged()), None)
    assert touched != []


@pytest.mark.parametrize("attack", ATTACKS)
def test_settings_go_the_same_way(touched, attack, weights):
    """TOML and sweeps too: here is where timm is called."""
    arguments = {**TINY, **attack}
    name = arguments.pop("name", NAME)
    with pytest.raises(BackboneError, match="backbone: "):
        create_backbone(name, arguments, weights)
    assert touched == []


def test_a_model_is_measured_before_it_is_made(monkeypatch, weights):
    monkeypatch.setattr(timm_backbone, "MOST_PARAMETERS", 10_000)
    with pytest.raises(BackboneError, match="numbers with these arguments; the most is 1e\\+04"):
        create_backbone(NAME, TINY, weights)


def test_a_model_that_is_larger_than_its_file(weights, monkeypatch):
    made = []
    build = timm.create_model

    def watched(*args, **options):
        model = build(*args, **options)
        made.append(next(model.parameters()).device.type)
        return model

    monkeypatch.setattr(timm, "create_model", watched)
    arguments = TINY | {"embed_dim": 512, "depth": 12}
    with pytest.raises(
        BackboneError, match=r"tiny\.safetensors: weights of another model: 32 wide"
    ):
        create_backbone(NAME, arguments, weights)
    assert made in (["meta"], ["cpu"])  # an older timm cannot describe without building


def test_every_allowed_argument_is_one_of_timm():
    known = set()
    for kind in _MODELS:
        known |= set(inspect.signature(kind.__init__).parameters)
    newer = set(_ARGUMENTS) - known
    assert OLDER or newer == set()


def test_an_adapter_is_checked_by_the_backbone_that_it_meets(forged, make_vit, tmp_path):
    """Without a spec, nobody knew how many blocks there are; timm does."""
    weights = tmp_path / "w.safetensors"
    save_file(make_vit().state_dict(), weights)
    adapter = read_adapter(forged())
    described_weights(adapter, weights)
    adapter.tensors["ln.blocks.7.norm1.weight"] = np.ones(32, np.float32)
    with pytest.raises(AdapterError, match=r"ln\.blocks\.7\.norm1\.weight is not known"):
        described_weights(adapter, weights)
    with pytest.raises(AdapterError, match=r"head\.weight is 32 wide"):
        with_spec(read_adapter(forged()), spec_from_model(make_vit(embed_dim=64)))


def test_the_reference_checks_it_too(vptkit, forged, make_bundle, weights):
    """As `check --reference` comes to it."""
    from vptkit.tune.backbone.reference import reference_logits

    path = forged()
    metadata, tensors = read_tensor_file(path, AdapterError)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    assert reference_logits(path, weights, images).shape == (1, 3)
    tensors["ln.blocks.2.norm1.bias"] = np.ones(32, np.float32)
    write_tensors(path, tensors, ("vptkit", metadata["vptkit"]))
    with pytest.raises(AdapterError, match=r"ln\.blocks\.2\.norm1\.bias is not known"):
        reference_logits(path, weights, images)


def _sized(size, patch):
    return SimpleNamespace(image_size=(size, size), patch_size=(patch, patch))


@pytest.mark.parametrize(
    ("size", "patch", "told"),
    [(100, 14, "100 is no multiple of the patch, 14: 98 or 112"), (9, 16, "9 .*, 16: 16$")],
)
def test_both_sizes_beside_it_are_named(size, patch, told):
    with pytest.raises(BackboneError, match=told):
        require_whole_patches(_sized(size, patch), {"img_size": size})


def test_whole_patches_and_a_models_own_size_are_taken():
    require_whole_patches(_sized(112, 14), {"img_size": 112})
    require_whole_patches(_sized(384, 14), {})
