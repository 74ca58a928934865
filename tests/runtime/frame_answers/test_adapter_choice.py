"""Which adapter each source is asked of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vptkit.errors import BundleError, VptkitError
from vptkit.formats.bundle import Bundle
from vptkit.runtime.frame_answers.adapter_choice import adapters_of


def bank(*names):
    stand_in = SimpleNamespace(
        adapter_names=names, path="a.vptk", manifest={"adapters": [{"name": n} for n in names]}
    )
    stand_in.entry = lambda adapter=None: Bundle.entry(stand_in, adapter)
    return stand_in


def test_one_for_all_or_each_its_own():
    assert adapters_of("cars", ["a", "b"], bank("birds", "cars")) == {"a": "cars", "b": "cars"}
    assert adapters_of(None, ["a"], bank("birds")) == {"a": "birds"}
    found = adapters_of(
        "a=birds, rtsp://h/?x=1=cars", ["a", "rtsp://h/?x=1"], bank("birds", "cars")
    )
    assert found == {"a": "birds", "rtsp://h/?x=1": "cars"}
    assert adapters_of("x=y", ["a"], bank("x=y", "z")) == {"a": "x=y"}


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        (None, BundleError, "holds 2 adapters"),
        ("trucks", BundleError, "no adapter 'trucks'"),
        ("a=trucks,b=cars", BundleError, "no adapter 'trucks'"),
        ("a=", BundleError, "no adapter ''"),
        ("c=cars", VptkitError, "one of the sources a, b"),
        ("a=cars", VptkitError, "names none for b"),
        ("a=cars,a=birds", VptkitError, "named twice"),
        ("a=cars,,", VptkitError, "expected SOURCE=ADAPTER"),
    ],
)
def test_refused(text, error, match):
    with pytest.raises(error, match=match):
        adapters_of(text, ["a", "b"], bank("birds", "cars"))
