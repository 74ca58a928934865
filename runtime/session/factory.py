"""A session: a bundle that answers. `open_session` picks the backend; nothing falls back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.errors import VptkitError
from vptkit.formats.bundle import open_bundle, read_steadily
from vptkit.runtime.backends.selection import OPENVINO, default_backend, means_cpu, open_graph

if TYPE_CHECKING:
    from vptkit.formats.bundle import Bundle

    from .session_protocol import Session

__all__ = ["open_session"]

_ATTEMPTS = 20  # at a bundle that is exported again and again


def open_session(
    path: str | Path,
    backend: str | None = None,
    threads: int | None = None,
    *,
    cuda_graph: bool = True,
    trust_engines: bool = False,
) -> Session:
    """Open a bundle, check its digests, and load its graph.

    Args:
        path: the bundle.
        backend: one of `selection.BACKENDS`; "auto": what this machine has, an engine where there is
            a GPU; None, as the commands do: $VPTKIT_BACKEND, else "auto". "cpu" is ONNX Runtime on the
            processor, which "auto" never takes where there is a GPU.
        threads: CPU threads of one run; one for each usable core unless given.
        cuda_graph: of TensorRT: capture launches and replay them.
        trust_engines: of TensorRT: load engines too that this user did not build on this machine,
            such as came with the bundle. An engine is a program.

    Raises:
        BundleError: not a bundle, or one of its files is missing or was changed.
        MissingError: the backend's device, driver, package or engine is missing.
        TargetError: the backend cannot run this bundle.
    """
    if threads is not None and threads < 1:
        raise VptkitError(f"threads is {threads}, expected at least 1")
    place = Path(path)
    # Where a library loads the graph, its digest is taken meanwhile; an engine is loaded without it
    later = means_cpu(backend) or (backend or default_backend()) in OPENVINO
    # Was it exported again between manifest and graph? Then all of the new one is opened.
    return read_steadily(
        place,
        lambda: _session(
            open_bundle(place, graph_later=later),
            backend,
            threads,
            cuda_graph=cuda_graph,
            trust_engines=trust_engines,
        ),
        _ATTEMPTS,
    )


def _session(bundle: Bundle, backend: str | None, threads: int | None, **options: bool) -> Session:
    opened = open_graph(bundle, backend, threads, **options)
    # After the graph: `background_imports` may have loaded them meanwhile
    from .baked_session import GraphSession
    from .bank_session import BankSession

    if bundle.layout == "bank":
        return BankSession(bundle, opened.backend, opened.graph, opened.explanation)
    return GraphSession(
        bundle=bundle, backend=opened.backend, graph=opened.graph, choice=opened.explanation
    )
