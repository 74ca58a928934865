"""`vptkit serve`: what it refuses before it listens; how it serves: tests/runtime/http_server."""

from __future__ import annotations

import sys

import pytest

from vptkit.cli.runtime_commands import serve as command

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytestmark = pytest.mark.slow  # together: whichever is first loads the server


def test_others_may_not_ask_without_a_token(vptkit, make_bundle):
    code, _, err = vptkit("serve", make_bundle(), "--host", "0.0.0.0", "--port", "0")
    assert code == 2
    assert "--token-file" in err
    assert "--open" in err


def test_what_is_no_bundle(vptkit, tmp_path):
    code, _, err = vptkit("serve", tmp_path / "none.vptk", "--port", "0", "--backend", "cpu")
    assert code == 2
    assert "none.vptk" in err


def test_two_of_one_name(vptkit, make_bundle, tmp_path):
    first = make_bundle()
    (tmp_path / "b").mkdir()
    first.with_name("b").joinpath(first.name).symlink_to(first)
    second = tmp_path / "b" / first.name
    code, _, err = vptkit("serve", first, second, "--port", "0", "--backend", "cpu")
    assert (code, "two bundles would be the model 'tiny-0'" in err) == (2, True)


def test_the_extra_is_named(vptkit, make_bundle, monkeypatch):
    assert callable(command.serve)
    for name in (
        "vptkit.runtime.http_server.server_process",
        "vptkit.runtime.http_server.application",
    ):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = vptkit("serve", make_bundle())
    assert (code, 'pip install "vptkit[serve]"' in err) == (5, True)


def test_the_page_is_not_tritons(vptkit, make_bundle, tmp_path):
    code, _, err = vptkit("serve", make_bundle(), "--ui", "--triton", tmp_path / "models")
    assert (code, "--ui does not go with --triton" in err) == (2, True)
    assert not (tmp_path / "models").exists()
