"""The adapter file: what is written is read, equal is equal, and everything else is refused."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.random_deltas import random_deltas
from tests.support.strategies import CLASSES, Setup, build, random_adapter, specs
from vptkit.backbones.merge_schedule import TokenMerging
from vptkit.errors import AdapterError, BackboneError, OutputError
from vptkit.formats.adapter import (
    FORMAT,
    FORMAT_WITH_DELTAS,
    FORMAT_WITH_MERGING,
    FORMAT_WITH_TASK,
    THRESHOLDS,
    Adapter,
    BackboneRef,
    read_adapter,
    require_backbone,
    write_adapter,
)
from vptkit.formats.backbone_weights import norm_shapes
from vptkit.formats.manifest_schema import MULTILABEL, SINGLE
from vptkit.formats.summary import summarize
from vptkit.formats.tensor_file import read_metadata, read_tensors, write_tensors
from vptkit.strict_json import canonical_json

if TYPE_CHECKING:
    from pathlib import Path


exact = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@st.composite
def adapters(draw: st.DrawFn) -> Adapter:
    spec = draw(specs())
    setup = Setup(
        insert=draw(st.sampled_from(["deep", "shallow", "none"])),
        prompts=draw(st.integers(1, 4)),
        rank=draw(st.sampled_from([None, 1, 3])),
        pool=draw(
            st.sampled_from(
                ["token", "avg", "token+avg", "avg_prompts"] if spec.class_token else ["avg"]
            )
        ),
        norm=draw(st.sampled_from(["before_pool", "after_pool"])),
        tuned_norms=draw(st.booleans()),
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float64, np.float32, np.float16]))
    adapter = random_adapter(spec, setup, rng, sha256=draw(st.sampled_from([None, "0" * 64])))
    deltas = random_deltas(spec, rng) if draw(st.booleans()) else {}
    tensors = {k: v.astype(dtype) for k, v in {**adapter.tensors, **deltas}.items()}
    if draw(st.booleans()):
        shape = (2, *adapter.preprocess.size, 3)
        tensors["golden.images"] = rng.integers(0, 256, shape).astype(np.uint8)
        tensors["golden.logits"] = rng.standard_normal((2, CLASSES)).astype(np.float32)
    train = {"seed": 3, "metrics": {"val_top1": 0.5}, "note": draw(st.text(max_size=8))}
    if draw(st.booleans()):
        adapter = replace(adapter, backbone=replace(adapter.backbone, spec=None))
    return replace(
        adapter, name=draw(st.text(min_size=1, max_size=6)), train=train, tensors=tensors
    )


def equal(a: Adapter, b: Adapter) -> bool:
    same = a.tensors.keys() == b.tensors.keys() and all(
        v.dtype == b.tensors[k].dtype and np.array_equal(v, b.tensors[k])
        for k, v in a.tensors.items()
    )
    return same and a.to_json() == b.to_json() and a.backbone == b.backbone


@pytest.fixture
def adapter(tiny_adapter) -> Adapter:
    """Deep, two bilinear prompts a block, width 8, three classes."""
    return read_adapter(tiny_adapter)


def edited(path: Path, **header: Any) -> Path:
    """The same file with other fields in its header; ... removes one."""
    document = json.loads(read_metadata(path, AdapterError)["vptkit"]) | header
    document = {k: v for k, v in document.items() if v is not ...}
    return rewritten(path, document)


def rewritten(path: Path, document: Any, tensors: dict[str, Any] | None = None) -> Path:
    kept = read_tensors(path, AdapterError) if tensors is None else tensors
    write_tensors(path, kept, ("vptkit", json.dumps(document)))
    return path


def with_tensors(path: Path, **tensors: Any) -> Path:
    """The same file with other tensors (underscores for dots); ... removes one."""
    named = {k.replace("__", "."): v for k, v in tensors.items()}
    kept = read_tensors(path, AdapterError) | named
    document = json.loads(read_metadata(path, AdapterError)["vptkit"])
    return rewritten(path, document, {k: v for k, v in kept.items() if v is not ...})


# round trip ---------------------------------------------------------------------------------------


@settings(exact, max_examples=40)
@given(adapters())
def test_what_is_written_is_read(tmp_path_factory, adapter):
    path = tmp_path_factory.mktemp("adapter") / "a.safetensors"
    write_adapter(path, adapter)
    found = read_adapter(path)
    assert equal(found, adapter)
    again = path.with_name("b.safetensors")
    write_adapter(again, found)
    assert again.read_bytes() == path.read_bytes()


def test_equal_adapters_are_equal_bytes(tmp_path, adapter):
    """Whatever the order of tensors and fields, and the layout in memory."""
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    write_adapter(paths[0], replace(adapter, train={"a": 1, "b": {"c": 2, "d": 3}}))
    turned = {k: np.asfortranarray(v) for k, v in reversed(adapter.tensors.items())}
    train = {"b": {"d": 3, "c": 2}, "a": 1}
    write_adapter(paths[1], replace(adapter, tensors=turned, train=train))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_different_adapters_are_different_bytes(tmp_path, adapter):
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    write_adapter(paths[0], adapter)
    write_adapter(paths[1], replace(adapter, labels=("red", "blue", "green")))
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_the_header_is_canonical_json_under_one_key(tiny_adapter, adapter):
    metadata = read_metadata(tiny_adapter, AdapterError)
    assert set(metadata) == {"vptkit"}
    assert metadata["vptkit"] == canonical_json(adapter.to_json())
    assert json.loads(metadata["vptkit"])["format"] == FORMAT == "vptkit.adapter/1"


def test_prompts_are_the_product_of_their_factors(adapter):
    a, b = adapter.tensors["prompt.1.a"], adapter.tensors["prompt.1.b"]
    found = adapter.prompts(1)
    assert found.dtype == np.float64
    assert found.shape == (2, 8)
    assert np.array_equal(found, a.astype(np.float64) @ b.astype(np.float64).T)


def test_layer_norms_and_golden_answers(tmp_path, adapter):
    images = np.zeros((1, 24, 16, 3), dtype=np.uint8)
    logits = np.ones((1, 3), dtype=np.float32)
    tensors = adapter.tensors | {
        "ln.blocks.1.norm1.weight": np.arange(8.0),
        "golden.images": images,
        "golden.logits": logits,
    }
    write_adapter(tmp_path / "a.safetensors", replace(adapter, tensors=tensors))
    found = read_adapter(tmp_path / "a.safetensors")
    assert list(found.layer_norms()) == ["blocks.1.norm1.weight"]
    assert np.array_equal(found.golden()[0], images)
    assert np.array_equal(found.golden()[1], logits)
    assert adapter.golden() is None


# not an adapter file ------------------------------------------------------------------------------


def test_no_such_file(tmp_path):
    with pytest.raises(AdapterError, match=r"nothing\.safetensors: no such file"):
        read_adapter(tmp_path / "nothing.safetensors")


def test_a_folder(tmp_path):
    with pytest.raises(AdapterError, match="an empty folder, not an adapter file"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\0" * 8, b"\xff" * 64, b"not a tensor file\n" * 30],
)
def test_another_kind_of_file(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(AdapterError, match=r"a\.safetensors: not a readable safetensors file"):
        read_adapter(path)


def test_a_truncated_file_at_every_offset(tmp_path, tiny_adapter):
    whole, path = tiny_adapter.read_bytes(), tmp_path / "cut.safetensors"
    offsets = {*range(64), *range(64, len(whole), 37), len(whole) - 1}
    for offset in sorted(offsets):
        path.write_bytes(whole[:offset])
        with pytest.raises(AdapterError, match="truncated or damaged"):
            read_adapter(path)


def test_bytes_behind_the_end(tiny_adapter):
    tiny_adapter.write_bytes(tiny_adapter.read_bytes() + b"\0")
    with pytest.raises(AdapterError, match="truncated or damaged"):
        read_adapter(tiny_adapter)


def test_every_flipped_bit_of_the_header_is_refused_or_reads_as_another_adapter(
    tmp_path, tiny_adapter
):
    """No traceback of another kind, whatever the damage."""
    whole, path = tiny_adapter.read_bytes(), tmp_path / "flipped.safetensors"
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    for offset in range(0, end, 3):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << (offset % 8)
        path.write_bytes(damaged)
        with contextlib.suppress(AdapterError):
            assert isinstance(read_adapter(path), Adapter)


def test_no_metadata(tiny_adapter):
    write_tensors(tiny_adapter, read_tensors(tiny_adapter, AdapterError))
    with pytest.raises(AdapterError, match="without an adapter's metadata, not an adapter file"):
        read_adapter(tiny_adapter)


@pytest.mark.parametrize("text", ["", "{", "[1, 2", '{"format": }', "nul"])
def test_metadata_that_is_not_json(tiny_adapter, text):
    tensors = read_tensors(tiny_adapter, AdapterError)
    write_tensors(tiny_adapter, tensors, ("vptkit", text))
    with pytest.raises(AdapterError, match="malformed metadata"):
        read_adapter(tiny_adapter)


@pytest.mark.parametrize("document", [None, 3, [], "vptkit.adapter/1", {}])
def test_metadata_that_is_not_an_object(tiny_adapter, document):
    with pytest.raises(AdapterError, match="format"):
        read_adapter(rewritten(tiny_adapter, document))


# the header ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", ["vptkit.adapter/5", "vptkit.bundle/1", None, 1])
def test_an_unknown_format(tiny_adapter, found):
    with pytest.raises(AdapterError, match=f"format is {found!r}, this vptkit reads"):
        read_adapter(edited(tiny_adapter, format=found))


@pytest.mark.parametrize(
    "name",
    ["name", "backbone", "method", "insert", "prompt_length", "pool", "norm", "labels", "train"],
)
def test_a_missing_field(tiny_adapter, name):
    with pytest.raises(AdapterError, match=rf"misses \['{name}'\]"):
        read_adapter(edited(tiny_adapter, **{name: ...}))


def test_an_unknown_field(tiny_adapter):
    with pytest.raises(AdapterError, match=r"unknown \['colour'\]"):
        read_adapter(edited(tiny_adapter, colour="red"))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"insert": "middle"}, "insert is 'middle', expected deep, shallow or none"),
        ({"insert": ["deep"]}, r"insert is \['deep'\]"),
        ({"insert": "none"}, "insert 'none' does not go with prompt_length 2"),
        ({"prompt_length": 0}, "insert 'deep' does not go with prompt_length 0"),
        ({"prompt_length": -2}, "does not go with prompt_length -2"),
        ({"prompt_length": "many"}, "many"),
        ({"prompt_length": 3}, r"prompt\.0\.a has the shape \(2, 4\), expected \(3, 4\)"),
        ({"insert": "shallow"}, r"prompt\.1\.a is not known"),
        ({"pool": "max"}, "pool is 'max', expected one of token, avg"),
        ({"norm": None}, "norm is None, expected before_pool or after_pool"),
        ({"labels": ["red"]}, r"at least two different names, found \('red',\)"),
        ({"labels": ["red", "blue", "red"]}, "at least two different names"),
        ({"labels": []}, "at least two different names"),
        ({"labels": 7}, "malformed metadata"),
        ({"labels": ["a", "b", "c", "d"]}, r"head\.bias has the shape \(3,\), expected \(4,\)"),
        ({"preprocess": None}, "preprocess: expected the keys"),
        ({"preprocess": {"mean": 1}}, "preprocess: expected the keys"),
        ({"train": None}, "malformed metadata"),
        ({"backbone": "vit"}, "expected name, args, spec and sha256, found 'vit'"),
        ({"backbone": {"name": "vit"}}, "expected name, args, spec and sha256"),
    ],
)
def test_a_field_out_of_range(tiny_adapter, header, message):
    with pytest.raises(AdapterError, match=message):
        read_adapter(edited(tiny_adapter, **header))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("input_size", [1, 24, 16], r"input_size is \(1, 24, 16\), expected \(3, H, W\)"),
        ("input_size", [3, 24], "input_size"),
        ("mean", [0.5], r"mean \(0\.5,\)"),
        ("std", [0.2, 0.0, 0.2], r"std .*\(0\.2, 0\.0, 0\.2\)"),
        ("interpolation", "magic", "interpolation 'magic', expected nearest"),
        ("crop_pct", 0, r"crop_pct is 0\.0"),
        ("crop_pct", "wide", "wide"),
    ],
)
def test_preprocessing_out_of_range(tiny_adapter, adapter, field, value, message):
    document = adapter.preprocess.to_json() | {field: value}
    with pytest.raises(AdapterError, match=message):
        read_adapter(edited(tiny_adapter, preprocess=document))


def test_preprocessing_for_images_of_another_size(tiny_adapter, adapter):
    """The graph has one image size: pixels of another could not enter it."""
    document = adapter.preprocess.to_json() | {"input_size": [3, 32, 16]}
    with pytest.raises(AdapterError, match=r"\(32, 16\).*\(24, 16\)"):
        read_adapter(edited(tiny_adapter, preprocess=document))


def test_pooling_a_class_token_that_is_not_there(tiny_adapter, adapter):
    backbone = adapter.backbone.to_json()
    spec = backbone["spec"] | {"class_token": False, "pool": "avg"}
    with pytest.raises(AdapterError, match="class token"):
        read_adapter(edited(tiny_adapter, backbone=backbone | {"spec": spec}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 99) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def leaves(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values of a document, inner ones too."""
    found = [path] if path else []
    if isinstance(document, dict):
        for key, value in document.items():
            found += leaves(value, (*path, key))
    return found


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    document = copy.deepcopy(document)
    place = document
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


