"""What a board says is taken as it is meant, or is one clear error."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

from vptkit.cli.texts.profile_table import profile_table
from vptkit.errors import TargetError
from vptkit.progress import SILENT
from vptkit.runtime.measure.timing import Budget
from vptkit.runtime.profile.benchmark import profile
from vptkit.runtime.profile.profiled_sessions import open_candidates
from vptkit.runtime.profile.settings import ProfileSettings
from vptkit.runtime.remote import remote_profile
from vptkit.runtime.remote.board_messages import read_message
from vptkit.runtime.remote.file_transfer import Item, ship


def read(message, *kinds):
    return read_message(json.dumps(message).encode(), kinds, "board")


@pytest.fixture
def document(make_bundle):
    """A real profile, as it comes over the line."""
    members = open_candidates([make_bundle("a"), make_bundle("b")], threads=1)
    return json.loads(json.dumps(profile(members, budget=Budget(rounds=3), memory=False)))


def changed(document, path, value):
    """A copy in which one place has another value."""
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


# Place in the profile → values that a stranger may send.
ODD = {
    ("rows",): (None, {}, [], [1], [[]], "rows", [{}] * 10_001),
    ("machine",): (None, [], {}),
    ("machine", "versions"): ([], {"numpy": 1}, {"numpy": []}),
    ("machine", "gpu"): (1, {}, {"name": []}),
    ("sweep",): (None, [], {"skipped": {}}, {"skipped": [{"name": "x"}]}),
    ("rows", 0, "name"): (None, 1, []),
    ("rows", 0, "kind"): ("other", None, []),
    ("rows", 0, "batch"): ("1", [], {}, -1, 1.5, True, 10**400),
    ("rows", 0, "ms"): (None, [], {}, {"p50": "x", "p90": 1, "p99": 1}),
    ("rows", 0, "ms", "p50"): (None, "1", [], 10**4000, 1e300, True),
    ("rows", 0, "settled"): (None, 1, "yes"),
    ("rows", 0, "path"): (1, []),
    ("rows", 1, "ratio"): (1, [], {}, {"to": 1}),
    ("rows", 0, "ratio"): ({"to": "a", "value": 1, "low": 1, "high": 1, "verdict": "x"},),
    ("rows", 0, "memory_mb"): (1, [], {"increase": "x", "device": None}),
    ("rows", 0, "times"): ([], {"gpu": 1}, {"gpu": {"p50": []}}),
    ("rows", 0, "streams"): (1, [], {"count": "x"}),
    ("rows", 0, "energy"): (1, [], {"watts": []}, {"joules_per_image": 1.0, "source": None}),
    ("rows", 0, "unsteady"): (1, "x", [1]),
    ("rows", 0, "portions"): ("x", None, 1.5),
    ("rows", 0, "power_mode"): (1, [], {}),
    ("rows", 0, "precision"): ([], 1),
    ("rows", 0, "transfers"): ([], None),
}


def test_a_profile_is_real_or_refused(document):
    assert read({"document": document}, "document", "exit") == {"document": document}
    assert profile_table(document)
    for path, values in ODD.items():
        for value in values:
            with pytest.raises(TargetError, match="document message whose document is malformed"):
                read({"document": changed(document, path, value)}, "document")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"missing": ["../" + "0" * 61]}, "missing"),
        ({"missing": "0" * 64}, "missing"),
        ({"missing": [["0" * 64]]}, "missing"),
        ({"missing": [], "more": 1}, "missing"),
        ({"total": "x", "advance": 1, "text": ""}, "progress"),
        ({"total": None, "advance": -1, "text": ""}, "progress"),
        ({"total": None, "advance": 1, "text": []}, "progress"),
        ({"phase": {}}, "phase"),
        ({"exit": True}, "exit"),
        ({"exit": 1e9}, "exit"),
        ({"freed": 1}, "cleaned"),
        ({"error": [], "code": 2}, "error"),
        ({}, "exit"),
    ],
)
def test_what_is_malformed(message, kind):
    with pytest.raises(TargetError, match="board: sent a"):
        read(message, kind)


class Talker:
    """A link to a board that says what it is told to say."""

    host = "board"

    def __init__(self, *messages):
        self.messages, self.sent, self.doing = list(messages), [], ""
        self.board = {"packages": ["numpy", "onnxruntime"], "python": "3", "free": 1 << 40}

    def order(self, **order):
        self.sent.append(order)

    def send(self, data):
        self.sent.append(data)

    def receive(self, *kinds):
        return read(self.messages.pop(0), *kinds)

    def last_words(self):
        return "no message"


@contextmanager
def phases(_title, _total):
    yield SILENT


@pytest.mark.parametrize("missing", [["1" * 64], ["0" * 64, "0" * 64]])
def test_only_what_was_offered_is_sent(tmp_path, missing):
    """Broken twin: a KeyError, or a file that goes twice."""
    (tmp_path / "file").write_bytes(b"x")
    item = Item(path="a", file=tmp_path / "file", sha256="0" * 64, size=1)
    link = Talker({"missing": missing})
    with pytest.raises(TargetError, match="not offered, or for one twice"):
        ship(link, [item], phases)
    assert [order for order in link.sent if isinstance(order, bytes)] == []


def test_a_row_of_a_bundle_that_nobody_asked_for(document, make_bundle, monkeypatch):
    bundle = make_bundle("asked")
    for path in ("elsewhere", "../../etc"):
        rows = changed(document, ("rows", 0, "path"), path)
        link = Talker({"missing": []}, {"taken": 0}, {"document": rows}, {"exit": 0})

        @contextmanager
        def connect(*_, link=link, **__):
            yield link

        monkeypatch.setattr(remote_profile, "connect", connect)
        with pytest.raises(TargetError, match="board: sent a row of a bundle"):
            remote_profile.profile_on("board", [bundle], ProfileSettings(rounds=3), phases=phases)
