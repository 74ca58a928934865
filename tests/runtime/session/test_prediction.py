"""Predictions of files: in order, streamed, broken images told."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image

from vptkit.errors import BundleError, DataError, TargetError, VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.images.image_file import image_files, open_image
from vptkit.images.preprocess import prepare
from vptkit.runtime.session.baked_session import GraphSession
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.prediction import predict

RED = Image.new("RGB", (20, 20), "red")


@pytest.fixture
def session(make_bundle):
    return open_session(make_bundle())


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_predictions_stand_in_order_and_agree_with_the_model(
    session, colour_folders, tiny_model, batch
):
    paths = image_files(colour_folders)
    found = list(predict(session, [colour_folders], batch=batch))

    assert [p.path for p in found] == paths
    for path, prediction in zip(paths, found, strict=True):
        pixels = prepare(open_image(path), tiny_model.preprocess)
        logits = tiny_model.logits(pixels[None])[0].astype(float)
        expected = np.exp(logits) / np.exp(logits).sum()
        order = np.argsort(-expected)
        assert [label for label, _ in prediction.top] == [
            ("red", "green", "blue")[i] for i in order
        ]
        np.testing.assert_allclose([s for _, s in prediction.top], expected[order], atol=1e-5)


def test_top_k_cuts_and_is_at_most_the_number_of_classes(session, colour_folders):
    assert {len(p.top) for p in predict(session, [colour_folders], top_k=2)} == {2}
    assert {len(p.top) for p in predict(session, [colour_folders], top_k=9)} == {3}


def test_a_broken_image_is_a_result_and_the_others_go_on(session, colour_folders):
    whole = list(predict(session, [colour_folders]))
    broken = colour_folders / "green" / "1.png"
    broken.write_bytes(b"not an image")

    found = list(predict(session, [colour_folders], batch=3))

    assert [p.path for p in found] == [p.path for p in whole]
    for before, after in zip(whole, found, strict=True):
        if after.path == broken:
            assert "not an image that Pillow can read" in after.error
            assert after.top == ()
        else:
            np.testing.assert_allclose([s for _, s in after.top], [s for _, s in before.top])


def test_only_broken_images(session, tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").touch()
    assert all(p.error for p in predict(session, [tmp_path], batch=2))


def test_results_are_streamed(session, tmp_path, monkeypatch):
    """The first result comes out while most of the images are not even opened."""
    opened = []
    monkeypatch.setattr(
        "vptkit.images.image_pixels.open_image", lambda p, **_: opened.append(p) or RED
    )
    for i in range(100):
        (tmp_path / f"{i:03}.jpg").touch()
    stream = predict(session, [tmp_path], batch=1)
    assert next(stream).path.name == "000.jpg"
    stream.close()
    assert len(opened) < 50


def test_a_missing_source_raises_at_once(session):
    with pytest.raises(DataError, match="nowhere"):
        predict(session, ["nowhere"])


def test_another_adapter_is_refused(session, colour_folders):
    assert list(predict(session, [colour_folders], adapter="tiny"))
    with pytest.raises(BundleError, match="no adapter 'huge', only tiny"):
        predict(session, [colour_folders], adapter="huge")


def test_top_k_and_batch_must_be_positive(session, colour_folders):
    for wrong in ({"top_k": 0}, {"batch": 0}):
        with pytest.raises(VptkitError, match="expected at least 1"):
            predict(session, [colour_folders], **wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_error_and_not_a_score(
    make_bundle, colour_folders, value
):
    class Overflowing:
        threads, versions = 1, {}

        def __call__(self, batch):
            logits = np.zeros((len(batch), 3), np.float32)
            logits[0, 1] = value
            return logits

    bundle = open_bundle(make_bundle())
    session = GraphSession(bundle=bundle, backend="fake", graph=Overflowing())
    found = list(predict(session, [colour_folders / "red"], batch=4))
    assert "NaN or Inf" in found[0].error
    assert [p.error for p in found[1:]] == [None] * 3


# several labels an image --------------------------------------------------------------------------


def test_labels_at_or_above_their_thresholds_best_first(make_bundle, colour_folders, tiny_model):
    thresholds = np.float32([0.001, 0.1, 0.9])
    session = open_session(make_bundle(thresholds=tuple(map(float, thresholds))))
    names = ("red", "green", "blue")
    sizes = set()
    for found in predict(session, [colour_folders], top_k=2):
        pixels = prepare(open_image(found.path), tiny_model.preprocess)
        scores = 1 / (1 + np.exp(-tiny_model.logits(pixels[None])[0].astype(float)))
        order = np.argsort(-scores)
        given = [names[i] for i in order if scores[i] >= thresholds[i]]
        assert [label for label, _ in found.labels] == given
        assert [label for label, _ in found.top] == [names[i] for i in order[:2]]
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)
        document = found.to_json()
        assert (document["labels"], len(document["top"])) == (given, 2)
        assert document["scores"] == [score for _, score in found.labels]
        assert found.label == (given[0] if given else None)
        sizes.add(len(given))
    assert len(sizes) > 1


def test_an_image_at_its_threshold_and_one_without_labels(make_bundle):
    session = open_session(make_bundle(thresholds=(0.5, 0.5, 0.5)))
    image = np.zeros((24, 16, 3), np.uint8)
    (first,) = predict(session, image)
    exact = float(first.scores[0])
    (found,) = predict(open_session(make_bundle(thresholds=(exact, 0.99, 0.99))), image)
    assert found.labels == (("red", exact),)
    (found,) = predict(open_session(make_bundle(thresholds=(0.999, 0.999, 0.999))), image)
    assert (found.labels, found.label, found.to_json()["labels"]) == ((), None, [])


# batches that are run at once ---------------------------------------------------------------------


class Meeting:
    """A graph that answers only when so many runs are on their way, by the images' own colours."""

    threads, versions = 1, {}

    def __init__(self, runs):
        self.barrier = threading.Barrier(runs, timeout=20)

    def __call__(self, batch):
        self.barrier.wait()
        return batch.mean(axis=(1, 2)).astype(np.float32)