@settings(exact, max_examples=250)
@given(st.data())
def test_any_value_anywhere_in_the_header(tmp_path_factory, tiny_spec, data):
    """Any field, at any depth, with any value or none: an AdapterError, or a usable adapter."""
    adapter = random_adapter(tiny_spec, Setup(), np.random.default_rng(0))
    document = adapter.to_json()
    path = data.draw(st.sampled_from(leaves(document)))
    value = data.draw(JSON | st.just(...))
    file = tmp_path_factory.mktemp("header") / "a.safetensors"
    tensors = {k: np.ascontiguousarray(v) for k, v in adapter.tensors.items()}
    write_tensors(file, tensors, ("vptkit", json.dumps(changed(document, path, value))))
    with contextlib.suppress(AdapterError):
        found = read_adapter(file)
        # what was accepted can be written again and stays what it is
        write_adapter(file, found)
        assert equal(read_adapter(file), found)


def test_a_missing_field_anywhere_in_the_header(tiny_adapter, adapter):
    document = adapter.to_json()
    free = ("train", "args")
    for path in leaves(document):
        if (path[-1] in free and len(path) > 1) or (path[0] == "train" and len(path) > 1):
            continue
        if len(path) > 1 and path[1] == "args" and len(path) > 2:
            continue
        with pytest.raises(AdapterError, match=str(path[-1])):
            read_adapter(rewritten(tiny_adapter, changed(document, path, ...)))


