"""`export` from end to end: what is in the bundle, and what is left behind when it fails."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import sys
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest

from tests.support.adapter_files import answers, content, files_of
from tests.support.children import run_child
from tests.support.strategies import Setup, build
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.atomic_files import sha256_of_file
from vptkit.errors import AdapterError, BackboneError, GateError, MissingExtraError, OutputError
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle import export_bundle
from vptkit.export.bundle.export_bundle import export
from vptkit.formats.adapter import read_adapter, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.bundle import open_bundle
from vptkit.formats.tensor_file import read_tensors, write_tensors

# what is in a bundle ------------------------------------------------------------------------------


def test_a_bundle(files):
    manifest = export(files.adapter, files.out, weights=files.weights)
    case, bundle = files.case, open_bundle(files.out)
    assert sorted(content(files.out)) == [
        "adapter.safetensors",
        "golden.safetensors",
        "manifest.json",
        "model.onnx",
    ]
    on_disk = json.loads((files.out / "manifest.json").read_text())
    assert manifest == {k: v for k, v in on_disk.items() if k not in ("format", "files")}
    assert on_disk["files"] == {
        name: sha256_of_file(files.out / name)
        for name in ("adapter.safetensors", "golden.safetensors", "model.onnx")
    }
    assert (files.out / "adapter.safetensors").read_bytes() == files.adapter.read_bytes()
    assert bundle.spec == case.spec
    assert bundle.labels == case.adapter.labels
    assert bundle.preprocess == case.adapter.preprocess
    assert (bundle.precision, bundle.input, bundle.batch) == ("fp32", "images", None)
    images, logits = bundle.golden()
    assert np.array_equal(images, case.images)
    assert largest_difference(logits, case.reference) < 1e-6
    assert largest_difference(answers(files.out, case), case.reference) <= PARITY_FP32
    assert manifest["parity"] is None
    assert manifest["backbone"]["sha256"] == case.adapter.backbone.sha256
    assert manifest["versions"]["onnx"] == onnx.__version__
    assert (manifest["versions"]["opset"], manifest["versions"]["ir"]) == (17, 8)


def test_the_golden_answers_are_optional(tmp_path):
    files = files_of(tmp_path, Setup(), golden=False)
    export(files.adapter, files.out, weights=files.weights)
    assert not (files.out / "golden.safetensors").exists()
    assert open_bundle(files.out).golden() is None


def test_the_same_input_gives_the_same_bytes(files):
    export(files.adapter, files.out, weights=files.weights)
    first = content(files.out)
    export(files.adapter, files.out, weights=files.weights, force=True)
    assert content(files.out) == first


def test_weights_in_half_precision_with_their_own_digest(tmp_path):
    """A file in fp16 is its float32 values; another digest than float32's, so tuned on itself."""
    files = files_of(tmp_path, Setup())
    half = {k: v.astype(np.float16) for k, v in files.case.weights.items()}
    write_tensors(files.weights, half)
    with pytest.raises(BackboneError, match="another backbone than the one that was tuned"):
        export(files.adapter, files.out, weights=files.weights)
    adapter = read_adapter(files.adapter)
    write_adapter(files.adapter, replace(adapter, backbone=replace(adapter.backbone, sha256=None)))
    export(files.adapter, files.out, weights=files.weights)
    found = largest_difference(answers(files.out, files.case), files.case.reference)
    assert PARITY_FP32 < found < 0.1


# which weights ------------------------------------------------------------------------------------


def test_the_weights_of_another_backbone(files):
    other = {k: v.astype(np.float32) for k, v in build(Setup(seed=1)).weights.items()}
    write_tensors(files.weights, other)
    wanted = files.case.adapter.backbone.sha256[:12]
    with pytest.raises(BackboneError, match=rf"w\.safetensors: another backbone.*{wanted}"):
        export(files.adapter, files.out, weights=files.weights)
    assert list(files.out.parent.iterdir()) == []


