from __future__ import annotations

import shutil

import numpy as np
import pytest

from vptkit.errors import DataError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.evaluation import accuracy
from vptkit.runtime.evaluation.accuracy import evaluate
from vptkit.runtime.evaluation.image_batches import open_image_batches
from vptkit.runtime.session.factory import open_session


@pytest.fixture
def bundle(make_bundle):
    return open_bundle(make_bundle())


def test_class_folders_have_a_truth_and_can_be_read_twice(bundle, colour_folders):
    images = open_image_batches(colour_folders, bundle.preprocess, labels=bundle.labels, batch=5)
    assert images.count == 12
    first, second = list(images.batches()), list(images.batches())
    assert [len(b) for b in first] == [5, 5, 2]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    session = open_session(bundle.path)
    best = session.run(np.concatenate(first)).argmax(axis=1)
    assert (best == images.truth).mean() == evaluate(session, colour_folders).top1 == 11 / 12


def test_other_classes_and_plain_folders_have_none(bundle, colour_folders):
    assert open_image_batches(colour_folders, bundle.preprocess, labels=("a", "b")).truth is None
    plain = open_image_batches(colour_folders / "red", bundle.preprocess, labels=bundle.labels)
    assert (plain.truth, plain.count) == (None, 4)


def test_calibration_and_gate_share_no_image(bundle, colour_folders):
    some = open_image_batches(colour_folders, bundle.preprocess, labels=bundle.labels, limit=5)
    rest = open_image_batches(colour_folders, bundle.preprocess, labels=bundle.labels, without=some)
    assert (some.count, rest.count) == (5, 7)
    assert not set(some.paths) & set(rest.paths)
    assert len({p.parent for p in some.paths}) == 3  # spread evenly
    assert len(rest.truth) == 7
    assert some.digest != rest.digest
    again = open_image_batches(colour_folders, bundle.preprocess, labels=bundle.labels, limit=5)
    assert again.digest == some.digest


def test_nothing_to_read(bundle, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        open_image_batches(tmp_path / "nowhere", bundle.preprocess)
    with pytest.raises(DataError, match="no images"):
        open_image_batches(tmp_path, bundle.preprocess)


def test_a_class_folder_that_is_a_link_to_elsewhere(bundle, colour_folders, tmp_path, capsys):
    """Calibration images decide ranges, which are written into the bundle."""
    data = tmp_path / "stranger"
    shutil.copytree(colour_folders, data)
    shutil.rmtree(data / "red")
    (data / "red").symlink_to(colour_folders / "red")
    asked = {"preprocess": bundle.preprocess, "labels": bundle.labels}
    with pytest.raises(DataError, match=r"4 files lie outside of this data set.*red/0"):
        open_image_batches(data, **asked)
    assert open_image_batches(data, **asked, allow_outside=True).count == 12
    (data / "green" / "x.png").symlink_to(colour_folders / "red" / "0.png")
    with pytest.raises(DataError, match=r"1 file lies outside of this data set.*green/x"):
        open_image_batches(data / "green", **asked)  # a plain folder
    assert "note: " in capsys.readouterr().err


def test_an_image_that_became_a_link_to_elsewhere_is_refused_when_it_is_opened(
    bundle, colour_folders, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(colour_folders, data)
    images = open_image_batches(data, bundle.preprocess, labels=bundle.labels)
    images.paths[0].rename(tmp_path / "private.png")
    images.paths[0].symlink_to(tmp_path / "private.png")
    with pytest.raises(DataError, match=r"private\.png, expected it in .*data/"):
        list(images.batches())


def test_evaluation_asks_the_opened_file_too(bundle, colour_folders, tmp_path, monkeypatch):
    data = tmp_path / "data"
    shutil.copytree(colour_folders, data)
    shutil.copytree(colour_folders, tmp_path / "private")
    listed = accuracy.require_inside

    def swapped(*arguments, **options):
        listed(*arguments, **options)
        shutil.rmtree(data / "red")
        (data / "red").symlink_to(tmp_path / "private" / "red")

    monkeypatch.setattr(accuracy, "require_inside", swapped)
    with pytest.raises(DataError, match=r"private/red/.*expected it in .*data/"):
        evaluate(open_session(bundle.path), data)


def test_a_table_with_other_columns_and_broken_images(bundle, colour_folders):
    """The same in calibration, gate, overflow and --reject-from: they all come by here."""
    rows = [
        (f"{path.parent.name}/{path.name}", path.parent.name)
        for path in colour_folders.glob("*/*.png")
    ]
    broken = colour_folders / "red" / "0.png"
    broken.write_bytes(b"no image")
    lines = ["photo,kind,x", *(f"{image},{label},1" for image, label in sorted(rows))]
    table = colour_folders / "list.csv"
    table.write_text("\n".join(lines))
    asked = {"labels": bundle.labels, "columns": "image=photo,label=kind,split=", "batch": 5}
    with pytest.raises(DataError, match="--columns"):
        open_image_batches(table, bundle.preprocess, labels=bundle.labels)
    with pytest.raises(
        DataError, match=r"1 of 12 images cannot be read. --skip-broken .*red/0.png"
    ):
        list(open_image_batches(table, bundle.preprocess, **asked).batches())
    images = open_image_batches(table, bundle.preprocess, **asked, skip_broken=True)
    assert ([*images.skipped], images.count) == ([broken], 11)
    assert [images.paths[i].parent.name for i in range(11)] == [
        bundle.labels[k] for k in images.truth
    ]
    assert [len(b) for b in images.batches()] == [5, 5, 1]
    broken.unlink()
    table.write_text("\n".join(line for line in lines if not line.startswith("red/0")))
    plain = open_image_batches(table, bundle.preprocess, **asked)
    assert (plain.digest, plain.count) == (images.digest, 11)
    assert all(np.array_equal(a, b) for a, b in zip(plain.batches(), images.batches(), strict=True))


def test_where_every_image_is_broken_they_are_named(bundle, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"1 of 1 images cannot be read. None is left: .*a.png"):
        open_image_batches(tmp_path, bundle.preprocess, skip_broken=True)