# the tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["head.weight", "head.bias", "prompt.0.a", "prompt.1.b"])
def test_a_number_that_is_none(tiny_adapter, adapter, name, value):
    broken = np.array(adapter.tensors[name])
    broken.ravel()[-1] = value
    path = with_tensors(tiny_adapter, **{name: broken})
    with pytest.raises(AdapterError, match=f"{name} holds NaN or Inf"):
        read_adapter(path)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("head.weight", (2, 8), r"head\.weight has the shape \(2, 8\), expected \(3, 8\)"),
        ("head.weight", (24,), r"head\.weight \[C, d\] is missing or not a matrix"),
        ("head.weight", (3, 7), "head.weight is 7 wide, the backbone paper_vit 8"),
        ("head.bias", (3, 1), r"head\.bias has the shape \(3, 1\), expected \(3,\)"),
        ("prompt.0.a", (2, 5), r"prompt\.0\.b has the shape \(8, 4\), expected \(8, 5\)"),
        ("prompt.0.a", (4,), r"prompt\.0\.a has the shape \(4,\)"),
        ("prompt.1.b", (7, 4), r"prompt\.1\.b has the shape \(7, 4\), expected \(8, 4\)"),
        ("prompt.2.a", (2, 4), r"prompt\.2\.a is not known"),
        ("prompt.0", (2, 8), r"prompt\.0 is not known"),
        ("prompt.x", (2, 8), r"prompt\.x is not known"),
        ("ln.norm.weight", (7,), r"ln\.norm\.weight has the shape \(7,\), expected \(8,\)"),
        ("ln.norm.scale", (8,), r"ln\.norm\.scale is not known"),
        ("ln.blocks.2.norm1.weight", (8,), r"ln\.blocks\.2\.norm1\.weight is not known"),
        ("ln.blocks.0.mlp.fc2.bias", (8,), r"ln\.blocks\.0\.mlp\.fc2\.bias is not known"),
        ("golden.logits", (1, 3), r"golden\.images is missing"),
        ("golden.answer", (1, 3), r"golden\.answer is not known"),
        ("extra", (1,), "extra is not known"),
    ],
)
def test_a_tensor_of_another_shape_or_name(tiny_adapter, name, shape, message):
    path = with_tensors(tiny_adapter, **{name: np.zeros(shape, dtype=np.float32)})
    with pytest.raises(AdapterError, match=message):
        read_adapter(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("head.weight", r"head\.weight \[C, d\] is missing"),
        ("head.bias", r"head\.bias is missing"),
        ("prompt.0.a", r"prompt\.0\.a is missing"),
        ("prompt.1.b", r"prompt\.1\.b is missing"),
    ],
)
def test_a_missing_tensor(tiny_adapter, name, message):
    with pytest.raises(AdapterError, match=message):
        read_adapter(with_tensors(tiny_adapter, **{name: ...}))


