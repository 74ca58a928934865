"""`vptkit inspect` from outside."""

from __future__ import annotations

import json

from tests.support.command_errors import assert_error
from vptkit.cli.runtime_commands.inspect import inspect
from vptkit.formats.summary import summarize


def test_inspect_a_bundle(vptkit, make_bundle):
    code, out, _ = vptkit("inspect", make_bundle(), "--json")
    document = json.loads(out)
    assert (code, document["kind"], document["name"], document["golden"]) == (
        0,
        "bundle",
        "tiny",
        5,
    )
    assert set(document["files"]) == {"model.onnx", "golden.safetensors"}
    assert "precision" in vptkit("inspect", make_bundle())[1]


def test_inspect_an_adapter(vptkit, tiny_adapter):
    code, out, _ = vptkit("inspect", tiny_adapter, "--json")
    document = json.loads(out)
    assert (code, document["kind"], document["insert"]) == (0, "adapter", "deep")
    assert document["numbers"] == 2 * (2 * 4 + 8 * 4) + 3 * 8 + 3
    assert document["tensors"]["prompt.1.b"] == [8, 4]
    text = vptkit("inspect", tiny_adapter)[1]
    assert len(text.splitlines()) < 14
    assert "prompts" in text
    assert "prompt.1.b" not in text
    assert "prompt.1.b" in vptkit("inspect", tiny_adapter, "--all")[1]


def test_inspect_of_bad_input(vptkit, tiny_adapter, tmp_path):
    tiny_adapter.write_bytes(tiny_adapter.read_bytes()[:-7])
    assert_error(vptkit("inspect", tiny_adapter), 2, "truncated or damaged")
    assert_error(vptkit("inspect", tmp_path / "nothing"), 2, "no such file or folder")
    assert_error(vptkit("inspect", tmp_path), 2, "not a bundle")


def test_the_document_is_the_summary(tiny_adapter, make_bundle, capsys):
    for path in (tiny_adapter, make_bundle()):
        inspect(path, as_json=True)
        document = json.loads(capsys.readouterr().out)
        assert document == json.loads(json.dumps(summarize(path)))
        inspect(path, everything=True)
        shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert {name.split(".")[0] for name in shown} == set(document)  # nothing is left out


def test_engines_beside_a_bundle_are_named(vptkit, make_bundle, fake_gpu):
    bundle = make_bundle()
    assert "none yet: vptkit build" in vptkit("inspect", bundle)[1]
    assert vptkit("build", bundle)[0] == 0
    line = next(line for line in vptkit("inspect", bundle)[1].splitlines() if "  engines" in line)
    assert line.split(maxsplit=1)[1] == "tensorrt 10.3.0 for NVIDIA H200"
