"""The models of a server by name, adapters among them; what changes on disk is looked for each second."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.errors import VptkitError
from vptkit.shown_text import tell

from .http_error import HttpError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .served_model import ServedModel

__all__ = ["Found", "ModelStore"]

_SECONDS = 1.0  # between two looks at the disk


class Found(NamedTuple):
    """A model, and the adapter that was meant if an adapter was named."""

    model: ServedModel
    adapter: str | None


class ModelStore:
    """Models by their own names, and by those of their adapters."""

    def __init__(
        self,
        models: Iterable[ServedModel],
        changed: Callable[[ServedModel, bool], None] | None = None,
    ) -> None:
        """Know some models.

        Args:
            models: of different names; taken one by one, closed if one of them fails.
            changed: told of a model whose adapters were changed on disk, and whether they were taken
                over.

        Raises:
            VptkitError: two have the same name.
        """
        self._models: dict[str, ServedModel] = {}
        self._ended = threading.Event()
        try:
            for model in models:
                self._add(model)
        except BaseException:
            self.close()
            raise
        self._changed = changed
        self._faults: dict[str, str] = {}
        self._thread = threading.Thread(target=self._watch, name="vptkit-follow", daemon=True)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def find(self, name: str) -> Found:
        """A model by its name, or by that of an adapter which only one of them has.

        Raises:
            HttpError: 404: there is none; 400: several models have that adapter.
        """
        if name in self._models:
            return Found(self._models[name], None)
        owners = [model for model in self if name in model.bundle.adapter_names]
        if len(owners) > 1:
            names = ", ".join(model.name for model in owners)
            raise HttpError(400, f"{name[:100]!r} is an adapter of {names}: name the model")
        if not owners:
            raise HttpError(404, f"no model {name[:100]!r}, expected {self._names()}")
        return Found(owners[0], name)

    def only(self, name: str | None, adapter: str | None = None) -> Found:
        """A model by its name; unless given, the only one, or the one that has the adapter.

        Raises:
            HttpError: 404: there is none; 400: there are several.
        """
        if name is not None:
            return self.find(name)
        if len(self._models) == 1:
            return Found(next(iter(self)), None)
        if adapter is None:
            raise HttpError(400, f"no model is named, expected ?model= and one of {self._names()}")
        return Found(self.find(adapter).model, None)

    def listed(self) -> list[dict[str, Any]]:
        """All models and adapters; an adapter has its model as parent."""
        found: list[dict[str, Any]] = []
        for model in self:
            found.append({"name": model.name, "root": model.name, "parent": None, "state": "READY"})
            found += [
                {"name": name, "root": model.name, "parent": model.name, "state": "READY"}
                for name in model.bundle.adapter_names
            ]
        return found

    def watch(self) -> None:
        """Look at the disk each second from now on."""
        self._thread.start()

    def follow(self, model: ServedModel) -> bool:
        """Take over what was changed on disk of one model; see `ServedModel.follow`.

        Raises:
            VptkitError: it cannot be.
        """
        try:
            found = model.follow()
        except VptkitError:
            if self._changed is not None:
                self._changed(model, False)
            raise
        if found and self._changed is not None:
            self._changed(model, True)
        return found

    def close(self, timeout: float | None = None) -> None:
        """Answer what waits, and free all sessions."""
        self._ended.set()
        for model in self:
            model.close(timeout)

    def _add(self, model: ServedModel) -> None:
        if model.name in self._models:
            model.close()
            raise VptkitError(
                f"two bundles would be the model {model.name!r}: rename one of the folders"
            )
        self._models[model.name] = model

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS):
            for model in self:
                self._look(model)

    def _look(self, model: ServedModel) -> None:
        """Say a fault once, and go on answering as before."""
        try:
            self.follow(model)
            self._faults.pop(model.name, None)
        except (VptkitError, OSError) as error:
            if self._faults.get(model.name) != str(error):
                self._faults[model.name] = str(error)
                tell(f"warning: {model.name} stays as it was: {error}")

    def _names(self) -> str:
        names = list(self._models)
        return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
