"""`vptkit run --ray-address`: the same on many machines, over Ray Data."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import MissingError, MissingExtraError, VptkitError
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.progress import progress
from vptkit.shown_text import tell

from .run_outcome import require_all, require_outputs, verdict
from .stream_run import STREAM_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vptkit.formats.bundle import Bundle
    from vptkit.runtime.bulk.prediction_writers import Delivered
    from vptkit.runtime.ray_data.batch_worker import WorkOrder
    from vptkit.runtime.ray_data.gathered_answers import GatheredAnswers
    from vptkit.runtime.ray_data.parts_folder import PartsFolder

    from .found_images import FoundImages

__all__ = ["require_ray_options", "run_on_ray"]

_NOT_THERE = ("features", *STREAM_OPTIONS)


def require_ray_options(settings: Mapping[str, Any]) -> None:
    """Refuse options that do not go with a run on Ray.

    Args:
        settings: the command's options by name, None or False where they were not given;
            "ray_address" or "actors" is among them.

    Raises:
        VptkitError: such an option, a video or a camera, no address, or no --save.
    """
    from vptkit.cluster.cluster_address import require_address
    from vptkit.paths.hidden_secrets import redacted
    from vptkit.runtime.streams.source_address import source_address

    if settings["ray_address"] is None:
        raise VptkitError("--actors has no effect here: it goes with --ray-address")
    for name in _NOT_THERE:
        if settings[name] is not None and settings[name] is not False:
            raise VptkitError(
                f"--{name.replace('_', '-')} does not go with --ray-address: leave one of them away"
            )
    for source in settings["sources"]:
        if source_address(source) is not None:
            raise VptkitError(
                f"{redacted(source)}: a video or a camera. --ray-address takes images."
            )
    if settings["save"] is None:
        raise VptkitError(
            "--ray-address needs --save: the nodes write their parts beside that file"
        )
    require_address(settings["ray_address"])


def run_on_ray(
    path: Path, found: FoundImages, settings: Mapping[str, Any], *, as_json: bool
) -> None:
    """Answer the images on all nodes, then write the output as a run on this machine does.

    Args:
        path: the bundle.
        found: the images of the sources.
        settings: the command's options by name.
        as_json: print the answers, too, as JSON lines.

    Raises:
        DataError: a source was missing or an image broken; the output is written.
        VptkitError: see `vptkit.runtime.ray_data.driver_child.answer_batches` and
            `vptkit.runtime.ray_data.parts_folder.opened_parts`.
    """
    from vptkit.formats.bundle import open_bundle
    from vptkit.runtime.ray_data.parts_folder import opened_parts

    bundle, save, begun = open_bundle(path), settings["save"], time.perf_counter()
    order, run = _asked(bundle, found, settings)
    with opened_parts(save, run, resume=settings["resume"], force=settings["force"]) as parts:
        answers = _answers(order, parts, found, settings)
        delivered = _written(bundle, order, answers, save, as_json=as_json)
        parts.remove()
    found.tell()
    if not as_json:
        seconds = time.perf_counter() - begun
        tell(verdict(delivered, seconds, _backend(answers), [save]), sys.stdout)
    require_all(found.faults, delivered, shown_above=False)


def _asked(
    bundle: Bundle, found: FoundImages, settings: Mapping[str, Any]
) -> tuple[WorkOrder, dict[str, Any]]:
    """What the nodes are told, and what says which run it is; all that can be refused early is."""
    from vptkit.runtime.backends.selection import default_backend
    from vptkit.runtime.bulk.prediction_writers import require_predictions_file
    from vptkit.runtime.ray_data.batch_worker import WorkOrder
    from vptkit.runtime.ray_data.parts_folder import parts_of
    from vptkit.runtime.session.prediction import open_typicality

    _require_ray()
    save, reject = settings["save"], settings["reject"]
    require_outputs(bundle, save, None, as_json=True)
    require_predictions_file(save)
    if reject is not None:
        open_typicality(bundle, reject)
    answer = {
        "batch": bundle.batch or settings["batch"],
        "adapter": str(bundle.entry(settings["adapter"])["name"]),
        "top_k": settings["top_k"],
        "reject": reject,
        "decode": bundle.preprocess.reading(settings["decode"]).decode,
        "backend": settings["backend"] or default_backend(),
    }
    order = WorkOrder(
        bundle=bundle.path.absolute(),
        digest=bundle.digest,
        parts=parts_of(save).absolute(),
        batches=0,
        folder=Path.cwd(),
        threads=1,
        trust_engines=settings["trust_engines"],
        **answer,
    )
    about = {"bundle": bundle.digest, **found.described(), "folder": str(Path.cwd())}
    return order, {**about, **answer, "outputs": [str(save)]}


def _answers(
    order: WorkOrder, parts: PartsFolder, found: FoundImages, settings: Mapping[str, Any]
) -> GatheredAnswers:
    """What an earlier run left, and the rest from the cluster."""
    from dataclasses import replace

    from vptkit.atomic_files import require_absent
    from vptkit.runtime.ray_data.gathered_answers import GatheredAnswers

    _list(parts, found, order.batch)
    answers = GatheredAnswers(parts.answers, parts.batches)
    require_absent(settings["save"], force=settings["force"] or not answers.missing)
    if done := parts.images_of(answers.ids):
        tell(f"note: {parts.path}: {done:,} images are done, the run goes on there")
    if answers.missing:
        from vptkit.runtime.ray_data.driver_child import answer_batches

        with progress("run", total=parts.images) as bar:
            answer_batches(
                replace(order, batches=parts.batches),
                parts,
                address=settings["ray_address"],
                threads=settings["threads"],
                actors=settings["actors"],
                progress=bar,
            )
        answers = GatheredAnswers(parts.answers, parts.batches)
    return answers


def _list(parts: PartsFolder, found: FoundImages, batch: int) -> None:
    """Look the sources up; what an earlier run listed keeps its place."""
    from vptkit.runtime.bulk.seen_paths import SeenPaths

    with contextlib.closing(SeenPaths()) as listed:
        for image in parts.listed():
            listed.add(image)
        images, _ = found.look(listed)
        parts.take_up(images, batch)
    found.tell()


def _written(
    bundle: Bundle, order: WorkOrder, answers: GatheredAnswers, save: Path, *, as_json: bool
) -> Delivered:
    """The output, whole; how many answers there are, and how many of them errors."""
    from vptkit.runtime.bulk.prediction_writers import deliver, jsonl_writer, saving

    about = {
        "bundle": bundle.digest,
        "adapter": order.adapter,
        "labels": list(bundle.labels_of(str(order.adapter))),
        "backend": _backend(answers),
        "reject": order.reject,
        "decode": order.decode,
    }
    saved = saving(
        save,
        top_k=order.top_k,
        rejects=order.reject is not None,
        several=bundle.task == MULTILABEL,
        force=True,  # `_answers` looked whether it may
        about=about,
    )
    with saved as write:
        return deliver(answers, [write, jsonl_writer(sys.stdout)] if as_json else [write])


def _backend(answers: GatheredAnswers) -> str:
    return ", ".join(answers.backends)


def _require_ray() -> None:
    """Name the extra before anything is looked up.

    Raises:
        MissingExtraError: Ray, or what Ray Data needs, is not installed.
        MissingError: an older Ray.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        package = (error.name or "ray").partition(".")[0]
        raise MissingExtraError(package, "ray", "run --ray-address") from error
    try:
        import ray.data.checkpoint
    except ModuleNotFoundError as error:
        raise MissingError(
            f"run --ray-address: Ray {ray.__version__} cannot note what is done, 2.55 and newer can: "
            'pip install -U "vptkit[ray]"'
        ) from error
