from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vptkit.errors import BundleError, VptkitError
from vptkit.strict_json import canonical_json, json_text, parse_json, read_toml


def test_an_object_is_read():
    assert parse_json('{"a": [1, 2.5, null, {"b": "ä"}]}', "x", BundleError) == {
        "a": [1, 2.5, None, {"b": "ä"}]
    }
    assert parse_json(b'{"a": 1}', "x", BundleError) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("[1]", "not a JSON object but list"),
        ("5", "not a JSON object but int"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": -Infinity}', "-Infinity is no JSON"),
        ('{"a": 1e999}', "1e999 is too large"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"a": ' + "[" * 65 + "]" * 65 + "}", "nested more than 64 deep"),
        ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        (b'{"a": "\xff"}', "can't decode byte"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_refused(text, said):
    with pytest.raises(BundleError, match=r"^manifest\.json: .*" + said.replace(".", r"\.")):
        parse_json(text, "manifest.json", BundleError)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(value=json_values)
def test_canonical_json_is_json_and_ascii(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    assert text.isascii()


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    assert canonical_json({"b": 1, "a": [1, 2]}) == canonical_json({"a": [1, 2], "b": 1})
    assert canonical_json({"b": 1, "a": [1, 2]}) == '{"a":[1,2],"b":1}'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_json_refuses_what_json_cannot_say(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json([value])


@pytest.mark.parametrize("content", [b"lr = ", b"name = '\xff'"])
def test_what_is_no_toml(tmp_path, content):
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(VptkitError, match=r"run\.toml: not valid TOML"):
        read_toml(tmp_path / "run.toml")
    with pytest.raises(VptkitError, match=r"none\.toml: no such file"):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "{a=" * 100_000,
        "a = " + "9" * 5000,
        "x" * 2_000_000,
        "a = 1\na = 2",
        "a = 1979-99-99",
    ],
    ids=["lists", "tables", "digits", "large", "twice", "date"],
)
def test_toml_of_a_stranger(tmp_path, text):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(VptkitError, match=r"run\.toml: (not valid TOML|more than)"):
        read_toml(file)


def test_settings_that_are_no_file(tmp_path):
    """A FIFO would wait for its writer, a device has no end."""
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    for name, kind in (("pipe.toml", "a FIFO"), ("endless.toml", "a device"), (".", "a folder")):
        with pytest.raises(VptkitError, match=f"{kind}, expected a regular file"):
            read_toml(tmp_path / name)


def test_what_is_written_has_no_halves_of_surrogates():
    """Other readers than Python's refuse their escapes, and Parquet and CSV cannot hold them."""
    document = {"a\udcff": ["caf\udce9.jpg", "\\udcff", "😀é\n", "\ud83d"], "b": {"c": 1.5}}
    text = json_text(document)
    read = json.loads(text)
    assert text.isascii()
    assert read == {r"a\udcff": [r"caf\udce9.jpg", "\\udcff", "😀é\n", r"\ud83d"], "b": {"c": 1.5}}
    json.dumps(read, ensure_ascii=False).encode()
    assert json.loads(json_text({"b": 1, "a": "é"}, indent=1, sort_keys=True)) == {"a": "é", "b": 1}
    with pytest.raises(ValueError, match="JSON"):
        json_text({"a": float("nan")})
