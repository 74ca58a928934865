"""The memory forecast."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.fakes.gpu import ORIN, SERVER
from vptkit.devices.drivers.cuda import Gpu, open_device, probe
from vptkit.errors import TargetError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.engine_build.memory_forecast import (
    MIB,
    Room,
    forecast,
    free_on,
    require_possible,
    room_here,
)

MEMORY = {"weights_bytes": 100 * MIB, "activation_bytes": {"fixed": MIB, "per_image": 2 * MIB}}
GPU = Gpu(
    index=0,
    name="NVIDIA L4",
    capability=(8, 9),
    memory_bytes=24 * 2**30,
    integrated=False,
    sms=58,
    clock_mhz=2040,
    driver=(12, 6),
)


@pytest.fixture
def foretold(make_bundle):
    def run(device, host=2**40, *, shared=False, batch=32, kind=8, workspace_mb=64):
        bundle = open_bundle(make_bundle(batch=kind, memory=MEMORY))
        room = Room(device=device, host=host, shared=shared, source="a board")
        return forecast(bundle, batch=batch, adapters=0, workspace_mb=workspace_mb, room=room)

    return run


def test_the_sum(foretold):
    found = foretold(2**40)
    assert found.weights == 100 * MIB
    assert found.activations == (1 + 2 * 32 + 8) * MIB
    assert found.buffers == 32 * (24 * 16 * 3 + 3 * 4)
    assert found.builder == (340 + 300) * MIB
    assert found.session == (100 + 73 + 400) * MIB + found.buffers
    assert found.build_device == (100 + 73 + 400 + 64) * MIB
    assert found.tight == []
    assert found.to_json()["fits"]


def test_a_free_batch_costs_more(foretold):
    assert foretold(1, kind="dynamic").activations > foretold(1).activations


@pytest.mark.parametrize(
    ("device", "host", "shared", "tight"),
    [
        (600 * MIB, 2**40, False, ["the build (GPU)"]),
        (2**40, 500 * MIB, False, ["the build (host)"]),
        (300 * MIB, 2**40, False, ["a session", "the build (GPU)"]),
        (1000 * MIB, 1000 * MIB, True, ["the build needs"]),
        (1400 * MIB, 1, True, []),
        (None, None, False, []),
    ],
)
def test_what_does_not_fit(foretold, device, host, shared, tight):
    found = foretold(device, host, shared=shared)
    assert len(found.tight) == len(tight)
    for text, start in zip(found.tight, tight, strict=True):
        assert text.startswith(start)
    assert not found.hopeless


def test_advice(foretold):
    text = foretold(300 * MIB, shared=True).advice()
    assert "smaller largest batch than 32 (--batch)" in text
    assert "(--workspace)" in text
    assert "swap" in text
    assert "a board has 300 MiB" in text
    assert "--batch" not in foretold(300 * MIB, batch=1).advice()
    assert "swap" not in foretold(300 * MIB).advice()


def test_hopeless_is_refused_unless_forced(foretold):
    found = foretold(99 * MIB)
    with pytest.raises(TargetError, match="the weights alone take 100 MiB, a board has 99 MiB"):
        require_possible(found, force=False)
    require_possible(found, force=True)
    require_possible(foretold(100 * MIB), force=False)


def test_the_room_of_this_machine(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4096 kB\n")
    board = room_here(replace(GPU, integrated=True), tmp_path)
    assert (board.device, board.host, board.shared) == (4 * MIB, 4 * MIB, True)
    server = room_here(GPU, tmp_path, free=3 * 2**30)
    assert (server.device, server.host, server.shared) == (3 * 2**30, 4 * MIB, False)
    assert server.source == "NVIDIA L4 (free now)"
    server = room_here(GPU, tmp_path)
    assert server.device == 24 * 2**30
    assert server.source == "NVIDIA L4 (all of its memory; what is free is not known)"
    desk = room_here(None, tmp_path)
    assert (desk.device, desk.host) == (None, 4 * MIB)
    assert room_here(None, tmp_path / "nowhere").host is None


def test_the_text_says_all(foretold):
    text = foretold(300 * MIB).text()
    assert "weights      100 MiB" in text
    assert "activations  73 MiB (batch 32)" in text
    assert "does not fit" in text
    assert "does not fit" not in foretold(2**40).text()


def test_one_line_says_what_it_takes_and_what_there_is(foretold):
    assert foretold(600 * MIB, 2000 * MIB).line() == (
        "the build takes about 640 MiB of this machine's memory and 637 MiB of the GPU's, a "
        "session 573 MiB; a board has 600 MiB, this machine 2000 MiB free"
    )
    shared = foretold(1000 * MIB, shared=True).line()
    assert shared.startswith("the build takes about 1277 MiB, a session 573 MiB; a board has 1000")
    found = foretold(None, None)
    assert found.line().endswith("has an unknown amount, this machine an unknown amount free")
    ahead = replace(found, room=replace(found.room, ahead=True)).line()
    assert "of the GPU's" not in ahead


@pytest.mark.parametrize("fake_gpu", [SERVER, ORIN], indirect=True)
def test_what_is_free_of_a_gpu_with_memory_of_its_own(fake_gpu):
    gpu = probe()
    free = free_on(gpu)
    assert (
        free is None if gpu.integrated else free == gpu.memory_bytes - fake_gpu.count("allocated")
    )
    if not gpu.integrated:
        kept = open_device(gpu).allocate(100 * MIB)
        assert free_on(gpu) == free - 100 * MIB
        del kept


def test_what_is_free_of_a_gpu_that_does_not_open(monkeypatch):
    def refuse(gpu):
        raise TargetError("out of memory")

    monkeypatch.setattr("vptkit.runtime.engine_build.memory_forecast.open_device", refuse)
    assert free_on(GPU) is None
