"""What a request means: images and adapters in, logits, labels and scores back.

The inputs are `images` (UINT8 [B, H, W, 3], resized and cropped) or `image` (BYTES [B], encoded files;
in JSON as base64), and `adapter` (BYTES [B], names, or INT32 [B], numbers; also `parameters.adapter`
for all of them). The outputs are `logits` (FP32 [B, C]), `label` (BYTES [B]), `score` (FP32 [B]); where
an image may have several labels `scores` (FP32 [B, C]), too.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import DataError
from vptkit.images.image_pixels import pixels_of
from vptkit.schema import abridged
from vptkit.scores.probabilities import softmax

from .http_error import HttpError
from .inference_protocol import OutputTensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle
    from vptkit.images.preprocess import Preprocess

    from .inference_protocol import InferenceRequest, Tensor

__all__ = [
    "UploadedImage",
    "adapters_of",
    "best_labels",
    "decode",
    "given_labels",
    "images_of",
    "output_names",
    "outputs_of",
    "require_adapter",
]

_INPUTS = ("images", "image", "adapter")
_LOWEST = np.finfo(np.float32).min  # JSON has no infinity


@dataclass(frozen=True, slots=True)
class UploadedImage:
    """An encoded image of a request, read like a file.

    Attributes:
        name: what messages call it.
        content: its bytes.
    """

    name: str
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def read_bytes(self) -> bytes:
        """The encoded image."""
        return self.content


def images_of(
    request: InferenceRequest, preprocess: Preprocess
) -> NDArray[np.uint8] | list[UploadedImage]:
    """The images of a request: prepared ones, uint8 [B, H, W, 3], or encoded ones.

    Raises:
        HttpError: 400: an input of another name, type or shape, neither or both of them, or none.
    """
    unknown = [name for name in request.inputs if name not in _INPUTS]
    given = [name for name in ("images", "image") if name in request.inputs]
    if unknown or len(given) != 1:
        came = ", ".join(sorted(request.inputs))[:200]
        raise _refused(
            f"the inputs are {came}; expected images (UINT8 [B, H, W, 3]) or image (BYTES [B], "
            "encoded files), and adapter (BYTES [B]) for a bank"
        )
    tensor = request.inputs[given[0]]
    height, width = preprocess.size
    if tensor.name == "images":
        wanted = (height, width, 3)
        if tensor.datatype != "UINT8" or tensor.shape[1:] != wanted or not tensor.shape[0]:
            raise _refused(
                f"images: came as {tensor.datatype} {list(tensor.shape)}, expected UINT8 [B, "
                f"{height}, {width}, 3], RGB, resized and cropped; the input image takes encoded "
                "files of any size"
            )
        return np.asarray(tensor.values)
    if tensor.datatype != "BYTES" or not _is_column(tensor.shape):
        raise _refused(
            f"image: came as {tensor.datatype} {list(tensor.shape)}, expected BYTES [B], encoded "
            "files"
        )
    return [UploadedImage(f"image {i}", content) for i, content in enumerate(_contents(tensor))]


def adapters_of(
    request: InferenceRequest, bundle: Bundle, count: int, asked: str | None = None
) -> list[str]:
    """The name of each image's adapter.

    Args:
        request: with the input `adapter`, `parameters.adapter`, or neither.
        bundle: as it is for this request.
        count: images.
        asked: by the URL: the adapter that was named as a model.

    Raises:
        HttpError: 404: no such adapter; 400: another type or number, two answers, or none where
            there are several adapters.
    """
    names: list[str | int | None] = [asked] if asked is not None else []
    if "adapter" in request.parameters:
        value = request.parameters["adapter"]
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise _refused(f"parameters.adapter is {abridged(value)}, expected a name")
        names.append(value)
    if len(names) > 1 or (names and "adapter" in request.inputs):
        raise _refused(
            "the adapter is named more than once: by the input adapter, by parameters.adapter, or as "
            "the model; expected one of them"
        )
    if "adapter" in request.inputs:
        return _of_input(request.inputs["adapter"], bundle, count)
    return [require_adapter(bundle, names[0] if names else None)] * count


def require_adapter(bundle: Bundle, name: str | int | None) -> str:
    """The name of an adapter by its name, or by its number in the bundle; the only one for None.

    Raises:
        HttpError: 404: there is no such; 400: there are several, and none was named.
    """
    known = bundle.adapter_names
    listed = ", ".join(known[:10]) + (f", … ({len(known)})" if len(known) > 10 else "")
    if name is None:
        if len(known) > 1:
            raise _refused(f"no adapter is named, expected one of {listed}")
        return known[0]
    if isinstance(name, int):
        if not 0 <= name < len(known):
            raise HttpError(404, f"no adapter number {name}, expected 0 to {len(known) - 1}")
        return known[name]
    if name not in known:
        raise HttpError(404, f"no adapter {name[:100]!r}, expected one of {listed}")
    return name


def decode(image: UploadedImage, preprocess: Preprocess) -> NDArray[np.uint8]:
    """The pixels of an encoded image: uint8 [H, W, 3].

    Raises:
        HttpError: 400: not an image, broken, or too large; 503: no memory.
    """
    if not image.content:
        raise _refused(f"{image}: is empty, expected an encoded image, as a JPEG")
    try:
        return pixels_of(image, preprocess)
    except DataError as error:
        raise _refused(str(error)) from error
    except MemoryError as error:
        raise HttpError(503, f"{image}: not enough memory to resize it", retry_after=1) from error


def output_names(bundle: Bundle) -> tuple[str, ...]:
    """What may be asked for."""
    several = any("thresholds" in entry for entry in bundle.manifest["adapters"])
    return ("logits", "label", "score", *(("scores",) if several else ()))


def outputs_of(
    answers: NDArray[np.float32], adapters: Sequence[str], bundle: Bundle
) -> dict[str, OutputTensor]:
    """All outputs of a request, by name.

    Args:
        answers: logits [B, 1, C of the bank]; where an image may have several labels logits and scores,
            [B, 2, C].
        adapters: of each image.
        bundle: as it is for this request.

    Returns:
        Logits and scores of as many columns as the largest of its adapters has labels; what the others
        lack is the lowest number of FP32, and a score of 0.

    Raises:
        HttpError: 500: NaN or Inf.
    """
    entries = {name: bundle.entry(name) for name in set(adapters)}
    width = max(len(entry["labels"]) for entry in entries.values())
    padded = np.full((len(answers), width), _LOWEST, dtype=np.float32)
    scores = np.zeros((len(answers), width), dtype=np.float32)
    best = []
    for i, (row, name) in enumerate(zip(answers, adapters, strict=True)):
        labels = entries[name]["labels"]
        scores[i, : len(labels)] = _scores(row, entries[name], f"image {i}")
        padded[i, : len(labels)] = row[0, : len(labels)]
        best.append(labels[int(scores[i].argmax())])
    count = len(answers)
    found = {
        "logits": OutputTensor("logits", padded, padded.shape),
        "label": OutputTensor("label", best, (count,)),
        "score": OutputTensor("score", scores.max(axis=1), (count,)),
        "scores": OutputTensor("scores", scores, scores.shape),
    }
    return {name: found[name] for name in output_names(bundle)}


def best_labels(
    row: NDArray[np.float32], entry: Mapping[str, Any], top_k: int, image: str
) -> list[tuple[str, float]]:
    """The best labels of an image with their probabilities, best first.

    Args:
        row: of the answers of `outputs_of`, of which the first C are those of the labels.
        entry: of the adapter in the manifest.
        top_k: how many, at most C.
        image: what messages call it.

    Raises:
        HttpError: 500: NaN or Inf.
    """
    scores = _scores(row, entry, image)
    order = np.argsort(-scores, kind="stable")[:top_k]  # equal scores: the first label first
    return [(entry["labels"][i], float(scores[i])) for i in order]


def given_labels(
    ranked: Sequence[tuple[str, float]], entry: Mapping[str, Any]
) -> list[tuple[str, float]] | None:
    """Those of all labels that an image is given; None where it has exactly one.

    Args:
        ranked: of `best_labels`, all C.
        entry: of the adapter in the manifest.
    """
    if "thresholds" not in entry:
        return None
    least = dict(zip(entry["labels"], entry["thresholds"], strict=True))
    return [(label, score) for label, score in ranked if score >= np.float32(least[label])]


def _scores(row: NDArray[np.float32], entry: Mapping[str, Any], image: str) -> NDArray[np.float32]:
    """Probabilities of the labels [C]: of one among them, or of each, as the graph gives them."""
    own = row[:, : len(entry["labels"])]
    if not np.isfinite(own).all():
        raise HttpError(
            500, f"{image}: the logits hold NaN or Inf; the graph overflows on this image"
        )
    if "thresholds" in entry:
        scores: NDArray[np.float32] = own[1]
        return scores
    return softmax(own[0]).astype(np.float32)


def _of_input(tensor: Tensor, bundle: Bundle, count: int) -> list[str]:
    if tensor.datatype not in ("BYTES", "INT32") or not _is_column(tensor.shape):
        raise _refused(
            f"adapter: came as {tensor.datatype} {list(tensor.shape)}, expected BYTES [{count}], names, "
            f"or INT32 [{count}], numbers"
        )
    if tensor.shape[0] != count:
        raise _refused(f"adapter: {tensor.shape[0]} came for {count} images, expected one for each")
    values: list[str | int] = (
        [one.decode("utf-8", "replace") for one in tensor.values]
        if isinstance(tensor.values, list)
        else [int(one) for one in tensor.values.ravel()]
    )
    found: Mapping[Any, str] = {one: require_adapter(bundle, one) for one in set(values)}
    return [found[one] for one in values]


def _contents(tensor: Tensor) -> list[bytes]:
    """The encoded files; in JSON they are base64."""
    values = tensor.values
    if isinstance(values, np.ndarray):  # never of BYTES
        raise _refused("image: expected BYTES")
    if not tensor.texts:
        return values
    return [_of_base64(text, i) for i, text in enumerate(values)]


def _of_base64(text: bytes, number: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(
            f"image {number}: its text in JSON is no base64 ({error}); or send the files in binary"
        ) from error


def _is_column(shape: tuple[int, ...]) -> bool:
    """[B] or [B, 1], as Triton's clients have it, and B is not 0."""
    return len(shape) in (1, 2) and shape[0] > 0 and shape[1:] in ((), (1,))


def _refused(message: str) -> HttpError:
    return HttpError(400, message)
