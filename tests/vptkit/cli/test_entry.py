"""The command line from outside: documents on standard output, one line of error, exit codes."""

from __future__ import annotations

import builtins
import csv
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.support.children import PIPE, Child, run_child
from vptkit import __version__
from vptkit.cli.shared.output import needs_extra
from vptkit.errors import VptkitError
from vptkit.formats.bundle import open_bundle

COMMANDS = ("check", "eval", "run", "profile", "inspect")


def assert_error(result: tuple[int, str, str], code: int, *parts: str) -> None:
    """The last line of standard error is the error; there is no traceback and no document."""
    assert result[0] == code
    last = result[2].splitlines()[-1]
    assert last.startswith("error: ")
    for part in parts:
        assert part in last
    assert "Traceback" not in result[2]


def test_version(vptkit):
    assert vptkit("--version") == (0, __version__ + "\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help(vptkit, command):
    code, out, err = vptkit(command, "--help")
    assert (code, err) == (0, "")
    assert f"vptkit {command}" in out
    assert "--json" in out


def test_the_commands_are_listed(vptkit):
    code, out, _ = vptkit("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [("check",), ("nonsense",), ("run", "x", "y", "--top-k", "0"), ("check", "x", "--nonsense")],
)
def test_usage_errors_are_2(vptkit, arguments):
    code, out, err = vptkit(*arguments)
    assert (code, out) == (2, "")
    assert "Error" in err


# ---- check --------------------------------------------------------------------------------------


def test_check(vptkit, make_bundle):
    bundle = make_bundle()
    code, out, err = vptkit("check", bundle, "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["ok"] is True
    assert document["bundle"] == str(bundle)
    assert document["backend"] == "cpu"
    assert {"max_abs_diff", "max_rel_diff", "top1_agreement", "count"} <= set(document)
    assert "max_rel_diff" in vptkit("check", bundle)[1]


def test_check_of_a_broken_twin_is_3_and_still_prints(vptkit, make_bundle):
    result = vptkit("check", make_bundle(shift=0.01), "--json")
    assert json.loads(result[1])["ok"] is False
    assert_error(result, 3, "differs from the golden answers")
    assert vptkit("check", make_bundle(shift=0.01), "--tolerance", "0.5")[0] == 0


@pytest.mark.parametrize(
    ("backend", "code", "part"), [("tensorrt", 5, "tensorrt"), ("cuba", 2, "cpu, cuda, tensorrt")]
)
def test_other_backends(vptkit, make_bundle, backend, code, part):
    result = vptkit("check", make_bundle(), "--backend", backend, "--json")
    assert_error(result, code, part)
    assert result[1] == ""


def test_check_of_what_is_no_bundle(vptkit, tmp_path, make_bundle):
    assert_error(vptkit("check", tmp_path), 2, "not a bundle")
    bundle = make_bundle()
    (bundle / "model.onnx").write_bytes(b"changed")
    assert_error(vptkit("check", bundle), 2, "model.onnx", "digest")


def fake_room(monkeypatch, name: str, **members) -> None:
    """Put a module of another room in place, so that this test does not depend on it."""
    module = ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


def hide(monkeypatch, package: str) -> None:
    """Let importing a package fail as if it were not installed."""
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)


def test_check_against_the_reference(vptkit, make_bundle, tiny_model, monkeypatch, tmp_path):
    asked = []

    def reference_logits(adapter, weights, images):
        asked.append((adapter, weights, images))
        return tiny_model.logits(images)

    fake_room(monkeypatch, "vptkit.tune.backbone.reference", reference_logits=reference_logits)
    bundle = make_bundle()
    code, out, _ = vptkit("check", bundle, "--reference", "--weights", tmp_path / "w", "--json")
    assert (code, json.loads(out)["against"]) == (0, "reference")
    assert asked[0][:2] == (bundle / "adapter.safetensors", tmp_path / "w")
    np.testing.assert_array_equal(asked[0][2], open_bundle(bundle).golden()[0])
    # Without golden images: noise.
    assert vptkit("check", make_bundle(golden=False), "--reference")[0] == 0
    assert asked[1][1] is None
    assert asked[1][2].shape == (8, 24, 16, 3)
    # And it can fail.
    assert vptkit("check", make_bundle(shift=0.01), "--reference")[0] == 3


def test_weights_without_reference_is_a_usage_error(vptkit, make_bundle):
    code, _, err = vptkit("check", make_bundle(), "--weights", "w")
    assert code == 2
    assert "--reference" in err


def test_a_missing_package_is_5_and_names_the_extra(vptkit, make_bundle, monkeypatch):
    monkeypatch.delitem(sys.modules, "vptkit.tune.backbone.reference", raising=False)
    hide(monkeypatch, "torch")
    result = vptkit("check", make_bundle(), "--reference")
    assert_error(result, 5, "--reference needs the package torch", 'pip install "vptkit[tune]"')


def test_a_missing_module_of_ours_is_a_defect_and_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError) as caught, needs_extra("tune", "x"):
        raise ModuleNotFoundError(name="vptkit.tune.gone")
    assert not isinstance(caught.value, VptkitError)


