from pathlib import Path

import pytest

from vptkit.datasets.dataset_summary import dataset_line, skipped_files, skipped_text
from vptkit.datasets.table_dataset import read_table
from vptkit.errors import DataError
from vptkit.images.image_file import class_folders, list_images
from vptkit.images.labelled_images import images_of


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_line_says_what_was_read():
    labels, counts = ["daisy", "rose", "tulip", "lily"], {"train": 1400, "val": 100}
    line = dataset_line(Path("data/flowers"), labels, counts, {".heic": 3})
    assert line == (
        "flowers: 4 classes (daisy, rose, tulip, …), train 1,400, val 100; 3 files skipped (.heic 3)"
    )
    assert dataset_line(Path("a"), labels[:1], {"": 2}, {}) == "a: 1 class (daisy), images 2"
    several = dataset_line(Path("a"), labels[:2], {"": 2}, {}, multilabel=True)
    assert several == "a: 2 labels (daisy, rose), images 2"


def test_the_most_frequent_kinds_come_first():
    skipped = {".a": 1, ".b": 5, ".c": 1, ".d": 1, ".e": 1}
    assert skipped_text(skipped) == "9 files skipped (.b 5, .a 1, .c 1, .d 1, …)"
    assert skipped_text({".mov": 1}) == "1 file skipped (.mov 1)"


def test_a_folders_listing_counts_what_it_passes_over(tmp_path):
    _touch(tmp_path, "a.jpg", "b.HEIC", "x/c.heic", "x/README", ".DS_Store", "x/.hidden.heic")
    (tmp_path / "linked").symlink_to(tmp_path / "x")
    listing = list_images(tmp_path)
    assert [path.name for path in listing.images] == ["a.jpg"]
    assert listing.skipped == {".heic": 2, "no suffix": 1, "link to a folder": 1}


def test_images_in_no_class_and_folders_beside_the_splits_are_skipped(tmp_path):
    data = _touch(tmp_path, "train/a/1.jpg", "train/a/2.heic", "lost.jpg", "old/b/3.png")
    (tmp_path / "train/b").symlink_to(_touch(tmp_path.parent / "elsewhere", "4.jpg", "5.heic"))
    used = [path for images in class_folders(data / "train").values() for path in images]
    assert len(used) == 2
    assert skipped_files(data, used) == {"image in no class": 2, ".heic": 2}


def test_images_that_a_csv_does_not_list_are_skipped(tmp_path):
    _touch(tmp_path, "x/1.jpg", "x/2.jpg", "x/3.jpg", "4.jpg")
    (tmp_path / "list.csv").write_text("path,label\nx/1.jpg,a\nx/2.jpg,b\n")
    data = tmp_path / "list.csv"
    assert skipped_files(data, images_of(read_table(data))) == {"image not listed": 1}


@pytest.mark.parametrize("split", ["train", "Val", "testing"])
def test_a_class_that_holds_splits_is_one_level_too_high(tmp_path, split):
    data = _touch(tmp_path / "D", f"flowers/{split}/daisy/1.jpg", "birds/wren/1.jpg")
    with pytest.raises(
        DataError, match=rf"one level too high: \S+flowers holds {split}/ itself; pass"
    ):
        class_folders(data)


def test_splits_within_classes_are_told_the_right_order(tmp_path):
    data = _touch(tmp_path / "D", "daisy/train/1.jpg", "daisy/val/2.jpg", "rose/train/1.jpg")
    with pytest.raises(
        DataError, match=r"splits first and the classes in them, as .*D/train/daisy"
    ):
        class_folders(data)
