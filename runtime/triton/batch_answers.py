"""Requests of several clients and adapters → one run of a session → an answer, or an error, for each.

An error is its own request's only: what is wrong with it is found before the run, and where a run
fails as a whole each request is run again alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import DataError, VptkitError
from vptkit.formats.bundle import LOGITS
from vptkit.runtime.session.session_protocol import require_images
from vptkit.scores.probabilities import softmax

from .request_images import Decoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle
    from vptkit.runtime.session.session_protocol import Session

    Answer = Mapping[str, NDArray[Any]] | VptkitError
    _Asked = tuple[NDArray[np.uint8], list[str]]  # images, and the adapter of each

__all__ = ["SCORES", "BatchAnswers", "Request", "adapters_of", "labelled", "pixels_of"]

SCORES = "scores"  # of a graph whose labels do not exclude each other: each one's probability
# What stands where an image's adapter has no such class.
_LACKING = {LOGITS: np.finfo(np.float32).min, SCORES: np.float32(0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client asks, tensors as they came.

    Attributes:
        image: B encoded images, or None.
        images: uint8 [B, H, W, 3], prepared, or None.
        adapter: B names as bytes, or None.
        adapter_index: B numbers of adapters, int32, or None.
        named: one name for all images, from the request's parameters; or None.
    """

    image: NDArray[Any] | None = None
    images: NDArray[np.uint8] | None = None
    adapter: NDArray[Any] | None = None
    adapter_index: NDArray[np.int32] | None = None
    named: str | None = None


