"""A backbone's weights from a file or a folder, in timm's names, without torch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.backbones.stored_tensor import StoredTensors, shapes_of
from vptkit.backbones.weights_fit import other_model
from vptkit.backbones.weights_places import remembered_weights
from vptkit.errors import BackboneError
from vptkit.formats.backbone_weights import digest_of_weights, is_head, tensor_shapes
from vptkit.paths.path_advice import advice, advised
from vptkit.regular_files import is_folder
from vptkit.shown_text import tell_once

from .published_names import HUGGING_FACE, in_timm_names
from .snapshot import read_open_clip, read_snapshot
from .weights_files import opened_weights_file, weights_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

    from .published_names import Renamed
    from .snapshot import Snapshot
    from .tensor_source import Tensors

__all__ = [
    "Published",
    "documents_beside",
    "opened_published",
    "opened_remembered",
    "opened_weights",
    "read_published",
]

_PATCHES = "patch_embed.proj.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Weights as somebody published them.

    Attributes:
        file: the file that was read.
        arrays: name → numbers, in timm's names as far as no model is needed; without classifier.
            Of `opened_published` each is read when it is asked for.
        project, family: whose names they had; "" if unknown.
        container: the keys that lead to them within the file, as "teacher"; "" at the top.
        prefix: what was taken off every name.
        left_out: names that no feature depends on, with the classifier's.
        classes: of a classifier that was left out; None without one.
        norm_eps, activation: what the publisher's model has where no tensor tells; None: as the backbone.
        positions: how the publisher resizes them: "timm", "hf" or "hub".
        snapshot: what the documents beside them say, if any.
    """

    file: Path
    arrays: Mapping[str, NDArray[Any]]
    project: str = ""
    family: str = ""
    container: str = ""
    prefix: str = ""
    left_out: tuple[str, ...] = ()
    classes: int | None = None
    norm_eps: float | None = None
    activation: str | None = None
    positions: str = "timm"
    snapshot: Snapshot | None = None

    @property
    def plain(self) -> bool:
        """Whether names and places are those of timm's own files, so that nothing is to be said."""
        return not (self.project not in ("", "timm") or self.container or self.prefix)

    def said(self) -> str:
        """What was recognised, for people, in a line."""
        names = {"": "names of nobody that is known", "timm": "timm's names"}.get(self.project)
        parts = [names or f"{self.project}'s names"]
        parts[0] += f" ({self.family})" if self.family else ""
        parts += [f"under {self.container!r}"] if self.container else []
        parts += [f"the prefix {self.prefix!r} taken off"] if self.prefix else []
        parts += [f"a classifier of {self.classes} classes left out"] if self.classes else []
        others = sorted({_word(name, self.prefix) for name in self.left_out} - {"head"})
        if others:
            more = f" and {len(others) - 4} more" if len(others) > 4 else ""
            parts.append(f"left out {', '.join(others[:4])}{more}")
        return f"weights: {self.file.name}: {', '.join(parts)}"

    def noted(self) -> dict[str, str]:
        """The same for a file; nothing of timm's own files."""
        if self.plain:
            return {}
        found = {"names": self.project, "family": self.family}
        found |= {"container": self.container, "prefix": self.prefix}
        return {key: value for key, value in found.items() if value}


def read_published(path: Path) -> Published:
    """Weights of a file, of an index of shards, or of a folder with its documents, all in memory.

    Raises:
        BackboneError: see `opened_published`.
    """
    with opened_published(path) as published:
        return replace(published, arrays=dict(published.arrays))


@contextlib.contextmanager
def opened_published(path: Path) -> Iterator[Published]:
    """Yield weights of a file, of an index of shards, or of a folder with its documents.

    The documents beside a single file hold, too, if the file is called as the hub calls it.

    Raises:
        BackboneError: there is no such file, it is damaged, it is something else (an adapter, a
            bundle), or holds several models; from a tensor that is read: it was changed meanwhile.
    """
    with advised(path, "weights", BackboneError):
        file = weights_file(path)
    with opened_weights_file(file) as tensors:
        yield _published(path, file, tensors)


def _published(path: Path, file: Path, tensors: Tensors) -> Published:
    renamed = _renamed(file, tensors)
    if _PATCHES not in renamed.arrays and not renamed.project:  # readable, as an adapter is
        wrong = advice(file, "weights")
        if wrong is not None:
            raise BackboneError(wrong)
    snapshot = documents_beside(path, file)
    kept = {name: value for name, value in renamed.arrays.items() if not is_head(name)}
    return Published(
        file=file,
        arrays=StoredTensors(kept),
        project=renamed.project,
        family=renamed.family,
        container=tensors.container,
        prefix=renamed.prefix,
        left_out=(*renamed.left_out, *(name for name in renamed.arrays if is_head(name))),
        classes=_classes(tensors),
        norm_eps=_norm_eps(renamed, snapshot),
        activation=_activation(renamed, snapshot, tensors),
        positions=renamed.positions,
        snapshot=snapshot,
    )


