"""The demo's handwritten digits."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")

from vptkit.demo.digits import write_digits  # noqa: E402
from vptkit.errors import MissingExtraError  # noqa: E402
from vptkit.images.image_file import class_folders  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_digits(tmp_path):
    pytest.importorskip("sklearn")
    folder = write_digits(tmp_path / "digits")
    counts = {}
    for split in ("train", "val", "test"):
        classes = class_folders(folder / split)
        assert list(classes) == [str(digit) for digit in range(10)]
        counts[split] = sum(len(files) for files in classes.values())
    assert counts == {"train": 800, "val": 200, "test": 797}
    names = [path.name for path in folder.rglob("*.png")]
    assert len(names) == len(set(names)) == 1797  # no image in two splits
    with Image.open(next(folder.rglob("*.png"))) as image:
        assert (image.size, image.mode) == ((8, 8), "L")
        assert image.getextrema()[1] > 150


def test_without_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn.*vptkit\[demo\]"):
        write_digits(tmp_path / "digits")
