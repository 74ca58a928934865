"""A bank's session: tables that stay in memory, and one adapter for each image of a batch.

Every call looks whether the manifest was replaced (one `stat`). If so, what changed is read, and
written into its place in the tables; nothing else is loaded again. Whoever decides himself when that
happens, as a server does, calls `hold`, `changed` and `take`.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import BundleError, DataError
from vptkit.formats.bank_tables import BankShape, parse_rows
from vptkit.formats.bundle import FEATURES, LOGITS, MANIFEST, SCORES, open_bundle
from vptkit.runtime.backends.graph_protocol import TimedGraph

from .session_base import ClosedGraph, SessionBase, require_open
from .session_protocol import graph_input, require_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.formats.bank_tables import AdapterRows
    from vptkit.formats.bundle import Bundle
    from vptkit.runtime.backends.graph_protocol import BankGraph, Graph, Times

    from .session_protocol import Choice

__all__ = ["BankSession", "Change", "Tables"]

_SPARE = 8  # places that a small bank can grow into without moving
_ATTEMPTS = 5
_OF_OTHERS = {LOGITS: -np.inf, SCORES: 0.0}  # of classes that an image's adapter does not have


class Tables:
    """The adapters of a bank, each in a place of padded arrays (`vptkit.formats.bank_tables`).

    Arrays have twice the room they need: memory that is not written is not resident.
    """

    def __init__(self, shape: BankShape, types: Mapping[str, np.dtype[Any]], count: int) -> None:
        """Make room for `count` adapters, and as many again."""
        self.shape, self._types = shape, types
        self.places: dict[str, tuple[int, str]] = {}  # name → number of the place, digest
        self._free: list[int] = []
        self._used = 0
        self._room = 0
        self._arrays: dict[str, NDArray[Any]] = {}
        self._reserve(2 * count + _SPARE)

    def views(self) -> dict[str, NDArray[Any]]:
        """The tables up to the last place in use."""
        rows = self.shape.rows()
        return {name: a[: self._used * rows[name][0]] for name, a in self._arrays.items()}

    def new_rows(self, bundle: Bundle) -> Iterable[tuple[str, AdapterRows]]:
        """What `update` needs of a bundle: the rows of each adapter that is not held as it is.

        Changes to an open bank are read before any is made; the first load goes one by one.

        Raises:
            BundleError: a file is missing or changed; of the first load while it is iterated.
        """
        kept = self._kept(bundle)
        files = {e["name"]: e["file"] for e in bundle.manifest["adapters"] if e["name"] not in kept}
        read = (
            (name, parse_rows(bundle.read(file), bundle.path / file, self.shape))
            for name, file in files.items()
        )
        return list(read) if self.places else read

    def update(self, bundle: Bundle, new: Iterable[tuple[str, AdapterRows]]) -> None:
        """Hold exactly the adapters of a bundle; those whose digest is the same stay untouched.

        Args:
            bundle: the bank.
            new: of `new_rows`.
        """
        digests = {e["name"]: e["sha256"] for e in bundle.manifest["adapters"]}
        kept = self._kept(bundle)
        self._free += [place[0] for name, place in self.places.items() if name not in kept]
        self.places = kept
        for name, row in new:
            place = self._take()
            row.fill(self.shape, self._arrays, place)
            self.places[name] = place, digests[name]

    def clear(self) -> None:
        """Forget all of them, and free the arrays."""
        self.places, self._arrays, self._free = {}, {}, []
        self._used = self._room = 0

    def _kept(self, bundle: Bundle) -> dict[str, tuple[int, str]]:
        """The places of the adapters that a bundle has as they are here."""
        digests = {e["name"]: e["sha256"] for e in bundle.manifest["adapters"]}
        return {name: at for name, at in self.places.items() if digests.get(name) == at[1]}

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used == self._room:
            self._reserve(2 * self._room)
        self._used += 1
        return self._used - 1

    def _reserve(self, room: int) -> None:
        for name, (rows, row) in self.shape.rows().items():
            array = np.empty((room * rows, *row), dtype=self._types[name])
            if name in self._arrays:
                used = self._used * rows
                array[:used] = self._arrays[name][:used]
            self._arrays[name] = array
        self._room = room


class ConstantTables:
    """The adapters of a bank whose tables are constants of its graph, in the manifest's order."""

    def __init__(self, shape: BankShape) -> None:
        """Nothing is read: the graph has it all."""
        self.shape = shape
        self.places: dict[str, tuple[int, str]] = {}  # name → number of the place, digest

    def views(self) -> dict[str, NDArray[Any]]:
        """Nothing is fed."""
        return {}

    def new_rows(self, bundle: Bundle) -> Iterable[tuple[str, AdapterRows]]:
        """None: the adapters are always the same.

        Raises:
            BundleError: they are others.
        """
        if self.places and self.places != self._listed(bundle):
            raise BundleError(
                f"{bundle.path}: its adapters changed, and they are constants of the graph. Open "
                "it again."
            )
        return ()

    def update(self, bundle: Bundle, new: Iterable[tuple[str, AdapterRows]]) -> None:
        """Hold the adapters of a bundle; there is nothing `new`."""
        self.places = self._listed(bundle)

    def clear(self) -> None:
        """Forget all of them."""
        self.places = {}

    @staticmethod
    def _listed(bundle: Bundle) -> dict[str, tuple[int, str]]:
        listed = enumerate(bundle.manifest["adapters"])
        return {entry["name"]: (i, entry["sha256"]) for i, entry in listed}


