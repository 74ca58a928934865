"""What users write for a source, taken apart, and called without credentials."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from vptkit.decoding.image_formats import IMAGE_SUFFIXES
from vptkit.paths.hidden_secrets import redacted
from vptkit.paths.path_kind import VIDEO_SUFFIXES
from vptkit.regular_files import is_folder

from .frame import StreamError

__all__ = ["Address", "Place", "source_address"]

Place = Literal["file", "network", "v4l2", "csi", "gst", "sequence"]

_NETWORK = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp", "tcp", "http", "https")
# Of lists and archives of images (`vptkit.runtime.inputs.data_files`)
_DATA_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".tar", ".parquet")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_NUMBERED = re.compile(r"(?<!%)(?:%%)*%(0\d{1,2}|\d{0,2})d")


class Address(NamedTuple):
    """A source as it was written.

    Attributes:
        place: what kind of source it is.
        target: path, URL, device, sensor number or pipeline; with its credentials.
        name: that the user gave (`cam1=rtsp://…`), or what was written, credentials hidden.
    """

    place: Place
    target: str
    name: str


def source_address(text: str) -> Address | None:
    """Take apart what a user wrote; None is no stream (an image, a folder, a glob, anything else).

    What exists as a file or a folder is that, whatever it is called: a folder `0` is no camera.

    Raises:
        StreamError: it begins like a stream, and isn't one (`csi://front`, `gst:` alone).
    """
    named = _NAMED.fullmatch(text)
    if named is not None and not _is_there(text):
        inner = _place(named[2])
        return None if inner is None else Address(*inner, named[1])
    found = _place(text)
    return None if found is None else Address(*found, redacted(text))


def _is_there(text: str) -> bool:
    """Whether a text with = in it is a path: it exists, or its folder does (`run=1/%d.png`)."""
    folder = os.path.dirname(text)  # noqa: PTH120 -- of a URL, too
    return os.path.lexists(text) or ("=" in folder and os.path.lexists(folder))


def _place(text: str) -> tuple[Place, str] | None:
    scheme = _SCHEME.fullmatch(text)
    if scheme is not None and not os.path.lexists(text):
        return _of_scheme(scheme[1].lower(), scheme[2], text)
    path = Path(text)
    if text.isascii() and text.isdigit() and not os.path.lexists(text):
        return "v4l2", f"/dev/video{int(text)}"
    if re.fullmatch(r"/dev/(video\d+|v4l/.+)", text):
        return "v4l2", text
    if "%" in text and _NUMBERED.search(path.name) and not os.path.lexists(text):
        return ("sequence", text) if path.suffix.lower() in IMAGE_SUFFIXES else None
    if path.suffix.lower() in VIDEO_SUFFIXES and not is_folder(path):
        return "file", text
    return None


def _of_scheme(scheme: str, rest: str, text: str) -> tuple[Place, str] | None:
    if scheme == "gst":
        return "gst", _required(
            rest.strip(), text, "a pipeline, as gst:videotestsrc ! videoconvert"
        )
    if scheme == "seq":
        return "sequence", _required(rest.removeprefix("//"), text, "a folder of images")
    if scheme == "csi":
        number = rest.removeprefix("//")
        return "csi", _required(number if number.isdigit() else "", text, "a sensor, as csi://0")
    if scheme == "v4l2":
        device = rest.removeprefix("//")
        device = f"/dev/video{int(device)}" if device.isdigit() else device
        known = device if device.startswith("/dev/") else ""
        return "v4l2", _required(known, text, "a device, as v4l2:///dev/video0")
    if not rest.startswith("//"):
        return None
    if scheme == "file":
        path = unquote(rest[2:])
        return ("file", path) if Path(path).suffix.lower() in VIDEO_SUFFIXES else None
    if scheme not in _NETWORK:
        return None
    return _of_url(scheme, text)


def _of_url(scheme: str, text: str) -> tuple[Place, str] | None:
    try:
        parts = urlsplit(text)
        path = parts.path
    except ValueError:  # brackets that are no address of IPv6
        raise StreamError(f"{redacted(text)}: not a URL") from None
    if scheme.startswith("http") and Path(path).suffix.lower() in (
        *IMAGE_SUFFIXES,
        *_DATA_SUFFIXES,
    ):
        return None
    return "network", f"{scheme}:{text.partition(':')[2]}"


def _required(value: str, text: str, expected: str) -> str:
    if not value:
        raise StreamError(f"{redacted(text)}: expected {expected}")
    return value
