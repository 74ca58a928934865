"""Pyarrow where it is installed, and what it raises of a file as errors that name the file."""

from __future__ import annotations

import contextlib
import errno
import struct
import tempfile
from typing import TYPE_CHECKING, Any

from vptkit.errors import DataError, MissingExtraError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["pyarrow", "readable"]


def pyarrow() -> Any:
    """The library, with its module for Parquet.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "data", "reading Parquet and Arrow files") from error
    return pa


@contextlib.contextmanager
def readable(file: object) -> Iterator[None]:
    """Say which file is broken.

    Args:
        file: what messages call it.

    Raises:
        DataError: for what pyarrow raises inside, or the system.
        OutputError: there is no space for what is unpacked.
    """
    try:
        yield
    except pyarrow().ArrowException as error:
        raise DataError(f"{file}: {error}") from error
    except (
        ValueError,
        OverflowError,
        LookupError,
        struct.error,
    ) as error:  # of values that Python lacks
        raise DataError(f"{file}: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"{tempfile.gettempdir()}: no space left for the images of {file}, which are "
                "unpacked there. Set TMPDIR to a folder with more."
            ) from error
        raise DataError(f"{file}: {error.strerror or error}") from error
