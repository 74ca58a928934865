"""KServe v2, the Open Inference Protocol: requests and responses, as JSON or with tensors behind it.

A request is a JSON object {"id", "parameters", "inputs", "outputs"}. A tensor is {"name", "shape",
"datatype", "data"}; or it has `parameters.binary_data_size` instead of data, and so many bytes stand
behind the JSON, whose own length the header Inference-Header-Content-Length tells. BYTES are elements
of four bytes of length, little-endian, and content. Sources: kserve/open-inference-protocol,
specification/protocol/inference_rest.md; Triton's docs/protocol/extension_binary_data.md.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.schema import abridged
from vptkit.strict_json import parse_json

from .http_error import HttpError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "HEADER_LENGTH",
    "InferenceRequest",
    "OutputTensor",
    "Tensor",
    "parse_inference",
    "render_inference",
]

HEADER_LENGTH = "Inference-Header-Content-Length"
_MOST_TENSORS, _MOST_AXES, _MOST_ELEMENTS = 16, 8, 1 << 31
_BYTES = "BYTES"
_TYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"INT{n}": np.dtype(f"<i{n // 8}") for n in (8, 16, 32, 64)},
    **{f"UINT{n}": np.dtype(f"<u{n // 8}") for n in (8, 16, 32, 64)},
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}  # what JSON may hold for a type


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input.

    Attributes:
        name, datatype, shape: as the protocol has them.
        values: of the shape and type; of BYTES a list of the elements, in order.
        texts: BYTES that came as texts of JSON, not as bytes.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | list[bytes] = field(repr=False)
    texts: bool = False


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What a client asks.

    Attributes:
        id: to be given back, or None.
        parameters: of the request.
        inputs: by name.
        outputs: name → whether it is wanted in binary, in order; empty for all.
        binary: whether outputs that are not named are wanted in binary.
    """

    id: str | None
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, bool]
    binary: bool


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """An output: numbers of one of the protocol's types, or texts, of some shape."""

    name: str
    values: NDArray[Any] | list[str]
    shape: tuple[int, ...]


def parse_inference(body: bytes, header_length: str | None = None) -> InferenceRequest:
    """Read a request.

    Args:
        body: of the HTTP request.
        header_length: the value of HEADER_LENGTH, if it has one.

    Raises:
        HttpError: 400: says which field, what came, and what was expected.
    """
    size = _header_size(header_length, len(body))
    document = parse_json(body[:size], "the request", _BadRequestError)
    parameters = _object(document.get("parameters", {}), "parameters")
    inputs = _list(document.get("inputs"), "inputs")
    if not inputs:
        raise _BadRequestError("inputs is empty, expected at least one tensor")
    tensors, offset = {}, size
    for i, one in enumerate(inputs):
        tensor, used = _tensor(_object(one, f"inputs[{i}]"), f"inputs[{i}]", body, offset)
        if tensor.name in tensors:
            raise _BadRequestError(f"two inputs have the name {tensor.name[:60]!r}")
        tensors[tensor.name] = tensor
        offset += used
    if offset != len(body):
        raise _BadRequestError(
            f"{len(body) - size} bytes stand behind the JSON, the inputs' binary_data_size say "
            f"{offset - size}"
        )
    binary = parameters.get("binary_data_output", False) is True
    return InferenceRequest(
        id=_id(document.get("id")),
        parameters=parameters,
        inputs=tensors,
        outputs=_outputs(document.get("outputs"), binary=binary),
        binary=binary,
    )


def render_inference(
    head: Mapping[str, Any], outputs: Sequence[tuple[OutputTensor, bool]]
) -> tuple[bytes, int | None]:
    """Write a response.

    Args:
        head: "model_name" and what else stands beside the outputs.
        outputs: each with whether it goes in binary.

    Returns:
        The body, and the length of its JSON if tensors stand behind it.
    """
    listed, parts = [], []
    for tensor, binary in outputs:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": _datatype(tensor.values)}
        entry["shape"] = list(tensor.shape)
        if binary:
            parts.append(_packed(tensor.values))
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        elif isinstance(tensor.values, list):
            entry["data"] = tensor.values
        else:
            entry["data"] = tensor.values.ravel().tolist()
        listed.append(entry)
    text = json.dumps({**head, "outputs": listed}, separators=(",", ":"), allow_nan=False).encode()
    return b"".join([text, *parts]), len(text) if parts else None


class _BadRequestError(HttpError):
    def __init__(self, message: str) -> None:
        super().__init__(400, message)


def _header_size(text: str | None, size: int) -> int:
    if text is None:
        return size
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= size):
        raise _BadRequestError(
            f"{HEADER_LENGTH} is {text[:40]!r}, expected the length of the JSON, at most that of the "
            f"body, {size}"
        )
    return int(text)


def _id(value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) <= 1000):
        raise _BadRequestError(f"id is {abridged(value)}, expected a text of up to 1000 letters")
    return value


def _outputs(value: Any, *, binary: bool) -> dict[str, bool]:
    found = {}
    for i, one in enumerate(_list(value or [], "outputs")):
        entry = _object(one, f"outputs[{i}]")
        parameters = _object(entry.get("parameters", {}), f"outputs[{i}].parameters")
        if "classification" in parameters:
            raise _BadRequestError(
                f"outputs[{i}]: classification is not supported: ask for label and score instead"
            )
        found[_name(entry, f"outputs[{i}]")] = parameters.get("binary_data", binary) is True
    return found


