"""A manifest is validated whole, before anything of it is used."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family
from vptkit.errors import BundleError
from vptkit.formats.bundle import open_bundle
from vptkit.formats.manifest_schema import FIELDS, require_manifest

LOGITS = {"name": "logits", "dtype": "float32", "shape": ["B", 3]}
FEATURES = {"name": "features", "dtype": "float32", "shape": ["B", 8]}
HEX = "0" * 64


@pytest.fixture
def document(make_bundle) -> dict[str, Any]:
    return json.loads((make_bundle() / "manifest.json").read_text())


@pytest.fixture
def several(make_bundle) -> dict[str, Any]:
    return json.loads((make_bundle(thresholds=(0.1, 0.5, 0.9)) / "manifest.json").read_text())


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = export_family(tmp_path_factory.mktemp("bank"), family(kinds=("bilinear", "linear")))
    return json.loads((folder / "manifest.json").read_text())


def changed(document: Any, path: str, value: Any) -> Any:
    """The document with another value at `a.0.b`; ... removes it."""
    document = copy.deepcopy(document)
    place, keys = document, [int(k) if k.isdigit() else k for k in path.split("/")]
    for key in keys[:-1]:
        place = place[key]
    if value is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return document


def test_honest_ones_pass(document, bank):
    require_manifest(document, "m")
    require_manifest(bank, "m")


@pytest.mark.parametrize("name", sorted(FIELDS))
@pytest.mark.parametrize("value", [None, [], {}, "x", -1, True, 1e300, 10**4000, [[[]]]])
def test_every_field_has_a_kind(document, name, value):
    if value is None and name in ("lowering", "gate", "parity"):
        return
    fits = {"name": "x", "folds": [], "macs": {}, "versions": {}, "gate": {}, "parity": {}}
    if fits.get(name, ...) == value or (name, value) in [("lowering", {}), ("preprocess", {})]:
        return
    with pytest.raises(BundleError, match=rf"{name}|files lists no model"):
        require_manifest(changed(document, name, value), "m")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("files/model.onnx", ..., "files lists no model.onnx"),
        ("files/model.onnx", "00", r"files\['model.onnx'\] is '00', expected a text of 64"),
        ("files/model.onnx", "G" * 64, "64 hexadecimal digits"),
        ("files", {"model.onnx": HEX, "../x": HEX}, "'../x', expected .* the plain name of a file"),
        ("files", {"model.onnx": HEX, "/etc/passwd": HEX}, "the plain name of a file"),
        ("files", {"model.onnx": HEX, "d/x": HEX}, "the plain name of a file"),
        ("files", {"model.onnx": HEX, "adapters/../x": HEX}, "the plain name of a file"),
        ("files", {"model.onnx": HEX, "adapters/a/x.safetensors": HEX}, "the plain name of a file"),
        ("files", {"model.onnx": HEX, "adapters/x.safetensors": HEX}, "no adapter's"),
        ("files", {"model.onnx": HEX, "adapters/.x.safetensors": HEX}, "the plain name of a file"),
        ("files", {"model.onnx": HEX, "engines/x.engine": HEX}, "the plain name of a file"),
        ("files", {"model.onnx": HEX, "manifest.json": HEX}, "the plain name of a file"),
        ("files", {"model.onnx": HEX, "engines": HEX}, "the plain name of a file"),
        ("files", {"model.onnx": HEX, ".hidden": HEX}, "the plain name of a file"),
        ("files", {"model.onnx": HEX, "a\nb": HEX}, "the plain name of a file"),
        ("files", {"model.onnx": HEX, "a\0b": HEX}, "the plain name of a file"),
        ("files", {"model.onnx": HEX, "\ud800": HEX}, "the plain name of a file"),
        ("adapters/0/name", 3, r"adapters\[0\]\.name is 3"),
        ("adapters/0/labels", "abc", r"adapters\[0\]\.labels is 'abc', expected a list"),
        ("adapters/0/labels", ["a", 1, "c"], r"labels\[1\] is 1"),
        ("adapters/0/labels", ["a", "b"], "the graph has 3 classes, an adapter 2 labels"),
        ("adapters/0/file", "adapters/x.safetensors", "is not one of the layout 'baked'"),
        ("adapters/0/file", "../../x", "the plain name of a file"),
        ("adapters/0/colour", 1, "expected one of the fields"),
        ("adapters/0/prompt_length", 10**9, "from 0 to 4096"),
        ("backbone/sha256", "abc", r"backbone\.sha256 is 'abc', expected null or"),
        ("backbone/args", [], r"backbone\.args is \[\], expected an object"),
        ("inputs/0/shape", ["B", 10**12, 24, 3], "from 1 to 2147483648"),
        ("inputs/0/shape", ["B", "H", 16, 3], "has a free size behind the first"),
        ("inputs/0/shape", [4, 24, 16, 3], "batch is 'dynamic', inputs"),
        ("inputs/0/dtype", "float32", "neither images"),
        ("inputs/0/name", "x", "neither images"),
        ("outputs/0/name", "x", "outputs is not logits"),
        ("outputs", [FEATURES, LOGITS], "outputs is not logits"),
        ("outputs", [LOGITS, LOGITS], "outputs is not logits"),
        ("outputs", [LOGITS, FEATURES, FEATURES], "outputs"),
        ("outputs", [{**FEATURES, "shape": ["B", 8, 8]}], "outputs is not logits"),
        ("outputs", [{**FEATURES, "shape": ["B", 1 << 20]}], "features is not float32"),
        ("outputs", [{**FEATURES, "dtype": "float16"}], "features is not float32"),
        ("outputs", [{**FEATURES, "normalized": "yes"}], "normalized"),
        ("batch", 10**7, "from 1 to 65536"),
        ("batch", 0, "from 1 to 65536"),
        ("batch", 4, r"batch is 4, inputs\[0\] has 'B'"),
        ("precision", "fp4", "expected one of fp32"),
        ("macs/graph", 1e3, "whole number"),
        ("memory/weights_bytes", -1, r"memory\.weights_bytes is -1"),
        ("lowering", {"requires": {"tensorrt": "latest"}}, "a version"),
        ("lowering", {"islands": [1]}, r"lowering\.islands\[0\] is 1"),
    ],
)
def test_what_none_can_say(document, path, value, message):
    with pytest.raises(BundleError, match=message):
        require_manifest(changed(document, path, value), "m")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("adapters/0/file", ..., "is not one of the layout 'bank'"),
        ("adapters/0/method", ..., "is not one of the layout 'bank'"),
        ("adapters/0/insert", ..., "is not one of the layout 'bank'"),
        ("adapters/0/prompt_length", ..., "is not one of the layout 'bank'"),
        ("adapters/0/file", "model.onnx", "which files does not list"),
        ("adapters/0/file", "adapters/other-00000000.safetensors", "which files does not list"),
        ("adapters/0/sha256", "0" * 64, "which files does not list"),
        ("adapters/1/name", "bilinear", "two adapters have the name 'bilinear'"),
        ("inputs/1/name", "images", "two inputs have the name 'images'"),
    ],
)
def test_what_no_bank_can_say(bank, path, value, message):
    with pytest.raises(BundleError, match=message):
        require_manifest(changed(bank, path, value), "m")


@pytest.mark.parametrize("shape", [[65536, 224, 224, 3], [1, 30000, 30000, 3]])
def test_a_batch_of_too_many_numbers(document, shape):
    document["batch"] = shape[0]
    document["inputs"][0]["shape"] = shape
    with pytest.raises(BundleError, match="a batch has more than 536870912 numbers"):
        require_manifest(document, "m")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def places(document: Any, path: str = "") -> list[str]:
    """Paths of all values of a document, inner ones too."""
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    found = [path.strip("/")] if path else []
    for key, value in inner:
        here = f"{path}/{key}"
        found += places(value, here) if isinstance(value, (dict, list)) else [here.strip("/")]
    return found


@pytest.mark.parametrize("layout", ["baked", "bank"])
def test_any_value_anywhere(make_bundle, bank, layout):
    """A BundleError, or a bundle: never anything else."""
    path = make_bundle()
    document = bank if layout == "bank" else json.loads((path / "manifest.json").read_text())
    paths = [place for place in places(document) if "." not in place.split("/")[-1]]

    @seed(0)
    @settings(
        max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.sampled_from(paths), JSON | st.just(...))
    def holds(place, value):
        (path / "manifest.json").write_text(json.dumps(changed(document, place, value)))
        with contextlib.suppress(BundleError):
            assert open_bundle(path, verify=False).path == path

    holds()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format": "vptkit.bundle/1", "name": ' + "9" * 5000 + "}",
        '{"format": NaN}',
        '{"format": "a", "format": "b"}',
        "\ufeff{}",
        '{"format": {"a": [' + "[]," * 10_000 + "[]]}}",
    ],
)
def test_json_that_is_none(make_bundle, text):
    path = make_bundle()
    (path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json|format is"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("depth", 10**9),
        ("width", 10**9),
        ("mlp_width", 10**7),
        ("heads", 10**7),
        ("registers", 10**9),
        ("branches", 10**9),
        ("image_size", [10**6, 10**6]),
        ("image_size", [8192, 8192]),
        ("patch_size", [10**6, 10**6]),
        ("norm_eps", 1e300),
        ("rotary", {"kind": "axial", "temperature": -1.0}),
        ("rotary", {"kind": "axial", "reference": [10**9, 1]}),
        ("relative", {"kind": "mlp", "hidden": 10**9}),
    ],
)
def test_a_spec_that_would_take_gigabytes(make_bundle, document, field, value, edit_manifest):
    path = make_bundle()
    document["backbone"]["spec"][field] = value
    edit_manifest(path, backbone=document["backbone"])
    start = time.perf_counter()
    with pytest.raises(BundleError, match=r"backbone spec|preprocess makes"):
        open_bundle(path)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_pct", 1e-9),
        ("crop_pct", 0),
        ("crop_pct", True),
        ("crop_pct", 1e400),
        ("input_size", [3, 10**6, 10**6]),
        ("input_size", [3, 8192, 8193]),
        ("input_size", ["3", "24", "16"]),
        ("mean", [1e300, 0, 0]),
        ("mean", "000"),
        ("interpolation", ["bicubic"]),
        ("std", None),
    ],
)
def test_preprocessing_that_would_take_gigabytes(
    make_bundle, document, field, value, edit_manifest
):
    path = make_bundle()
    edit_manifest(path, preprocess=document["preprocess"] | {field: value})
    with pytest.raises(BundleError, match=r"manifest\.json: "):
        open_bundle(path)


def test_a_bank_with_rows_of_gigabytes(bank, tmp_path):
    for value in bank["inputs"]:
        if value["name"] == "bank.head_weight":
            value["shape"][2] = 900_000_000
        if value["name"] == "bank.head_bias":
            value["shape"][1] = 900_000_000
    bank["outputs"][0]["shape"][1] = 900_000_000
    (tmp_path / "manifest.json").write_text(json.dumps(bank))
    with pytest.raises(BundleError, match="numbers for each adapter"):
        open_bundle(tmp_path, verify=False)


def test_the_largest_vits_fit(tiny_spec):
    for sizes in (
        {"depth": 48, "width": 6144, "heads": 48, "mlp_width": 24576, "image_size": (224, 224)},
        {"depth": 40, "width": 1408, "heads": 16, "mlp_width": 6144, "image_size": (518, 518)},
        {"depth": 64, "width": 1792, "heads": 16, "mlp_width": 15360, "image_size": (448, 448)},
        {"depth": 40, "width": 4096, "heads": 32, "mlp_width": 8192, "image_size": (1024, 1024)},
        {"depth": 12, "width": 768, "heads": 12, "mlp_width": 3072, "image_size": (2048, 2048)},
    ):
        replace(tiny_spec, **sizes, patch_size=(14, 14))


# several labels an image --------------------------------------------------------------------------

AT = "adapters/0/thresholds"


def test_an_honest_one_of_several_labels_passes(several):
    require_manifest(several, "m")
    assert several["task"] == "multilabel"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (AT, ..., "thresholds of the adapter 'tiny' are missing"),
        (AT, [0.1, 0.5], "2 thresholds of the adapter 'tiny', expected 3"),
        (AT, [0.1, 0.5, 0.9, 0.9], "4 thresholds"),
        (AT, [[0.1, 0.5, 0.9]], r"thresholds\[0\] is \[0.1"),
        (AT, 0.5, "thresholds is 0.5, expected a list"),
        (AT, [0.1, 0.5, float("nan")], r"thresholds\[2\] is nan, expected a number from 0 to 1"),
        (AT, [0.1, 0.5, float("inf")], r"thresholds\[2\] is inf"),
        (AT, [0.1, 0.5, True], r"thresholds\[2\] is True"),
        (AT, [0.1, 0.5, "0.9"], r"thresholds\[2\] is '0.9'"),
        (AT, [0.1, 0.5, 1.5], r"thresholds\[2\] is 1.5"),
        (AT, [0, 0.5, 0.9], "is 0, expected above 0 and below 1"),
        (AT, [0.1, 1, 0.9], "is 1, expected above 0 and below 1"),
        (AT, [0.1, 1e-60, 0.9], "is 1e-60, expected above 0"),  # 0 in float32
        (AT, [0.1, 1 - 1e-12, 0.9], "is 1, expected above 0"),  # 1 in float32
        ("task", ..., "thresholds of the adapter 'tiny' need a task"),
        ("task", "single", "task is 'single', expected one of multilabel"),
        ("task", None, "task is None"),
        ("outputs", [LOGITS], "outputs is not logits .B, C. .and scores"),
        ("outputs", [{**LOGITS, "name": "scores"}], "outputs is not"),
        ("outputs", [{**LOGITS, "name": "scores"}, LOGITS], "outputs is not"),
        ("outputs/1/shape", ["B", 4], "the graph has 4 classes, an adapter 3 labels"),
    ],
)
def test_wrong_thresholds_are_refused(several, path, value, message):
    with pytest.raises(BundleError, match=message):
        require_manifest(changed(several, path, value), "m")


def test_scores_without_a_task_are_refused(document):
    scores = {**LOGITS, "name": "scores"}
    with pytest.raises(BundleError, match="outputs is not logits"):
        require_manifest(changed(document, "outputs", [LOGITS, scores]), "m")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("schedule", [1], "merging has 1 numbers, the backbone"),
        ("schedule", [], "schedule"),
        ("schedule", [-1, 0], "schedule"),
        ("schedule", [1.5, 0], "schedule"),
        ("attention", "loud", "attention"),
        ("tuned", 1, "tuned"),
        ("gate", [1], "gate"),
        ("asked", 12, "asked"),
        ("asked", ..., "asked"),
        ("more", 1, "more"),
    ],
)
def test_merging(document, path, value, told):
    depth = document["backbone"]["spec"]["depth"]
    merging = {
        "schedule": [1] * (depth - 1) + [0],
        "attention": "proportional",
        "asked": None,
        "tuned": True,
        "gate": None,
    }
    require_manifest({**document, "merging": merging}, "m")
    with pytest.raises(BundleError, match=told):
        require_manifest({**document, "merging": changed(merging, path, value)}, "m")
