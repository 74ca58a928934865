"""The one place that imports GStreamer; what to install where it, or an element, is missing."""

from __future__ import annotations

import functools
import platform
from typing import Any

from vptkit.errors import MissingError

__all__ = ["gstreamer", "has_board_decoder", "missing_element"]

_PACKAGES = "apt install python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good"
_BOARD_DECODER = "nvv4l2decoder"


@functools.lru_cache(maxsize=1)
def gstreamer() -> Any:
    """The module Gst, initialised.

    Raises:
        MissingError: PyGObject or GStreamer's description is not there for this Python.
    """
    try:
        import gi

        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
    except (ImportError, ValueError) as error:
        raise MissingError(
            f"GStreamer can't be used from this Python ({error}): {_PACKAGES}; and a virtual environment "
            "made by the system's own Python with --system-site-packages"
        ) from error
    Gst.init(None)
    return Gst


@functools.lru_cache(maxsize=1)
def has_board_decoder() -> bool:
    """Whether GStreamer has a Jetson's decoder; looked for on ARM only, as it takes a while."""
    if platform.machine() != "aarch64":
        return False
    try:
        return gstreamer().ElementFactory.find(_BOARD_DECODER) is not None
    except MissingError:
        return False


def missing_element(name: str, element: str) -> MissingError:
    """The error where GStreamer lacks an element.

    Args:
        name: of the source, without credentials.
        element: as GStreamer calls it.
    """
    if element.startswith("nv"):
        hint = "it comes with JetPack (apt install nvidia-l4t-gstreamer), on Jetson only"
    else:
        hint = "apt install gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav"
    return MissingError(f"{name}: GStreamer has no element {element}: {hint}")
