"""What a data set may name: nothing outside of its folder, unless the user says so."""

from __future__ import annotations

import pytest

from tests.support.image_archives import png, write_tar
from vptkit.datasets.dataset_bounds import inside_of, require_inside
from vptkit.datasets.dataset_files import read_data_files
from vptkit.errors import DataError
from vptkit.images.image_file import digest_of_image, open_image
from vptkit.images.labelled_images import images_of


@pytest.fixture
def private(tmp_path):
    """What a stranger may want: pictures and texts elsewhere on this machine."""
    folder = tmp_path / "private"
    (folder / "album").mkdir(parents=True)
    for i in range(3):
        (folder / "album" / f"{i}.png").write_bytes(png(i))
    (folder / "secrets.txt").write_text("hunter2\nhunter3\n")
    write_tar(folder / "diary.tar", {"a.png": png(1), "a.cls": b"0"})
    return folder


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "own.png").write_bytes(png(9))
    return folder


def listed(data, *paths):
    rows = "".join(f"{path},{i % 2}\n" for i, path in enumerate(paths))
    (data / "list.csv").write_text("path,label\n" + rows)
    return data / "list.csv"


def by_dots(private, data):
    (data / "images").mkdir()
    return listed(data, "own.png", "../private/album/0.png", "images/../../private/album/1.png")


def by_absolute_path(private, data):
    return listed(data, "own.png", private / "album" / "0.png", private / "album" / "1.png")


def by_links(private, data):
    (data / "a.png").symlink_to(private / "album" / "0.png")
    (data / "b.png").symlink_to("a.png")  # a link to a link
    return listed(data, "own.png", "a.png", "b.png")


def by_a_linked_folder(private, data):
    (data / "images").symlink_to("../private/album")
    return listed(data, "own.png", "images/0.png", "images/1.png")


@pytest.mark.parametrize("make", [by_dots, by_absolute_path, by_links, by_a_linked_folder])
def test_a_csv_that_names_files_elsewhere(private, data, make, capsys):
    file = make(private, data)
    message = r"list\.csv: 2 files lie outside of this data set, the first is .*--allow-outside"
    with pytest.raises(DataError, match=message):
        read_data_files(file)
    found = read_data_files(file, allow_outside=True)
    assert len(list(images_of(found))) == 3
    assert "note: " in (told := capsys.readouterr().err)
    assert "2 files lie outside" in told


def test_a_shard_that_is_a_link(private, data):
    (data / "s.tar").symlink_to(private / "diary.tar")
    with pytest.raises(DataError, match=r"1 file lies outside .*s\.tar \(in truth .*diary\.tar"):
        read_data_files(data)
    assert read_data_files(data, allow_outside=True)


def test_a_folder_of_shards_that_is_a_link(private, data):
    (data / "train").symlink_to(private)
    with pytest.raises(DataError, match="1 file lies outside"):
        read_data_files(data)


@pytest.mark.parametrize("named", ["folder", "file"])
def test_class_names_that_are_a_link(private, data, named):
    write_tar(data / "s.tar", {"a.png": png(1), "a.cls": b"0", "b.png": png(2), "b.cls": b"1"})
    (data / "classnames.txt").symlink_to(private / "secrets.txt")
    with pytest.raises(
        DataError, match=r"1 file lies outside .*classnames\.txt \(in truth"
    ) as told:
        read_data_files(data if named == "folder" else data / "s.tar")
    assert "hunter2" not in str(told.value)


def test_what_stays_below_the_folder_is_read(data, tmp_path, capsys):
    (data / "images").mkdir()
    (data / "images" / "a.png").write_bytes(png(1))
    (data / "linked").symlink_to("images")
    (data / "c.png").write_bytes(png(2))
    (data / "b.png").symlink_to(data / "images" / "a.png")
    named = tmp_path / "named"
    named.symlink_to(data)  # by the user, who knows
    listed(data, "own.png", "images/../images/a.png", "b.png", "linked/a.png", named / "c.png")
    with pytest.raises(DataError, match="1 file lies outside"):  # own.png by another name
        require_inside(data, [tmp_path / "other" / "own.png"])
    for file in (data / "list.csv", named / "list.csv"):
        assert len(list(images_of(read_data_files(file)))) == 5
    assert not capsys.readouterr().err


def test_a_file_that_the_user_names_may_be_a_link(private, data):
    (data / "s.tar").symlink_to(private / "diary.tar")
    assert read_data_files(data / "s.tar")


def test_the_folder_above_everything(data):
    require_inside(type(data)("/"), [data / "own.png"])


def test_a_folder_whose_name_begins_alike_is_another(data, tmp_path):
    (tmp_path / "data2").mkdir()
    with pytest.raises(DataError, match="1 file lies outside"):
        require_inside(data, [tmp_path / "data2" / "x.png"])


def swap(private, data):
    """What a neighbour does between the look at a name and its opening."""
    (data / "own.png").unlink()
    (data / "own.png").symlink_to(private / "album" / "0.png")


def swap_folder(private, data):
    (data / "own.png").unlink()
    data.rename(data.with_name("old"))
    (private / "album" / "0.png").rename(private / "album" / "own.png")
    data.symlink_to(private / "album")


@pytest.mark.parametrize("change", [swap, swap_folder])
@pytest.mark.parametrize("read", [open_image, digest_of_image])
def test_the_opened_file_is_asked_too(private, data, change, read):
    inside = inside_of(data)
    read(data / "own.png", inside=inside)
    change(private, data)
    with pytest.raises(DataError, match=r"own\.png: lies at .*private/album.*expected it in"):
        read(data / "own.png", inside=inside)
    read(data / "own.png", inside=inside_of(data, allow_outside=True))


def test_links_within_and_a_data_set_that_is_a_link_are_opened(data):
    (data / "link.png").symlink_to("own.png")
    (data.parent / "name").symlink_to(data)
    for place in (data, data.parent / "name"):
        open_image(place / "link.png", inside=inside_of(place))
    csv = listed(data, "own.png")
    open_image(data / "own.png", inside=inside_of(csv))