@dataclass(frozen=True, slots=True)
class Change:
    """What was changed on disk, read and checked.

    Attributes:
        bundle: as it is now.
        rows: of the adapters that are new, or others than before.
        stamp: of the manifest.
    """

    bundle: Bundle
    rows: Iterable[tuple[str, AdapterRows]] = field(repr=False)
    stamp: tuple[int, ...]


@dataclass(slots=True)
class _Turns:
    """Any number of calls at once, or one change of the tables, which waits for them to end."""

    condition: threading.Condition = field(default_factory=threading.Condition)
    running: int = 0
    waiting: int = 0

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """A call; it starts behind changes that wait."""
        with self.condition:
            self.condition.wait_for(lambda: not self.waiting)
            self.running += 1
        try:
            yield
        finally:
            with self.condition:
                self.running -= 1
                self.condition.notify_all()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """A change; nothing else runs."""
        with self.condition:
            self.waiting += 1
            try:
                self.condition.wait_for(lambda: not self.running)
                yield
            finally:
                self.waiting -= 1
                self.condition.notify_all()


class BankSession(SessionBase):
    """A bundle of the bank layout and its loaded graph; see `session_protocol.Session`.

    May be called from several threads.
    """

    def __init__(
        self, bundle: Bundle, backend: str, graph: BankGraph, choice: str = "it was asked for"
    ) -> None:
        """Read every adapter into the tables.

        Raises:
            BundleError: a file is missing or changed.
        """
        self.backend, self.choice = backend, choice
        self.threads, self.versions = graph.threads, graph.versions
        self._graph: BankGraph = graph
        self._turns = _Turns()
        self._path, self._bundle = bundle.path, bundle
        self._stamp: tuple[int, ...] = ()
        self._held = False
        shape = BankShape.of_manifest(bundle.manifest, bundle.spec)
        self._tables: Tables | ConstantTables = (
            ConstantTables(shape)
            if bundle.constant_tables
            else Tables(shape, graph.table_types(), len(bundle.adapter_names))
        )
        self._resident: dict[str, Any] = {}
        self._refresh()

    @property
    def bundle(self) -> Bundle:
        """The bundle as the last call saw it."""
        return self._bundle

    @property
    def graph(self) -> Graph:
        """The loaded graph."""
        return self._graph

    def run(self, images: NDArray[np.uint8], adapter: Choice | None = None) -> NDArray[np.float32]:
        """Logits of prepared images.

        Args:
            images: uint8 [B, H, W, 3], RGB, resized and cropped (`vptkit.images.preprocess.prepare`).
            adapter: a name, or its number in the bundle; or a sequence of one for each image. None
                if there is but one adapter.

        Returns:
            float32 [B, C] with the adapter's own C; for a sequence C is that of the bank, and
            columns that an image's adapter does not have are -inf.

        Raises:
            DataError: images of another type or shape, or another number of adapters.
            BundleError: no such adapter, or the bundle was changed in a way that needs reopening.
        """
        return self.answers(images, adapter)[LOGITS]

    def answers(
        self, images: NDArray[np.uint8], adapter: Choice | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """All that the graph gives for prepared images, by name.

        Args:
            images, adapter: as for `run`; scores that an image's adapter does not have are 0, of
                features [B, f] all are each image's own.

        Raises:
            DataError, BundleError: see `run`.
        """
        require_images(images, self._bundle)
        self._refresh()
        with self._turns.call():
            require_open(self)
            names = self._names(adapter, len(images))
            found = self._answers(images, names)
            classes = {e["name"]: len(e["labels"]) for e in self._bundle.manifest["adapters"]}
        if adapter is None or isinstance(adapter, (str, int, np.integer)):
            own = classes[self._one(adapter)] if not names else classes[names[0]]
            return {
                name: value if name == FEATURES else np.ascontiguousarray(value[:, :own])
                for name, value in found.items()
            }
        for output in found.keys() - {FEATURES}:
            for row, name in zip(found[output], names, strict=True):
                row[classes[name] :] = _OF_OTHERS[output]
        return found

    def timed(self, images: NDArray[np.uint8], adapter: Choice | None = None) -> Times | None:
        """One run taken apart, or None where the backend knows only the whole.

        Args:
            images: as for `run`, in a number that the graph takes at once.
            adapter: as for `run`.

        Raises:
            DataError, BundleError: see `run`.
            TargetError: the number does not go in one portion.
        """
        require_images(images, self._bundle)
        self._refresh()
        if not isinstance(self._graph, TimedGraph):
            return None
        with self._turns.call():
            require_open(self)
            rows = self._rows(self._names(adapter, len(images)))
            batch = graph_input(images, self._bundle)
            return self._graph.timed(batch, adapter=rows, tables=self._resident)[1]

    def refresh(self) -> None:
        """Take over what was added, replaced or removed on disk, as each run does.

        Raises:
            VptkitError, BundleError: see `SessionBase.refresh`.
        """
        self._refresh()

    def hold(self) -> None:
        """From now on what changes on disk is taken over by `take` alone."""
        self._held = True

    def changed(self) -> Change | None:
        """What was changed on disk since it was last taken over; None if nothing was.

        One thread at a time may ask, and the next only when the change was taken or forgotten.

        Raises:
            BundleError: a file is missing or changed, or the bundle needs reopening.
        """
        found: list[Change] = []
        self._follow(found.append)
        return found[0] if found else None

    def take(self, change: Change) -> None:
        """Answer as the bundle is after a change; calls that run end before.

        Args:
            change: of `changed`.
        """
        with self._turns.change():
            require_open(self)
            self._put(change)

    def close(self) -> None:
        """Free the graph and the tables when calls that are on their way have ended."""
        with self._turns.change():
            if not isinstance(self._graph, ClosedGraph):
                self._graph = ClosedGraph(self._graph, self._path)
                self._tables.clear()
                self._resident = {}

    def _rows(self, names: Sequence[str]) -> NDArray[np.int32]:
        """Row numbers in the tables."""
        return np.asarray([self._tables.places[name][0] for name in names], dtype=np.int32)

    def _answers(
        self, images: NDArray[np.uint8], names: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Each [B, C of the bank], features [B, f]; a fixed batch is fed in portions, the last is padded."""
        rows = self._rows(names)
        step = self._bundle.batch or max(len(images), 1)
        parts = []
        for i in range(0, len(images), step):
            some, who = images[i : i + step], rows[i : i + step]
            count = len(some)
            if count < step and self._bundle.batch:
                some = np.concatenate([some, np.repeat(some[-1:], step - count, axis=0)])
                who = np.concatenate([who, np.repeat(who[-1:], step - count)])
            found = self._graph.look_up(
                graph_input(some, self._bundle), np.ascontiguousarray(who), self._resident
            )
            parts.append({name: value[:count] for name, value in found.items()})
        if len(parts) == 1:
            return parts[0]
        shape = self._tables.shape
        sizes = dict.fromkeys(_OF_OTHERS, shape.classes) | {FEATURES: shape.features}
        none = {name: np.empty((0, sizes[name]), np.float32) for name in self._bundle.outputs}
        return {
            name: np.concatenate([empty, *(part[name] for part in parts)])
            for name, empty in none.items()
        }

    def _names(self, adapter: Choice | None, count: int) -> list[str]:
        """The adapter of each image."""
        if adapter is None or isinstance(adapter, (str, int, np.integer)):
            return [self._one(adapter)] * count
        names = [self._one(one) for one in adapter]
        if len(names) != count:
            raise DataError(f"adapter: {len(names)} came for {count} images, expected one for each")
        return names

    def _one(self, adapter: str | int | None) -> str:
        names = self._bundle.adapter_names
        if isinstance(adapter, (int, np.integer)):
            if not 0 <= adapter < len(names):
                raise BundleError(f"{self._path}: no adapter number {adapter}, only {len(names)}")
            return names[int(adapter)]
        return str(self._bundle.entry(adapter)["name"])

    def _refresh(self) -> None:
        """Take over what was added, replaced or removed since the last call."""
        require_open(self)
        if self._held or self._stamp == _stamp(self._path):
            return
        with self._turns.change():
            require_open(self)
            self._follow(self._put)

    def _follow(self, then: Callable[[Change], None]) -> None:
        """Pass what was changed on disk on to `then`; once more where it was changed meanwhile."""
        for attempt in range(_ATTEMPTS):
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            try:
                bundle = open_bundle(self._path, verify=False)
                _require_same(self._bundle, bundle)
                if bundle.digest == self._bundle.digest:
                    bundle = self._bundle  # whose files are known already
                then(Change(bundle, self._tables.new_rows(bundle), stamp))
            except BundleError:
                # a file may be gone because the manifest was replaced once more
                if attempt + 1 == _ATTEMPTS or stamp == _stamp(self._path):
                    raise
            else:
                return

    def _put(self, change: Change) -> None:
        self._tables.update(change.bundle, change.rows)
        self._resident = self._graph.resident(self._tables.views())
        self._bundle, self._stamp = change.bundle, change.stamp


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = (path / MANIFEST).stat()
    except OSError as error:
        raise BundleError(f"{path}: {MANIFEST} is gone ({error.strerror})") from error
    return status.st_mtime_ns, status.st_ino, status.st_size


def _require_same(before: Bundle, after: Bundle) -> None:
    """Adapters may change under an open session; the graph may not."""
    kept = ("inputs", "outputs", "layout", "batch", "preprocess", "backbone")
    if before.graph_files != after.graph_files or any(
        before.manifest[key] != after.manifest[key] for key in kept
    ):
        raise BundleError(f"{after.path}: the bundle was exported again. Open it again.")
