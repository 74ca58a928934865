from __future__ import annotations

import errno
import sys

import pytest

from vptkit.arrow_files.arrow_library import pyarrow, readable
from vptkit.errors import DataError, MissingExtraError, OutputError


@pytest.mark.parametrize(
    ("cause", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "full"), OutputError, "no space left for the images of a.parquet"),
        (OSError(errno.EIO, "worn out"), DataError, r"a\.parquet: worn out"),
        (OverflowError("too large"), DataError, r"a\.parquet: too large"),
    ],
)
def test_what_is_raised_of_a_file_has_its_name(cause, kind, message):
    pytest.importorskip("pyarrow")
    with pytest.raises(kind, match=message), readable("a.parquet"):
        raise cause


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "vptkit\[data\]"'):
        pyarrow()
