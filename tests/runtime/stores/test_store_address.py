from __future__ import annotations

from pathlib import Path

import pytest

from vptkit.errors import OutputError
from vptkit.runtime.stores.store_address import (
    address_of,
    is_address,
    require_local,
    shown_address,
    shown_source,
    suffix_of,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://b/x.jpg", "s3://b/x.jpg"),
        ("S3://b/X.jpg", "s3://b/X.jpg"),
        ("s3:/b/x.jpg", "s3://b/x.jpg"),  # as pathlib makes it
        ("gs://b", "gs://b"),
        ("https://h/x.jpg?a=1", "https://h/x.jpg?a=1"),
        ("rtsp://h/x", None),
        ("file:///x", None),
        ("simplecache::s3://b/x", None),
        ("s3:x", None),
        ("photos/s3://b", None),
        ("C:/x.jpg", None),
        ("x.jpg", None),
    ],
)
def test_addresses(text, expected):
    assert address_of(text) == expected
    assert is_address(text) == (expected is not None)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://joe:pw@h/x.jpg", "https://***@h/x.jpg"),
        ("https://h/x.jpg?X-Amz-Signature=abc&v=1", "https://h/x.jpg?X-Amz-Signature=***&v=1"),
        ("https://h/user=7/x.jpg", "https://h/user=7/x.jpg"),
        ("s3://AKIA:secret@b/x", "s3://***@b/x"),
        ("s3://b/user=7/token=8/x@y.jpg", "s3://b/user=7/token=8/x@y.jpg"),
        ("abfs://container@account.dfs.core.windows.net/x", None),
    ],
)
def test_what_addresses_are_called(address, shown):
    assert shown_address(address) == shown_source(address) == (shown or address)


def test_a_path_is_called_what_it_is():
    assert shown_address(Path("a/b@c?token=1")) == "a/b@c?token=1"
    assert shown_source("a@b:c/") == "a@b:c/"


@pytest.mark.parametrize(
    ("file", "suffix"),
    [
        (Path("a.TAR"), ".tar"),
        ("s3://b/a.Tar", ".tar"),
        ("s3://b.tar", ""),
        ("https://h/a.jpg?x=b.png", ".jpg"),
        ("s3://b/a?b.png", ".png"),
    ],
)
def test_suffixes(file, suffix):
    assert suffix_of(file) == suffix


@pytest.mark.parametrize("name", ["s3://b/x.jsonl", "gs://b/x.csv", "https://joe:pw@h/x.csv"])
def test_nothing_is_written_into_a_store(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="outputs are written to this machine's disk") as caught:
        require_local(Path(name))
    assert str(caught.value).startswith(name.replace("joe:pw", "***"))
    require_local(Path("s3.jsonl"))
    (tmp_path / Path(name).parts[0]).mkdir()
    require_local(Path(name))
