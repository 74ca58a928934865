"""`vptkit report` from outside."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from tests.support.command_errors import assert_error
from vptkit.cli.runtime_commands import report


def test_the_command(vptkit, make_bundle, tmp_path):
    bundle, output = make_bundle(), tmp_path / "page.html"
    code, out, _ = vptkit("report", bundle, "-o", output)
    assert (code, out.startswith(f"wrote {output} (")) == (0, True)
    assert_error(vptkit("report", bundle, "-o", output), 2, "exists already", "--force")
    assert vptkit("report", bundle, "-o", output, "--force")[0] == 0
    assert_error(vptkit("report", bundle, "-o", tmp_path / "a.pdf"), 2, "written as .html")
    code, out, _ = vptkit("report", bundle, "-o", output, "--force", "--json")
    assert json.loads(out)["bundles"][0]["facts"]["name"] == "tiny-0"


def test_layers_now_and_of_a_file(vptkit, make_bundle, tmp_path):
    pytest.importorskip("onnxruntime")
    bundle, output = make_bundle(), tmp_path / "page.html"
    quick = ("--backend", "cpu", "--threads", 1, "--seconds", 0.1)
    code, out, _ = vptkit("profile", bundle, *quick, "--layers", "--json")
    (tmp_path / "l.json").write_text(out)
    given = ("report", bundle, "-o", output, *quick, "--layers", "--profiles", tmp_path / "l.json")
    code, out, err = vptkit(*given, "--json")
    assert code == 0, err
    assert [one["title"] for one in json.loads(out)["layers"]] == [
        "measured for this report",
        "l.json",
    ]
    assert "Time by layer, l.json" in output.read_text()


def test_what_goes_with_profile(vptkit, make_bundle, tmp_path):
    for option, value in (("--batches", "1,8"), ("--energy", 5)):
        code, _, err = vptkit("report", make_bundle(), "-o", tmp_path / "p.html", option, value)
        assert code == 2
        assert "--profile" in err


def test_a_broken_bundle_is_named_and_nothing_is_written(vptkit, make_bundle, tmp_path):
    good, broken, output = make_bundle(), make_bundle(), tmp_path / "page.html"
    (broken / "model.onnx").write_bytes(b"")
    assert_error(vptkit("report", good, broken, "-o", output), 2, broken.name, "model.onnx")
    assert_error(vptkit("report", tmp_path / "no.vptk", "-o", output), 2, "no.vptk")
    assert not list(tmp_path.glob("page*"))


def test_the_help_says_what_it_is(vptkit):
    code, out, _ = vptkit("report", "--help")
    assert code == 0
    assert report.__doc__.startswith("`vptkit report`: one HTML page")
    assert "one HTML page" in out