def test_all_prompts_of_a_block_missing(tiny_adapter):
    path = with_tensors(tiny_adapter, **{"prompt.1.a": ..., "prompt.1.b": ...})
    with pytest.raises(AdapterError, match=r"prompt\.1 is missing"):
        read_adapter(path)


def test_golden_images_of_another_size(tiny_adapter):
    path = with_tensors(
        tiny_adapter,
        golden__images=np.zeros((2, 16, 16, 3), dtype=np.uint8),
        golden__logits=np.zeros((2, 3), dtype=np.float32),
    )
    with pytest.raises(AdapterError, match=r"golden\.images has the shape \(2, 16, 16, 3\)"):
        read_adapter(path)


def test_a_type_that_is_not_known(tmp_path, tiny_adapter):
    """A dtype of safetensors that numpy or we do not have."""
    whole = tiny_adapter.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    header["head.bias"]["dtype"] = "F8_E4M3"
    header["head.bias"]["shape"] = [12]  # of one byte
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    tiny_adapter.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])
    with pytest.raises(AdapterError, match=r"head\.bias has the type F8_E4M3, expected one of"):
        read_adapter(tiny_adapter)


without_spec = pytest.mark.parametrize("spec", [True, False], ids=["spec", "no spec"])


@without_spec
@pytest.mark.parametrize(
    "name",
    [
        *("blocks.2.norm1.weight", "blocks.999.norm1.weight", "blocks.9999999999.norm1.weight"),
        *("blocks.-1.norm1.weight", "blocks.01.norm1.weight", "blocks.0.norm1.running_mean"),
        *("blocks.0.norm3.weight", "blocks.x.norm1.bias", "abnormal", "norm", "norm.weight.bias"),
        *("layers.0.norm.weight", "head.norm.weight", "norm.num_batches", ""),
    ],
)
def test_a_norm_that_does_not_exist(tiny_adapter, adapter, name, spec):
    path = with_tensors(tiny_adapter, **{f"ln.{name}": np.ones(8, np.float32)})
    document = adapter.to_json()
    if not spec:
        document["backbone"]["spec"] = None
    with pytest.raises(AdapterError, match=re.escape(f"ln.{name} is not known")):
        read_adapter(rewritten(path, document))