class BatchAnswers:
    """A session that answers requests together."""

    def __init__(
        self, session: Session, workers: int | None = None, decode: str | None = None
    ) -> None:
        """Keep the session, which is closed with this; `workers` decode, "exact" or "fast"."""
        self.session = session
        self._decoder = Decoder(session.bundle.preprocess.reading(decode), workers)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Outputs by name, or an error, for each request.

        Outputs are what the graph gives, float32 [B, …], and of logits also `label` [B] (text) and
        `score` [B] (float32). In a bank, logits that an image's adapter does not have are the lowest
        number of float32, as JSON has no infinity.
        """
        try:
            self.session.refresh()
        except VptkitError as error:
            return [error] * len(requests)
        bundle = self.session.bundle
        pixels = pixels_of(requests, bundle, self._decoder)
        asked = [
            images if isinstance(images, VptkitError) else _asked(request, images, bundle)
            for request, images in zip(requests, pixels, strict=True)
        ]
        ran = iter(self._run_all([one for one in asked if not isinstance(one, VptkitError)]))
        return [one if isinstance(one, VptkitError) else next(ran) for one in asked]

    def close(self) -> None:
        """Close the session, and end the threads."""
        self._decoder.close()
        self.session.close()

    def _run_all(self, good: Sequence[_Asked]) -> list[Answer]:
        if not good:
            return []
        images = np.concatenate([images for images, _ in good])
        names = [name for _, names in good for name in names]
        try:
            outputs = self._run(images, names)
        except VptkitError as error:
            if len(good) == 1:
                return [error]
            return [answer for one in good for answer in self._run_all([one])]
        ends = np.cumsum([len(images) for images, _ in good])[:-1]
        parts = {name: np.split(value, ends) for name, value in outputs.items()}
        return [
            self._labelled({name: part[k] for name, part in parts.items()}, names)
            for k, (_, names) in enumerate(good)
        ]

    def _labelled(self, outputs: Mapping[str, NDArray[np.float32]], names: Sequence[str]) -> Answer:
        try:
            return labelled(outputs, names, self.session.bundle)
        except VptkitError as error:
            return error

    def _run(
        self, images: NDArray[np.uint8], names: Sequence[str]
    ) -> Mapping[str, NDArray[np.float32]]:
        bank = self.session.bundle.layout == "bank"
        return self.session.answers(images, names if bank else None)


def pixels_of(
    requests: Sequence[Request], bundle: Bundle, decoder: Decoder
) -> list[NDArray[np.uint8] | VptkitError]:
    """Prepared images of each request, uint8 [B, H, W, 3], or what is wrong."""
    encoded = [[] if r.image is None else [bytes(one) for one in r.image.flat] for r in requests]
    found: list[NDArray[np.uint8] | VptkitError] = [*decoder.decode(encoded)]
    for i, request in enumerate(requests):
        if (request.image is None) == (request.images is None):
            came = "both" if request.image is not None else "neither"
            found[i] = DataError(
                f"{came} of the inputs image and images came: expected image (BYTES [B, 1], "
                "encoded files) or images (UINT8 [B, H, W, 3], resized and cropped)"
            )
        elif request.images is not None:
            try:
                require_images(request.images, bundle)
                found[i] = request.images
            except DataError as error:
                found[i] = error
    return found


def adapters_of(request: Request, count: int, bundle: Bundle) -> list[str]:
    """The adapter of each image of a request.

    Raises:
        DataError: another number of adapters than images, or a name that is no text.
        BundleError: there is no such adapter, or there are several and none is named.
    """
    given: list[str | None]
    named = (request.adapter, request.adapter_index, request.named)
    if sum(one is not None for one in named) > 1:
        raise DataError(
            "adapters came twice: expected one of the inputs adapter and adapter_index, or the "
            "parameter adapter"
        )
    if request.adapter is not None:
        given = [_text_of(one, i) for i, one in enumerate(request.adapter.flat)]
    elif request.adapter_index is not None:
        given = [_name_of(int(one), bundle) for one in request.adapter_index.flat]
    else:
        given = [request.named or None] * count
    if len(given) != count:
        raise DataError(f"adapter: {len(given)} came for {count} images, expected one for each")
    return [str(bundle.entry(name)["name"]) for name in given]


def labelled(
    outputs: Mapping[str, NDArray[np.float32]], names: Sequence[str], bundle: Bundle
) -> dict[str, NDArray[Any]]:
    """Outputs of a request and, where there are logits, the best label and its probability.

    Raises:
        DataError: an output is not finite.
        BundleError: an adapter was removed meanwhile.
    """
    found: dict[str, NDArray[Any]] = dict(outputs)
    lacking = {name: low for name, low in _LACKING.items() if name in outputs}
    found |= {name: np.array(outputs[name]) for name in lacking}  # copies, that are written to
    labels: list[str] = []
    scores = np.zeros(len(names), np.float32)
    for i, name in enumerate(names):
        own = bundle.labels_of(name)
        for output, value in outputs.items():
            row = value[i, : len(own)] if output in (LOGITS, SCORES) else value[i]
            if not np.isfinite(row).all():
                raise DataError(
                    f"image[{i}]: the {output} hold NaN or Inf; the graph overflows on this image"
                )
        for output, low in lacking.items():
            found[output][i, len(own) :] = low
        if LOGITS in outputs:
            shares = _probabilities(outputs, i, len(own))
            best = int(shares.argmax())
            labels.append(own[best])
            scores[i] = shares[best]
    if LOGITS in outputs:
        found |= {"label": np.asarray(labels, dtype=object), "score": scores}
    return found


def _probabilities(
    outputs: Mapping[str, NDArray[np.float32]], i: int, classes: int
) -> NDArray[Any]:
    """Of image i: those that the graph gives, else softmax of its logits."""
    if SCORES in outputs:
        return outputs[SCORES][i, :classes]
    return softmax(outputs[LOGITS][i, :classes])


def _asked(request: Request, images: NDArray[np.uint8], bundle: Bundle) -> _Asked | VptkitError:
    try:
        return images, adapters_of(request, len(images), bundle)
    except VptkitError as error:
        return error


def _text_of(value: object, number: int) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise DataError(f"adapter[{number}]: not UTF-8, expected the name of an adapter") from error


def _name_of(number: int, bundle: Bundle) -> str:
    names = bundle.adapter_names
    if not 0 <= number < len(names):
        raise DataError(
            f"adapter_index: {number} came, expected 0 to {len(names) - 1} ({', '.join(names[:10])})"
        )
    return names[number]
