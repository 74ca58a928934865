"""Weight deltas in a bank: each image answers as its own adapter's reference; what does not fit."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from tests.integration import coverage
from tests.support.bank_cases import Family, family, write_family
from tests.support.exported_banks import export_family, worst_difference
from tests.support.random_deltas import RANK, bank_deltas, deltas_of
from tests.support.strategies import Setup
from tests.support.tolerances import CLEARLY, PARITY_FP32, largest_difference
from vptkit.errors import AdapterError, BundleError, VptkitError
from vptkit.export.bank import linear_rows as rows_module
from vptkit.export.bank import lookup_graph
from vptkit.export.bank.edit_bank import add, remove
from vptkit.export.bank.edit_bank import replace as replace_adapter
from vptkit.export.bank.export_bank import BankOptions, export_bank
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.precision.lowering import Lowering
from vptkit.formats.adapter import write_adapter
from vptkit.formats.backbone_weights import tensor_shapes
from vptkit.formats.bank_tables import BankShape, bank_linears, parse_rows
from vptkit.runtime import open_session

QKV = "blocks.1.attn.qkv"
LAST = "blocks.2.attn"  # of Setup()'s three blocks
LORA = ("low",)


def tuned(members: Family, **deltas) -> Family:
    """Adapters of a family with weight deltas; their answers are asked for anew."""
    adapters = {
        name: replace(adapter, tensors={**adapter.tensors, **deltas.get(name, {})})
        for name, adapter in members.adapters.items()
    }
    return Family(case=members.case, adapters=adapters)


def every_kind(members: Family, seed: int = 0) -> Family:
    """Beside "norms", which changes no linear: all that a bank takes; a LoRA; one of one block."""
    spec, rng = members.case.spec, np.random.default_rng(seed)
    return tuned(
        members,
        both=bank_deltas(spec, rng),
        bilinear=bank_deltas(spec, rng, LORA, ("attn.qkv", "mlp.fc2")),
        linear=bank_deltas(spec, rng, LORA, (QKV,)),
    )


# parity -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("last", ["absorbed", "query", "full"])
def test_each_image_of_a_mixed_batch_answers_as_the_reference(tmp_path, last):
    """Prompts, LayerNorms and changes of every linear, in one batch; LayerScale and all biases."""
    members = every_kind(family())
    out = export_family(tmp_path, members, ExportOptions(last_block=last))
    assert worst_difference(out, members) <= PARITY_FP32
    for name in ("both", "bilinear", "linear"):  # each does something
        moved = largest_difference(members.reference(name), family().reference(name))
        assert moved > CLEARLY * PARITY_FP32


@pytest.mark.slow
@pytest.mark.parametrize("layer_norms", ["no", "yes"])
@pytest.mark.parametrize("part", ["qkv", "proj", "fc1", "fc2"])
def test_one_kind_of_linear_by_itself(tmp_path, part, layer_norms):
    """A norm's affine stays before what changes, and the values' bias before a changed projection."""
    members = family(kinds=("bilinear", "linear"))
    for forms in (LORA, ("out+in",)):
        deltas = bank_deltas(members.case.spec, np.random.default_rng(1), forms, (part,))
        some = tuned(members, bilinear=deltas)
        out = export_family(tmp_path, some, layer_norms=layer_norms)
        assert worst_difference(out, some) <= PARITY_FP32


@pytest.mark.slow
def test_each_image_answers_as_its_own_baked_bundle(tmp_path):
    members = every_kind(family(kinds=("both", "bilinear", "linear")))
    bank = open_session(export_family(tmp_path, members), threads=1)
    images, names = members.case.images, list(members.adapters)
    mixed = bank.run(np.repeat(images[:1], len(names), axis=0), names)
    for row, name in zip(mixed, names, strict=True):
        out = tmp_path / f"{name}.vptk"
        export(tmp_path / f"{name}.safetensors", out, weights=tmp_path / "weights.safetensors")
        alone = open_session(out, threads=1).run(images[:1])[0]
        assert largest_difference(row[: len(alone)], alone) <= PARITY_FP32


def architecture(tmp_path, name: str):
    """(adapters, spec, answers) of a small model of one of timm's kinds; written to `tmp_path`."""
    model, spec, _, plain = coverage.written_model(tmp_path, name)
    rng = np.random.default_rng(5)
    deltas = {
        "wide": bank_deltas(spec, rng, ("low+out+in",)),
        "all": bank_deltas(spec, rng),
        "one": bank_deltas(spec, rng, LORA, ("blocks.1.",)),
    }
    adapters = {
        key: replace(plain, name=key, tensors={**plain.tensors, **deltas.get(key, {})})
        for key in ("wide", "all", "one", "plain")
    }
    for key, adapter in adapters.items():
        write_adapter(tmp_path / f"{key}.safetensors", adapter)
    expected = {k: coverage.logits(copy.deepcopy(model), spec, a) for k, a in adapters.items()}
    return adapters, spec, expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "beit_base_patch16_224",
        "vit_relpos_base_patch16_rpn_224",
        "eva02_base_patch14_224",
        "eva02_base_patch16_clip_224",
        "vit_small_patch16_dinov3",
        "vit_base_patch16_sapiens2",
        "vit_base_patch16_siglip_224",
        "vit_base_patch16_xp_224",
        "aimv2_large_patch14_224",
    ],
)
def test_a_bank_of_another_architecture(tmp_path, name):
    """Separate, grouped and biasless keys, rotations, gates, inner norms, post-norm blocks.

    Half of the adapters come with the export, half are added with what the bank keeps of its backbone.
    """
    adapters, spec, expected = architecture(tmp_path, name)
    out = tmp_path / "bank.vptk"
    paths = [tmp_path / f"{key}.safetensors" for key in adapters]
    export_bank(paths[:2], out, weights=tmp_path / "weights.safetensors")
    for path in paths[2:]:
        add(out, path)
    images = coverage.images_of(spec)
    asked = [key for key in adapters for _ in images]
    found = open_session(out, threads=1).run(np.tile(images, (4, 1, 1, 1)), asked)
    for rows, key in zip(np.split(found, 4), adapters, strict=True):
        assert largest_difference(rows, expected[key]) < 2 * PARITY_FP32, key
    for key in ("wide", "all", "one"):
        assert largest_difference(expected[key], expected["plain"]) > CLEARLY * PARITY_FP32