def _tensor(entry: Mapping[str, Any], place: str, body: bytes, offset: int) -> tuple[Tensor, int]:
    """A tensor, and the bytes behind the JSON that are its own."""
    name, datatype = _name(entry, place), entry.get("datatype")
    place = f"the input {name[:60]!r}"
    if not isinstance(datatype, str) or datatype not in (*_TYPES, _BYTES):
        known = ", ".join((*_TYPES, _BYTES))
        raise _BadRequestError(
            f"{place}: datatype is {abridged(datatype)}, expected one of {known}"
        )
    shape = _shape(entry.get("shape"), place)
    parameters = _object(entry.get("parameters", {}), f"{place}: parameters")
    if "shared_memory_region" in parameters:
        raise _BadRequestError(f"{place}: shared memory is not supported: send the data")
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in entry:
            raise _BadRequestError(f"{place}: has neither data nor parameters.binary_data_size")
        return _of_json(name, datatype, shape, entry["data"], place), 0
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(body) - offset:
        raise _BadRequestError(
            f"{place}: binary_data_size is {abridged(size)}, expected at most the "
            f"{len(body) - offset} bytes that are left behind the JSON"
        )
    return _of_bytes(name, datatype, shape, body, offset, size, place), size


def _of_json(name: str, datatype: str, shape: tuple[int, ...], data: Any, place: str) -> Tensor:
    count = math.prod(shape)
    if datatype == _BYTES:
        texts = list(_flat(data))
        if not all(isinstance(one, str) for one in texts):
            raise _BadRequestError(f"{place}: data holds {abridged(data)}, expected texts")
        _require_count(len(texts), count, shape, place)
        encoded = [one.encode("utf-8", "surrogatepass") for one in texts]
        return Tensor(name, datatype, shape, encoded, texts=True)
    wanted = _TYPES[datatype]
    try:
        found = np.asarray(data if isinstance(data, list) else [data])
    except (ValueError, OverflowError) as error:
        raise _BadRequestError(
            f"{place}: data is ragged, expected {list(shape)} or flat"
        ) from error
    if found.size and (
        found.dtype.kind not in _KINDS[wanted.kind]
        or (wanted.kind in "iu" and not _in_range(found, wanted))
    ):
        raise _BadRequestError(
            f"{place}: data holds {abridged(data)}, expected numbers of {datatype}"
        )
    _require_count(found.size, count, shape, place)
    return Tensor(name, datatype, shape, found.reshape(shape).astype(wanted))


def _of_bytes(
    name: str,
    datatype: str,
    shape: tuple[int, ...],
    body: bytes,
    offset: int,
    size: int,
    place: str,
) -> Tensor:
    count = math.prod(shape)
    if datatype == _BYTES:
        return Tensor(name, datatype, shape, _elements(body, offset, size, count, place))
    wanted = _TYPES[datatype]
    if size != count * wanted.itemsize:
        raise _BadRequestError(
            f"{place}: {size} bytes came, expected {count * wanted.itemsize} for {datatype} "
            f"{list(shape)}"
        )
    values = np.frombuffer(body, dtype=wanted, count=count, offset=offset)
    return Tensor(name, datatype, shape, values.reshape(shape))


def _elements(body: bytes, offset: int, size: int, count: int, place: str) -> list[bytes]:
    found: list[bytes] = []
    at, end = offset, offset + size
    while at < end and len(found) < count:
        if end - at < 4:
            break
        length = struct.unpack_from("<I", body, at)[0]
        if length > end - at - 4:
            break
        found.append(bytes(body[at + 4 : at + 4 + length]))
        at += 4 + length
    if at != end or len(found) != count:
        raise _BadRequestError(
            f"{place}: expected {count} elements of four bytes of length and so many of content, in "
            f"{size} bytes; element {len(found)} does not fit"
        )
    return found


def _packed(values: NDArray[Any] | list[str]) -> bytes:
    if isinstance(values, list):
        encoded = [one.encode("utf-8", "surrogatepass") for one in values]
        return b"".join(struct.pack("<I", len(one)) + one for one in encoded)
    return np.ascontiguousarray(values).tobytes()


def _datatype(values: NDArray[Any] | list[str]) -> str:
    if isinstance(values, list):
        return _BYTES
    return next(name for name, kind in _TYPES.items() if kind == values.dtype)


def _in_range(found: NDArray[Any], wanted: np.dtype[Any]) -> bool:
    limits = np.iinfo(wanted)
    return int(found.min()) >= limits.min and int(found.max()) <= limits.max


def _require_count(came: int, count: int, shape: tuple[int, ...], place: str) -> None:
    if came != count:
        raise _BadRequestError(f"{place}: {came} elements came, expected {count} for {list(shape)}")


def _shape(value: Any, place: str) -> tuple[int, ...]:
    sizes = value if isinstance(value, list) else [None]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sizes)
    if not whole or len(sizes) > _MOST_AXES or math.prod(sizes) > _MOST_ELEMENTS:
        raise _BadRequestError(f"{place}: shape is {abridged(value)}, expected up to 8 sizes")
    return tuple(sizes)


def _name(entry: Mapping[str, Any], place: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise _BadRequestError(f"{place}: name is {abridged(name)}, expected a text")
    return name


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _BadRequestError(f"{place} is {abridged(value)}, expected an object")
    return value


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MOST_TENSORS:
        raise _BadRequestError(f"{place} is {abridged(value)}, expected a list of up to 16 objects")
    return value


def _flat(data: Any) -> Iterable[Any]:
    """The leaves of lists in lists, which are at most 64 deep (`strict_json`)."""
    if not isinstance(data, list):
        yield data
        return
    for one in data:
        yield from _flat(one)