# ---- eval ---------------------------------------------------------------------------------------


def test_eval(vptkit, make_bundle, colour_folders):
    code, out, err = vptkit("eval", make_bundle(), colour_folders, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["top1"] == pytest.approx(11 / 12)
    assert document["count"] == 12
    assert "eval: 12/12" in err
    assert "top1" in vptkit("eval", make_bundle(), colour_folders)[1]


def test_eval_of_other_labels(vptkit, make_bundle, colour_folders):
    bundle = make_bundle(labels=("red", "green", "violet"))
    assert_error(vptkit("eval", bundle, colour_folders), 2, "violet", "blue")
    assert_error(vptkit("eval", bundle, colour_folders, "--split", "test"), 2, "no split 'test'")
    assert_error(vptkit("eval", bundle, colour_folders / "no"), 2, "no such folder")


# ---- run ----------------------------------------------------------------------------------------


def test_run_prints_one_object_a_line(vptkit, make_bundle, colour_folders):
    code, out, err = vptkit(
        "run", make_bundle(), colour_folders / "red", colour_folders / "blue", "--json"
    )
    documents = [json.loads(line) for line in out.splitlines()]
    assert (code, err, len(documents)) == (0, "", 8)
    assert [d["top"][0]["label"] for d in documents] == ["red"] * 4 + ["blue"] * 4
    assert documents[0]["adapter"] == "tiny"


def test_run_for_people(vptkit, make_bundle, colour_folders):
    code, out, _ = vptkit("run", make_bundle(), colour_folders / "red", "--top-k", "1")
    assert code == 0
    assert all("red 0." in line for line in out.splitlines())


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_run_saves(vptkit, make_bundle, colour_folders, tmp_path, name):
    arguments = ("run", make_bundle(), colour_folders / "red", "--save", tmp_path / name)
    assert vptkit(*arguments) == (0, "", "")
    text = (tmp_path / name).read_text()
    if name.endswith("csv"):
        assert [row["label_1"] for row in csv.DictReader(text.splitlines())] == ["red"] * 4
    else:
        assert [json.loads(line)["top"][0]["label"] for line in text.splitlines()] == ["red"] * 4
    assert_error(vptkit(*arguments), 2, "exists already", "--force")
    assert vptkit(*arguments, "--force")[0] == 0


def test_run_goes_on_past_a_broken_image_and_says_so(vptkit, make_bundle, colour_folders, tmp_path):
    (colour_folders / "red" / "1.png").write_bytes(b"broken")
    save = tmp_path / "out.jsonl"
    result = vptkit("run", make_bundle(), colour_folders / "red", "--json", "--save", save)
    documents = [json.loads(line) for line in result[1].splitlines()]
    assert [("error" in d) for d in documents] == [False, True, False, False]
    assert save.read_text() == result[1]
    assert_error(result, 2, "1 of 4 images", "red/1.png")


def test_run_of_bad_input(vptkit, make_bundle, colour_folders, tmp_path):
    bundle = make_bundle()
    save = tmp_path / "sub" / "out.csv"
    save.parent.mkdir()
    assert_error(vptkit("run", bundle, "nowhere.jpg", "--save", save), 2, "nowhere.jpg")
    assert_error(vptkit("run", bundle, colour_folders, "--adapter", "huge"), 2, "huge")
    assert_error(vptkit("run", bundle, colour_folders, "--save", tmp_path / "x.xml"), 2, ".csv")
    assert list(save.parent.iterdir()) == []


# ---- profile ------------------------------------------------------------------------------------


def test_profile(vptkit, make_bundle, tmp_path):
    plot = tmp_path / "plot.png"
    code, out, _ = vptkit(
        *("profile", make_bundle("a"), make_bundle("b"), "--batch", "1,2", "--rounds", 4),
        *("--threads", 1, "--plot", plot, "--json"),
    )
    document = json.loads(out)
    assert code == 0
    assert [(r["name"], r["batch"]) for r in document["rows"]] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("b", 2),
    ]
    assert document["machine"]["session_threads"] == 1
    with Image.open(plot) as image:
        assert image.size[0] > 500


