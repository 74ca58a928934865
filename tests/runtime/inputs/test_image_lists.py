from __future__ import annotations

import json

import pytest

from tests.support.image_archives import png
from vptkit.errors import DataError
from vptkit.runtime.inputs import image_lists
from vptkit.runtime.inputs.image_lists import walk_list
from vptkit.runtime.inputs.lookup import Lookup


def listed(file, **asked):
    return [
        str(image).removeprefix(f"{file.parent}/") for image in walk_list(file, Lookup(**asked))
    ]


@pytest.fixture
def images(tmp_path):
    for name in ("a.png", "b.png", "in/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(1))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "path,label\na.png,x\n\nin/c.png,y\n"),
        ("l.csv", "\ufefffile_name;kind\r\n a.png ;x\r\nin/c.png;\r\n"),
        ("l.tsv", "label\timage\nx\ta.png\ny\tc\n"),
        ("l.csv", "path\na.png\nin/c.png\n"),
        ("l.csv", 'id,note\na,"two\nlines, and a comma"\nc,\n'),
        ("l.jsonl", '{"file_name": "a.png", "text": 1}\n\n{"file_name": "in/c.png"}\n'),
        ("l.json", '["a.png", "in/c.png"]'),
        ("l.json", '[{"path": "a.png", "label": 1}, {"path": "in/c.png"}]'),
        (
            "l.json",
            '{"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "c.png"}]}',
        ),
        ("l.json", '{"a.png": ["x"], "in/c.png": []}'),
        ("l.json", '{"train": {"a.png": []}, "test": {"in/c.png": ["x"]}}'),
    ],
)
def test_lists_as_others_write_them(images, name, text):
    (images / name).write_text(text)
    assert listed(images / name) == ["a.png", "in/c.png"]


@pytest.mark.parametrize(
    ("name", "text", "place", "reason"),
    [
        ("l.csv", "path,label\na.png,x\n,y\n", "line 3", "has no path"),
        ("l.csv", 'label,path\n"two\nlines",a.png\nx\n', "line 4", "has no path"),
        ("l.jsonl", '{"path": "a.png"}\n{"path": \n', "line 2", "not valid JSON"),
        ("l.jsonl", '{"path": "a.png"}\n{"path": ["b.png"]}\n', "line 2", "has no path"),
        ("l.json", '["a.png", null]', "[1]", "names no image"),
        ("l.json", '[{"path": "a.png"}, {"label": 1}]', "[1]", "has no path"),
    ],
)
def test_a_broken_line_is_an_image_that_is_lost(images, name, text, place, reason):
    file = images / name
    file.write_text(text)
    found = list(walk_list(file, Lookup()))
    assert [str(image) for image in found] == [str(images / "a.png"), f"{file}: {place}"]
    with pytest.raises(DataError, match=reason) as caught:
        found[1].read_bytes()
    assert str(caught.value).count(str(file)) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", b"", "no images in there"),
        ("l.csv", b"a.png,1\nb.png,2\n", "no column of images is known. Say --columns image=NAME"),
        ("l.csv", b"id,image\n1,a.png\n", "id and image may both be the image"),
        ("l.csv", b"path\n\xff.png\n", "not a list in UTF-8"),
        ("l.csv", b"path\n" + b"x" * 300, "a line of more than 100 characters"),
        ("l.json", b"[]", "expected a list of names"),
        ("l.json", b"7", "expected a list of names"),
        ("l.json", b"{", "not valid JSON"),
        ("l.json", b"[1}, {2]", "not valid JSON"),
        ("l.jsonl", b'{"x": 1}', "no column of images is known"),
    ],
)
def test_what_is_no_list(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(image_lists, "_LONGEST_LINE", 100)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(walk_list(tmp_path / name, Lookup()))


def test_columns_that_the_user_names(images):
    (images / "l.csv").write_text("id,image\n1,a.png\n")
    assert listed(images / "l.csv", columns={"image": "image"}) == ["a.png"]


def test_a_list_is_read_as_it_is_taken(tmp_path):
    """A million lines and more are never all in memory: the second half need not even be there."""
    file = tmp_path / "l.jsonl"
    lines = [json.dumps({"path": f"{number}.png"}) for number in range(20_000)]
    file.write_bytes("\n".join(lines).encode() + b"\n\xff")
    (tmp_path / "0.png").touch()
    found = walk_list(file, Lookup())
    assert next(found).name == "0.png"
    found.close()
