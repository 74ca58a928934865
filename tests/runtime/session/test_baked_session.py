"""A baked bundle's session: portions, padding, pixels, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.marks import ON_PROCESSOR
from tests.support.noise_images import noise
from vptkit.errors import (
    BundleError,
)
from vptkit.formats.bundle import open_bundle
from vptkit.images.preprocess import normalize
from vptkit.runtime.session.baked_session import GraphSession
from vptkit.runtime.session.factory import open_session


@pytest.mark.parametrize("feed", ["images", "pixels"])
@pytest.mark.parametrize("batch", ["dynamic", 1, 4])
@pytest.mark.parametrize("count", [0, 1, 4, 7])
@pytest.mark.parametrize("backend", ON_PROCESSOR)
def test_logits_are_those_of_the_model(make_bundle, tiny_model, feed, batch, count, backend):
    session = open_session(make_bundle(feed=feed, batch=batch), backend)
    images = noise(count)

    logits = session.run(images)

    assert logits.shape == (count, 3)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, tiny_model.logits(images), rtol=0, atol=2e-5)


@pytest.mark.parametrize("gives", [("logits", "features"), ("features",)])
@pytest.mark.parametrize("batch", ["dynamic", 4])
@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("backend", ON_PROCESSOR)
def test_features_are_those_of_the_model(make_bundle, tiny_model, gives, batch, count, backend):
    session, images = open_session(make_bundle(gives=gives, batch=batch), backend), noise(count)
    found = session.features(images)
    assert (found.shape, found.dtype) == ((count, 3), np.float32)
    np.testing.assert_allclose(found, tiny_model.features(images), rtol=0, atol=2e-5)
    assert tuple(session.answers(images)) == gives
    if count:
        predictions = list(session.predict(list(images)))  # which crops them
        assert [p.label is None for p in predictions] == [gives == ("features",)] * count
        assert [p.features.shape for p in predictions] == [(3,)] * count


def test_an_output_that_the_bundle_does_not_give(make_bundle):
    with pytest.raises(BundleError, match=r"gives features, no logits\. Export .*--output both"):
        open_session(make_bundle(gives=("features",)), "cpu").run(noise(1))
    with pytest.raises(BundleError, match=r"gives logits, no features\. Export .*--output both"):
        open_session(make_bundle(), "cpu").features(noise(1))


def test_features_of_another_width_than_the_manifest_says(make_bundle):
    outputs = [{"name": "features", "dtype": "float32", "shape": ["B", 5]}]
    session = open_session(make_bundle(gives=("features",), outputs=outputs), "cpu")
    with pytest.raises(BundleError, match=r"features came as \[2, 3\], expected \[2, 5\]"):
        session.features(noise(2))


@pytest.mark.parametrize("backend", ON_PROCESSOR)
def test_views_that_are_not_contiguous_give_the_same_logits(make_bundle, tiny_model, backend):
    images = noise(6)[::2, :, ::-1]
    logits = open_session(make_bundle(), backend).run(images)
    np.testing.assert_allclose(logits, tiny_model.logits(images), rtol=0, atol=2e-5)


class RecordingGraph:
    threads, versions = 1, {}

    def __init__(self, classes: int = 3) -> None:
        self.batches: list[np.ndarray] = []
        self.classes = classes

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(batch)
        return np.zeros((len(batch), self.classes), np.float32)


def test_a_fixed_batch_is_fed_in_portions_and_padded_with_the_last_image(make_bundle):
    graph = RecordingGraph()
    session = GraphSession(bundle=open_bundle(make_bundle(batch=4)), backend="fake", graph=graph)
    images = noise(6)

    assert session.run(images).shape == (6, 3)
    np.testing.assert_array_equal(graph.batches[0], images[:4])
    np.testing.assert_array_equal(graph.batches[1], images[[4, 5, 5, 5]])


def test_a_free_batch_is_fed_whole(make_bundle):
    graph = RecordingGraph()
    session = GraphSession(bundle=open_bundle(make_bundle()), backend="fake", graph=graph)
    session.run(noise(6))
    assert [len(b) for b in graph.batches] == [6]


def test_pixels_are_normalised(make_bundle, tiny_model):
    graph = RecordingGraph()
    bundle = open_bundle(make_bundle(feed="pixels"))
    images = noise(2)
    GraphSession(bundle=bundle, backend="fake", graph=graph).run(images)
    np.testing.assert_array_equal(graph.batches[0], normalize(images, tiny_model.preprocess))


def test_a_graph_that_does_not_fit_its_labels_is_refused(make_bundle):
    session = open_session(make_bundle(labels=("a", "b", "c", "d")))
    with pytest.raises(BundleError, match=r"logits came as \[1, 3\], expected \[1, 4\]"):
        session.run(noise(1))


def test_a_baked_bundle_has_one_adapter(make_bundle):
    session = open_session(make_bundle())
    alone = session.run(noise(2))
    for adapter in ("tiny", 0, ["tiny", "tiny"]):
        np.testing.assert_array_equal(session.run(noise(2), adapter), alone)
    for adapter in ("other", 1, ["tiny", "other"]):
        with pytest.raises(BundleError, match=r"no adapter '(other|1)', only tiny"):
            session.run(noise(2), adapter)
