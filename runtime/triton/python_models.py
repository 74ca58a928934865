"""What Triton's Python backend starts: the `model.py` of a repository names one of these classes.

Triton hands over requests of several clients at once (`dynamic_batching`), in a process of each
instance; the package `triton_python_backend_utils` is there only. What Triton calls: `initialize`,
`execute`, `finalize`.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import BundleError, DataError, TargetError, VptkitError
from vptkit.formats.bundle import LOGITS, open_bundle
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.session_protocol import graph_input

from .batch_answers import SCORES, BatchAnswers, Request, adapters_of, labelled, pixels_of
from .request_images import Decoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vptkit.formats.bundle import Bundle

    from .batch_answers import Answer

__all__ = ["DecodingModel", "LabellingModel", "SessionModel"]

# Parameters of config.pbtxt that these classes read
BUNDLE, BACKEND, THREADS, TRUST = "bundle", "session_backend", "threads", "trust_engines"
DECODE = "decode"


class _Model:
    """What the classes share: parameters in, requests out, answers and errors back."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the bundle.

        Args:
            args: of Triton; `model_repository` is the model's folder, `model_config` JSON.

        Raises:
            VptkitError: the bundle cannot be opened; Triton shows the message and does not load it.
        """
        self.utils: Any = importlib.import_module("triton_python_backend_utils")
        given = json.loads(args["model_config"]).get("parameters", {})
        self.parameters = {key: value["string_value"] for key, value in given.items()}
        version = Path(args["model_repository"]) / args["model_version"]
        self.open(version / self.parameters[BUNDLE])

    def open(self, path: Path) -> None:
        """Open the bundle."""
        raise NotImplementedError

    def finalize(self) -> None:
        """Free everything."""

    def requests_of(self, requests: Sequence[Any]) -> list[Request]:
        """Triton's requests as ours."""
        return [
            Request(
                image=self.tensor(request, "image"),
                images=self.tensor(request, "images"),
                adapter=self.tensor(request, "adapter"),
                adapter_index=self.tensor(request, "adapter_index"),
                named=_named(request),
            )
            for request in requests
        ]

    def tensor(self, request: Any, name: str) -> Any:
        """An input as an array, None where the request has none."""
        found = self.utils.get_input_tensor_by_name(request, name)
        return None if found is None else found.as_numpy()

    def responses(self, answers: Sequence[Answer]) -> list[Any]:
        """Answers as Triton's responses; of an error its text, and whose fault it is."""
        utils, found = self.utils, []
        for answer in answers:
            if isinstance(answer, VptkitError):
                ours = isinstance(answer, TargetError)
                code = utils.TritonError.INTERNAL if ours else utils.TritonError.INVALID_ARG
                error = utils.TritonError(str(answer), code)
                found.append(utils.InferenceResponse(output_tensors=[], error=error))
            else:
                tensors = [utils.Tensor(name, value) for name, value in answer.items()]
                found.append(utils.InferenceResponse(output_tensors=tensors))
        return found


class SessionModel(_Model):
    """A whole bundle: images and adapters in, logits and labels out, on a session of ours.

    A bank that is edited on disk answers with the new set at the next batch.
    """

    def open(self, path: Path) -> None:
        """Open a session."""
        threads = int(self.parameters[THREADS])
        session = open_session(
            path,
            self.parameters[BACKEND],
            threads or None,
            trust_engines=self.parameters[TRUST] == "yes",
        )
        self.answers = BatchAnswers(session, threads or None, self.parameters.get(DECODE))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests in one run."""
        return self.responses(self.answers.answer(self.requests_of(requests)))

    def finalize(self) -> None:
        """Close the session."""
        self.answers.close()


class DecodingModel(_Model):
    """The first step of an ensemble: encoded images and names in, what a bare graph takes out."""

    def open(self, path: Path) -> None:
        """Read the manifest."""
        self.bundle = open_bundle(path, verify=False)
        reading = self.bundle.preprocess.reading(self.parameters.get(DECODE))
        self.decoder = Decoder(reading, int(self.parameters[THREADS]) or None)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Decode all images at once."""
        asked = self.requests_of(requests)
        pixels = pixels_of(asked, self.bundle, self.decoder)
        return self.responses(
            [self._one(request, images) for request, images in zip(asked, pixels, strict=True)]
        )

    def finalize(self) -> None:
        """End the threads."""
        self.decoder.close()

    def _one(self, request: Request, images: Any) -> Answer:
        if isinstance(images, VptkitError):
            return images
        found = {self.bundle.input: graph_input(images, self.bundle)}
        try:
            names = adapters_of(request, len(images), self.bundle)
        except VptkitError as error:
            return error
        if self.bundle.layout == "bank":
            known = self.bundle.adapter_names
            found["adapter_index"] = np.asarray([known.index(n) for n in names], np.int32)
        return found


class LabellingModel(_Model):
    """The last step of an ensemble: a graph's logits in, labels and their probabilities out."""

    def open(self, path: Path) -> None:
        """Read the manifest."""
        self.bundle = open_bundle(path, verify=False)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Label each request's logits."""
        return self.responses([self._one(request) for request in requests])

    def _one(self, request: Any) -> Answer:
        logits = self.tensor(request, LOGITS)  # [B, C]
        numbers = self.tensor(request, "adapter_index")
        try:
            names = _names(self.bundle, numbers, len(logits))
            scores = self.tensor(request, SCORES)
            known = {LOGITS: logits} if scores is None else {LOGITS: logits, SCORES: scores}
            found = labelled(known, names, self.bundle)
            return {name: value for name, value in found.items() if name != SCORES}
        except (BundleError, DataError) as error:
            return error


def _names(bundle: Bundle, numbers: Any, count: int) -> list[str]:
    if numbers is None:
        return [bundle.adapter_names[0]] * count
    return adapters_of(Request(adapter_index=numbers), count, bundle)


def _named(request: Any) -> str | None:
    """The adapter among a request's parameters; an old Triton has none."""
    text = request.parameters() if hasattr(request, "parameters") else ""
    found = json.loads(text).get("adapter") if text else None
    return None if found is None else str(found)
