"""Pickles as plain values: what is plain comes back, and nothing else is built, imported or called."""

from __future__ import annotations

import collections
import pickle  # noqa: TID251 -- to make what is read; nothing is unpickled
import struct
import time
import tracemalloc

import numpy as np
import pytest

from vptkit.checkpoints.plain_pickle import Global, Made, Persistent, RefusedError, plain_pickle

VALUES = [
    None,
    {"a": [1, 2.5, -3, 300, 70_000, 2**40, -(2**70)], "b": (), "c": (1,), "d": (1, 2, 3, 4)},
    [True, False, "é", b"bytes" * 100, "long" * 100, {}, [], [[]]],
    {1: "one", None: 0, False: 2, 0.5: {}},
    tuple(range(300)),
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_is_plain_comes_back(protocol):
    for value in VALUES:
        data = pickle.dumps(value, protocol)
        assert plain_pickle(data, {"_codecs.encode"}) == value
    shared = [1]
    found = plain_pickle(pickle.dumps({"a": shared, "b": shared}, protocol), ())
    assert found["a"] is found["b"]


def test_ordered_dictionaries_are_dictionaries():
    state = collections.OrderedDict(a=1, b=2)
    state._metadata = {"version": 1}  # as torch's state_dict has it
    assert plain_pickle(pickle.dumps(state, 2), {"collections.OrderedDict"}) == {"a": 1, "b": 2}


def test_names_are_stand_ins():
    allowed = {"os.system", "posix.system", "numpy.ndarray"}
    called = b"\x80\x02cos\nsystem\nX\x05\x00\x00\x00touch\x85R."
    found = plain_pickle(called, allowed)
    assert isinstance(found, Made)
    assert (found.name, found.arguments, found.state) == ("os.system", ("touch",), None)
    assert plain_pickle(b"\x80\x02cos\nsystem\n.", allowed) == Global("os.system")
    built = plain_pickle(b"\x80\x02cos\nsystem\n)RK\x07b.", allowed)
    assert (built.name, built.arguments, built.state) == ("os.system", (), 7)
    assert plain_pickle(b"\x80\x02K\x07Q.", ()) == Persistent(7)


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n.",
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00exit\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02c__builtin__\neval\n.",
        b"\x80\x02ccollections\nOrderedDict.__init__\n.",
        b"\x80\x02cnumpy ndarray\nx\n.",
    ],
)
def test_other_names_are_refused(data):
    with pytest.raises(RefusedError, match=r"os\.system|eval|OrderedDict|ndarray"):
        plain_pickle(data, {"collections.OrderedDict", "numpy.ndarray"})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02}",
        b".",
        b"\x80\x02}}.",
        b"\x80\x02(.",
        b"\x80\x02t.",
        b"\x80\x02u.",
        b"\x80\x02\x85.",
        b"\x80\x02((((t.",
        b"\x80\x02(\x85.",
        b"\x80\x02R.",
        b"\x80\x02}}R.",
        b"\x80\x02)Q)R.",
        b"\x80\x02b.",
        b"\x80\x02}b.",
        b"\x80\x02]}b.",
        b"\x80\x02h\x05.",
        b"\x80\x02q\x05.",
        b"\x80\x02]e.",
        b"\x80\x02}a.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02]K\x01K\x02s.",
        b"\x80\x02}]K\x02s.",
        b"\x80\x02})K\x02s.",
        b"\x80\x02\x93.",
        b"\x80\x02K\x01K\x02\x93.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x80\x02\x8b\xff\xff\xff\x7f1.",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        b"I99999\n.",
        b"L" + b"9" * 10_000 + b"L\n.",
        b"\x80\x02K\x012.",
        b"\x80\x05\x97.",
        b"\x80\x02\x82\x01.",
        b"(lp0\n.",
        b"noise",
        b"\xff" * 40,
    ],
)
def test_damage(data):
    with pytest.raises(RefusedError):
        plain_pickle(data, {"a.b"})


def test_a_pickle_of_too_many_steps(monkeypatch):
    """Each takes a byte of the file, and may take sixty of memory."""
    monkeypatch.setattr("vptkit.checkpoints.plain_pickle._MOST_STEPS", 1000)
    plain_pickle(b"\x80\x02" + b"]" * 500 + b"a" * 499 + b".", ())
    with pytest.raises(RefusedError, match="without an end"):
        plain_pickle(b"\x80\x02" + b"]" * 501 + b"a" * 500 + b".", ())


def test_bytes_are_made_of_nothing_or_not_at_all():
    """What protocol 2 has for empty ones; with a number it would be so many."""
    allowed = {"__builtin__.bytes"}
    assert plain_pickle(pickle.dumps(b"", 2), allowed) == b""
    many = plain_pickle(b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.", allowed)
    assert isinstance(many, Made)


def test_every_cut_and_every_flip():
    data = pickle.dumps({"a": [1, (2.5, "x")], "b": {"c": None}}, 2)
    for end in range(len(data)):
        with pytest.raises(RefusedError):
            plain_pickle(data[:end], ())
    rng = np.random.default_rng(0)
    for _ in range(3000):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            damaged[at] = rng.integers(0, 256)
        try:
            plain_pickle(bytes(damaged), ())
        except RefusedError:
            continue


def peak(data):
    """Bytes that reading takes, and seconds."""
    tracemalloc.start()
    begun = time.perf_counter()
    try:
        plain_pickle(data, ())
    except RefusedError:
        pass
    finally:
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found, time.perf_counter() - begun


def test_memory_is_paid_for_in_bytes():
    """C's unpickler makes a memo as long as the largest number that is written into it."""
    memo = b"\x80\x02]r" + struct.pack("<I", 2**31 - 1) + b"."
    doubled = b"\x80\x02K\x01" + b"q\x00h\x00\x86" * 5000 + b"."
    deep = b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."
    nested_key = b"\x80\x02}K\x01" + b"q\x00h\x00\x86" * 60 + b"K\x02s."  # its hash: 2^60 steps
    for data in (memo, doubled, deep, nested_key):
        memory, seconds = peak(data)
        assert memory < 20_000_000
        assert seconds < 5
