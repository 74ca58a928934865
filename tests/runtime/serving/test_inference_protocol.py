"""KServe v2 as bytes: what is read, what is refused and how, what is written."""

from __future__ import annotations

import contextlib
import json
import struct

import numpy as np
import pytest

from vptkit.runtime.serving.http_error import HttpError
from vptkit.runtime.serving.inference_protocol import (
    OutputTensor,
    parse_inference,
    render_inference,
)


def request(*inputs, behind=b"", **fields):
    text = json.dumps({"inputs": list(inputs), **fields}).encode()
    return text + behind, str(len(text)) if behind else None


def tensor(name="x", shape=(2,), datatype="UINT8", **fields):
    return {"name": name, "shape": list(shape), "datatype": datatype, **fields}


def binary(size, **fields):
    return tensor(parameters={"binary_data_size": size}, **fields)


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 255], [[1, 2, 3], [4, 5, 255]]])
def test_numbers_of_json_are_flat_or_nested(data):
    found = parse_inference(*request(tensor(shape=(2, 3), data=data), id="seven"))
    assert found.id == "seven"
    x = found.inputs["x"]
    assert (x.datatype, x.shape, x.values.dtype) == ("UINT8", (2, 3), np.uint8)
    assert x.values.tolist() == [[1, 2, 3], [4, 5, 255]]


def test_binary_tensors_stand_behind_the_json_in_their_order():
    pixels = np.arange(6, dtype=np.uint8)
    names = b"".join(struct.pack("<I", len(one)) + one for one in (b"birds", b"", b"\xff\x00"))
    body, length = request(
        binary(6, name="images", shape=(1, 6)),
        binary(len(names), name="adapter", shape=(3,), datatype="BYTES"),
        tensor(name="k", shape=(1,), datatype="INT32", data=[-7]),
        behind=pixels.tobytes() + names,
        outputs=[{"name": "logits", "parameters": {"binary_data": True}}, {"name": "label"}],
    )
    found = parse_inference(body, length)
    assert found.inputs["images"].values.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert found.inputs["adapter"].values == [b"birds", b"", b"\xff\x00"]
    assert found.inputs["k"].values.tolist() == [-7]
    assert dict(found.outputs) == {"logits": True, "label": False}


FAULTS = {
    "not JSON": (b"nonsense", None, "not valid JSON"),
    "a key twice": (b'{"inputs": [], "inputs": []}', None, "twice"),
    "no inputs": (*request(), "inputs is empty"),
    "inputs of another kind": (b'{"inputs": {}}', None, "expected a list"),
    "no shape": (*request({"name": "x", "datatype": "UINT8", "data": []}), "shape is None"),
    "a negative size": (*request(tensor(shape=(-1,), data=[1])), "expected up to 8 sizes"),
    "a huge shape": (*request(tensor(shape=(1 << 20, 1 << 20), data=[1])), "up to 8 sizes"),
    "another type": (*request(tensor(datatype="UINT7", data=[1])), "expected one of BOOL"),
    "too few": (*request(tensor(shape=(3,), data=[1, 2])), "2 elements came, expected 3"),
    "ragged": (*request(tensor(data=[[1], [1, 2]])), "ragged"),
    "out of range": (*request(tensor(data=[1, 256])), "expected numbers of UINT8"),
    "fractions": (*request(tensor(data=[1, 2.5])), "expected numbers of UINT8"),
    "texts as numbers": (*request(tensor(data=["1", "2"])), "expected numbers of UINT8"),
    "numbers as texts": (*request(tensor(datatype="BYTES", data=["a", 1])), "expected texts"),
    "no data": (*request(tensor()), "neither data nor parameters.binary_data_size"),
    "shared memory": (
        *request(tensor(parameters={"shared_memory_region": "a"})),
        "shared memory is not supported",
    ),
    "more than there is": (*request(binary(9), behind=b"ab"), "at most the 2 bytes"),
    "bytes of nobody": (*request(binary(2), behind=b"abc"), "say 2"),
    "another size": (*request(binary(3), behind=b"abc"), "3 bytes came, expected 2"),
    "an element that is cut": (
        *request(binary(6, datatype="BYTES", shape=(1,)), behind=b"\x09\0\0\0ab"),
        "element 0 does not fit",
    ),
    "an element too many": (
        *request(binary(5, datatype="BYTES", shape=(1,)), behind=b"\0\0\0\0a"),
        "expected 1 elements",
    ),
    "a length that is none": (b"{}", "-1", "Inference-Header-Content-Length"),
    "a length too large": (b"{}", "3", "Inference-Header-Content-Length"),
    "one name twice": (*request(tensor(data=[1, 2]), tensor(data=[1, 2])), "two inputs"),
    "classification": (
        *request(tensor(data=[1, 2]), outputs=[{"name": "a", "parameters": {"classification": 3}}]),
        "ask for label and score",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_400_that_says_what_was_expected(fault):
    body, length, message = FAULTS[fault]
    with pytest.raises(HttpError, match=message) as caught:
        parse_inference(body, length)
    assert caught.value.status == 400


def test_any_bytes_are_read_or_refused():
    good, length = request(binary(2, shape=(2,)), behind=b"ab")
    random = np.random.default_rng(0)
    for _ in range(800):
        body = bytearray(good[: random.integers(0, len(good) + 1)])
        for _ in range(random.integers(0, 4)):
            if body:
                body[random.integers(len(body))] = random.integers(256)
        with contextlib.suppress(HttpError):
            parse_inference(bytes(body), length if random.random() < 0.8 else None)


def test_what_is_written_in_json():
    outputs = [
        (OutputTensor("logits", np.float32([[0.5, -2.0]]), (1, 2)), False),
        (OutputTensor("label", ["größe"], (1,)), False),
    ]
    body, length = render_inference({"model_name": "m"}, outputs)
    assert length is None
    assert json.loads(body)["outputs"] == [
        {"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -2.0]},
        {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["größe"]},
    ]


def test_what_is_written_in_binary_is_read_again():
    outputs = [
        (OutputTensor("logits", np.float32([[0.5, -2.0]]), (1, 2)), True),
        (OutputTensor("label", ["größe"], (1,)), True),
    ]
    body, length = render_inference({"model_name": "m"}, outputs)
    text = json.loads(body[:length])
    again = json.dumps({"inputs": text["outputs"]}).encode()
    found = parse_inference(again + body[length:], str(len(again)))
    assert found.inputs["logits"].values.tolist() == [[0.5, -2.0]]
    assert found.inputs["label"].values == ["größe".encode()]
