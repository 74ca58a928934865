"""Who takes part in a profile: bundles and baselines, opened, each under a name of its own."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from vptkit.errors import TargetError, VptkitError
from vptkit.formats.bundle_files import folder_name
from vptkit.formats.manifest_schema import LOGITS
from vptkit.runtime.session.factory import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle
    from vptkit.runtime.backends.graph_protocol import Times
    from vptkit.runtime.session.session_protocol import Session

__all__ = ["CUDA_GRAPH", "Candidate", "open_candidates", "unused_name"]

CUDA_GRAPH = ("on", "off", "both")
_GRAPH_NAMES = {True: "CUDA graph", False: "no CUDA graph"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One bundle under test.

    Attributes:
        name: unique in its profile.
        kind: what was tuned, or what it is compared with.
        session: the open bundle.
        adapters: of a bank, whom to ask: one for all images, or several in turn.
        open: opens one more session like this one.
        trust_engines: as of `open_session`.
    """

    name: str
    kind: Literal["adapter", "baseline"]
    session: Session = field(repr=False)
    adapters: tuple[str, ...] = ()
    open: Callable[[], Session] | None = field(default=None, repr=False)
    trust_engines: bool = False

    @property
    def batch(self) -> int | None:
        """The only batch it takes, or None if it takes any."""
        return self.session.bundle.batch

    @property
    def cuda_graph(self) -> bool | None:
        """Whether launches are to be replayed from a CUDA graph; None where there is no such thing."""
        found = getattr(_graph(self.session), "cuda_graph", None)
        return None if found is None else bool(found)

    @property
    def replayed(self) -> bool | None:
        """Whether the last run was replayed from a CUDA graph; None where there is no such thing."""
        found = getattr(_graph(self.session), "replayed", None)
        return None if found is None else bool(found)

    def portions(self, batch: int) -> int:
        """How often a batch goes through the graph: more than once where an engine takes less."""
        count = getattr(_graph(self.session), "portions", None)
        return 1 if count is None else int(count(batch))

    @property
    def transfers(self) -> str:
        """What a run moves between host and device."""
        copies = self.session.backend in ("cuda", "ort-tensorrt")
        out = " and ".join(self.session.bundle.outputs)
        otherwise = f"images in, {out} out, by ONNX Runtime" if copies else "none"
        return str(getattr(_graph(self.session), "transfers", otherwise))

    def call(
        self, images: NDArray[np.uint8], session: Session | None = None
    ) -> Callable[[], object]:
        """One run, without arguments; of this session unless another is given."""
        asked = session or self.session
        run = asked.run if LOGITS in asked.bundle.outputs else asked.features
        if len(self.adapters) < 2:
            return partial(run, images, *self.adapters)
        return partial(run, images, self._turns(images))

    def take_apart(self, images: NDArray[np.uint8]) -> Times | None:
        """One more run, by its parts; None where the backend knows only the whole."""
        if len(self.adapters) < 2:
            return self.session.timed(images, *self.adapters)
        return self.session.timed(images, self._turns(images))

    def _turns(self, images: NDArray[np.uint8]) -> list[str]:
        return [self.adapters[i % len(self.adapters)] for i in range(len(images))]


