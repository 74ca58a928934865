"""The driver's bindings against a driver of host memory (tests/support/fakes/libcuda.c)."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

from tests.support.fakes.gpu import ORIN
from vptkit.devices.drivers import cuda
from vptkit.errors import MissingError, TargetError


@pytest.fixture
def device(fake_gpu):
    return cuda.open_device(cuda.probe())


@pytest.mark.parametrize("fake_gpu", [ORIN], indirect=True)
def test_the_driver_describes_the_device(fake_gpu):
    gpu = cuda.probe()
    assert (gpu.name, gpu.cc, gpu.integrated, gpu.sms) == ("Orin", "8.7", True, 8)
    assert (gpu.memory_bytes, gpu.clock_mhz, gpu.driver) == (7620 << 20, 1020, (12, 6))
    assert gpu.to_json()["capability"] == "8.7"
    assert gpu.to_json()["driver"] == "12.6"


def test_without_a_device_it_says_so(fake_gpu, monkeypatch):
    monkeypatch.delenv("FAKE_CUDA")
    with pytest.raises(MissingError, match="no CUDA-capable device is detected"):
        cuda.probe()


def test_without_a_driver_it_says_so(monkeypatch):
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda-that-is-not-there.so.1")
    cuda._driver.cache_clear()
    with pytest.raises(MissingError, match=r"libcuda-that-is-not-there.so.1 does not load"):
        cuda.probe()


def test_a_second_device_is_refused(fake_gpu):
    with pytest.raises(MissingError, match="no GPU 1: the CUDA driver sees 1"):
        cuda.probe(1)


def test_a_round_trip_arrives_only_after_the_wait(device):
    there, back, memory = device.allocate_host(64), device.allocate_host(64), device.allocate(64)
    sent = np.frombuffer(there.buffer, dtype=np.uint8)
    sent[:] = np.arange(64)
    stream = device.stream()
    stream.upload(memory, there, 64)
    stream.download(back, memory, 64)
    received = np.frombuffer(back.buffer, dtype=np.uint8)
    assert not np.array_equal(received, sent)  # work in a stream is not done yet
    stream.wait()
    np.testing.assert_array_equal(received, sent)


def test_events_tell_the_time_between(device):
    stream, memory, host = device.stream(), device.allocate(8), device.allocate_host(8)
    before, after = device.event(), device.event()
    stream.record(before)
    stream.upload(memory, host, 8)
    stream.record(after)
    with pytest.raises(TargetError, match="cuEventElapsedTime"):
        after.ms_since(before)
    stream.wait()
    assert after.ms_since(before) == pytest.approx(0.5)  # a copy and the event itself


def test_a_graph_does_its_work_each_time_it_is_launched(device):
    stream, memory, host = device.stream(), device.allocate(8), device.allocate_host(8)
    view = np.frombuffer(host.buffer, dtype=np.uint8)
    stream.begin_capture()
    stream.upload(memory, host, 8)
    graph = stream.end_capture()
    back = device.allocate_host(8)
    for value in (1, 2):
        view[:] = value
        stream.launch(graph)
        stream.download(back, memory, 8)
        stream.wait()
        assert set(np.frombuffer(back.buffer, dtype=np.uint8)) == {value}


def test_memory_is_given_back(device, fake_gpu):
    gc.collect()
    before = fake_gpu.count("allocated")
    memory = device.allocate(1000)
    assert fake_gpu.count("allocated") == before + 1000
    del memory
    assert fake_gpu.count("allocated") == before


def test_memory_is_given_back_from_a_thread_that_never_used_the_device(device, fake_gpu):
    before = fake_gpu.count("allocated")
    held = [device.allocate(1000)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert fake_gpu.count("allocated") == before


def test_views_keep_page_locked_memory_alive(device):
    view = np.frombuffer(device.allocate_host(8).buffer, dtype=np.uint8)
    gc.collect()
    view[:] = 5  # would be a write to freed memory
    assert view.sum() == 40


def test_out_of_memory_is_named(device):
    with pytest.raises(TargetError, match=r"cuMemAlloc_v2: out of memory \(error 2\)"):
        device.allocate(1 << 40)


@pytest.mark.gpu
def test_on_a_real_gpu():
    try:
        gpu = cuda.probe()
    except MissingError as error:
        pytest.skip(str(error))
    assert gpu.capability >= (5, 0)
    assert gpu.memory_bytes > 1 << 30
    device, size = cuda.open_device(gpu), 1 << 20
    stream = device.stream()
    host, back, memory = device.allocate_host(size), device.allocate_host(size), None
    memory = device.allocate(size)
    sent = np.frombuffer(host.buffer, dtype=np.uint8)
    sent[:] = np.frombuffer(os.urandom(size), dtype=np.uint8)
    before, after = device.event(), device.event()
    stream.record(before)
    stream.upload(memory, host, size)
    stream.download(back, memory, size)
    stream.record(after)
    stream.wait()
    np.testing.assert_array_equal(np.frombuffer(back.buffer, dtype=np.uint8), sent)
    assert 0 < after.ms_since(before) < 1000
