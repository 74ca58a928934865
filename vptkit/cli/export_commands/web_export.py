"""`vptkit export --target web`: what goes with it, and its end: the folder, and how to look at it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from vptkit.cli.shared.output import emit
from vptkit.cli.shared.verdict import wrote
from vptkit.errors import TargetError, VptkitError
from vptkit.progress import progress
from vptkit.regular_files import is_folder
from vptkit.shown_text import shown

from .export_verdict import gate_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["finish_web", "require_web"]

# What has an effect on bundles, too, which are compiled already
_OF_FINISHED = {"adapters", "output", "target", "onnxruntime_web", "force", "verbose", "as_json"}


def require_web(settings: Mapping[str, Any], given: set[str], output: Path) -> None:
    """Refuse before a long export what cannot become a page.

    Args:
        settings: of all parameters.
        given: parameters that stand on the command line.
        output: the folder.

    Raises:
        VptkitError: options that do not go with it, or adapters mixed with bundles.
        TargetError: a page cannot do what they ask for.
        OutputError, MissingError: see `vptkit.runtime.web.web_folder.write_web`.
    """
    from vptkit.runtime.web.onnxruntime_web import find_library
    from vptkit.runtime.web.page_models import WEB_PRECISIONS
    from vptkit.runtime.web.web_folder import require_place

    if settings["format"] != "bundle":
        raise VptkitError("--format onnx does not go with --target web, which writes a folder.")
    folders = [path for path in settings["adapters"] if is_folder(path)]
    if folders and len(folders) < len(settings["adapters"]):
        raise VptkitError("adapters and bundles came, expected the one or the other.")
    if folders and (odd := sorted(given - _OF_FINISHED)):
        raise VptkitError(
            f"--{odd[0].replace('_', '-')} has no effect on {shown(folders[0])}, which is compiled already. "
            "Leave it away, or pass the adapter."
        )
    problem = _problem(settings, WEB_PRECISIONS)
    if problem:
        raise TargetError(f"--target web does not go with {problem}")
    require_place(output, force=settings["force"])
    find_library(settings["onnxruntime_web"], progress)


def _problem(settings: Mapping[str, Any], precisions: Sequence[str]) -> str:
    if settings["precision"] not in precisions:
        return (
            f"--precision {settings['precision']}, which onnxruntime-web has no kernels for. Expected "
            f"{', '.join(precisions)}."
        )
    if settings["input"] != "uint8":
        return "--input float32: the page feeds pixels. Leave it away."
    if settings["gives"] == "features":
        return "--output features: the page shows labels. Pass --output both, or leave it away."
    if settings["batch"] not in ("dynamic", "1"):
        return f"--batch {settings['batch']}: the page asks one image at a time. Leave it away."
    return ""


def finish_web(
    bundles: Sequence[Path],
    output: Path,
    settings: Mapping[str, Any],
    made: Mapping[str, Any] | None = None,
) -> None:
    """Write the folder, and print what it is.

    Args:
        bundles: a model of the page each.
        output: the folder.
        settings: of the command.
        made: the manifest of the bundle, if it was exported just now.
    """
    from vptkit.runtime.web.web_folder import sizes_of, write_web

    manifest = write_web(
        bundles,
        output,
        onnxruntime_web=settings["onnxruntime_web"],
        force=settings["force"],
        phase=progress,
    )
    sizes = sizes_of(output, manifest)
    document = {
        "web": str(output),
        "models": [_told(model) for model in manifest["models"]],
        "bytes": sizes,
        "versions": manifest["versions"],
    }
    if made is not None:
        document |= {key: made[key] for key in ("gate", "parity")}
    emit(document, settings["as_json"], text="\n".join(_lines(output, document, made)))


def _told(model: Mapping[str, Any]) -> dict[str, Any]:
    adapters = [entry["name"] for entry in model["adapters"]]
    told = {key: model[key] for key in ("name", "backbone", "precision", "layout")}
    return {**told, "adapters": adapters, "graph_bytes": model["graph"]["bytes"]}


def _lines(output: Path, document: Mapping[str, Any], made: Mapping[str, Any] | None) -> list[str]:
    lines = []
    for model in document["models"]:
        names = ", ".join(map(shown, model["adapters"][:10]))
        size = f"{model['graph_bytes'] / 1e6:.1f} MB"
        lines.append(f"{shown(model['name'])}: {model['precision']}, graph of {size}; {names}")
    if made is not None and made["precision"] != "fp32":
        lines.append(gate_text(made["precision"], made["gate"]))
    wasm, webgpu = (f"{size / 1e6:.1f} MB" for size in document["bytes"].values())
    lines += [
        f"a visitor loads {wasm} at most, with WebGPU {webgpu}; hosts that compress send less",
        wrote(output),
        f"next: python3 -m http.server --directory {shown(shlex.quote(str(output)))}",
        "threads need two headers from the host, as in _headers (docs/web.md)",
    ]
    return lines
