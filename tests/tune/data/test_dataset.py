"""Batches of images: evaluation is `prepare`, and randomness hangs on the seed only."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from vptkit.errors import DataError  # noqa: E402
from vptkit.images.image_file import open_image  # noqa: E402
from vptkit.images.preprocess import Preprocess, prepare  # noqa: E402
from vptkit.tune.data import dataset as data_module  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.splits import data_digest, load_splits  # noqa: E402

PREPROCESS = Preprocess(
    input_size=(3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop_pct=0.9
)


def epoch_of(dataset: DataSet, size: int, **overrides):
    settings = {"seed": 3, "epoch": 1, "augment": "flip", "crop_scale": 0.5} | overrides
    batches = list(dataset.training_batches(size, **settings))
    return [images for images, _ in batches], [targets for _, targets in batches]


def order_of(dataset: DataSet, seed: int, epoch: int):
    """The order in which an epoch shows its images, found by their pixels."""
    plain = dataset.prepared(np.arange(len(dataset)))
    batches, _ = epoch_of(dataset, len(dataset), seed=seed, epoch=epoch, augment="none")
    return [int((plain == image).all(axis=(1, 2, 3)).argmax()) for image in batches[0]]


@pytest.fixture
def train(splits) -> DataSet:
    return DataSet(load_splits(splits, 0, 0.15, 0.15)[1]["train"], PREPROCESS)


@pytest.mark.parametrize("size", [1, 7, 9, 16, 24, 48, 49, 100])
def test_the_steps_of_an_epoch_are_counted(train, size):
    """24 images; a last batch of less than half is dropped, unless it is the only one."""
    batches, _ = epoch_of(train, size)
    assert train.training_steps(size) == len(batches) > 0
    assert all(2 * len(batch) >= size for batch in batches[1:])


def test_evaluation_is_prepare(train):
    parts = list(train.evaluation_batches(7))
    assert [len(images) for images, _ in parts] == [7, 7, 7, 3]
    images = np.concatenate([images for images, _ in parts])
    wanted = np.stack([prepare(open_image(path), PREPROCESS) for path in train.split.images])
    assert images.dtype == np.uint8
    assert np.array_equal(images, wanted)
    assert np.array_equal(np.concatenate([t for _, t in parts]), train.split.targets)
    assert np.array_equal(train.prepared(np.array([5, 2])), wanted[[5, 2]])
    mirrored = np.concatenate([images for images, _ in train.evaluation_batches(7, view=1)])
    assert np.array_equal(mirrored, wanted[:, :, ::-1])


def test_views_of_crop_are_random_parts(train):
    def view(number: int, seed: int = 0, size: int = 7):
        batches = train.evaluation_batches(size, view=number, seed=seed, crop_scale=0.3)
        return np.concatenate([images for images, _ in batches])

    assert np.array_equal(view(2), view(2, size=24))
    for other in (view(0), view(3), view(2, seed=1)):
        assert (view(2) != other).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("augment", ["none", "flip", "crop"])
def test_an_epoch_depends_on_seed_and_epoch_only(splits, augment):
    def whole(size: int, seed: int = 3, epoch: int = 1):
        dataset = DataSet(load_splits(splits, 0, 0.15, 0.15)[1]["train"], PREPROCESS)
        images, targets = epoch_of(dataset, size, seed=seed, epoch=epoch, augment=augment)
        return np.concatenate(images), np.concatenate(targets)

    images, targets = whole(4)
    assert images.shape == (24, 32, 32, 3)
    for size in (1, 8, 24, 100):
        assert all(
            np.array_equal(a, b) for a, b in zip(whole(size), (images, targets), strict=True)
        )
    for other in (whole(4, seed=4), whole(4, epoch=2)):
        assert not np.array_equal(other[0], images)


def test_an_epoch_does_not_depend_on_the_cache_or_on_threads(train, monkeypatch):
    first = epoch_of(train, 8, augment="crop")
    again = epoch_of(train, 8, augment="crop")  # decoded images are in memory now
    monkeypatch.setattr(data_module, "_BUDGET", 5000)
    poor = epoch_of(DataSet(train.split, PREPROCESS), 8, augment="crop")
    executor = data_module.ThreadPoolExecutor
    monkeypatch.setattr(data_module, "ThreadPoolExecutor", lambda max_workers: executor(7))
    many = epoch_of(DataSet(train.split, PREPROCESS), 8, augment="crop")
    for other in (again, poor, many):
        assert all(np.array_equal(a, b) for a, b in zip(first[0], other[0], strict=True))


def test_the_memory_budget_is_kept(train, monkeypatch):
    monkeypatch.setattr(data_module, "_BUDGET", 20_000)
    poor = DataSet(train.split, PREPROCESS)
    list(poor.evaluation_batches(8))
    kept = [pixels.nbytes for pixels in poor._kept.values()]
    assert 0 < sum(kept) <= 20_000
    assert len(kept) < len(poor)
    crops = DataSet(train.split, PREPROCESS)
    epoch_of(crops, 8, augment="crop")
    decoded = [image.width * image.height * 3 for image in crops._decoded.values()]
    assert 0 < sum(decoded) <= 20_000
    assert not crops._kept


def test_an_epoch_is_a_shuffle(train):
    orders = [order_of(train, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert sorted(order) == list(range(24))
        assert order != list(range(24))
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]
    _, targets = epoch_of(train, 24, seed=0, epoch=0, augment="none")
    assert np.array_equal(targets[0], train.split.targets[orders[0]])


def test_about_half_is_mirrored(train):
    plain = train.prepared(np.arange(24))
    mirrored, seen = 0, np.zeros(24, dtype=int)
    for epoch in range(30):
        order = order_of(train, 0, epoch)
        images, _ = epoch_of(train, 24, seed=0, epoch=epoch)
        for index, image in zip(order, images[0], strict=True):
            if not np.array_equal(image, plain[index]):
                assert np.array_equal(image, plain[index][:, ::-1])
                mirrored += 1
                seen[index] += 1
    assert 0.45 < mirrored / 720 < 0.55
    assert seen.min() > 3  # each image, also the first
    assert seen.max() < 27


def test_a_crop_has_the_size_of_the_input(make_folders, tmp_path):
    """Whatever the image's shape; a very long one has no crop of 3:4 to 4:3 that is large."""
    folder = make_folders(tmp_path / "d", 4)
    Image.new("RGB", (400, 3), (200, 0, 0)).save(folder / "red" / "0.png")
    Image.new("L", (1, 1), 77).save(folder / "red" / "1.png")
    split = load_splits(folder, 0, 0.25, 0.25)[1]["train"]
    tall = Preprocess(input_size=(3, 40, 24), mean=(0, 0, 0), std=(1, 1, 1), crop_pct=1.0)
    for scale in (0.08, 1.0):
        images, _ = epoch_of(DataSet(split, tall), 4, augment="crop", crop_scale=scale)
        assert {image.shape for image in images} == {(4, 40, 24, 3)} | (
            {(len(split.images) % 4, 40, 24, 3)} if len(split.images) % 4 else set()
        )


