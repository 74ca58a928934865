"""Tensor files: what safetensors writes is read; what is forged, damaged or no file is refused."""

from __future__ import annotations

import errno
import json
import os
import struct

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from vptkit.errors import DataError
from vptkit.formats.tensor_file import (
    _errno_of,
    read_metadata,
    read_opened_tensors,
    read_tensor_file,
    read_tensors,
    write_tensors,
)
from vptkit.regular_files import open_inside

TYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]


def write(path, header, data=b"", *, length=None):
    """A file of any header, also of one that nobody writes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(shape=(2,), begin=0, end=8, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_what_safetensors_writes(tmp_path):
    rng = np.random.default_rng(0)
    shapes = [(), (0,), (3, 0, 2), (1,), (5,), (3, 4), (2, 3, 4, 5)]
    tensors = {
        f"{kind}.{i}": np.asarray(100 * rng.normal(size=shape)).astype(kind)
        for kind in TYPES
        for i, shape in enumerate(shapes)
    }
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata={"a": "é", "b": ""})
    metadata, found = read_tensor_file(path, DataError)
    assert metadata == read_metadata(path, DataError) == {"a": "é", "b": ""}
    expected = load_file(path)
    assert found.keys() == expected.keys() == tensors.keys()
    for name, value in found.items():
        assert value.dtype == expected[name].dtype
        assert value.shape == expected[name].shape
        np.testing.assert_array_equal(value, expected[name])


def test_bfloat16_becomes_float32(tmp_path):
    bits = np.float32([1.0, -2.5, 3e38, 0.0]).view(np.uint32) >> 16
    path = write(tmp_path / "a", {"x": entry((2, 2), dtype="BF16")}, bits.astype("<u2").tobytes())
    found = read_tensors(path, DataError)["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, (bits << 16).astype(np.uint32).view("f4").reshape(2, 2))


def test_a_file_without_tensors_or_metadata(tmp_path):
    assert read_tensor_file(write(tmp_path / "a", {}), DataError) == ({}, {})
    assert read_metadata(write(tmp_path / "a", {"__metadata__": None}), DataError) == {}
    save_file({"x": np.zeros(1)}, tmp_path / "b")
    assert read_metadata(tmp_path / "b", DataError) == {}


def test_one_reading_of_what_was_opened(tmp_path):
    """A bundle's file is opened by its folder; whatever its name leads to later is not read."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": np.ones(2)}, ("vptkit", "{}"))
    with open_inside(tmp_path, path.name, DataError) as stream:
        path.unlink()
        path.write_bytes(b"another")
        metadata, tensors = read_opened_tensors(stream, path, DataError)
    assert metadata == {"vptkit": "{}"}
    assert tensors["x"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("read", [read_tensors, read_metadata])
def test_what_is_no_regular_file(tmp_path, read):
    """A FIFO would wait for ever; before, for its writer."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path, kind in (
        (tmp_path / "pipe", "a FIFO"),
        (tmp_path / "link", "a device"),
        (tmp_path, "a folder"),
        (tmp_path / "none", "no such file"),
        (tmp_path / "nu\0l", "not a name of a file"),
    ):
        with pytest.raises(DataError, match=kind):
            read(path, DataError)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"x": entry()}, b"1234567"),
        ({"x": entry()}, b"123456789"),
        ({"x": entry(begin=4, end=12)}, b"123456789012"),
        ({"x": entry(), "y": entry(begin=12, end=20)}, b"12345678901234567890"),
        ({"x": entry(), "y": entry()}, b"12345678"),
        ({"x": entry(), "y": entry(begin=4, end=12)}, b"123456789012"),
        ({"x": entry(shape=(3,))}, b"12345678"),
        ({"x": entry(shape=(2**31, 2**31))}, b"12345678"),
        ({"x": entry(shape=(2**40,), end=2**42)}, b"12345678"),
        ({"x": entry(shape=(-2,), end=-8)}, b""),
        ({"x": entry(shape=(-1, -2))}, b"12345678"),
        ({"x": entry(shape=(True, 2))}, b"12345678"),
        ({"x": entry(shape=(2.0,))}, b"12345678"),
        ({"x": entry(shape=(0, 2**61), end=0)}, b""),
        ({"x": entry(shape=(1,) * 40, end=4)}, b"1234"),
        ({"x": entry() | {"shape": 2}}, b"12345678"),
        ({"x": entry() | {"shape": None}}, b"12345678"),
        ({"x": entry() | {"data_offsets": [0]}}, b"12345678"),
        ({"x": entry() | {"data_offsets": {"0": 0, "1": 8}}}, b"12345678"),
        ({"x": entry() | {"dtype": ["F32"]}}, b"12345678"),
        ({"x": entry() | {"more": 1}}, b"12345678"),
        ({"x": {"dtype": "F32"}}, b""),
        ({"x": [0, 8]}, b"12345678"),
        ({"x": "F32"}, b""),
        ({"__metadata__": {"a": 1}}, b""),
        ({"__metadata__": ["a"]}, b""),
        ([], b""),
        (b"[" * 10_000, b""),
        (b'{"a":' * 10_000, b""),
        (b'{"x": NaN}', b""),
        (b'{"__metadata__": {"a": "b", "a": "c"}}', b""),
        (b'{"x":' + json.dumps(entry()).encode() + b',"x":' + json.dumps(entry()).encode() + b"}", b"1" * 8),
        (b'{"x": ' + b"9" * 5000 + b"}", b""),
        (b'{"x\xff": 1}', b""),
        (b"  {}", b""),
        (b"{", b""),
    ],
)  # fmt: skip
def test_headers_that_nobody_writes(tmp_path, header, data):
    path = write(tmp_path / "forged.safetensors", header, data)
    with pytest.raises(DataError, match=r"forged\.safetensors: not a readable safetensors file"):
        read_tensors(path, DataError)


@pytest.mark.parametrize("length", [0, 1, 3, 2**32, 2**63, 2**64 - 1])
def test_lengths_of_headers(tmp_path, length):
    path = write(tmp_path / "forged.safetensors", b"{}", length=length)
    with pytest.raises(DataError, match="truncated or damaged"):
        read_tensors(path, DataError)


@pytest.mark.parametrize("kind", ["F8_E4M3", "U64", "C64", "F4", "f32", "", "O", "F32" * 1000])
def test_types_that_are_not_known(tmp_path, kind):
    """Also where nothing of them is read: a file is taken as a whole."""
    path = write(tmp_path / "a.safetensors", {"x": entry((0,), 0, 0, kind)})
    with pytest.raises(
        DataError, match=r"tensor x has the type .*expected one of BF16 F64"
    ) as told:
        read_tensors(path, DataError)
    assert len(str(told.value)) < 300 + len(str(path))


def test_a_file_that_is_too_large(tmp_path):
    """A hole of terabytes takes no room on the disk, but would in memory."""
    path = tmp_path / "sparse.safetensors"
    size = 2**42
    write(path, {"x": entry((size // 4,), 0, size)})
    with path.open("r+b") as file:
        file.truncate(file.seek(0, 2) + size)
    with pytest.raises(DataError, match="more than 1000 bytes, which no such file has"):
        read_tensor_file(path, DataError, limit=1000)


def test_the_operating_systems_error_is_found_in_that_of_safetensors():
    """It says `os error 28` in newer releases, `code: 28` in 0.4."""
    for text in (
        "Error while serializing: I/O error: No space left on device (os error 28)",
        'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space" })',
    ):
        assert _errno_of(SafetensorError(text)) == errno.ENOSPC
    assert _errno_of(SafetensorError("something else")) == errno.EIO
