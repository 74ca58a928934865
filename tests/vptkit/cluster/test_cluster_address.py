from __future__ import annotations

import socket

import pytest

from vptkit.cluster.cluster_address import require_address, require_answer
from vptkit.errors import MissingError, VptkitError


@pytest.mark.parametrize("address", ["auto", "local", "head:6379", "10.0.0.1:6379"])
def test_addresses(address):
    require_address(address)


@pytest.mark.parametrize("address", ["", "head", "head:", ":6379", "head:x", "Auto", "ray://a:1"])
def test_what_is_no_address(address):
    with pytest.raises(VptkitError, match="--ray-address"):
        require_address(address)


def test_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        require_answer(address)
    with pytest.raises(MissingError, match="nothing answers there"):
        require_answer(address)
    with pytest.raises(MissingError, match="nothing answers there"):
        require_answer("127.0.0.1:99999999")
