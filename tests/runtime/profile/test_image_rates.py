"""Images a second: every image is answered, and the bound is that of shared cores or of a GPU."""

from __future__ import annotations

import pytest

from vptkit.images.image_file import image_files
from vptkit.runtime.profile import image_rates as module
from vptkit.runtime.profile.image_rates import ImageWork, image_rates
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.run_threads import RunThreads


@pytest.fixture
def work(make_bundle, colour_folders):
    with open_session(make_bundle(), "cpu", 1) as session:
        images = image_files(colour_folders)[:5]
        yield ImageWork(session, session.adapters[0], images, session.bundle.preprocess, 4)


def test_all_at_once_is_held_against_its_halves(work):
    rates = image_rates(work, RunThreads(1, 2), seconds=0.01)
    halves = rates["graph"], rates["read_decode_resize"]
    assert rates["bound"] == pytest.approx(1 / (1 / halves[0] + 1 / halves[1]))
    assert rates["bound"] < min(halves)
    assert rates["run"] > 0


def test_beside_a_gpu_the_slower_half_is_the_bound(work, monkeypatch):
    monkeypatch.setattr(module, "on_processor", lambda _: False)
    rates = image_rates(work, RunThreads(1, 1), seconds=0.01)
    assert rates["bound"] == min(rates["graph"], rates["read_decode_resize"])


def test_few_images_fill_every_run(work, monkeypatch):
    """Five images, batches of four, two at once: three batches are asked for, and answered."""
    seen = []
    real = module.predict

    def counted(session, sources, **how):
        found = list(real(session, sources, **how))
        seen.append((len(found), sum(one.error is not None for one in found), how["batch"]))
        return found

    monkeypatch.setattr(module, "predict", counted)
    image_rates(work, RunThreads(1, 2), seconds=0.01)
    assert set(seen) == {(12, 0, 4)}