def test_the_norms_of_every_backbone_are_known_without_its_spec(tiny_adapter, adapter):
    """Whatever `norm_shapes` names, for a spec of any kind."""
    document = adapter.to_json()
    document["backbone"]["spec"] = None
    for changes in (
        {},
        {"norm_pre": True, "patch_norm": True, "final_norm": "fc_norm", "norm": "rms"},
        {"block": "parallel", "qk_norm": True, "attention_norm": False},
        {"block": "branches", "branches": 2, "qk_norm": True, "mlp_norm": True},
        {"qk_norm": True, "attention_norm": True, "mlp_norm": True, "block": "post"},
    ):
        shapes = norm_shapes(replace(adapter.backbone.spec, **changes))
        norms = {f"ln.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
        write_tensors(tiny_adapter, adapter.tensors | norms, ("vptkit", json.dumps(document)))
        assert len(read_adapter(tiny_adapter).layer_norms()) == len(shapes)


@without_spec
@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "int8", "bool"])
@pytest.mark.parametrize("name", ["head.weight", "head.bias", "prompt.1.b", "ln.norm.weight"])
def test_a_tensor_of_another_type(tiny_adapter, adapter, name, kind, spec):
    document = adapter.to_json()
    if not spec:
        document["backbone"]["spec"] = None
    shape = adapter.tensors[name].shape if name in adapter.tensors else (8,)
    path = with_tensors(tiny_adapter, **{name: np.ones(shape, kind)})
    with pytest.raises(AdapterError, match=rf"{name} is of {kind}, expected float16 or float32"):
        read_adapter(rewritten(path, document))
    with pytest.raises(AdapterError, match=f"{name} is of {kind}"):
        write_adapter(
            path, replace(adapter, tensors={**adapter.tensors, name: np.ones(shape, kind)})
        )


@pytest.mark.parametrize(
    ("images", "logits", "message"),
    [
        (np.float32, np.float32, "golden.images is of float32, expected uint8"),
        (np.int64, np.float32, "golden.images is of int64, expected uint8"),
        (np.uint8, np.float64, "golden.logits is of float64, expected float32"),
        (np.uint8, np.int32, "golden.logits is of int32, expected float32"),
    ],
)
def test_golden_answers_of_another_type(tiny_adapter, images, logits, message):
    path = with_tensors(
        tiny_adapter,
        golden__images=np.zeros((2, 24, 16, 3), images),
        golden__logits=np.zeros((2, 3), logits),
    )
    with pytest.raises(AdapterError, match=message):
        read_adapter(path)


