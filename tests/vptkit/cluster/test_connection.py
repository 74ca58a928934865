"""With a stand-in for Ray; tests/tune/sweep and tests/runtime/ray_data have the real one."""

from __future__ import annotations

import os
import signal
import socket
import sys
from types import ModuleType

import pytest

from vptkit.cluster.connection import connected, living_nodes
from vptkit.errors import MissingError


@pytest.fixture
def ray(monkeypatch):
    """A stand-in: `told` says what was called, and `init` may be replaced."""
    module, config = ModuleType("ray"), ModuleType("ray.job_config")
    module.told = []
    module.init = lambda **named: module.told.append(named)
    module.shutdown = lambda: module.told.append("shut down")
    config.JobConfig = type("JobConfig", (), {})
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.setitem(sys.modules, "ray.job_config", config)
    return module


def test_here_or_joined(ray):
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"127.0.0.1:{server.getsockname()[1]}"
        for address in (None, "local", "auto", there):
            with connected(address, 3):
                pass
    begun = [named for named in ray.told if named != "shut down"]
    assert ray.told[1::2] == ["shut down"] * 4
    assert [named["address"] for named in begun] == ["local", "local", "auto", there]
    assert [named.get("num_cpus") for named in begun] == [3, 3, None, None]
    # Workers import nothing from the current folder, whatever Ray adds.
    for named in begun:
        folders = named["job_config"]._py_driver_sys_path
        folders.extend([os.getcwd()])  # noqa: PTH109 -- as Ray does
        assert folders == []


def test_no_cluster(ray):
    def init(**named):
        raise ConnectionError("no cluster")

    ray.init = init
    with (
        pytest.raises(MissingError, match=r"at auto: no cluster\. Is it running"),
        connected("auto"),
    ):
        pass
    assert ray.told == ["shut down"]


@pytest.mark.parametrize("early", [True, False])
def test_sigterm_is_an_interrupt(ray, early):
    before = signal.getsignal(signal.SIGTERM)

    def init(**named):  # Ray takes SIGTERM and makes an exit of it
        signal.signal(signal.SIGTERM, lambda *about: sys.exit(15))
        if early:
            signal.raise_signal(signal.SIGTERM)

    ray.init = init
    with pytest.raises(KeyboardInterrupt), connected(None, 1):
        signal.raise_signal(signal.SIGTERM)
    assert ray.told == ["shut down"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_living(ray):
    ray.nodes = lambda: [{"NodeID": "a", "Alive": False}, {"NodeID": "b", "Alive": True}]
    assert living_nodes() == [{"NodeID": "b", "Alive": True}]
