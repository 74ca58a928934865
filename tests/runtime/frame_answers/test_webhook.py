"""Answers posted to a server here; one that is slow, rude or gone delays nothing."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.support.feeds import colour_frame
from vptkit.errors import VptkitError
from vptkit.runtime.frame_answers.frame_answer import FrameAnswer
from vptkit.runtime.frame_answers.webhook import Webhook
from vptkit.runtime.session.session_protocol import Prediction


def answer(number):
    prediction = Prediction(path=None, adapter="tiny", top=(("red", 0.75),))
    frame = colour_frame("cam", number, (0, 0, 0))
    return FrameAnswer(frame=frame, prediction=prediction, age=0.01)


@pytest.fixture
def server():
    """(address, bodies that came, an event that it waits for before it answers)."""
    bodies, go = [], threading.Event()
    go.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            go.wait(30)
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", bodies, go
    go.set()
    http.shutdown()
    http.server_close()
    thread.join()


def test_each_answer_is_posted(server):
    hook = Webhook(f"{server[0]}/events")
    for number in range(3):
        hook(answer(number))
    hook.close(30)
    assert [body["frame"] for body in server[1]] == [0, 1, 2]
    assert (hook.sent, hook.failed, hook.dropped) == (3, 0, 0)


def test_failures_are_counted(server):
    hook = Webhook(f"{server[0]}/broken")
    hook(answer(0))
    hook.close(30)
    assert (hook.sent, hook.failed, hook.dropped) == (0, 1, 0)


def test_a_slow_receiver_delays_nothing(server):
    server[2].clear()
    hook = Webhook(server[0], held=2)
    for number in range(10):
        hook(answer(number))  # none of them waits: the server answers none
    assert hook.dropped >= 7
    server[2].set()
    hook.close(30)
    assert hook.sent + hook.dropped == 10


@pytest.mark.parametrize("url", ["ftp://h/x", "file:///etc/passwd", "x", "http://", "http://[::1"])
def test_what_is_no_url(url):
    with pytest.raises(VptkitError, match="--webhook"):
        Webhook(url)