@pytest.mark.parametrize(("prompts", "rank"), [(10**9, 0), (2, 0), (5000, 1)])
def test_prompts_that_are_only_said_to_be_there(tiny_adapter, adapter, prompts, rank):
    """Factors of rank 0 take no bytes, and their product was a matrix of any size."""
    tensors = dict(adapter.tensors)
    for i in range(2):
        tensors[f"prompt.{i}.a"] = np.zeros((prompts, rank), np.float32)
        tensors[f"prompt.{i}.b"] = np.zeros((8, rank), np.float32)
    document = adapter.to_json() | {"prompt_length": prompts}
    with pytest.raises(
        AdapterError, match=r"which holds no number|prompt_length is (5000|1000000000)"
    ):
        read_adapter(rewritten(tiny_adapter, document, tensors))


def test_an_adapter_file_that_is_too_large(tiny_adapter):
    """Said before anything of it is read."""
    with tiny_adapter.open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(AdapterError, match="bytes, which no such file has"):
        read_adapter(tiny_adapter)


def test_a_prompt_number_beyond_all_blocks_costs_nothing(tiny_adapter, adapter):
    """Without a spec the prompts count the blocks; one forged name must not fill the memory."""
    backbone = adapter.backbone.to_json() | {"spec": None}
    path = with_tensors(tiny_adapter, **{"prompt.99999999999": np.zeros((2, 8), np.float32)})
    document = adapter.to_json() | {"backbone": backbone}
    with pytest.raises(AdapterError, match=r"prompt\.\d+"):
        read_adapter(rewritten(path, document))


def test_several_problems_are_told_at_once(tiny_adapter, adapter):
    path = with_tensors(tiny_adapter, **{"head.bias": ..., "extra": np.zeros(1)})
    with pytest.raises(AdapterError, match=r"head\.bias is missing; extra is not known"):
        read_adapter(path)


# writing ------------------------------------------------------------------------------------------


def test_an_inconsistent_adapter_is_not_written(tmp_path, adapter):
    path = tmp_path / "a.safetensors"
    path.write_text("old")
    with pytest.raises(AdapterError, match="insert is 'here'"):
        write_adapter(path, replace(adapter, insert="here"))
    broken = adapter.tensors | {"head.bias": np.array([0, np.nan, 0])}
    with pytest.raises(AdapterError, match=r"head\.bias holds NaN or Inf"):
        write_adapter(path, replace(adapter, tensors=broken))
    assert path.read_text() == "old"


def test_a_disk_that_cannot_be_written(tmp_path, adapter, monkeypatch):
    from safetensors import SafetensorError

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space (os error 28)")

    monkeypatch.setattr("vptkit.formats.tensor_file.save_file", full)
    with pytest.raises(OutputError, match="cannot be written"):
        write_adapter(tmp_path / "new.safetensors", adapter)
    assert not list(tmp_path.glob("*new*"))
    assert not list(tmp_path.glob(".*"))


# the backbone -------------------------------------------------------------------------------------


def test_weights_of_another_backbone(adapter):
    tuned = replace(adapter, backbone=BackboneRef(name="paper_vit", sha256="a" * 64))
    require_backbone(tuned.backbone, "a" * 64, "w")
    require_backbone(adapter.backbone, "b" * 64, "w")  # no digest: anything goes
    with pytest.raises(
        BackboneError, match=r"digest bbbbbbbbbbbb…, the adapter wants aaaaaaaaaaaa"
    ):
        require_backbone(tuned.backbone, "b" * 64, "w")


def test_a_backbone_reference_is_read_as_written(tiny_spec):
    reference = BackboneRef(name="x", args={"img_size": 24}, spec=tiny_spec, sha256="c" * 64)
    assert BackboneRef.from_json(json.loads(canonical_json(reference.to_json()))) == reference
    bare = BackboneRef(name="x")
    assert BackboneRef.from_json(bare.to_json()) == bare


def test_the_adapter_without_its_prompts():
    adapter = build(Setup(pool="avg_prompts")).adapter.without_prompts()
    assert sorted(adapter.tensors) == ["head.bias", "head.weight"]
    assert (adapter.insert, adapter.prompt_length, adapter.pool) == ("none", 0, "avg")


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_numbers_that_are_no_json(tiny_adapter, adapter, value):
    """json.loads takes them, and what was read could not be written again."""
    text = json.dumps(adapter.to_json()).replace('"args": {}', f'"args": {{"drop": {value}}}')
    assert value in text
    tensors = {name: np.ascontiguousarray(v) for name, v in adapter.tensors.items()}
    write_tensors(tiny_adapter, tensors, ("vptkit", text))
    with pytest.raises(AdapterError, match="malformed metadata"):
        read_adapter(tiny_adapter)


