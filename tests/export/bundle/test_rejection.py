"""`run --reject` and `session.predict(reject=…)`: none of these."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.support.command_errors import assert_error
from vptkit.errors import BundleError, DataError, VptkitError
from vptkit.export.bundle.rejection import rejection_of, write_rejection
from vptkit.formats.bundle import open_bundle, write_manifest
from vptkit.formats.tensor_file import read_tensors, write_tensors
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.prediction import open_typicality

GIVES = ("logits", "features")


class Labelled:
    """Images of a class each: noise around a colour."""

    digest = "0"

    def __init__(self, count, seed, truth=True):
        random = np.random.default_rng(seed)
        self.images = random.integers(0, 90, (3 * count, 24, 16, 3), dtype=np.uint8)
        # each with a brightness of its own, so that there is a spread
        self.images += random.integers(0, 40, (3 * count, 1, 1, 1), dtype=np.uint8)
        kinds = np.repeat(np.arange(3), count)
        for image, kind in zip(self.images, kinds, strict=True):
            image[..., kind] += 120
        self.truth = kinds if truth else None

    @property
    def count(self):
        return len(self.images)

    def batches(self):
        yield self.images


@pytest.fixture
def rejecting(make_bundle, tiny_model):
    """A function: a bundle that knows what red, green and blue images are like."""

    def make(**options):
        path = make_bundle(gives=GIVES, **options)
        run = lambda images: {"features": tiny_model.features(images)}  # noqa: E731
        found = rejection_of(run, Labelled(10, 0), Labelled(10, 1))
        write_rejection(path / "rejection.safetensors", found)
        relist(path)
        return path

    return make


def relist(path):
    """The manifest anew, after a file was changed."""
    manifest = json.loads((path / "manifest.json").read_text())
    write_manifest(path, {k: v for k, v in manifest.items() if k not in ("format", "files")})


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(Labelled(1, 5).images[0]).save(folder / "red.png")
    Image.new("RGB", (16, 24), (255, 255, 255)).save(folder / "white.png")
    return folder


def test_what_is_far_is_rejected(rejecting, photos):
    with open_session(rejecting(), "cpu") as session:
        red, white = session.predict(photos, reject=0.05)
        assert (red.rejected, white.rejected) == (False, True)
        assert white.typicality == pytest.approx(1 / 31)
        assert white.to_json() | {"top": []} == {
            "path": str(photos / "white.png"),
            "adapter": "tiny",
            "rejected": True,
            "typicality": white.typicality,
            "top": [],
        }
        (plain,) = session.predict(photos / "white.png")
        assert plain.rejected is plain.typicality is None
        assert "rejected" not in plain.to_json()


def test_run_reject(vptkit, rejecting, photos, tmp_path):
    bundle = rejecting()
    code, out, err = vptkit("run", bundle, photos, "--reject", "0.05", "--top-k", "1")
    assert code == 0, err
    red, white = out.splitlines()
    assert "none of these" not in red
    assert "white.png  none of these (0.032)  " in white
    save = tmp_path / "x.csv"
    assert vptkit("run", bundle, photos, "--reject", "0.05", "--save", save)[0] == 0
    rows = list(csv.DictReader(save.read_text().splitlines()))
    assert [row["rejected"] for row in rows] == ["0", "1"]
    assert float(rows[1]["typicality"]) == pytest.approx(1 / 31)


@pytest.mark.parametrize("rate", ["0", "1", "-0.1", "nan", "5"])
def test_a_rate_that_is_no_share(vptkit, rejecting, photos, rate):
    result = vptkit("run", rejecting(), photos, "--reject", rate)
    assert_error(result, 2, f"--reject {float(rate):g}", "a share above 0 and below 1")


def test_a_rate_that_so_few_images_cannot_tell(rejecting):
    with pytest.raises(VptkitError, match=r"30 images of val cannot tell less than 0\.032"):
        open_typicality(open_bundle(rejecting()), 0.01)


def test_a_bundle_that_does_not_know(vptkit, make_bundle, photos):
    for gives in (("logits",), GIVES):
        result = vptkit("run", make_bundle(gives=gives), photos, "--reject", "0.1")
        assert_error(result, 2, "--output both --reject-from DATA")


@pytest.mark.parametrize("broken", ["another width", "not finite", "one is missing", "a stranger"])
def test_a_file_that_does_not_fit(rejecting, broken):
    path = rejecting()
    file = path / "rejection.safetensors"
    tensors = dict(read_tensors(file, BundleError))
    if broken == "another width":
        tensors["means"] = np.zeros((3, 5), np.float32)
    elif broken == "not finite":
        tensors["known"] = np.float64([np.nan])
    elif broken == "one is missing":
        del tensors["whitening"]
    else:
        tensors["x"] = np.zeros(1)
    write_tensors(file, tensors)
    relist(path)
    with pytest.raises(BundleError, match=r"rejection\.safetensors: holds .*Export the bundle"):
        open_typicality(open_bundle(path), 0.1)


def test_images_without_classes_or_without_a_spread(tiny_model):
    run = lambda images: {"features": tiny_model.features(images)}  # noqa: E731
    with pytest.raises(DataError, match="not the labels of the adapter"):
        rejection_of(run, Labelled(4, 0), Labelled(4, 1, truth=False))
    with pytest.raises(DataError, match="no class has two different images"):
        rejection_of(run, Labelled(1, 0), Labelled(4, 1))


def test_the_report(tiny_model):
    run = lambda images: {"features": tiny_model.features(images)}  # noqa: E731
    report = rejection_of(run, Labelled(10, 0), Labelled(10, 1)).report
    assert (report["classes_left_out"], report["rate"]) == (3, 0.05)
    assert 0 <= report["false_accept"] <= 1
    assert report["val"] == {"count": 30, "images": "0"}


def test_a_bundle_is_copied_with_it(rejecting, tmp_path, photos):
    shutil.copytree(rejecting(), tmp_path / "copy.vptk")
    with open_session(tmp_path / "copy.vptk", "cpu") as session:
        assert [p.rejected for p in session.predict(photos, reject=0.1)] == [False, True]


def test_several_labels_an_image_are_one_class(make_bundle, tiny_model, tmp_path):
    path = make_bundle(gives=("logits", "scores", "features"), thresholds=(0.5, 0.5, 0.5))
    run = lambda images: {"features": tiny_model.features(images)}  # noqa: E731
    images = Labelled(10, 0, truth=False), Labelled(10, 1, truth=False)
    with pytest.raises(DataError, match="not the labels of the adapter"):
        rejection_of(run, *images)
    found = rejection_of(run, *images, several=True)
    assert len(found.typicality.means) == 1
    assert (found.report["false_accept"], found.report["classes_left_out"]) == (None, 0)
    write_rejection(path / "rejection.safetensors", found)
    relist(path)
    with open_session(path) as session:
        known, strange = session.predict(
            [images[0].images[0], np.full((24, 16, 3), 255, np.uint8)], reject=0.1
        )
    assert (known.rejected, strange.rejected) == (False, True)
    assert set(strange.to_json()) == {
        "path", "index", "adapter", "rejected", "typicality", "labels", "scores", "top",
    }  # fmt: skip
