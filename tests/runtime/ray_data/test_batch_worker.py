"""Without Ray: a worker is called as Ray Data calls it."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vptkit.errors import BundleError, DataError, MissingError, MissingExtraError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.bulk.prediction_record import prediction_of
from vptkit.runtime.inputs.image_sources import find_images
from vptkit.runtime.ray_data import batch_worker
from vptkit.runtime.ray_data.batch_worker import BatchWorker, WorkOrder, require_shared
from vptkit.runtime.ray_data.image_list import ImageListWriter
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.prediction import predict

pytest.importorskip("onnxruntime")


@pytest.fixture
def order(make_bundle, colour_folders, tmp_path, monkeypatch):
    """Batches of 2: 13 images, the 13th alone, then one that came later; one image is broken."""
    monkeypatch.chdir(tmp_path)  # put back when the test is over
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (colour_folders / "broken.png").write_bytes(b"\x89PNG")
    names = [path.relative_to(tmp_path) for path in find_images([colour_folders])]
    parts = tmp_path / "parts"
    parts.mkdir()
    for before, portion in ((0, names), (7, [Path("colours/red/0.png")])):
        ImageListWriter(parts, before).extend(portion, 2)
    bundle = make_bundle()
    return WorkOrder(
        bundle=bundle,
        digest=open_bundle(bundle).digest,
        parts=parts,
        batches=8,
        folder=tmp_path,
        batch=2,
        adapter=None,
        top_k=2,
        reject=None,
        decode=None,
        backend="cpu",
        threads=1,
        trust_engines=False,
    )


def test_batches_are_answered_as_one_process_answers_them(order, monkeypatch):
    monkeypatch.chdir("/")  # a worker begins elsewhere
    batches = []
    real = batch_worker.predict

    def seen(session, sources, **asked):
        for answer in real(session, sources, **asked):
            batches[-1:] = [batches[-1] + 1] if batches else [1]
            yield answer

    monkeypatch.setattr(batch_worker, "predict", seen)
    found = BatchWorker(order)({"id": np.array([7, 0, 6, 3])})
    assert found["id"].tolist() == [0, 3, 6, 7]
    assert set(found["backend"]) == {"cpu"}
    answers = [
        [prediction_of(json.loads(line)) for line in text.split("\n")] for text in found["answers"]
    ]
    assert [len(batch) for batch in answers] == [2, 2, 1, 1]
    assert [a.index for batch in answers for a in batch] == [0, 1, 6, 7, 12, 13]
    with open_session(order.bundle, "cpu") as session:
        alone = list(predict(session, find_images(["colours"]), top_k=2, batch=2))
    expected = [*alone[0:2], *alone[6:8], alone[12]]
    assert [a for batch in answers[:3] for a in batch] == expected
    assert any(answer.error for answer in alone)
    assert answers[3][0].path == Path("colours/red/0.png")


def test_an_order_travels(order):
    # A copy is made of the same parts that Ray sends.
    assert copy.deepcopy(order) == order


def test_a_node_that_reaches_all(order, monkeypatch):
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    require_shared(order)
    assert "" not in sys.path  # nothing is imported from the folder of the images


def test_a_node_that_lacks_something(order, make_bundle):
    gone = Path("/nowhere")
    cases = (
        ({"folder": gone}, DataError, "/nowhere: No such file.*at the same paths"),
        ({"parts": gone}, DataError, "/nowhere"),
        ({"batches": 9}, DataError, "8 batches of images, expected 9"),
        ({"bundle": gone}, BundleError, "/nowhere"),
        ({"bundle": make_bundle(shift=1.0)}, BundleError, "not the bundle that the command has"),
    )
    for change, kind, text in cases:
        with pytest.raises(kind, match=f"(?s)^node .*{text}"):
            require_shared(replace(order, **change))
        with pytest.raises(kind, match=f"(?s)^node .*{text}"):
            BatchWorker(replace(order, **change))({"id": np.array([0])})


def test_errors_travel(order, monkeypatch):
    def missing(*_, **__):
        raise MissingExtraError("onnxruntime", "cpu", "--backend cpu")

    monkeypatch.setattr(batch_worker, "open_session", missing)
    with pytest.raises(MissingError, match="onnxruntime") as caught:
        BatchWorker(order)({"id": np.array([0])})
    assert str(copy.deepcopy(caught.value)) == str(caught.value)
