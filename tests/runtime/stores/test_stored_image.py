from __future__ import annotations

import pickle  # noqa: TID251 -- images are sent to other processes
import signal
import threading
from pathlib import Path

import pytest

from vptkit.errors import DataError
from vptkit.runtime.session.ordered_work import in_order
from vptkit.runtime.stores import stored_image
from vptkit.runtime.stores.stored_image import StoredImage, fetched_ahead

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def store():
    store = fsspec.filesystem("memory")
    for number in range(200):
        store.pipe_file(f"/bucket/{number}.jpg", b"%d" % number)
    yield store
    store.rm("/bucket", recursive=True)


def image(number, size=3):
    return StoredImage(f"memory://bucket/{number}.jpg", size)


def test_an_image(store):
    one = image(7)
    assert (str(one), one.name) == ("memory://bucket/7.jpg", "7.jpg")
    assert one.read_bytes() == b"7"
    again = pickle.loads(pickle.dumps(one))
    assert (again, again.size, again.read_bytes()) == (one, 3, b"7")
    assert len({one, again, image(8)}) == 2
    with pytest.raises(DataError, match=r"memory://bucket/x\.jpg: no such object"):
        image("x").read_bytes()


def test_order_is_kept_and_faults_come_with_their_image(store):
    wanted = [image(n) if n % 3 else Path(f"{n}.jpg") for n in range(200)]
    wanted[50] = image("gone")
    found = list(fetched_ahead(wanted))
    assert found == wanted
    for number, one in enumerate(found):
        if number == 50:
            with pytest.raises(DataError, match="no such object"):
                one.read_bytes()
        elif isinstance(one, StoredImage):
            assert one.read_bytes() == b"%d" % number


def test_files_wait_for_nothing():
    taken = []

    def files():
        for number in range(100):
            taken.append(number)
            yield Path(str(number))

    ahead = fetched_ahead(files())
    next(ahead)
    assert taken == [0]
    ahead.close()


@pytest.mark.parametrize(("size", "expected"), [(1, 65), (32 << 20, 9), (None, 65), (1 << 30, 1)])
def test_so_many_are_read_before_they_are_wanted(monkeypatch, size, expected):
    monkeypatch.setattr(stored_image, "_read", lambda address: b"")
    taken = []

    def images():
        for number in range(200):
            taken.append(number)
            yield image(number, size)

    ahead = fetched_ahead(images())
    next(ahead)
    assert len(taken) == expected
    ahead.close()


def test_many_are_read_at_once(monkeypatch):
    together = threading.Barrier(16)  # breaks, if so many do not come together

    def read(address):
        together.wait(30)
        return b""

    monkeypatch.setattr(stored_image, "_read", read)
    for one in fetched_ahead([image(number) for number in range(64)]):
        assert one.read_bytes() == b""


def test_nobody_waits_for_a_network_that_is_gone(monkeypatch):
    """Neither whoever decodes nor the end of the process."""
    never = threading.Event()
    monkeypatch.setattr(stored_image, "_read", lambda address: never.wait() and b"")

    def stopped(one):
        try:
            return one.read_bytes()
        except DataError as error:
            return str(error)

    results = in_order(
        stopped, fetched_ahead(map(image, range(500))), threads=2, ahead=8, name="decode"
    )
    main = threading.main_thread().ident
    timer = threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(results)
    fetching = [thread for thread in threading.enumerate() if thread.name == "vptkit-fetch"]
    assert len(fetching) == 32
    assert all(thread.daemon for thread in fetching)
    never.set()
    for thread in fetching:
        thread.join(30)
        assert not thread.is_alive()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
