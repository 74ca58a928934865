import threading
import time
from collections import Counter

import numpy as np
import pytest

from tests.support.videos import rtsp_server
from vptkit.errors import MissingError
from vptkit.runtime.streams.capture import Capture, Counts, default_policy
from vptkit.runtime.streams.capture_policy import BackOff, CapturePolicy
from vptkit.runtime.streams.frame import StreamError
from vptkit.runtime.streams.source import open_source
from vptkit.runtime.streams.source_protocol import Picture

LONG = 20.0  # seconds; against hanging only


class Scripted:
    """A source that gives what each opening is told: numbers are frames, errors are raised."""

    def __init__(self, *openings, live=True, name="cam"):
        self.name, self.live = name, live
        self._openings = list(openings)
        self.closed = threading.Event()
        self.opened = 0

    def frames(self):
        self.opened += 1
        for step in self._openings.pop(0) if self._openings else [StreamError("cam: gone")]:
            if isinstance(step, Exception):
                raise step
            if step == "wait":
                self.closed.wait(LONG)
                return
            yield Picture(time.monotonic(), step / 10, lambda step=step: pixels(step))

    def close(self):
        self.closed.set()


def pixels(step):
    if step < 0:
        raise StreamError("cam: a broken frame")
    return np.full((2, 3, 3), step, np.uint8)


def started(source, **settings):
    changed = threading.Condition()
    events = []
    quick = BackOff(first=0.001, most=0.01)
    capture = Capture(source, changed=changed, on_event=events.append, back_off=quick, **settings)
    capture.open()
    return capture, events, changed


def wait_until(condition, changed):
    until = time.monotonic() + LONG
    with changed:
        while not condition():
            assert time.monotonic() < until
            changed.wait(0.05)


def taken(capture, changed):
    """All frames up to the end."""
    found = []
    while True:
        wait_until(lambda: capture.ready or capture.ended, changed)
        if capture.ended:
            return found
        frame = capture.take(time.monotonic())
        if frame is not None:
            found.append(frame)


def test_a_file_loses_nothing_however_slow_its_reader():
    source = Scripted(range(50), live=False)
    capture, events, changed = started(source, policy=CapturePolicy(keep="all", queue=3))
    wait_until(lambda: capture.counts.captured == 4, changed)  # three wait, and one for room
    assert capture.take(time.monotonic() + 1e6).number == 0  # never stale
    found = taken(capture, changed)
    assert [frame.number for frame in found] == list(range(1, 50))
    assert [frame.pixels[0, 0, 0] for frame in found] == list(range(1, 50))
    assert found[4].timestamp == 0.5
    assert abs(found[4].wall - time.time()) < 60
    assert capture.counts == Counts(50, Counter(), 0)
    assert [event.kind for event in events] == ["ended"]
    assert capture.error is None


def test_the_newest_frame_of_a_camera():
    capture, _, changed = started(Scripted([*range(10), "wait"]))
    wait_until(lambda: capture.counts.captured == 10 and capture.ready, changed)
    frame = capture.take(time.monotonic())
    assert frame is None or frame.number == 9
    assert capture.take(time.monotonic()) is None
    assert capture.counts.dropped["newer"] == 9
    assert capture.close()


def test_a_stale_frame_is_dropped_and_counted():
    capture, _, changed = started(Scripted([1, "wait"]), policy=CapturePolicy(max_staleness=0.5))
    wait_until(lambda: capture.ready, changed)
    assert capture.take(time.monotonic() + 0.6) is None
    assert capture.counts == Counts(1, Counter(stale=1), 0)
    assert capture.close()


def test_every_and_rate_are_counted_and_never_converted():
    source = Scripted([0, -1, 2, -1, 4, -1], live=False)
    capture, _, changed = started(source, policy=CapturePolicy(keep="all", every=2))
    assert [frame.number for frame in taken(capture, changed)] == [0, 2, 4]
    assert capture.counts.dropped == Counter(every=3)
    source = Scripted(range(20), live=False)  # ten a second
    capture, _, changed = started(source, policy=CapturePolicy(keep="all", fps=5.0))
    assert [frame.number for frame in taken(capture, changed)] == list(range(0, 20, 2))
    assert capture.counts.dropped == Counter(rate=10)


@pytest.mark.parametrize("live", [True, False])
def test_a_broken_frame_is_counted_and_the_next_comes(live):
    source = Scripted([-1, 1], live=live)
    capture, _, changed = started(source, policy=CapturePolicy(keep="all"))
    assert [frame.number for frame in taken(capture, changed)] == [1]
    assert capture.counts == Counts(2, Counter(broken=1), 0)


