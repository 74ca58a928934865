"""`with`, `close`, `labels` and `repr` of sessions of both layouts."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest
from PIL import Image

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family
from tests.support.noise_images import noise
from vptkit.errors import BundleError, VptkitError
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.session_base import ClosedGraph

FRAME = np.zeros((30, 20, 3), np.uint8)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return export_family(tmp_path_factory.mktemp("bank"), family())


def freed(session) -> weakref.ref:
    return weakref.ref(session.graph)


@pytest.mark.parametrize("ask", ["run", "predict", "timed", "iterate"])
def test_a_closed_session_frees_its_graph_and_says_so(make_bundle, ask):
    with open_session(make_bundle(), "cpu", 1) as session:
        graph = freed(session)
        started = session.predict([FRAME] * 20)
        next(started)
    deadline = time.monotonic() + 30
    while graph() is not None:  # the batch that was on its way
        gc.collect()
        assert time.monotonic() < deadline
    asked = {
        "run": lambda: session.run(noise(2)),
        "predict": lambda: session.predict(FRAME),
        "timed": lambda: session.timed(noise(2)),
        "iterate": lambda: list(started),
    }
    with pytest.raises(VptkitError, match=r"session of .*tiny-0.vptk is closed: open the bundle"):
        asked[ask]()
    session.close()  # as often as one likes
    assert session.labels == ("red", "green", "blue")
    assert (session.threads, list(session.versions)) == (1, ["onnxruntime"])


def test_a_closed_bank_frees_graph_and_tables(bank):
    images = family().case.images
    session = open_session(bank, "cpu", 1)
    expected = session.run(images, "bilinear")
    graph, table = freed(session), weakref.ref(next(iter(session._tables._arrays.values())))
    session.close()
    gc.collect()
    assert graph() is table() is None
    for ask in (session.run, session.timed):
        with pytest.raises(VptkitError, match="is closed"):
            ask(images, "bilinear")
    with pytest.raises(VptkitError, match="is closed"):
        session.predict(FRAME, adapter="bilinear")
    with open_session(bank, "cpu", 1) as again:
        np.testing.assert_array_equal(again.run(images, "bilinear"), expected)


def test_a_session_is_closed_after_an_error_too(make_bundle):
    with pytest.raises(KeyError), open_session(make_bundle(), "cpu", 1) as session:
        raise KeyError
    assert "closed" in repr(session)


def test_a_closed_graph_refuses_every_call(make_bundle):
    session = open_session(make_bundle(), "cpu", 1)
    closed = ClosedGraph(session.graph, session.bundle.path)
    calls = [(closed, 1), (closed.table_types, 0), (closed.resident, 1), (closed.look_up, 3)]
    for call, arguments in calls:
        with pytest.raises(VptkitError, match="is closed"):
            call(*[None] * arguments)


def test_labels_are_those_of_the_only_adapter(make_bundle):
    session = open_session(make_bundle(), "cpu", 1)
    assert session.labels == session.labels_of() == session.labels_of("tiny")
    assert session.labels == ("red", "green", "blue")
    assert session.adapters == ("tiny",)
    (prediction,) = session.predict(FRAME)
    assert prediction.label == session.labels[int(prediction.logits.argmax())]


def test_labels_of_a_bank_are_asked_for_by_name(bank):
    with open_session(bank, "cpu", 1) as session:
        assert "bilinear" in session.adapters
        assert session.labels_of("bilinear")[0] == "bilinear 0"
        with pytest.raises(BundleError, match=r"holds \d adapters, .*name one"):
            _ = session.labels
        with pytest.raises(BundleError, match="no adapter 'x'"):
            session.labels_of("x")


def test_a_repr_is_one_line(make_bundle, bank):
    session = open_session(make_bundle("a\nb"), "cpu", 1)
    assert repr(session) == r"<vptkit session a\nb-0.vptk: cpu, fp32, 3 classes>"
    session.close()
    assert repr(session).endswith(", 3 classes, closed>")
    session = open_session(bank, "cpu", 1)
    count = len(session.adapters)
    assert repr(session) == f"<vptkit session bank.vptk: cpu, fp32, bank of {count} adapters>"


def test_predict_hands_on_how_files_are_decoded_and_how_many_batches_run(make_bundle, tmp_path):
    Image.fromarray(noise(1)[0].repeat(9, axis=0).repeat(9, axis=1)).save(tmp_path / "a.jpg")
    session = open_session(make_bundle(), "cpu", 1)
    exact, fast = (next(session.predict(tmp_path, decode=how)) for how in ("exact", "fast"))
    assert not np.array_equal(exact.logits, fast.logits)
    with pytest.raises(VptkitError, match="runs is 0"):
        session.predict(tmp_path, runs=0)