@pytest.mark.slow
def test_blocks_of_several_branches_change_no_linears(tmp_path):
    """Their norms differ from branch to branch; a bank without deltas still goes."""
    adapters, spec, _ = architecture(tmp_path, "vit_small_patch16_18x2_224")
    assert bank_linears(spec) == {}
    name = "blocks.0.attns.0.attn.proj.weight"
    deltas = deltas_of(name, tensor_shapes(spec)[name], "low", np.random.default_rng(0))
    changed = replace(adapters["plain"], tensors={**adapters["plain"].tensors, **deltas})
    write_adapter(tmp_path / "all.safetensors", changed)
    with pytest.raises(AdapterError, match=r"attn\.proj\.weight, which a bank cannot look up"):
        export_bank(
            [tmp_path / "all.safetensors"],
            tmp_path / "b.vptk",
            weights=tmp_path / "weights.safetensors",
        )


@pytest.mark.slow
def test_half_precision(tmp_path):
    members = every_kind(family(kinds=("both", "linear")))
    out = export_family(tmp_path, members, ExportOptions(lowering=Lowering(precision="fp16")))
    assert worst_difference(out, members) <= 2e-2
    types = {
        i.name: i.type.tensor_type.elem_type for i in onnx.load(out / "model.onnx").graph.input
    }
    assert types[f"bank.{LAST}.q.a"] == onnx.TensorProto.FLOAT16


# broken twins -------------------------------------------------------------------------------------


def forget_the_factors(patch):
    patch.setattr(rows_module, "_factor", lambda spec, linear, tensors: np.asarray(1.0))


def forget_keys(patch):
    real = lookup_graph._BankWriter._absorbed_keys

    def without(self, q, absorbed, name, label):
        return real(self, q, absorbed, f"{name}/none", label)

    patch.setattr(lookup_graph._BankWriter, "_absorbed_keys", without)


def shift_by_a_row(patch):
    real = rows_module._factors

    def rolled(linear, delta):
        found = real(linear, delta)
        return None if found is None else (found[0], np.roll(found[1], 1, axis=1))

    patch.setattr(rows_module, "_factors", rolled)


def leave_the_affine_out(patch):
    patch.setattr(lookup_graph._BankWriter, "affine_norm", lambda self, z, norm, name: z)


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken", [forget_the_factors, forget_keys, shift_by_a_row, leave_the_affine_out]
)
def test_a_broken_bank_is_found_out(tmp_path, monkeypatch, broken):
    members = family(kinds=("bilinear", "linear"))
    deltas = bank_deltas(members.case.spec, np.random.default_rng(1))
    some = tuned(members, bilinear=deltas)
    with monkeypatch.context() as patch:
        broken(patch)
        out = export_family(tmp_path, some)
    assert worst_difference(out, some) > CLEARLY * PARITY_FP32