def test_a_crop_keeps_the_share_it_promises(tmp_path):
    """On a picture of gradients the corners of a crop tell where it was cut."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        ramp = np.zeros((128, 128, 3), np.uint8)
        ramp[..., 0], ramp[..., 1] = np.arange(128), np.arange(128)[:, None]
        for i in range(10):
            Image.fromarray(ramp).save(tmp_path / name / f"{i}.png")
    split = load_splits(tmp_path, 0, 0.1, 0.1)[1]["train"]
    dataset = DataSet(split, PREPROCESS)
    shares, places = [], []
    for epoch in range(6):
        images, _ = epoch_of(dataset, 16, epoch=epoch, augment="crop", crop_scale=0.3)
        x, y = images[0][..., 0].astype(float), images[0][..., 1].astype(float)
        wide = np.abs(x[:, 16, -1] - x[:, 16, 0]) * 32 / 31
        high = np.abs(y[:, -1, 16] - y[:, 0, 16]) * 32 / 31
        shares += list(wide * high / 128**2)
        places += list(x[:, 16, 16])
    assert 0.27 < min(shares) < 0.4
    assert 0.85 < max(shares) < 1.03
    assert np.std(places) > 5


def test_a_small_rest_is_dropped(train):
    def sizes(batch: int) -> list[int]:
        return [len(part) for part in epoch_of(train, batch)[1]]

    assert sizes(10) == [10, 10]  # 4 of 24 are less than half a batch
    assert sizes(16) == [16, 8]
    assert sizes(20) == [20]
    assert sizes(24) == [24]
    assert sizes(60) == [24]  # unless it is all there is


def test_a_broken_image_is_named_when_it_is_met(make_folders, tmp_path):
    folder = make_folders(tmp_path / "d", 4)
    (folder / "green" / "2.png").write_bytes(b"no image")
    split = load_splits(folder, 0, 0.25, 0.25)[1]
    dataset = next(
        DataSet(s, PREPROCESS) for s in split.values() if folder / "green" / "2.png" in s.images
    )
    with pytest.raises(DataError, match=r"green/2\.png: not an image"):
        list(dataset.evaluation_batches(2))


def test_an_image_that_became_a_link_to_elsewhere_is_refused_when_it_is_opened(
    make_folders, tmp_path
):
    """Between the listing of a data set and its last epoch are hours."""
    folders = make_folders(tmp_path / "data", 9)
    _, splits = load_splits(folders, 0, 0.2, 0.2)
    first = splits["train"].images[0]
    first.rename(tmp_path / "private.png")
    first.symlink_to(tmp_path / "private.png")
    with pytest.raises(DataError, match=r"private\.png, expected it in .*data/"):
        DataSet(splits["train"], PREPROCESS).prepared(np.array([0]))
    with pytest.raises(DataError, match=r"private\.png, expected it in .*data/"):
        data_digest(splits)
    _, allowed = load_splits(folders, 0, 0.2, 0.2, allow_outside=True)
    data_digest(allowed)
