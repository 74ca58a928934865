import sys

import pytest

from vptkit.errors import MissingError
from vptkit.runtime.streams.gstreamer_library import gstreamer, has_board_decoder, missing_element


@pytest.fixture(autouse=True)
def _afresh():
    gstreamer.cache_clear()
    has_board_decoder.cache_clear()
    yield
    gstreamer.cache_clear()
    has_board_decoder.cache_clear()


def test_without_it_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gi", None)
    with pytest.raises(MissingError, match="apt install python3-gi"):
        gstreamer()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not has_board_decoder()


def test_a_missing_element():
    assert "JetPack" in str(missing_element("csi://0", "nvarguscamerasrc"))
    assert "plugins-good" in str(missing_element("x", "rtspsrc"))
