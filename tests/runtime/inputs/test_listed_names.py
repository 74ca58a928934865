from __future__ import annotations

import pytest

from tests.support.image_archives import png
from vptkit.errors import DataError
from vptkit.runtime.inputs.image_lists import walk_list
from vptkit.runtime.inputs.listed_names import names_beside
from vptkit.runtime.inputs.lookup import Lookup


@pytest.fixture
def folder(tmp_path):
    for name in ("set/a.png", "set/in/b.png", "set/in/c.png", "set/c.png", "other/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(1))
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "other" / "x.png")
    (tmp_path / "set" / "out").symlink_to(tmp_path / "other")
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.png", "a.png"), ("a", "a.png"), ("b", "in/b.png"), ("b.png", "in/b.png"), ("z", "z")],
)
def test_a_name_and_its_image(folder, name, expected):
    names = names_beside(folder / "l.csv", Lookup())
    assert names.find("l.csv: line 2", name) == folder / expected


def test_a_name_that_may_be_several(folder):
    names = names_beside(folder / "l.csv", Lookup())
    (folder / "c.png").rename(folder / "in" / "deep.png")
    (folder / "d").mkdir()
    (folder / "d" / "c.jpg").touch()
    with pytest.raises(DataError, match="line 2: c may be one of 2 images"):
        names.find("line 2", "c")


@pytest.mark.parametrize(
    "name",
    [
        "../other/x.png",
        "{outside}/x.png",
        "link.png",
        "out/x.png",
        "in/../../other/x.png",
        "/etc/passwd",
        "s3://bucket/x.png",
        "https://10.0.0.1/x.png",
    ],
)
def test_names_that_lead_out_of_the_list(folder, name):
    name = name.replace("{outside}", str(folder.parent / "other"))
    names = names_beside(folder / "l.csv", Lookup())
    with pytest.raises(DataError, match=r"line 2: .* lies outside .* --allow-outside"):
        names.find("line 2", name)
    allowed = names_beside(folder / "l.csv", Lookup(allow_outside=True))
    assert str(allowed.find("line 2", name)).endswith(name.rpartition("/")[2])


def test_the_first_name_decides_of_a_list_the_others_of_themselves(folder):
    file = folder / "l.csv"
    file.write_text("path\n../other/x.png\na.png\n")
    with pytest.raises(DataError, match=r"l\.csv: line 2: .* lies outside"):
        list(walk_list(file, Lookup()))
    file.write_text("path\na.png\n../other/x.png\n")
    assert [str(image).rpartition("/")[2] for image in walk_list(file, Lookup())] == [
        "a.png",
        "l.csv: line 3",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "s3://b/set/a.png"),
        ("./in/../a.png", "s3://b/set/a.png"),
        ("s3://b/set/x.png", "s3://b/set/x.png"),
        ("../a.png", None),
        ("/a.png", None),
        ("s3://b/settled.png", None),
        ("s3://other/set/a.png", None),
    ],
)
def test_names_of_a_list_in_a_store(name, expected):
    names = names_beside("s3://b/set/l.csv", Lookup())
    if expected is None:
        with pytest.raises(DataError, match="lies outside"):
            names.find("line 2", name)
    else:
        assert str(names.find("line 2", name)) == expected


@pytest.mark.parametrize("name", ["\ud800.png", "x\0y.png", "n" * 5000, "n/" * 3000])
@pytest.mark.parametrize("place", ["list.csv", "s3://b/list.csv"])
@pytest.mark.parametrize("allow_outside", [False, True])
def test_what_no_file_is_called(folder, name, place, allow_outside):
    file = place if place.startswith("s3") else folder / place
    names = names_beside(file, Lookup(allow_outside=allow_outside))
    with pytest.raises(DataError, match=r"line 2: .* is not a name of a file") as caught:
        names.find("line 2", name)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("name", ["n" * 300, "dir/" * 300, "\udcff.png", "\u202egpj.exe"])
def test_odd_names_are_files_that_are_not_there(folder, name):
    assert names_beside(folder / "l.csv", Lookup()).find("line 2", name) == folder / name