def test_a_lost_camera_is_told_once_and_comes_back():
    gone = [StreamError("cam: gone")]
    source = Scripted([1, *gone], gone, gone, [2, "wait"])
    capture, events, changed = started(source, policy=CapturePolicy(keep="all"))
    wait_until(lambda: len(capture._waiting) == 2, changed)
    assert [event.kind for event in events] == ["lost", "back"]
    assert events[0].text.startswith("cam: gone")
    assert [capture.take(0.0).number, capture.take(0.0).number] == [0, 1]
    assert capture.counts.reconnects == 1
    assert capture.close()


def test_it_gives_up_where_a_bound_is_set():
    source = Scripted()
    capture, events, changed = started(source, give_up=3)
    wait_until(lambda: capture.ended, changed)
    assert source.opened == 4
    assert [event.kind for event in events] == ["lost", "failed"]
    assert isinstance(capture.error, StreamError)


@pytest.mark.parametrize(
    ("error", "live"),
    [
        (StreamError("x", lasting=True), True),
        (StreamError("x"), False),
        (MissingError("x"), True),
        (KeyError("x"), True),
    ],
)
def test_what_does_not_come_back_is_not_tried_again(error, live):
    source = Scripted([error], live=live)
    capture, events, changed = started(source)
    wait_until(lambda: capture.ended, changed)
    assert source.opened == 1
    assert [event.kind for event in events] == ["failed"]
    assert type(capture.error) is type(error)


def test_others_go_on_under_one_condition():
    changed = threading.Condition()
    sources = [Scripted(name="bad"), Scripted(range(5), live=False, name="good")]
    captures = [Capture(source, changed=changed) for source in sources]
    for capture in captures:
        capture.open()
    assert len(taken(captures[1], changed)) == 5
    assert not captures[0].ended  # in its pause, which `close` ends
    assert captures[0].close()


@pytest.mark.parametrize("queue", [1, 8])
def test_closed_while_it_waits(queue):
    source = Scripted(range(100), live=False)
    capture, events, changed = started(source, policy=CapturePolicy(keep="all", queue=queue))
    wait_until(lambda: capture.ready, changed)
    assert capture.close()
    assert capture.ended
    assert events == []


def test_closed_before_it_was_opened():
    capture = Capture(Scripted(), changed=threading.Condition())
    assert capture.close()
    assert capture.ended


def test_defaults():
    assert default_policy(Scripted()).keep == "newest"
    assert default_policy(Scripted(live=False)).keep == "all"


@pytest.mark.slow
def test_an_rtsp_server_killed_and_started_again():
    pytest.importorskip("av", reason="PyAV is not installed")
    changed = threading.Condition()
    with rtsp_server() as (server, port):
        events = []
        capture = Capture(
            open_source(f"rtsp://127.0.0.1:{port}/cam"),
            changed=changed,
            on_event=events.append,
            back_off=BackOff(first=0.1, most=0.2),
        )
        capture.open()
        wait_until(lambda: capture.counts.captured > 5, changed)
        server.end()
        server.wait()
        wait_until(lambda: [event.kind for event in events] == ["lost"], changed)
    before = capture.counts.captured
    with rtsp_server(port):
        wait_until(lambda: capture.counts.captured > before + 5 and capture.ready, changed)
        frame = capture.take(time.monotonic())
        assert [event.kind for event in events] == ["lost", "back"]
        assert capture.counts.reconnects == 1
        assert capture.close(LONG)
    if frame is not None:
        assert frame.number >= before
        assert frame.pixels.shape == (48, 64, 3)
        assert frame.pixels[24, 32, 0] > 230 > 30 > frame.pixels[24, 32, 1]


@pytest.mark.slow
def test_an_rtsp_camera_with_a_password(capfd):
    pytest.importorskip("av", reason="PyAV is not installed")
    changed = threading.Condition()
    with rtsp_server(0, "joe", "geheim") as (_, port):
        right, wrong = (
            Capture(open_source(f"rtsp://joe:{word}@127.0.0.1:{port}/cam"), changed=changed)
            for word in ("geheim", "verkehrt")
        )
        right.open()
        wrong.open()
        wait_until(lambda: right.counts.captured > 2 and wrong.ended, changed)
        assert right.close(LONG)
    assert wrong.error.lasting
    assert "verkehrt" not in f"{wrong.error}{wrong.name}" + "".join(capfd.readouterr())
    assert right.name == f"rtsp://***@127.0.0.1:{port}/cam"
