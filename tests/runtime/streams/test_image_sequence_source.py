import numpy as np
import pytest
from PIL import Image

from vptkit.errors import DataError
from vptkit.runtime.streams.frame import StreamError
from vptkit.runtime.streams.image_sequence_source import ImageSequenceSource


@pytest.fixture
def folder(tmp_path):
    for number in (3, 10, 100, 2):
        Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(
            tmp_path / f"im 100%{number:02d}é.png"
        )
    (tmp_path / "note.txt").write_text("no image")
    return tmp_path


def levels(target):
    return [int(p.read()[0, 0, 0]) for p in ImageSequenceSource(str(target), "x").frames()]


def test_numbers_are_in_order(folder):
    assert levels(folder / "im 100%%%02dé.png") == [2, 3, 10, 100]
    assert levels(folder / "im 100%%%03dé.png") == [100]


def test_a_folder_is_in_the_order_of_its_names(folder):
    assert levels(folder) == [2, 3, 100, 10] or levels(folder) == [2, 3, 10, 100]


@pytest.mark.parametrize("target", ["none", "none/%d.png", "%d.png"])
def test_nothing_there(tmp_path, target):
    with pytest.raises(StreamError, match="no such images") as caught:
        levels(tmp_path / target)
    assert caught.value.lasting


def test_a_broken_image_is_one_broken_frame(folder):
    (folder / "im 100%03é.png").write_bytes(b"broken")
    pictures = list(ImageSequenceSource(str(folder / "im 100%%%02dé.png"), "x").frames())
    with pytest.raises(DataError):
        pictures[1].read()
    assert pictures[2].read()[0, 0, 0] == 10
