from __future__ import annotations

import errno
import gc
import threading
import time
from pathlib import Path

import pytest

from vptkit.errors import DataError, OutputError
from vptkit.runtime.stores import local_files
from vptkit.runtime.stores.local_files import fetch_ahead, forget_copy, on_this_machine, part_of

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def store():
    store = fsspec.filesystem("memory")
    for number in range(30):
        store.pipe_file(f"/bucket/{number}.tar", b"%02d56789" % number)
    local_files._copies.clear()
    yield store
    local_files._copies.clear()
    store.rm("/bucket", recursive=True)


def address(number):
    return f"memory://bucket/{number}.tar"


def test_a_file_that_is_here_is_itself(tmp_path):
    (tmp_path / "a").write_bytes(b"0123")
    assert on_this_machine(tmp_path / "a").path == tmp_path / "a"
    assert part_of(tmp_path / "a", 1, 2) == b"12"
    with pytest.raises(DataError, match="no such file"):
        part_of(tmp_path / "b", 1, 2)


def test_a_copy_has_no_name_and_goes_when_nobody_holds_it():
    copy = on_this_machine(address(1))
    assert copy.path.read_bytes() == b"0156789"
    assert on_this_machine(address(1)) is copy
    assert part_of(address(1), 0, 3) == b"015"
    assert not copy.path.resolve().exists()
    stream = copy.copy
    forget_copy(address(1))
    del copy
    gc.collect()
    assert stream.closed


def test_the_last_few_are_kept_and_parts_of_others_are_fetched(store, monkeypatch):
    monkeypatch.setattr(local_files, "_MOST", 5)
    for number in range(9):
        on_this_machine(address(number))
    assert list(local_files._copies) == [address(number) for number in range(4, 9)]
    store.pipe_file("/bucket/0.tar", b"new one")
    assert part_of(address(0), 4, 3) == b"one"
    monkeypatch.setattr(local_files, "_ROOM", 10)
    on_this_machine(address(9))
    assert list(local_files._copies) == [address(number) for number in (7, 8, 9)]


def test_several_who_want_it_wait_for_one(monkeypatch):
    fetched, go_on = [], threading.Event()
    real = local_files._fetched

    def slow(name):
        fetched.append(name)
        assert go_on.wait(30)
        return real(name)

    monkeypatch.setattr(local_files, "_fetched", slow)
    fetch_ahead(address(3))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(on_this_machine(address(3)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert fetched == [address(3)]
    assert len(set(map(id, found))) == 1


def test_what_is_fetched_ahead_is_as_it_is_now(store):
    on_this_machine(address(1))
    store.pipe_file("/bucket/1.tar", b"new")
    fetch_ahead(address(1))
    assert on_this_machine(address(1)).path.read_bytes() == b"new"


def test_a_fault_is_told_to_whoever_asks_and_then_forgotten(store):
    fetch_ahead(address("x"))
    for _ in range(2):
        with pytest.raises(DataError, match=r"memory://bucket/x\.tar: no such object"):
            on_this_machine(address("x"))
    store.pipe_file("/bucket/x.tar", b"came")
    deadline = time.monotonic() + 30
    while address("x") in local_files._copies and time.monotonic() < deadline:
        time.sleep(0.01)
    assert on_this_machine(address("x")).path.read_bytes() == b"came"


def test_errors_name_the_object_and_not_its_copy(tmp_path):
    copy = on_this_machine(address(1))
    with pytest.raises(DataError, match=r"^memory://bucket/1\.tar: is odd$"), copy.errors():
        raise DataError(f"{copy.path}: is odd")
    with pytest.raises(DataError, match=r"^a: is odd$"), on_this_machine(tmp_path).errors():
        raise DataError("a: is odd")


def test_a_full_disk(monkeypatch):
    class Full:
        def write(self, block):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(OutputError, match=r"cannot hold a copy of memory://bucket/1\.tar.*TMPDIR"):
        on_this_machine(address(1))


def test_no_temporary_file_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    on_this_machine(address(1))
    assert not list(Path(tmp_path).iterdir())
