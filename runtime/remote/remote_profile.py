"""A profile of bundles on a board, from a desk: copied over ssh, run there, the document back here.

The board needs an ssh server, Python 3.10 or newer, numpy, and what the backend needs (ONNX Runtime
or TensorRT); nothing of vptkit, and none of its other packages. Our code and the bundles are copied
to a cache on the board (`board_agent`), engines are built there and kept there, and the
runner (`vptkit.runtime.remote.profile_runner`) measures. It is stopped when we are, Ctrl-C included.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from vptkit.errors import MissingError, TargetError
from vptkit.formats.bundle import open_bundle
from vptkit.progress import SILENT
from vptkit.runtime.backends.selection import OPENVINO
from vptkit.runtime.backends.tensorrt_library import LIBRARIES

from .board_agent import ROOT
from .file_transfer import bundle_items, code_items, ship
from .ssh_link import connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vptkit.progress import Progress
    from vptkit.runtime.profile.settings import ProfileSettings

    from .file_transfer import Phases
    from .ssh_link import Link

__all__ = ["clean_board", "profile_on"]

# The system's TensorRT and numpy are seen in such an environment.
_PIP = (
    "python3 -m venv --system-site-packages ENV && ENV/bin/pip install {} there, and --python "
    "ENV/bin/python here"
)
_ORT_GPU = (
    f"on a Jetson NVIDIA's wheel for its JetPack, on a server {_PIP.format('onnxruntime-gpu')}"
)
_RTX = LIBRARIES["tensorrt_rtx"].modules
_TENSORRT = "on a Jetson sudo apt install python3-libnvinfer, on a server "
# Backend → one of these packages must be on the board, and how it gets there.
_NEEDS = {
    "cpu": (("onnxruntime",), _PIP.format("onnxruntime")),
    "cuda": (("onnxruntime",), _ORT_GPU),
    "ort-tensorrt": (("onnxruntime",), _ORT_GPU),
    **dict.fromkeys(OPENVINO, (("openvino",), _PIP.format("openvino"))),
    "tensorrt": (("tensorrt",), _TENSORRT + _PIP.format("tensorrt")),
    "tensorrt-rtx": (_RTX, _PIP.format("tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs")),
    "auto": (("tensorrt", *_RTX, "onnxruntime"), _TENSORRT + _PIP.format("tensorrt")),
}
_NUMPY = (("numpy",), "sudo apt install python3-numpy there")
_SAFETENSORS = (("safetensors",), _PIP.format("safetensors"))


@contextlib.contextmanager
def _silent(title: str, total: int | None) -> Iterator[Progress]:
    yield SILENT


def profile_on(
    host: str,
    bundles: Sequence[Path],
    settings: ProfileSettings,
    *,
    baselines: Sequence[Mapping[str, Path]] = (),
    python: str = "python3",
    ssh_options: Sequence[str] = (),
    phases: Phases = _silent,
) -> dict[str, Any]:
    """Profile bundles on another machine.

    Args:
        host: "user@host", "user@host:port", or a name of the ssh configuration.
        bundles: on this machine.
        settings: what to measure.
        baselines: for each bundle, name → bundle (`vptkit.export.bundle.baselines.export_baselines`).
        python: the Python there; "~/" is the home folder there.
        ssh_options: of ssh's -o, as "IdentityFile=KEY".
        phases: `vptkit.progress.progress`; opens "copy", then what the runner does.

    Returns:
        As `run_profile.profile_bundles`; "machine" is the board, "host" is there too, and the
        rows' "path" are those of this machine.

    Raises:
        MissingError: no way there, something is missing there, or the connection was lost.
        BundleError: not a bundle, or it was changed.
        VptkitError: what the profile itself raised there.
    """
    names = [f"bundles/{i}/{path.resolve().name}" for i, path in enumerate(bundles)]
    places = dict(zip(names, bundles, strict=True))
    others = [
        {name: (f"baselines/{i}/{k}.vptk", path) for k, (name, path) in enumerate(named.items())}
        for i, named in enumerate(baselines)
    ]
    items = code_items()
    for place, path in [*places.items(), *(pair for named in others for pair in named.values())]:
        items += bundle_items(path, place)
    request = {
        "bundles": names,
        "baselines": [{name: place for name, (place, _) in n.items()} for n in others],
        "settings": settings.to_json(),
    }
    with connect(host, python=python, ssh_options=ssh_options) as link:
        _require_packages(link, settings.backends, bundles)
        ship(link, items, phases)
        document = _follow(link, request, phases)
    for row in document["rows"]:
        if row["path"] is not None:
            if row["path"] not in places:
                raise TargetError(f"{host}: sent a row of a bundle that was not asked for")
            row["path"] = str(places[row["path"]])
    return {**document, "host": host}


def clean_board(host: str, *, python: str = "python3", ssh_options: Sequence[str] = ()) -> int:
    """Remove everything that was copied to a board, and the engines that were built there.

    Returns:
        Bytes that are free now.

    Raises:
        MissingError: no way there.
        TargetError: another profile runs there.
    """
    with connect(host, python=python, ssh_options=ssh_options) as link:
        link.doing = f"{ROOT} was removed"
        link.order(clean=True)
        answer = link.receive("cleaned")
    if answer["in_use"]:
        raise TargetError(
            f"{host}: {ROOT} is in use by {answer['in_use']} other profiles; nothing was removed. "
            "Try again when they have ended."
        )
    return int(answer["freed"])


def _require_packages(link: Link, backends: Sequence[str], bundles: Sequence[Path]) -> None:
    """Fail before anything is copied. An unknown backend is the runner's business."""
    wanted: dict[str, tuple[tuple[str, ...], str]] = {"vptkit": _NUMPY}
    wanted |= {f"the backend {name}": _NEEDS[name] for name in backends if name in _NEEDS}
    if any(open_bundle(path, verify=False).layout == "bank" for path in bundles):
        wanted["a bank"] = _SAFETENSORS
    for what, (names, cure) in wanted.items():
        if not set(names) & set(link.board["packages"]):
            raise MissingError(
                f"{link.host}: Python {link.board['python']} there has no {' or '.join(names)}, "
                f"which {what} needs. To have it: {cure}."
            )


def _follow(link: Link, request: dict[str, Any], phases: Phases) -> dict[str, Any]:
    """Start the runner, show its progress, wait for its document."""
    link.doing = "the profile ran"
    link.order(run=request)
    document: dict[str, Any] | None = None
    with contextlib.ExitStack() as stack:
        bar = SILENT
        while "exit" not in (message := link.receive("phase", "progress", "document", "exit")):
            if "phase" in message:
                stack.close()
                bar = stack.enter_context(phases(message["phase"], None))
            elif "document" in message:
                document = message["document"]
            else:
                bar.total = message["total"]
                bar.update(message["advance"], message["text"])
    if document is None:
        raise TargetError(f"{link.host}: {_end(message['exit'])}: {link.last_words()}")
    return document


def _end(status: int) -> str:
    """How a process ended that said nothing about it."""
    if status == -9:
        return "the profile was killed there (signal 9), often for lack of memory"
    if status < 0:
        return f"the profile crashed there with signal {-status}"
    return f"the profile ended there with {status} and no result"