def test_batches_are_run_at_once_and_answered_in_order(make_bundle):
    frames = [np.full((24, 16, 3), i, np.uint8) for i in range(24)]
    bundle = open_bundle(make_bundle())
    session = GraphSession(bundle=bundle, backend="cpu", graph=Meeting(3))
    found = list(predict(session, frames, batch=2, runs=3))  # or the barrier breaks
    assert [p.index for p in found] == list(range(24))
    assert [int(p.logits[0]) for p in found] == list(range(24))


def test_a_gpu_has_one_run_at_a_time(make_bundle, colour_folders):
    bundle = open_bundle(make_bundle())
    session = GraphSession(bundle=bundle, backend="cuda", graph=Meeting(2))
    session.graph.barrier = threading.Barrier(2, timeout=0.2)
    with pytest.raises(threading.BrokenBarrierError):
        list(predict(session, [colour_folders], batch=2, runs=3))


def test_images_are_decoded_while_a_batch_is_run(make_bundle, colour_folders, monkeypatch):
    """The graph waits for the last image, which is decoded behind the first batch or never."""
    all_opened, opened = threading.Event(), []

    def opening(path, **_):
        opened.append(path)
        if len(opened) == 12:
            all_opened.set()
        return RED

    class Waiting(Meeting):
        def __call__(self, batch):
            assert all_opened.wait(20)
            return np.zeros((len(batch), 3), np.float32)

    monkeypatch.setattr("vptkit.images.image_pixels.open_image", opening)
    session = GraphSession(bundle=open_bundle(make_bundle()), backend="cpu", graph=Waiting(1))
    assert len(list(predict(session, [colour_folders], batch=2))) == 12


def test_a_batch_whose_bundle_changes_meanwhile_is_run_again_with_the_new_labels(
    make_bundle, colour_folders
):
    old, new = (open_bundle(make_bundle(labels=labels)) for labels in (("a", "b", "c"), "def"))

    class Replaced(Meeting):
        calls = 0

        def __call__(self, batch):
            self.calls += 1
            if self.calls == 1:
                session.bundle = new  # as another run does that sees the change first
            return np.zeros((len(batch), 3), np.float32)

    session = GraphSession(bundle=old, backend="cpu", graph=Replaced(1))
    (found,) = predict(session, [colour_folders / "red" / "0.png"])
    assert [label for label, _ in found.top] == ["d", "e", "f"]
    assert session.graph.calls == 2


def test_what_a_run_raises_is_raised(make_bundle, colour_folders):
    class Failing(Meeting):
        def __call__(self, batch):
            raise TargetError("out of memory")

    session = GraphSession(bundle=open_bundle(make_bundle()), backend="cpu", graph=Failing(1))
    with pytest.raises(TargetError, match="out of memory"):
        list(predict(session, [colour_folders], batch=2, runs=2))


def test_runs_must_be_positive(session, colour_folders):
    with pytest.raises(VptkitError, match="runs is 0, expected at least 1"):
        predict(session, [colour_folders], runs=0)