def documents_beside(path: Path, file: Path) -> Snapshot | None:
    """What the documents say that belong to weights.

    Args:
        path: as the user named them.
        file: of the weights; one that the user named counts if it is called as the hub calls it.

    Raises:
        BackboneError: a document is not readable.
    """
    belong = is_folder(path) or file.name.startswith(
        ("model.", "model-", "pytorch_model", "open_clip_")
    )
    if not belong:
        return None
    own = read_open_clip(file.parent) if file.name.startswith("open_clip_") else None
    return own or read_snapshot(file.parent)


def _word(name: str, prefix: str) -> str:
    """A tensor's part of a model, as "decoder_*", "classifier" or "module.momentum_encoder"."""
    begin = next((p for p in (prefix, "module.") if p and name.startswith(p)), "")
    word = name[len(begin) :].split(".")[0]
    if word.startswith(("head", "classifier", "cls_classifier", "distillation_classifier")):
        return "head"
    return "decoder_*" if word.startswith("decoder_") else word[:40]


def _renamed(file: Path, tensors: Tensors) -> Renamed:
    try:
        return in_timm_names(tensors.arrays)
    except BackboneError as error:
        raise BackboneError(f"{file}: {error}") from error


def _classes(tensors: Tensors) -> int | None:
    """Rows of the classifier, whatever prefix it has."""
    for name, value in tensors.arrays.items():
        if value.ndim == 2 and name.endswith((".head.weight", "classifier.weight")):
            return len(value)
    head = tensors.arrays.get("head.weight")
    return len(head) if head is not None and head.ndim == 2 else None


def _norm_eps(renamed: Renamed, snapshot: Snapshot | None) -> float | None:
    if renamed.project == HUGGING_FACE and snapshot is not None and snapshot.norm_eps is not None:
        return snapshot.norm_eps
    return renamed.norm_eps


def _activation(renamed: Renamed, snapshot: Snapshot | None, tensors: Tensors) -> str | None:
    told = {
        HUGGING_FACE: snapshot is not None,
        "CLIP": getattr(snapshot, "family", "") == "OpenCLIP",
    }
    if snapshot is not None and told.get(renamed.project):
        return snapshot.activation
    if renamed.family == "SigLIP":
        return "gelu_tanh"
    # OpenAI's files have these numbers beside their tensors, and an activation of their own
    own = {"input_resolution", "context_length", "vocab_size"}
    return "quick_gelu" if renamed.project == "CLIP" and own <= tensors.beside else None


@contextlib.contextmanager
def opened_weights(path: Path, spec: BackboneSpec) -> Iterator[StoredTensors | None]:
    """Yield a backbone's tensors from a file, without torch; each is read when it is asked for.

    Args:
        path: the file or folder, in any form that `read_published` takes.
        spec: which tensors to expect.

    Yields:
        float32 tensors by name, classifier left out; None if the file holds this backbone in
        another form (names or a position grid that timm would convert on loading).

    Raises:
        BackboneError: the file is missing or broken, or is of another model: of another width or
            depth, which timm does not convert; from a tensor that is read: it holds NaN or Inf, or
            the file was changed meanwhile.
    """
    with opened_published(path) as published:
        expected, found = tensor_shapes(spec), shapes_of(published.arrays)
        if found != expected:
            reason = other_model(found, expected, patch=False)
            if reason is not None:
                raise BackboneError(f"{path}: {reason}")
            yield None
            return

        def checked(name: str, value: NDArray[Any]) -> NDArray[np.float32]:
            numbers = np.asarray(value, dtype=np.float32)
            if not np.isfinite(numbers).all():
                raise BackboneError(f"{path}: {name} holds NaN or Inf; the file is damaged")
            return numbers

        if not published.plain:
            tell_once(published.said(), published.file.absolute())
        yield StoredTensors(published.arrays, checked)


@contextlib.contextmanager
def opened_remembered(spec: BackboneSpec, sha256: str | None) -> Iterator[StoredTensors | None]:
    """Yield a backbone's tensors from where this user's cache remembers them, the digest compared.

    Yields:
        As `opened_weights`; None if nothing is remembered, or what lies there is not that any more.
    """
    path = remembered_weights(sha256)
    with contextlib.ExitStack() as stack:
        tensors = None
        with contextlib.suppress(BackboneError):
            found = None if path is None else stack.enter_context(opened_weights(path, spec))
            if found is not None and digest_of_weights(found) == sha256:
                tensors = found
        yield tensors