@pytest.mark.parametrize("layout", ["baked", "bank"])
@pytest.mark.parametrize("change", ["cut", "emptied", "written over", "removed and made anew"])
def test_weights_that_change_while_they_are_folded(files, change, layout):
    """Their digest was compared before; nothing is made of others, and nothing is left behind."""
    content_before = files.weights.read_bytes()

    @contextlib.contextmanager
    def phase(name, _):
        if name == "folding":
            time.sleep(0.02)  # the file system's clock has steps of some milliseconds
            if change == "removed and made anew":
                files.weights.unlink()
            kept = {"cut": len(content_before) // 2, "emptied": 0}.get(change)
            files.weights.write_bytes(content_before[:kept])
        yield None

    make = (
        export
        if layout == "baked"
        else lambda path, *rest, **how: export_bank([path], *rest, **how)
    )
    words = r"w\.safetensors.*(was changed|became shorter) while it was read"
    with pytest.raises(BackboneError, match=words):
        make(files.adapter, files.out, weights=files.weights, phase=phase)
    assert list(files.out.parent.iterdir()) == []
    files.weights.write_bytes(content_before)
    make(files.adapter, files.out, weights=files.weights)


def test_a_torch_file_that_changes_while_it_is_folded(files):
    """Its archive has sums of its own, but only of what changed by chance."""
    weights = read_tensors(files.weights, BackboneError)
    path = _in_another_form(files.weights.parent / "other", weights, "torch")

    @contextlib.contextmanager
    def phase(name, _):
        if name == "folding":
            time.sleep(0.02)
            path.write_bytes(path.read_bytes())
        yield None

    with pytest.raises(BackboneError, match=r"w\.pth: was changed while it was read"):
        export(files.adapter, files.out, weights=path, phase=phase)
    assert list(files.out.parent.iterdir()) == []


@pytest.mark.parametrize("form", ["memory", "bfloat16", "torch", "shards", "Hugging Face"])
def test_weights_of_every_form_give_the_same_graph(tmp_path, form):
    """Whether tensors are read one by one, joined of parts, or all in memory."""
    files = files_of(tmp_path, Setup(registers=0, norm_pre=False, layer_scale=False))
    if form == "bfloat16":
        kept = {
            k: v.view("<u4") >> 16 << 16
            for k, v in read_tensors(files.weights, BackboneError).items()
        }
        write_tensors(files.weights, {k: v.view("<f4") for k, v in kept.items()})
    weights = read_tensors(files.weights, BackboneError)
    adapter = read_adapter(files.adapter)
    digest = digest_of_weights(weights)
    write_adapter(
        files.adapter, replace(adapter, backbone=replace(adapter.backbone, sha256=digest))
    )
    export(files.adapter, files.out, weights=files.weights)
    expected = (files.out / "model.onnx").read_bytes()
    options = {"weights": _in_another_form(files.weights.parent / "other", weights, form)}
    if form == "memory":
        adapter = read_adapter(files.adapter)
        write_adapter(
            files.adapter, replace(adapter, backbone=replace(adapter.backbone, spec=None))
        )
        options = {"from_timm": lambda _: (files.case.spec, weights)}
    export(files.adapter, files.out, force=True, **options)
    assert (files.out / "model.onnx").read_bytes() == expected


def _in_another_form(folder, weights, form):
    """A path of the same tensors, written as others write them."""
    folder.mkdir()
    if form == "torch":
        import torch

        torch.save({k: torch.from_numpy(v) for k, v in weights.items()}, folder / "w.pth")
        return folder / "w.pth"
    if form == "bfloat16":
        import torch
        from safetensors.torch import save_file

        short = {k: torch.from_numpy(v).bfloat16() for k, v in weights.items()}
        save_file(short, folder / "w.safetensors")
        return folder / "w.safetensors"
    if form == "Hugging Face":
        weights = _as_transformers(weights)
    names = sorted(weights)
    parts = [names[0::2], names[1::2]]
    places = {}
    for i, part in enumerate(parts):
        write_tensors(folder / f"{i}.safetensors", {name: weights[name] for name in part})
        places |= dict.fromkeys(part, f"{i}.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return folder


def _as_transformers(weights):
    """timm's names → those of transformers' ViT, with three linears for queries, keys and values."""
    around = {"patch_embed.proj": "embeddings.patch_embeddings.projection", "norm": "layernorm"}
    inner = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "mlp.fc1": "intermediate.dense",
    }
    inner |= {"mlp.fc2": "output.dense", "attn.proj": "attention.output.dense"}
    found = {}
    for name, value in weights.items():
        module, _, kind = name.rpartition(".")
        block = re.fullmatch(r"blocks\.(\d+)\.(.*)", module)
        if not module:
            theirs = {"cls_token": "cls_token", "pos_embed": "position_embeddings"}[name]
            found[f"embeddings.{theirs}"] = value
        elif block is None:
            found[f"{around[module]}.{kind}"] = value
        elif block[2] == "attn.qkv":
            for part, third in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                found[f"encoder.layer.{block[1]}.attention.attention.{part}.{kind}"] = third
        else:
            found[f"encoder.layer.{block[1]}.{inner[block[2]]}.{kind}"] = value
    return found


def test_an_adapter_without_spec_asks_timm(tmp_path):
    files = files_of(tmp_path, Setup(), spec=False)
    with pytest.raises(MissingExtraError, match=r"vptkit\[tune\]"):
        export(files.adapter, files.out, weights=files.weights)
    asked = []

    def from_timm(adapter):
        asked.append(adapter.name)
        return files.case.spec, files.case.weights

    manifest = export(files.adapter, files.out, weights=files.weights, from_timm=from_timm)
    assert asked == ["random"]
    assert manifest["backbone"]["spec"] == files.case.spec.to_json()
    assert largest_difference(answers(files.out, files.case), files.case.reference) <= PARITY_FP32


def test_weights_in_another_form_ask_timm(files):
    weights = files.case.weights.items()
    renamed = {k.replace("norm1", "ln_1"): v.astype(np.float32) for k, v in weights}
    write_tensors(files.weights, renamed)
    with pytest.raises(MissingExtraError, match="reading this backbone"):
        export(files.adapter, files.out, weights=files.weights)
    back = lambda _: (files.case.spec, files.case.weights)  # noqa: E731
    export(files.adapter, files.out, weights=files.weights, from_timm=back)
    assert files.out.is_dir()


NO_TORCH = """
import sys
for name in ("torch", "timm", "torchvision", "onnxruntime"):
    sys.modules[name] = None  # an import would fail
from pathlib import Path
from vptkit.export.bundle.export_bundle import export
export(Path(sys.argv[1]), Path(sys.argv[3]), weights=Path(sys.argv[2]))
"""


def test_no_torch_where_the_adapter_carries_its_spec(files):
    command = [sys.executable, "-c", NO_TORCH, files.adapter, files.weights, files.out]
    done = run_child(command, check=False, cwd="/")
    assert done.returncode == 0, done.stderr[-1000:]
    assert largest_difference(answers(files.out, files.case), files.case.reference) <= PARITY_FP32


def test_the_modules_do_not_import_torch():
    code = (
        "import sys, vptkit.export, vptkit.export.bundle.baselines; print('torch' in sys.modules)"
    )
    done = run_child([sys.executable, "-c", code], cwd="/")
    assert done.stdout.strip() == "False"


# refusals -----------------------------------------------------------------------------------------


def test_an_output_that_exists(files):
    files.out.mkdir()
    (files.out / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match=r"a\.vptk: exists already\. Pass --force"):
        export(files.adapter, files.out, weights=files.weights)
    assert content(files.out.parent) == {"a.vptk/mine.txt": b"keep"}


def test_a_folder_that_does_not_exist(files):
    with pytest.raises(OutputError, match="does not exist"):
        export(files.adapter, files.out / "deeper" / "a.vptk", weights=files.weights)


def test_a_damaged_adapter(files):
    files.adapter.write_bytes(files.adapter.read_bytes()[:-9])
    with pytest.raises(AdapterError, match="truncated or damaged"):
        export(files.adapter, files.out, weights=files.weights)
    assert list(files.out.parent.iterdir()) == []


def test_damaged_weights(files):
    files.weights.write_bytes(files.weights.read_bytes()[:-9])
    with pytest.raises(BackboneError, match="truncated or damaged"):
        export(files.adapter, files.out, weights=files.weights)
    assert list(files.out.parent.iterdir()) == []


def test_a_pool_that_the_backbone_does_not_have(files):
    adapter = read_adapter(files.adapter)
    spec, reference = adapter.backbone.spec, replace(adapter.backbone, spec=None)
    write_adapter(files.adapter, replace(adapter, pool="map", backbone=reference))
    weights = read_tensors(files.weights, AdapterError)
    with pytest.raises(AdapterError, match="pool is 'map', but the backbone has no attention pool"):
        export(files.adapter, files.out, from_timm=lambda _: (spec, weights))
    with pytest.raises(AdapterError, match="pool is 'map', but the backbone has no attention pool"):
        write_adapter(files.adapter, replace(adapter, pool="map"))


# interrupted --------------------------------------------------------------------------------------


STEPS = ["write_graph", "write_adapter", "write_tensors", "write_manifest", "fold", "folded_graph"]
FAULTS = {
    "Ctrl-C": (KeyboardInterrupt(), KeyboardInterrupt),
    "disk full": (OSError(errno.ENOSPC, "No space left on device"), OutputError),
    "read-only": (OSError(errno.EROFS, "Read-only file system"), OutputError),
    "a defect": (ZeroDivisionError("oops"), ZeroDivisionError),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("force", [False, True])
def test_a_failure_in_the_middle_leaves_everything_as_it_was(
    files, monkeypatch, step, fault, force
):
    if force:
        export(files.adapter, files.out, weights=files.weights)
    before = content(files.out.parent)
    raised, expected = FAULTS[fault]
    real = getattr(export_bundle, step)

    def fail(*arguments, **options):
        if step.startswith("write"):
            real(*arguments, **options)  # half of the work is on the disk
        raise raised

    monkeypatch.setattr(export_bundle, step, fail)
    with pytest.raises(expected) as caught:
        export(files.adapter, files.out, weights=files.weights, force=force)
    if expected is OutputError:
        assert "a.vptk: cannot be written: " + raised.strerror in str(caught.value)
    assert content(files.out.parent) == before
    assert [p.name for p in files.out.parent.iterdir()] == (["a.vptk"] if force else [])


def test_a_check_that_fails_discards_the_bundle(files):
    def verify(folder):
        assert open_bundle(folder).labels == files.case.adapter.labels
        raise GateError("parity 0.3, expected at most 1e-5")

    with pytest.raises(GateError, match=r"parity 0\.3"):
        export(files.adapter, files.out, weights=files.weights, verify=verify)
    assert list(files.out.parent.iterdir()) == []
    export(files.adapter, files.out, weights=files.weights)
    before = content(files.out)
    with pytest.raises(GateError):
        export(files.adapter, files.out, weights=files.weights, verify=verify, force=True)
    assert content(files.out) == before


def test_the_figures_of_the_check_are_in_the_manifest(files):
    def verify(folder):
        return {
            "max_abs_diff": largest_difference(answers(folder, files.case), files.case.reference)
        }

    manifest = export(files.adapter, files.out, weights=files.weights, verify=verify)
    assert manifest["parity"]["max_abs_diff"] <= PARITY_FP32
    assert open_bundle(files.out).manifest["parity"] == manifest["parity"]
