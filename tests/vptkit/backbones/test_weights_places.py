"""Where weights lie is remembered for this user, and is never more than a hint."""

from __future__ import annotations

import json

import pytest

from vptkit.backbones import weights_places
from vptkit.backbones.weights_places import remember_weights, remembered_weights

DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vptkit"


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"x")
    return tmp_path / "w.safetensors"


def test_what_was_read_is_found_again(weights, cache, monkeypatch):
    assert remembered_weights(DIGEST) is None
    monkeypatch.chdir(weights.parent)
    remember_weights(DIGEST, type(weights)("w.safetensors"))
    assert remembered_weights(DIGEST) == weights
    assert remembered_weights(None) is None
    assert remembered_weights("cd" * 32) is None
    assert (cache / "weights.json").stat().st_mode & 0o777 == 0o600
    weights.unlink()
    assert remembered_weights(DIGEST) is None


def test_the_list_is_bounded(weights, cache, monkeypatch):
    monkeypatch.setattr(weights_places, "_MOST_PLACES", 3)
    for i in range(5):
        remember_weights(f"{i:064x}", weights)
    assert len(json.loads((cache / "weights.json").read_text())) == 3
    assert remembered_weights(f"{4:064x}") == weights
    assert remembered_weights(f"{0:064x}") is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "[" * 9999, '{"x": 1}', json.dumps({DIGEST: "relative"}), "x" * (2 << 20)],
)
def test_a_damaged_list_is_as_good_as_none(weights, cache, text):
    cache.mkdir(parents=True)
    (cache / "weights.json").write_text(text)
    assert remembered_weights(DIGEST) is None
    remember_weights(DIGEST, weights)
    assert remembered_weights(DIGEST) == weights


def test_a_list_that_others_may_write_is_not_believed(weights, cache):
    remember_weights(DIGEST, weights)
    (cache / "weights.json").chmod(0o666)
    assert remembered_weights(DIGEST) is None


def test_a_cache_that_cannot_be_written_is_borne(weights, cache):
    cache.parent.mkdir()
    cache.write_text("a file in its place")
    remember_weights(DIGEST, weights)
    assert remembered_weights(DIGEST) is None
