"""One bundle that is served: its session, its queue, and its adapters as they change on disk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import BundleError
from vptkit.formats.bundle import LOGITS, SCORES
from vptkit.runtime.session.bank_session import BankSession

from .batching_queue import BatchingQueue
from .image_requests import output_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle
    from vptkit.runtime.session.session_protocol import Session

    Observed = Callable[[int, float, float], None]

__all__ = ["ServedModel"]

_BATCH = 8  # images of a run unless told


class ServedModel:
    """An open session and the queue before it.

    Attributes:
        name: of the model: the bundle's folder without .vptk.
        session: the open bundle; of a bank it is changed by the queue's thread alone.
        queue: its state is the `Bundle` that a request is answered by.
        max_batch: images of a run.
        decode: how images are decoded, "exact" or "fast".
    """

    def __init__(
        self,
        name: str,
        session: Session,
        *,
        max_batch: int | None = None,
        decode: str | None = None,
        max_wait: float = 0.002,
        size: int = 256,
        observed: Observed | None = None,
    ) -> None:
        """Start the queue.

        Args:
            name: of the model.
            session: closed by `close`.
            max_batch: images of a run; the bundle's own batch, else 8, unless given.
            decode: how images are decoded (`vptkit.images.image_pixels`); exactly unless given.
            max_wait, size, observed: of `BatchingQueue`.

        Raises:
            BundleError: the bundle gives no logits.
            VptkitError: there is no such way to decode.
        """
        session.bundle.require_output(LOGITS)
        self.name, self.session = name, session
        self.max_batch = max_batch or session.bundle.batch or _BATCH
        self.decode = session.bundle.preprocess.reading(decode).decode
        self._following = threading.Lock()
        if isinstance(session, BankSession):
            session.hold()
        self.queue: BatchingQueue[Bundle] = BatchingQueue(
            self._run,
            session.bundle,
            max_batch=self.max_batch,
            max_wait=max_wait,
            size=size,
            observed=observed,
            name=name,
        )

    @property
    def bundle(self) -> Bundle:
        """The bundle as the next request sees it."""
        return self.queue.state

    @property
    def path(self) -> Path:
        """The bundle's folder."""
        return self.session.bundle.path

    def follow(self) -> bool:
        """Take over what was changed on disk, and wait until it is.

        Requests that began before are answered as they began. Called by any thread but the queue's.

        Returns:
            Whether anything was changed.

        Raises:
            BundleError: what is on disk cannot be taken over; then all stays as it is.
        """
        session = self.session
        if not isinstance(session, BankSession):
            return False
        with self._following:
            change = session.changed()
            if change is None:
                return False
            if change.bundle.outputs != session.bundle.outputs:
                raise BundleError(
                    f"{self.path}: it gives other outputs now. Start the server again."
                )
            self.queue.change(change.bundle, lambda: session.take(change)).result()
            return True

    def metadata(self, adapter: str | None = None) -> dict[str, Any]:
        """What `GET /v2/models/NAME` tells.

        Args:
            adapter: that was named as the model; then it is told of that one.
        """
        bundle = self.bundle
        height, width = bundle.preprocess.size
        own = [bundle.entry(name) for name in bundle.adapter_names if adapter in (None, name)]
        classes = max(len(entry["labels"]) for entry in own)
        outputs = {
            "logits": ("FP32", [-1, classes]),
            "label": ("BYTES", [-1]),
            "score": ("FP32", [-1]),
            "scores": ("FP32", [-1, classes]),
        }
        inputs = {"images": ("UINT8", [-1, height, width, 3]), "image": ("BYTES", [-1])}
        if bundle.layout == "bank" and adapter is None:
            inputs["adapter"] = ("BYTES", [-1])
        members = [
            {
                "name": entry["name"],
                "parent": self.name,
                "root": self.name,
                "labels": entry["labels"],
            }
            for entry in own
        ]
        return {
            "name": self.name,
            "versions": ["1"],
            "platform": f"vptkit_{self.session.backend}",
            "decode": self.decode,
            "inputs": [_tensor(name, *kind) for name, kind in inputs.items()],
            "outputs": [_tensor(name, *outputs[name]) for name in output_names(bundle)],
            **({"adapters": members} if adapter is None else members[0]),
        }

    def close(self, timeout: float | None = None) -> None:
        """Answer what waits, and free the session."""
        self.queue.close(timeout)
        self.session.close()

    def _run(self, images: NDArray[np.uint8], adapters: Sequence[str]) -> NDArray[np.float32]:
        """Logits [B, 1, C], and behind them, where an image may have several labels, the scores [B, 2, C]."""
        found = self.session.answers(images, adapters)
        return np.stack([found[name] for name in (LOGITS, SCORES) if name in found], axis=1)


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}
