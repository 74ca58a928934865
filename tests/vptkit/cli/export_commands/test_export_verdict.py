"""What the exporting commands say at their end."""

from __future__ import annotations

from vptkit.cli.export_commands.export_verdict import (
    bundle_verdict,
    gate_text,
    note_bank_precision,
    onnx_verdict,
    parity_text,
)

PARITY = {"top1_agreement": 1.0, "count": 8, "max_rel_diff": 4e-6, "tolerance": 1e-4}
GATE = {
    "count": 100,
    "agreement": 0.97,
    "min_agreement": 0.95,
    "top1": 0.87,
    "top1_fp32": 0.89,
    "split": "val",
    "too_kind": False,
    "too_kind_because": None,
    "simulated": False,
}
MANIFEST = {
    "precision": "fp32",
    "layout": "baked",
    "lowering": None,
    "gate": None,
    "macs": {"graph": 94, "backbone": 100, "unfolded": 131},
    "parity": PARITY,
    "adapters": [{"name": "flowers"}],
    "inputs": [{"name": "images", "dtype": "uint8", "shape": ["dynamic", 24, 16, 3]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["dynamic", 5]}],
}


def bundle(tmp_path):
    path = tmp_path / "flowers.vptk"
    path.mkdir()
    (path / "model.onnx").write_bytes(bytes(2_400_000))
    return path


def test_parity():
    told = "OK: 8 golden images, largest difference 4e-06 (allowed 1e-04), same top-1"
    assert parity_text(PARITY) == told
    odd = {**PARITY, "top1_agreement": 7 / 8, "simulated": True}
    assert parity_text(odd).endswith("same top-1 on 7 of them (simulated on the CPU)")
    assert parity_text(None).startswith("not compared: the adapter has no golden")
    assert "--no-verify" in parity_text(None, asked=False)


def test_a_gate_says_before_and_after_with_the_interval():
    told = gate_text("int8", GATE)
    assert told.startswith("int8: accuracy of val 89.0 % → 87.0 % (87 of 100; 95 % interval")
    assert "fp32's label kept on 97.0 % (97 of 100; 95 % interval" in told
    assert told.endswith("at least 95.0 % wanted")
    assert "accuracy" not in gate_text("int8", {**GATE, "top1": None, "top1_fp32": None})
    assert gate_text("fp16", None) == "fp16: not judged on images"


def test_a_gate_that_is_too_kind_does_not_say_that_all_is_well():
    kind = {"too_kind": True, "too_kind_because": "judged on training images", "split": "train"}
    told = gate_text("int8", GATE | kind)
    assert told.endswith("Too kind: judged on training images")
    assert "accuracy of train" in told


def test_a_bundle(tmp_path):
    path = bundle(tmp_path)
    lines = bundle_verdict({}, MANIFEST, path, verified=True).splitlines()
    assert lines == [
        parity_text(PARITY),
        "fp32, 0.94 × the backbone's multiply-accumulates (unfolded: 1.31 ×)",
        f"wrote {path} (2.4 MB)",
        f"next: vptkit run {path} photos/",
    ]
    confident = {"confidence": {"temperature": 1.25, "split": "val"}}
    assert "temperature 1.25, fitted on val" in bundle_verdict(
        confident, MANIFEST, path, verified=True
    )


def test_a_lower_precision_says_what_it_was_calibrated_on(tmp_path):
    plan = {"target": "tensorrt", "calibration": {"split": None, "count": 128, "images": "0"}}
    manifest = {**MANIFEST, "precision": "int8", "gate": GATE, "lowering": plan}
    told = bundle_verdict({}, manifest, bundle(tmp_path), verified=True)
    assert "calibrated on 128 images of a folder that names no split" in told
    assert told.splitlines()[-1].startswith("next: vptkit build ")
    manifest["lowering"] = {
        "target": "cpu",
        "calibration": {**plan["calibration"], "split": "train"},
    }
    assert "128 images of train" in bundle_verdict(
        {}, manifest, tmp_path / "flowers.vptk", verified=True
    )


def test_a_bank(tmp_path):
    adapters = [{"name": "flowers"}, {"name": "my birds\x1b"}]
    manifest = {**MANIFEST, "layout": "bank", "adapters": adapters}
    lines = bundle_verdict({}, manifest, bundle(tmp_path), verified=False).splitlines()
    assert lines[0] == "2 adapters: flowers, my birds\\x1b"
    assert lines[-1].endswith("photos/ --adapter flowers")


def test_a_bare_graph_says_how_it_is_fed(tmp_path):
    file = tmp_path / "x.onnx"
    file.write_bytes(b"0")
    told = onnx_verdict({}, MANIFEST, file, ("export", "f.safetensors"), verified=True)
    assert "input images uint8 [B, 24, 16, 3], RGB; output logits float32 [B, 5]" in told
    assert "vptkit.preprocess" in told
    assert told.endswith(f"next: vptkit export f.safetensors -o {tmp_path / 'x.vptk'}")


def test_a_bank_has_no_gate(capsys):
    note_bank_precision({"precision": "fp32"}, "a")
    assert capsys.readouterr().err == ""
    note_bank_precision({"precision": "fp16"}, "a")
    assert "fp16 of a was not compared with fp32 on real images" in capsys.readouterr().err
