"""A bank says what each adapter's reference says, and broken banks are found out."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.integration import coverage
from tests.support.bank_cases import KINDS, family
from tests.support.exported_banks import assert_bank_refused, export_family, worst_difference
from tests.support.strategies import Setup, setups
from tests.support.tolerances import CLEARLY, PARITY_FP32, largest_difference
from vptkit.errors import AdapterError, BundleError, TargetError, VptkitError
from vptkit.export.bank import export_bank as bank_pipeline
from vptkit.export.bank import lookup_graph
from vptkit.export.bank.edit_bank import add, remove
from vptkit.export.bank.edit_bank import replace as replace_adapter
from vptkit.export.bank.export_bank import BankOptions, export_bank
from vptkit.export.bundle.baselines import export_baselines
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.precision.lowering import Lowering
from vptkit.formats.adapter import write_adapter
from vptkit.formats.bundle import open_bundle
from vptkit.runtime import open_session

# parity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["absorbed", "query", "full"])
@pytest.mark.parametrize("feed", ["uint8", "float32"])
@pytest.mark.parametrize("batch", [None, 2])
def test_each_image_of_a_mixed_batch_answers_as_the_reference(tmp_path, last, feed, batch):
    members = family()
    options = ExportOptions(last_block=last, input=feed, batch=batch)
    assert worst_difference(export_family(tmp_path, members, options), members) <= PARITY_FP32


def test_each_image_of_a_mixed_batch_answers_as_its_own_baked_bundle(tmp_path):
    members = family()
    bank = open_session(export_family(tmp_path, members), threads=1)
    images, names = members.case.images, list(members.adapters)
    mixed = bank.run(np.repeat(images[:1], len(names), axis=0), names)
    for row, name in zip(mixed, names, strict=True):
        out = tmp_path / f"{name}.vptk"
        export(tmp_path / f"{name}.safetensors", out, weights=tmp_path / "weights.safetensors")
        alone = open_session(out, threads=1).run(images[:1])[0]
        assert largest_difference(row[: len(alone)], alone) <= PARITY_FP32


@pytest.mark.parametrize("layer_norms", ["auto", "yes"])
@pytest.mark.parametrize("kinds", [("bilinear",), ("linear",), ("whitened", "linear")])
def test_few_adapters_with_and_without_norms(tmp_path, kinds, layer_norms):
    members = family(kinds=kinds)
    out = export_family(tmp_path, members, layer_norms=layer_norms, prompts=9, classes=7)
    assert worst_difference(out, members) <= PARITY_FP32
    inputs = {i.name for i in onnx.load(out / "model.onnx").graph.input}
    assert ("bank.norm_weight" in inputs) == (layer_norms == "yes")


@pytest.mark.parametrize("norm", ["before_pool", "after_pool"])
@pytest.mark.parametrize("layer_norms", ["auto", "yes"])
def test_heads_of_class_token_and_mean(tmp_path, norm, layer_norms):
    members = family(Setup(pool="token+avg", norm=norm), ("bilinear", "norms", "linear"))
    out = export_family(tmp_path, members, layer_norms=layer_norms)
    assert worst_difference(out, members) <= PARITY_FP32
    manifest = json.loads((out / "manifest.json").read_text())
    shapes = {i["name"]: i["shape"] for i in manifest["inputs"]}
    assert shapes["bank.head_weight"] == ["adapters", 64, 5]
    (bare,) = export_baselines(out, tmp_path).values()  # a probe with room for every adapter
    heads = [t for t in onnx.load(bare / "model.onnx").graph.initializer if list(t.dims) == [64, 5]]
    assert len(heads) == 1
    add(out, tmp_path / "linear.safetensors", name="again")
    images = members.case.images
    answers = open_session(out, threads=1).run(images, ["again"] * len(images))
    assert largest_difference(answers[:, :3], members.reference("linear")) <= PARITY_FP32


def test_backbones_of_all_kinds(tmp_path):
    @seed(0)
    @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(setups(insert="deep"))
    def holds(setup):
        if setup.pool == "avg_prompts":
            setup = replace(setup, pool="avg")
        members = family(setup)
        assert worst_difference(export_family(tmp_path, members), members) <= PARITY_FP32

    holds()


# broken twins -------------------------------------------------------------------------------------


def forget_the_mask(patch):
    patch.setattr(lookup_graph._BankWriter, "masked", lambda self, scores, *_: scores)


def shift_the_rows(patch):
    real = lookup_graph._BankWriter.row
    depth = Setup().depth

    def row(self, table, i=0):
        return real(self, table, (i + 1) % depth if table == "bank.prompts" else i)

    patch.setattr(lookup_graph._BankWriter, "row", row)


def swap_the_norms(patch):
    real = lookup_graph.norm_slots
    patch.setattr(lookup_graph, "norm_slots", lambda spec: real(spec)[::-1])


def leave_rows_as_they_are(patch):
    from vptkit.export.fold import prefix_keys_values

    patch.setattr(prefix_keys_values, "normalized", lambda rows, eps, kind: rows)


def fold_the_norms_twice(patch):
    patch.setattr(bank_pipeline.np, "ones_like", lambda value: value)


@pytest.mark.parametrize(
    "broken",
    [
        forget_the_mask,
        shift_the_rows,
        swap_the_norms,
        leave_rows_as_they_are,
        fold_the_norms_twice,
    ],
)
def test_a_broken_bank_is_found_out(tmp_path, monkeypatch, broken):
    members = family()
    with monkeypatch.context() as patch:
        broken(patch)
        out = export_family(tmp_path, members)
    assert worst_difference(out, members) > CLEARLY * PARITY_FP32


# what is written, and what is refused --------------------------------------------------------------


def test_the_bundle(tmp_path):
    members = family()
    out = export_family(tmp_path, members)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["layout"] == "bank"
    assert [entry["name"] for entry in manifest["adapters"]] == list(KINDS)
    files = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    entries = {entry["file"] for entry in manifest["adapters"]}
    assert files == {"manifest.json", "model.onnx", "norms.safetensors"} | entries
    shapes = {i["name"]: i["shape"] for i in manifest["inputs"]}
    assert shapes["adapter"] == ["dynamic"]
    assert shapes["bank.prompts"] == ["adapters_blocks", 6, 32]
    model = onnx.load(out / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert not [t.name for t in model.graph.initializer if t.name.startswith("bank.")]
    before = {name: (out / name).read_bytes() for name in files}
    again = export_family(tmp_path, members)
    assert before == {name: (again / name).read_bytes() for name in files}


def test_too_little_room_is_refused(tmp_path):
    members = family(kinds=("bilinear", "both"))
    same = lambda a: a  # noqa: E731
    assert_bank_refused(
        tmp_path, members, same, VptkitError, "--bank-prompts 2 is less than the 3", prompts=2
    )
    assert_bank_refused(tmp_path, members, same, VptkitError, "--bank-classes 1 is less", classes=1)
    assert_bank_refused(
        tmp_path, members, same, AdapterError, "it tunes LayerNorms", layer_norms="no"
    )


def test_what_a_bank_does_not_do_is_refused(tmp_path):
    members = family(kinds=("linear",))
    with pytest.raises(VptkitError, match="--fold none does not go"):
        export_family(tmp_path, members, ExportOptions(fold="none"))
    avg = Setup(pool="avg_prompts")
    with pytest.raises(AdapterError, match="pool 'avg_prompts' reads the prompts' own"):
        export_family(tmp_path, family(avg, ("bilinear",)))
    post = replace(members.case.spec, block="post")
    with pytest.raises(TargetError, match="cannot look up LayerNorms"):
        bank_pipeline._bank(
            list(members.adapters.values()), post, {}, BankOptions(layer_norms="yes")
        )


# other backbones ----------------------------------------------------------------------------------


OTHERS = [
    "beit_base_patch16_224",
    "vit_relpos_small_patch16_224",
    "vit_relpos_base_patch16_rpn_224",
    "eva02_base_patch16_clip_224",
    "eva02_enormous_patch14_clip_224",
    "vit_small_patch16_dinov3",
    "vit_base_patch16_rope_mixed_224",
    "vit_base_patch16_sapiens2",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_xp_224",
    "vit_base_patch16_18x2_224",
    "aimv2_large_patch14_224",
]
PRE_NORM = ["beit_base_patch16_224", "eva02_base_patch16_clip_224", "aimv2_large_patch14_224"]


@pytest.mark.parametrize(
    ("name", "tuned"), [*((n, False) for n in OTHERS), *((n, True) for n in PRE_NORM)]
)
def test_a_bank_of_another_architecture(tmp_path, name, tuned):
    model, spec, weights, adapter = coverage.written_model(tmp_path, name)
    one = {k: v[:1] if k.startswith("prompt") else v for k, v in adapter.tensors.items()}
    none = {k: v for k, v in adapter.tensors.items() if k.startswith("head")}
    if tuned:
        for i in range(spec.depth):
            norm = f"blocks.{i}.norm{i + 1}.weight"
            one[f"ln.{norm}"] = weights[norm] + np.float32(0.5)
    adapters = {
        "three": replace(adapter, name="three"),
        "one": replace(adapter, name="one", prompt_length=1, tensors=one),
        "none": replace(adapter, name="none", insert="none", prompt_length=0, tensors=none),
    }
    for key, value in adapters.items():
        write_adapter(tmp_path / f"{key}.safetensors", value)
    out = tmp_path / "bank.vptk"
    paths = [tmp_path / f"{key}.safetensors" for key in adapters]
    export_bank(paths, out, weights=tmp_path / "weights.safetensors")
    images = coverage.images_of(spec)
    asked = [key for key in adapters for _ in images]
    logits = open_session(out, threads=1).run(np.tile(images, (3, 1, 1, 1)), asked)
    expected = [coverage.logits(copy.deepcopy(model), spec, value) for value in adapters.values()]
    for found, right in zip(np.split(logits, 3), expected, strict=True):
        assert largest_difference(found, right) < PARITY_FP32
    assert largest_difference(expected[0], expected[1]) > CLEARLY * PARITY_FP32


@pytest.mark.parametrize("precision", ["int8", "fp8", "bf16"])
def test_precisions_that_a_bank_does_not_have(tmp_path, precision):
    lowering = Lowering(precision=precision)
    with pytest.raises(TargetError, match=f"a bank cannot be written in {precision}"):
        export_family(tmp_path, family(), ExportOptions(lowering=lowering))
    assert not (tmp_path / "bank.vptk").exists()


# several labels an image --------------------------------------------------------------------------


def with_thresholds(members):
    """The same adapters, each for several labels an image, with thresholds of its own."""
    adapters = {}
    for i, (name, adapter) in enumerate(members.adapters.items()):
        thresholds = np.full(len(adapter.labels), 0.2 + 0.1 * i, np.float32)
        tensors = {**adapter.tensors, "head.thresholds": thresholds}
        adapters[name] = replace(adapter, task="multilabel", tensors=tensors)
    return replace(members, adapters=adapters)


@pytest.mark.slow
def test_a_mixed_batch_of_several_labels_answers_as_each_baked_bundle(tmp_path):
    members = with_thresholds(family(kinds=("bilinear", "norms")))
    bank = open_session(export_family(tmp_path, members), threads=1)
    images, names = members.case.images, list(members.adapters)
    mixed = bank.answers(np.repeat(images[:1], len(names), axis=0), names)
    assert list(mixed) == ["logits", "scores"]
    for i, name in enumerate(names):
        out = tmp_path / f"{name}.vptk"
        export(tmp_path / f"{name}.safetensors", out, weights=tmp_path / "weights.safetensors")
        alone = open_session(out, threads=1)
        own = alone.answers(images[:1])
        count = len(alone.labels)
        assert largest_difference(mixed["logits"][i][:count], own["logits"][0]) <= PARITY_FP32
        assert np.abs(mixed["scores"][i][:count] - own["scores"][0]).max() <= 1e-6
        assert (mixed["scores"][i][count:] == 0).all()  # a padded logit is 0, and its score 0.5
        assert bank.scores(images, name).shape == (len(images), count)
        (said,), (expected,) = bank.predict(images[:1], adapter=name), alone.predict(images[:1])
        assert [label for label, _ in said.labels] == [label for label, _ in expected.labels]
        thresholds = bank.bundle.thresholds_of(name)
        assert np.array_equal(thresholds, alone.bundle.thresholds_of(None))


@pytest.mark.slow
def test_a_bank_holds_adapters_of_one_task(tmp_path):
    members = family(kinds=("bilinear", "linear"))
    several = with_thresholds(members).adapters["linear"]
    assert_bank_refused(
        tmp_path,
        members,
        lambda _: several,
        AdapterError,
        r"'linear': its task is 'multilabel', that of the bank 'single'",
    )
    bank = export_family(tmp_path, members)
    write_adapter(tmp_path / "several.safetensors", replace(several, name="several"))
    with pytest.raises(AdapterError, match="its task is 'multilabel', that of the bank 'single'"):
        add(bank, tmp_path / "several.safetensors")
    (tmp_path / "other").mkdir()
    other = export_family(tmp_path / "other", with_thresholds(members))
    with pytest.raises(AdapterError, match="its task is 'single', that of the bank 'multilabel'"):
        add(other, tmp_path / "linear.safetensors", name="again")
    assert add(other, tmp_path / "several.safetensors") == "several"
    for path in export_baselines(other, tmp_path / "other").values():
        assert open_session(path, threads=1).scores(members.case.images).shape[1] == 5


# tables as constants ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_constant_tables_answer_as_tables_that_are_fed(tmp_path, precision):
    members, lowering = family(), Lowering(precision=precision)
    options = ExportOptions(lowering=lowering)
    fed = open_session(export_family(tmp_path, members, options), threads=1)
    names = [name for name in members.adapters for _ in members.case.images]
    images = np.tile(members.case.images, (len(members.adapters), 1, 1, 1))
    expected = fed.run(images, names)
    out = export_family(tmp_path, members, options, tables="constant")
    model = onnx.load(out / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["images", "adapter"]
    with open_session(out, threads=1) as session:
        assert session.bundle.constant_tables
        assert session.adapters == tuple(members.adapters)
        np.testing.assert_allclose(session.run(images, names), expected, rtol=1e-5, atol=1e-5)
        assert session.run(images[:1], "linear").shape == (1, 3)


@pytest.mark.slow
def test_constant_tables_are_not_edited_in_place(tmp_path):
    members = family(kinds=("both", "linear"))
    out = export_family(tmp_path, members, tables="constant")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    linear = tmp_path / "linear.safetensors"
    edits = (
        lambda: add(out, linear, name="x"),
        lambda: replace_adapter(out, linear),
        lambda: remove(out, "linear"),
    )
    for edit in edits:
        with pytest.raises(BundleError, match=r"constants of the graph.*--tables constant --force"):
            edit()
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_session_does_not_follow_a_bank_of_constants_exported_again(tmp_path):
    members = family(kinds=("both", "linear"))
    out = export_family(tmp_path, members, tables="constant")
    with open_session(out, threads=1) as session:
        session.run(members.case.images, "linear")
        paths = [tmp_path / f"{name}.safetensors" for name in ("linear", "both")]
        weights, room = tmp_path / "weights.safetensors", BankOptions(tables="constant")
        export_bank(paths, out, weights=weights, bank=room, force=True)
        with pytest.raises(BundleError, match="exported again"):
            session.run(members.case.images, "linear")


@pytest.mark.slow
def test_a_manifest_that_says_constant_of_something_else(tmp_path):
    out = export_family(tmp_path, family(kinds=("both",)))
    document = json.loads((out / "manifest.json").read_text())
    for i in (1, 2):
        forged = copy.deepcopy(document)
        forged["inputs"][i]["constant"] = True
        (out / "manifest.json").write_text(json.dumps(forged))
        with pytest.raises(BundleError, match="constant is for the tables of a bank"):
            open_bundle(out)
