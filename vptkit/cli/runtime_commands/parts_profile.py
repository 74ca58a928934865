"""`vptkit profile --parts`: options and output of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.cli.shared.option_effect import Rule
from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["PARTS_RULES", "emit_parts"]

_OTHERS = (
    *("accuracy", "baseline", "clean", "cuda_graph", "energy", "export_layer_info"),
    *("export_profile", "export_times", "force", "latency_bound_ms", "layers", "loadgen"),
    *("loadgen_logs", "memory", "min_duration", "on", "pin_clocks", "plot", "power", "python"),
    *("queries", "ssh_option", "streams", "target_qps", "trace"),
)
PARTS_RULES = (
    Rule(("decode",), "--parts", lambda settings: bool(settings["parts"])),
    Rule(
        _OTHERS,
        "a profile of graphs, and --parts measures the way from a file to its labels",
        lambda settings: not settings["parts"],
        "Leave it or --parts away.",
    ),
)


def emit_parts(bundles: Sequence[Path], given: Mapping[str, Any]) -> None:
    """Profile the way from a file to its labels, and print it.

    Args:
        bundles: one or more.
        given: the command's options by name.

    Raises:
        VptkitError: no --data, or a number out of range.
        DataError: it holds no images.
    """
    from vptkit.cli.shared.options import batch_sizes
    from vptkit.cli.shared.output import emit
    from vptkit.cli.texts.parts_text import parts_text
    from vptkit.progress import progress
    from vptkit.runtime.inputs.image_sources import find_images
    from vptkit.runtime.layers.profile_layers import names_of
    from vptkit.runtime.profile.image_parts import PartsSettings, profile_parts

    if given["data"] is None:
        raise VptkitError("--parts needs --data FOLDER: images like those to come")
    settings = PartsSettings(
        backend=given["backend"],
        threads=given["threads"],
        adapter=given["adapter"],
        batches=batch_sizes(given["batch"], "--batch") or (1, 8),
        rounds=given["rounds"],
        seconds=given["seconds"],
        seed=given["seed"],
        decode=given["decode"],
        trust_engines=given["trust_engines"],
    )
    images = list(find_images([given["data"]]))
    with progress("parts") as bar:
        document = profile_parts(names_of(bundles), images, settings, progress=bar)
    emit(document, given["as_json"], text=parts_text(document))