def test_profile_with_baselines(vptkit, make_bundle, monkeypatch):
    seen = []

    def export_baselines(bundle, folder):
        seen.append((bundle, folder, folder.is_dir()))
        return {"backbone (no adapter)": make_bundle("x"), "unfolded": make_bundle("y")}

    fake_room(monkeypatch, "vptkit.export.bundle.baselines", export_baselines=export_baselines)
    bundle = make_bundle("a")
    code, out, _ = vptkit("profile", bundle, "--baseline", "--rounds", 4)
    assert code == 0
    assert seen[0][0] == bundle
    assert seen[0][2]
    assert not seen[0][1].exists()  # the temporary folder is gone
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["name", "batch"]
    assert [line.split("  ")[0] for line in lines[1:4]] == [
        "a",
        "backbone (no adapter)",
        "unfolded",
    ]
    assert not any("of backbone" in line for line in lines[4:])  # notes at most
    assert "of backbone (no adapter): " in lines[1]


def test_profile_of_bad_input(vptkit, make_bundle, tmp_path):
    bundle = make_bundle()
    assert_error(vptkit("profile", bundle, "--plot", tmp_path / "x.bmp"), 2, "x.bmp", ".png")
    assert_error(vptkit("profile", bundle, "--rounds", 0), 2, "rounds is 0")
    assert_error(vptkit("profile", make_bundle(batch=4), "--batch", 8), 4, "batches of 8")
    code, out, err = vptkit("profile", bundle, "--batch", "one")
    assert (code, out) == (2, "")
    assert "'one'" in err


# ---- inspect ------------------------------------------------------------------------------------


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
    assert "prompt_length" in vptkit("inspect", tiny_adapter)[1]


def test_inspect_of_bad_input(vptkit, tiny_adapter, tmp_path):
    tiny_adapter.write_bytes(tiny_adapter.read_bytes()[:-7])
    assert_error(vptkit("inspect", tiny_adapter), 2, "truncated or damaged")
    assert_error(vptkit("inspect", tmp_path / "nothing"), 2, "no such file or folder")
    assert_error(vptkit("inspect", tmp_path), 2, "not a bundle")


# ---- from outside -------------------------------------------------------------------------------

PROGRAM = (sys.executable, "-c", "from vptkit.cli import main; main()")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_130_and_leaves_nothing(make_bundle, colour_folders, tmp_path, number):
    out = tmp_path / "out"
    out.mkdir()
    big = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    Image.fromarray(big).save(tmp_path / "big.png")
    images = tmp_path / "many"
    images.mkdir()
    for i in range(300):
        (images / f"{i:03}.png").symlink_to(tmp_path / "big.png")
    command = [*PROGRAM, "run", make_bundle(), images]
    command += ["--json", "--batch", "1", "--save", out / "x.jsonl"]
    with Child(command, stdout=PIPE, stderr=PIPE) as process:
        assert json.loads(process.stdout.readline())["top"]  # it is in the middle of its work
        process.send_signal(number)
        _, err = process.communicate()
    assert (process.returncode, err) == (130, "interrupted\n")
    assert list(out.iterdir()) == []


def test_a_reader_that_leaves_is_no_traceback(make_bundle, colour_folders):
    read, write = os.pipe()
    os.close(read)
    command = [*PROGRAM, "run", make_bundle(), colour_folders, "--json"]
    done = run_child(command, stdout=write, check=False)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


def test_pillows_warnings_are_not_shown(make_bundle, tmp_path):
    image = Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) % 4).convert("P")
    image.save(tmp_path / "x.png", transparency=bytes([0, 100, 200]))
    done = run_child([*PROGRAM, "run", make_bundle(), tmp_path / "x.png", "--json"], check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["top"]


def test_help_is_quick():
    start = time.perf_counter()
    run_child([*PROGRAM, "--help"])
    assert time.perf_counter() - start < 5  # generous: what it loads is tested in test_imports


def test_the_entry_point_is_this(tmp_path: Path):
    done = run_child([Path(sys.executable).with_name("vptkit"), "--version"], cwd=tmp_path)
    assert done.stdout.strip() == __version__