# several labels an image ----------------------------------------------------------------------------


def multilabel(adapter: Adapter, thresholds: Any = (0.5, 0.25, 0.75)) -> Adapter:
    values = {THRESHOLDS: np.asarray(thresholds, np.float32)}
    return replace(adapter, task=MULTILABEL, tensors=adapter.tensors | values)


@pytest.mark.parametrize("deltas", [False, True])
def test_a_task_and_its_thresholds_are_read_as_written(tmp_path, adapter, tiny_spec, deltas):
    changes = random_deltas(tiny_spec, np.random.default_rng(0)) if deltas else {}
    written = multilabel(replace(adapter, tensors=adapter.tensors | changes))
    write_adapter(tmp_path / "m.safetensors", written)
    found = read_adapter(tmp_path / "m.safetensors")
    assert equal(found, written)
    assert (found.task, found.format) == (MULTILABEL, FORMAT_WITH_TASK)
    assert found.thresholds.tolist() == [0.5, 0.25, 0.75]
    assert found.without_prompts().task == MULTILABEL
    assert (adapter.task, adapter.thresholds, adapter.format) == (SINGLE, None, FORMAT)
    assert "task" not in adapter.to_json()  # so that the files of single labels stay as they were


@pytest.mark.parametrize("several", [False, True])
def test_merging_is_read_as_written(tmp_path, adapter, several):
    merging = TokenMerging(schedule=(2, 0), attention="plain")
    written = replace(multilabel(adapter) if several else adapter, merging=merging)
    write_adapter(tmp_path / "m.safetensors", written)
    found = read_adapter(tmp_path / "m.safetensors")
    assert equal(found, written)
    assert (found.merging, found.format) == (merging, FORMAT_WITH_MERGING)
    assert found.task == (MULTILABEL if several else SINGLE)
    assert found.without_prompts().merging is None
    assert "merge" not in adapter.to_json()  # the files of others stay as they were


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (None, "merge is None"),
        ([1, 0], "merge is"),
        ({"schedule": [1, 0]}, "merge is"),
        ({"schedule": [1, 0], "attention": "linear"}, "attention is 'linear'"),
        ({"schedule": [1, -1], "attention": "plain"}, "-1"),
        ({"schedule": [True, 0], "attention": "plain"}, "True"),
        ({"schedule": [1.0, 0], "attention": "plain"}, "1.0"),
        ({"schedule": [1, 0], "attention": "plain", "more": 1}, "more"),
        ({"schedule": [0, 0], "attention": "plain"}, "merges nothing"),
        ({"schedule": [0, 1], "attention": "plain"}, "last block"),
        ({"schedule": [1, 1, 0], "attention": "plain"}, r"3 numbers.*2 blocks"),
        ({"schedule": [0] * 513, "attention": "plain"}, "1 to 512"),
        ({"schedule": [9, 0], "attention": "plain"}, "at most 3,0"),
    ],
)
def test_merging_that_is_none(tmp_path, adapter, merge, message):
    merging = TokenMerging(schedule=(2, 0), attention="plain")
    path = tmp_path / "m.safetensors"
    write_adapter(path, replace(adapter, merging=merging))
    with pytest.raises(AdapterError, match=message):
        read_adapter(edited(path, merge=merge))


def test_merging_needs_its_format(tmp_path, adapter):
    path = tmp_path / "m.safetensors"
    write_adapter(path, replace(adapter, merging=TokenMerging(schedule=(2, 0))))
    with pytest.raises(AdapterError, match=r"unknown \['merge', 'task'\]"):
        read_adapter(edited(path, format=FORMAT))