# what is written ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_only_what_changes_has_tables(tmp_path):
    """A stacked pair of queries and values: each has its own rank, keys have no product."""
    members = family(kinds=("linear", "bilinear"))
    d, rng = members.case.spec.width, np.random.default_rng(2)
    b = np.zeros((3 * d, 5), np.float32)
    b[:d, :3], b[2 * d :, 3:] = rng.normal(size=(d, 3)), rng.normal(size=(d, 2))
    pair = {f"delta.{QKV}.a": rng.normal(size=(5, d)).astype(np.float32), f"delta.{QKV}.b": b}
    some = tuned(members, linear=pair)
    out = export_family(tmp_path, some)
    assert worst_difference(out, some) <= PARITY_FP32
    manifest = json.loads((out / "manifest.json").read_text())
    linears = {
        i["name"]: i["shape"] for i in manifest["inputs"] if i["name"].startswith("bank.blocks")
    }
    assert linears == {
        "bank.blocks.1.attn.q.a": ["adapters", d, 3],
        "bank.blocks.1.attn.q.b": ["adapters", 3, d],
        "bank.blocks.1.attn.v.a": ["adapters", d, 2],
        "bank.blocks.1.attn.v.b": ["adapters", 2, d],
    }
    model = onnx.load(out / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    products = [n.name for n in model.graph.node if n.name.endswith("/change")]
    assert products == ["blocks.1.attn.q/change", "blocks.1.attn.v/change"]


@pytest.mark.slow
def test_a_bank_without_deltas_has_the_graph_that_it_had(tmp_path):
    """No table, no product, no file more."""
    out = export_family(tmp_path, family())
    assert not [i.name for i in onnx.load(out / "model.onnx").graph.input if "blocks" in i.name]


# adding, removing, replacing ------------------------------------------------------------------------


@pytest.mark.slow
def test_adapters_come_and_go(tmp_path):
    """Under an open session; of a lower rank, of fewer linears, of none."""
    members = family(kinds=("bilinear", "linear", "whitened"))
    spec, rng = members.case.spec, np.random.default_rng(3)
    some = tuned(
        members,
        bilinear=bank_deltas(spec, rng, ("low+out+in",)),
        linear=bank_deltas(spec, rng, LORA, (QKV,)),
    )
    paths = write_family(some, tmp_path)
    out = tmp_path / "bank.vptk"
    export_bank(
        [paths["bilinear"]], out, weights=paths["weights"], bank=BankOptions(prompts=6, rank=3)
    )
    session, images = open_session(out, threads=1), members.case.images
    add(out, paths["linear"])
    add(out, paths["whitened"])
    for name in ("linear", "whitened", "bilinear"):
        own = len(some.adapters[name].labels)
        found = session.run(images, [name] * len(images))[:, :own]
        assert largest_difference(found, some.reference(name)) <= PARITY_FP32
    other = tuned(members, linear=bank_deltas(spec, rng, LORA, ("fc1",)))
    replace_adapter(out, write_family(other, tmp_path)["linear"])
    remove(out, "whitened")
    found = session.run(images, ["linear"] * len(images))
    own = len(some.adapters["linear"].labels)
    assert largest_difference(found[:, :own], other.reference("linear")) <= PARITY_FP32


@pytest.mark.slow
def test_what_has_no_room_is_refused(tmp_path):
    members = family(kinds=("linear", "bilinear"))
    spec, rng = members.case.spec, np.random.default_rng(4)
    first = tuned(members, linear=bank_deltas(spec, rng, LORA, (QKV,)))
    out = export_family(tmp_path, first)
    wide = {
        k: np.repeat(v, 2, axis=0 if k.endswith(".a") else 1)
        for k, v in bank_deltas(spec, rng, LORA, (QKV,)).items()
        if k[:6] == "delta." and k[-2:] in (".a", ".b")
    }
    fc1 = bank_deltas(spec, rng, LORA, ("blocks.0.mlp.fc1",))
    cases = (
        (
            wide,
            rf"change of blocks\.1\.attn\.q has rank {2 * RANK}, but the bank has room for {RANK}.*--bank-rank {2 * RANK}",
        ),
        (
            fc1,
            r"blocks\.0\.mlp\.fc1 .*no table.*this adapter among the others",
        ),
        (
            deltas_of(f"{QKV}.weight", (3 * spec.width, spec.width), "out", rng),
            r"blocks\.1\.attn\.q .*no table",
        ),
        ({**wide, **fc1}, r"blocks\.0\.mlp\.fc1 .*no table"),  # more rank would not do
    )
    for deltas, message in cases:
        again = tuned(members, bilinear=deltas)
        path = write_family(again, tmp_path, golden=False)["bilinear"]
        with pytest.raises(AdapterError, match=message):
            replace_adapter(out, path)


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        (
            f"{QKV}.weight",
            "whole",
            "changes blocks.1.attn.qkv.weight whole, .* copy of these weights",
        ),
        (f"{QKV}.weight", "whole+out", "alone, as a baked bundle"),
        ("patch_embed.proj.weight", "low", r"changes patch_embed.proj.weight, which a bank cannot"),
        ("cls_token", "whole", "changes cls_token, which a bank cannot look up. Export it alone"),
        ("blocks.0.ls1.gamma", "whole", "changes blocks.0.ls1.gamma, which a bank cannot"),
    ],
)
def test_what_a_bank_does_not_look_up_is_refused(tmp_path, name, form, message):
    members = family(kinds=("linear", "bilinear"))
    shape = tensor_shapes(members.case.spec)[name]
    some = tuned(members, linear=deltas_of(name, shape, form, np.random.default_rng(0)))
    with pytest.raises(AdapterError, match=message):
        export_family(tmp_path, some)


