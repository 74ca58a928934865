from __future__ import annotations

import json

import pytest

pa = pytest.importorskip("pyarrow")
from vptkit.arrow_files.image_column import (  # noqa: E402
    contents,
    features_of,
    image_column,
    require_names,
)
from vptkit.errors import DataError  # noqa: E402

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("columns", "features", "expected"),
    [
        ([("x", STRUCT)], {}, "x"),
        ([("x", pa.large_binary()), ("y", pa.int64())], {}, "x"),
        ([("x", STRUCT), ("image", pa.binary())], {}, "image"),
        ([("x", STRUCT), ("y", pa.binary())], {}, None),
        ([("x", STRUCT), ("y", pa.binary())], {"y": {"_type": "Audio"}}, "x"),
        ([("x", STRUCT), ("y", pa.int64())], {"y": ["no object"]}, "x"),
        ([("x", pa.string())], {}, None),
    ],
)
def test_the_column_of_images(columns, features, expected):
    assert image_column(pa.schema(columns), features) == expected


def test_bytes_and_paths_of_a_column():
    column = pa.array([{"bytes": b"x", "path": "a"}, {"bytes": None, "path": "b"}], STRUCT)
    images, paths = contents(column)
    assert (images.to_pylist(), paths) == ([b"x", None], ["a", "b"])
    images, paths = contents(pa.array([b"x"]))
    assert (images.to_pylist(), paths) == ([b"x"], [None])


def test_what_hugging_face_says_of_columns():
    said = {"info": {"features": {"image": {"_type": "Image"}}}}
    schema = pa.schema([("image", STRUCT)], metadata={"huggingface": json.dumps(said)})
    assert features_of("a", schema) == {"image": {"_type": "Image"}}
    assert features_of("a", pa.schema([])) == {}
    with pytest.raises(DataError, match="a: its huggingface metadata is broken: info is no object"):
        features_of("a", pa.schema([], metadata={"huggingface": '{"info": [1]}'}))


def test_two_columns_of_one_name():
    with pytest.raises(DataError, match="a: several columns are called 'x'"):
        require_names("a", pa.schema([("x", pa.int8()), ("x", pa.int8())]))
