"""Files that a browser or `curl -F` uploads, from the body of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from vptkit.runtime.serving.http_error import HttpError
from vptkit.runtime.serving.image_requests import UploadedImage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.datastructures import Headers

__all__ = ["files_of_form"]

_MOST_FILES = 256


class _Form(MultiPartParser):
    """As Starlette's, which is content with a form that is cut off."""

    ended = False

    def on_end(self) -> None:
        """Note that the last boundary has come."""
        self.ended = True


async def files_of_form(headers: Headers, body: bytes) -> list[UploadedImage]:
    """The files of a form, multipart/form-data.

    Args:
        headers: of the request.
        body: whole.

    Raises:
        HttpError: 400: it is none, or has no file.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        if not parser.ended:
            raise MultiPartException("it is cut off")

    parser = _Form(headers, stream(), max_files=_MOST_FILES, max_fields=16)
    parser.spool_max_size = len(body) + 1  # nothing goes to the disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise HttpError(400, f"the body is not multipart/form-data: {error}") from error
    found: list[UploadedImage] = []
    for _, part in form.multi_items():
        if isinstance(part, UploadFile):
            found.append(UploadedImage(part.filename or f"file {len(found)}", await part.read()))
    await form.close()
    if not found:
        raise HttpError(400, "no file in the form, expected one or more, as -F file=@photo.jpg")
    return found
