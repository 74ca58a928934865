"""Which model a name means; what changes on disk is looked for."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from vptkit.errors import BundleError, VptkitError
from vptkit.runtime.serving import model_store
from vptkit.runtime.serving.http_error import HttpError
from vptkit.runtime.serving.model_store import ModelStore


class Model:
    def __init__(self, name, *adapters, follow=lambda: False):
        self.name, self.follow, self.closed = name, follow, False
        self.bundle = SimpleNamespace(adapter_names=adapters)

    def close(self, timeout=None):
        self.closed = True


def names(found):
    return found.model.name, found.adapter


def test_names():
    a, b = Model("a", "birds", "b", "dogs"), Model("b", "cats", "dogs")
    store = ModelStore([a, b])
    assert names(store.find("a")) == ("a", None)
    assert names(store.find("b")) == ("b", None)  # not the adapter of a
    assert names(store.find("birds")) == ("a", "birds")
    assert names(store.only("b")) == ("b", None)
    assert names(store.only(None, "cats")) == ("b", None)
    for name, status, message in (("x", 404, "expected a, b"), ("dogs", 400, "of a, b: name the")):
        with pytest.raises(HttpError, match=message) as caught:
            store.find(name)
        assert caught.value.status == status
    with pytest.raises(HttpError, match="one of a, b"):
        store.only(None)
    assert names(ModelStore([a]).only(None)) == ("a", None)


def test_two_of_one_name_are_refused_and_closed():
    models = [Model("a", "x"), Model("a", "y")]
    with pytest.raises(VptkitError, match="rename one"):
        ModelStore(models)
    assert [model.closed for model in models] == [True, True]


def test_a_fault_on_disk_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(model_store, "_SECONDS", 0.001)
    looked, enough = [], threading.Event()

    def follow():
        looked.append(1)
        if len(looked) > 5:
            enough.set()
        raise BundleError("b.vptk: broken")

    store = ModelStore([Model("b", "x", follow=follow)])
    store.watch()
    assert enough.wait(30)
    store.close()
    assert capsys.readouterr().err.count("b stays as it was: b.vptk: broken") == 1