def test_room_that_is_too_small_or_of_no_use(tmp_path):
    members = family(kinds=("linear",))
    with pytest.raises(VptkitError, match="--bank-rank has no effect"):
        export_family(tmp_path, members, rank=4)
    deltas = bank_deltas(members.case.spec, np.random.default_rng(0), LORA, (QKV,))
    with pytest.raises(VptkitError, match=f"--bank-rank 1 is less than the {RANK}"):
        export_family(tmp_path, tuned(members, linear=deltas), rank=1)


def test_rows_that_do_not_fit_their_bank(tmp_path):
    """A forged file of rows, its digest right: more rank, half a pair, a table that is not there."""
    from safetensors.numpy import load, save

    members = family(kinds=("linear",))
    deltas = bank_deltas(members.case.spec, np.random.default_rng(0), LORA, (QKV,))
    out = export_family(tmp_path, tuned(members, linear=deltas))
    manifest = json.loads((out / "manifest.json").read_text())
    shape = BankShape.of_manifest(manifest, members.case.spec)
    path = out / manifest["adapters"][0]["file"]
    whole = load(path.read_bytes())
    a, b = "linears.blocks.1.attn.q.a", "linears.blocks.1.attn.q.b"
    assert parse_rows(save(whole), path, shape).linears.keys() == {
        k.removeprefix("linears.") for k in whole if k.startswith("linears.")
    }
    for forged in (
        {**whole, a: np.tile(whole[a], 2), b: np.tile(whole[b].T, 2).T.copy()},
        {k: v for k, v in whole.items() if k != b},
        {k: v for k, v in whole.items() if k != a},
        {**whole, "linears.blocks.9.attn.q.a": whole[a]},
        {**whole, a: whole[a].astype(np.int32)},
        {**whole, a: whole[a][0]},
    ):
        with pytest.raises(BundleError, match="the bank has room for"):
            parse_rows(save(forged), path, shape)


@pytest.mark.parametrize("name", ["bank.blocks.7.attn.q.a", "bank.blocks.0.attn.qkv.a", "bank.x.a"])
def test_a_manifest_with_tables_of_no_linear(tmp_path, name):
    members = family(kinds=("linear",))
    manifest = json.loads((export_family(tmp_path, members) / "manifest.json").read_text())
    manifest["inputs"].append({"name": name, "dtype": "float32", "shape": ["adapters", 32, 2]})
    with pytest.raises(BundleError, match="not those of a bank"):
        BankShape.of_manifest(manifest, members.case.spec)


@pytest.mark.slow
def test_a_family_without_layer_scale(tmp_path):
    members = family(Setup(layer_scale=False, norm_pre=False), ("bilinear", "linear"))
    some = tuned(members, bilinear=bank_deltas(members.case.spec, np.random.default_rng(0)))
    assert worst_difference(export_family(tmp_path, some), some) <= PARITY_FP32
