"""From a bundle to predictions of an engine, as a user types it, on the fakes of tests/support/fakes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.fakes.gpu import ORIN
from vptkit.atomic_files import sha256_of_file
from vptkit.formats.bundle import open_bundle
from vptkit.formats.tensor_file import read_tensors, write_tensors

pytestmark = [
    pytest.mark.parametrize("fake_gpu", [ORIN], indirect=True),
    pytest.mark.usefixtures("fake_gpu"),
]


def test_build_check_run_profile(vptkit, make_bundle, colour_folders):
    bundle = make_bundle()
    code, _, err = vptkit("check", bundle, "--backend", "tensorrt")
    assert code == 5
    assert (
        f"no engine for TensorRT 10.3.0 on Orin (8.7, 8 SMs). Build it here: vptkit build {bundle}"
        in err
    )

    code, out, err = vptkit("build", bundle, "--batch", "1,2,4", "--json")
    assert code == 0, err
    built = json.loads(out)
    assert (built["gpu"], built["capability"], built["version"]) == ("Orin", "8.7", "10.3.0")
    assert built["fresh"]

    code, out, _ = vptkit("check", bundle, "--backend", "tensorrt", "--json")
    assert code == 0
    assert json.loads(out)["backend"] == "tensorrt"

    code, out, err = vptkit("run", bundle, colour_folders, "--backend", "auto", "--json")
    assert code == 0
    assert "backend tensorrt: the first of" in err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["top"][0]["label"] for line in lines].count("red") == 4

    code, out, _ = vptkit(
        "profile", bundle, "--backend", "tensorrt", "--cuda-graph", "both", "--rounds", 5, "--json"
    )
    assert code == 0
    rows = json.loads(out)["rows"]
    assert [row["cuda_graph"] for row in rows] == [True, False]
    for row in rows:
        assert row["transfers"].startswith("none: the GPU reads and writes")
        assert all(row["times"][part]["p50"] >= 0 for part in ("enqueue", "gpu", "host"))


def test_a_second_build_takes_what_is_there(vptkit, make_bundle):
    bundle = make_bundle()
    first = json.loads(vptkit("build", bundle, "--json")[1])
    again = json.loads(vptkit("build", bundle, "--json")[1])
    assert (first["fresh"], again["fresh"]) == (True, False)
    assert first["engine"] == again["engine"]


def test_an_engine_of_another_version_is_named_and_not_loaded(vptkit, make_bundle, monkeypatch):
    bundle = make_bundle()
    assert vptkit("build", bundle)[0] == 0
    monkeypatch.setattr("tensorrt.__version__", "10.13.0")
    code, _, err = vptkit("check", bundle, "--backend", "tensorrt")
    assert code == 5
    assert "built by TensorRT 10.3.0 on Orin (8.7, 8 SMs); here is TensorRT 10.13.0 on Orin" in err


def test_a_damaged_engine_is_not_loaded(vptkit, make_bundle):
    bundle = make_bundle()
    engine = json.loads(vptkit("build", bundle, "--json")[1])["engine"]
    with open(engine, "ab") as file:  # noqa: PTH123
        file.write(b"x")
    code, _, err = vptkit("check", bundle, "--backend", "tensorrt")
    assert code == 5
    assert "damaged" in err


def test_wrong_answers_of_an_engine_fail_the_check(vptkit, make_bundle, edit_manifest):
    bundle = make_bundle()
    assert vptkit("build", bundle)[0] == 0
    golden = dict(read_tensors(bundle / "golden.safetensors", RuntimeError))
    golden["logits"] = golden["logits"] + np.float32(1)
    write_tensors(bundle / "golden.safetensors", golden)
    files = dict(open_bundle(bundle, verify=False).manifest["files"])
    edit_manifest(
        bundle, files=files | {"golden.safetensors": sha256_of_file(bundle / "golden.safetensors")}
    )
    assert vptkit("check", bundle, "--backend", "tensorrt")[0] == 3