def test_one_label_is_enough_where_an_image_may_have_none(tmp_path, adapter):
    head = {name: adapter.tensors[name][:1] for name in ("head.weight", "head.bias")}
    one = replace(adapter, labels=("rust",), tensors=adapter.tensors | head)
    write_adapter(tmp_path / "one.safetensors", multilabel(one, [0.4]))
    assert read_adapter(tmp_path / "one.safetensors").labels == ("rust",)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"task": "both"}, "task is 'both', expected one of multilabel"),
        ({"task": "single"}, "task is 'single', expected one of multilabel"),
        ({"task": None}, "task"),
        ({"task": ...}, r"misses \['task'\]"),
        ({"format": FORMAT}, r"unknown \['task'\]"),
        ({"format": FORMAT_WITH_DELTAS}, r"unknown \['task'\]"),
    ],
)
def test_a_task_that_is_not_known(tmp_path, adapter, header, message):
    write_adapter(tmp_path / "m.safetensors", multilabel(adapter))
    with pytest.raises(AdapterError, match=message):
        read_adapter(edited(tmp_path / "m.safetensors", **header))


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        (..., "head.thresholds is missing"),
        (np.full(2, 0.5, np.float32), r"head.thresholds has the shape \(2,\), expected \(3,\)"),
        (np.full((3, 1), 0.5, np.float32), r"head.thresholds has the shape \(3, 1\)"),
        (np.full(3, 0.5), "head.thresholds is of float64, expected float32"),
        (np.full(3, 0.5, np.float16), "head.thresholds is of float16"),
        (np.asarray([0.5, 0.5, 1], np.float32), "head.thresholds holds 1, expected probabilities"),
        (np.asarray([0, 0.5, 0.5], np.float32), "head.thresholds holds 0, expected probabilities"),
        (np.asarray([0.5, np.nan, 0.5], np.float32), "head.thresholds holds NaN"),
    ],
)
def test_thresholds_that_are_none(tmp_path, adapter, thresholds, message):
    write_adapter(tmp_path / "m.safetensors", multilabel(adapter))
    with pytest.raises(AdapterError, match=message):
        read_adapter(with_tensors(tmp_path / "m.safetensors", head__thresholds=thresholds))


def test_thresholds_without_a_task(tiny_adapter):
    found = np.full(3, 0.5, np.float32)
    with pytest.raises(AdapterError, match=r"head.thresholds is for task 'multilabel'"):
        read_adapter(with_tensors(tiny_adapter, head__thresholds=found))


# learned keys and values -------------------------------------------------------------------------


def with_learned(adapter, **tensors):
    named = {f"prefix.{k.replace('_', '.')}": np.asarray(v) for k, v in tensors.items()}
    return replace(adapter, tensors={**adapter.tensors, **named})


def test_learned_keys_and_values_come_back(tiny_adapter, tmp_path):
    """Another number in each block; a reader of version 1 is told."""
    adapter = read_adapter(tiny_adapter)
    width = adapter.backbone.spec.width
    keys, values = (np.random.default_rng(i).normal(size=(3, width)) for i in range(2))
    for spec in (adapter.backbone.spec, None):
        plain = replace(adapter, backbone=replace(adapter.backbone, spec=spec))
        more = with_learned(plain, **{"0_keys": keys, "0_values": values})
        write_adapter(tmp_path / "a.safetensors", more)
        found = read_adapter(tmp_path / "a.safetensors")
        assert (found.format, found.learned_counts()) == ("vptkit.adapter/2", {0: 3})
        np.testing.assert_array_equal(found.learned_prefix(0)[1], values)
        assert found.learned_prefix(1) is None
        assert found.without_prompts().format == FORMAT
        told = summarize(tmp_path / "a.safetensors")["learned_keys_values"]
        assert told == {"blocks": 1, "counts": [3, 3]}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"0_keys": (3, 0)}, "prefix.0.values is missing"),
        ({"0_values": (3, 0)}, "prefix.0.keys is missing"),
        ({"0_keys": (3, 0), "0_values": (4, 0)}, r"prefix.0.values has the shape \(4, "),
        ({"0_keys": (3, 1), "0_values": (3, 1)}, r"prefix.0.keys has the shape \(3, "),
        ({"0_keys": (3, 0), "0_values": (3, 0, 1)}, r"prefix.0.values has the shape"),
        ({"99_keys": (3, 0), "99_values": (3, 0)}, "prefix.99.keys is not known: .* no such block"),
        ({"00_keys": (3, 0)}, "prefix.00.keys is not known"),
        ({"0_queries": (3, 0)}, "prefix.0.queries is not known"),
    ],
)
def test_learned_keys_and_values_that_do_not_fit(tiny_adapter, tmp_path, tensors, words):
    """Sizes are those of the block's keys, plus what the case says."""
    adapter = read_adapter(tiny_adapter)
    width = adapter.backbone.spec.width
    made = {
        k: np.zeros((n, width + more, *rest), np.float32) for k, (n, more, *rest) in tensors.items()
    }
    with pytest.raises(AdapterError, match=words):
        write_adapter(tmp_path / "a.safetensors", with_learned(adapter, **made))


def test_learned_keys_that_are_not_finite(tiny_adapter, tmp_path):
    adapter = read_adapter(tiny_adapter)
    rows = np.full((1, adapter.backbone.spec.width), np.nan)
    with pytest.raises(AdapterError, match=r"prefix.0.keys holds NaN or Inf"):
        write_adapter(
            tmp_path / "a", with_learned(adapter, **{"0_keys": rows, "0_values": 0 * rows})
        )