def open_candidates(
    bundles: Sequence[Path],
    baselines: Sequence[Mapping[str, Path]] = (),
    *,
    adapter: str | None = None,
    backends: Sequence[str] = ("cpu",),
    threads: int | None = None,
    cuda_graph: str | None = None,
    trust_engines: bool = False,
) -> list[Candidate]:
    """Open bundles, and the baselines that belong to them.

    A bank takes part once for each adapter, and once with all of them in turn. With `cuda_graph`
    "both" everyone takes part twice, and with several backends once on each.

    Baselines of one name whose backbone and multiply-accumulates are equal cost the same, so only
    the first is kept.

    Args:
        bundles: what was tuned.
        baselines: for each bundle, name → bundle (`vptkit.export.bundle.baselines.export_baselines`).
        adapter: only this one of a bank.
        backends: what each bundle is opened on; it takes part once on each, which its name then tells.
        threads, trust_engines: of every session.
        cuda_graph: one of CUDA_GRAPH; None leaves it to the backend.

    Raises:
        BundleError: a bundle has no such adapter.
        TargetError: the backend has no CUDA graphs to switch.
    """
    candidates: list[Candidate] = []
    for backend, graph in itertools.product(backends, _graph_choices(cuda_graph)):
        options: dict[str, Any] = {} if graph is None else {"cuda_graph": graph}
        if trust_engines:
            options["trust_engines"] = True
        open_ = partial(open_session, backend=backend, threads=threads, **options)
        opened = _open_all(bundles, baselines, adapter, open_)
        marks = [backend] if len(backends) > 1 else []
        marks += [_GRAPH_NAMES[graph is True]] if cuda_graph == "both" else []
        candidates += [
            dataclasses.replace(c, name=", ".join([c.name, *marks]), trust_engines=trust_engines)
            for c in opened
        ]
    without = [c.session.backend for c in candidates if c.cuda_graph is None]
    if cuda_graph is not None and without:
        raise TargetError(
            f"backend {without[0]} has no CUDA graphs to switch {cuda_graph}: they are TensorRT's"
        )
    return candidates


def _open_all(
    bundles: Sequence[Path],
    baselines: Sequence[Mapping[str, Path]],
    adapter: str | None,
    open_: Callable[[Path], Session],
) -> list[Candidate]:
    candidates: list[Candidate] = []
    names = []
    for path in bundles:
        session = open_(path)
        for label, adapters in _parts(session.bundle, adapter, path).items():
            taken = {c.name for c in candidates}
            name = unused_name(label, f"{path.absolute().parent.name}/{label}", taken)
            candidates.append(
                Candidate(
                    name=name,
                    kind="adapter",
                    session=session,
                    adapters=adapters,
                    open=partial(open_, path),
                )
            )
        banked = session.bundle.layout == "bank"
        names.append(folder_name(path) if banked else candidates[-1].name)
    kept: list[tuple[str, object]] = []
    for bundle, named in zip(names, baselines, strict=False):
        for name, path in named.items():
            session = open_(path)
            cost = (session.bundle.spec, session.bundle.manifest["macs"], session.bundle.batch)
            if (name, cost) not in kept:
                kept.append((name, cost))
                taken = {c.name for c in candidates}
                candidates.append(
                    Candidate(
                        name=unused_name(name, f"{name}, {bundle}", taken),
                        kind="baseline",
                        session=session,
                        open=partial(open_, path),
                    )
                )
    return candidates


def _graph_choices(cuda_graph: str | None) -> tuple[bool | None, ...]:
    if cuda_graph is None:
        return (None,)
    if cuda_graph not in CUDA_GRAPH:
        raise VptkitError(f"cuda_graph {cuda_graph!r}: expected {', '.join(CUDA_GRAPH)}")
    return {"on": (True,), "off": (False,), "both": (True, False)}[cuda_graph]


def _graph(session: Session) -> Any:
    return getattr(session, "graph", None)


def _parts(bundle: Bundle, adapter: str | None, path: Path) -> dict[str, tuple[str, ...]]:
    """Name of a row → adapters that are asked in it. A bundle is called as its folder is."""
    called = folder_name(path) or bundle.name
    if bundle.layout != "bank":
        return {called: ()}
    if adapter is not None:
        return {f"{called}: {bundle.entry(adapter)['name']}": (adapter,)}
    names = bundle.adapter_names
    rows: dict[str, tuple[str, ...]] = {f"{called}: {name}": (name,) for name in names}
    return rows if len(names) == 1 else {**rows, f"{called}: mixed": names}


def unused_name(name: str, otherwise: str, taken: Collection[str]) -> str:
    """The first of name, otherwise, "otherwise 2", … that is not taken."""
    choices = [name, otherwise, *(f"{otherwise} {i}" for i in range(2, len(taken) + 3))]
    return next(choice for choice in choices if choice not in taken)
