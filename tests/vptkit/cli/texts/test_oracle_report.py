"""`vptkit check --oracle`: options that do not go together, and how findings are told."""

from __future__ import annotations

import json

import pytest

from vptkit.cli.texts.oracle_report import _finding_lines, consult
from vptkit.errors import TargetError, VptkitError

NOTHING = {"sm": None, "trt": None, "layers": False, "as_json": True}


@pytest.mark.parametrize(
    ("oracle", "options", "message"),
    [
        ("delphi", {}, "--oracle 'delphi': expected trt-rtx or rules"),
        ("rules", {"sm": "86"}, "--sm does not go with --oracle rules"),
        ("trt-rtx", {"trt": "10.3"}, "--trt does not go with --oracle trt-rtx"),
    ],
)
def test_options_are_judged_before_the_bundle_is_opened(tmp_path, oracle, options, message):
    with pytest.raises(VptkitError, match=message):
        consult(tmp_path / "nowhere.vptk", oracle, **(NOTHING | options))


def test_the_document_is_printed_before_the_refusal(make_bundle, monkeypatch, capsys):
    """So that --json says why, whatever the exit code."""
    from vptkit.export.analysis import tensorrt_rules

    class Verdict:
        def to_json(self):
            finding = {"level": "error", "message": "no such operator", "node": "det"}
            return {"trt": "10.3", "ok": False, "findings": [finding]}

    monkeypatch.setattr(tensorrt_rules, "check_rules", lambda model, versions: [Verdict()])
    with pytest.raises(TargetError, match=r"TensorRT 10\.3 does not take it: error: no such oper"):
        consult(make_bundle(), "rules", **(NOTHING | {"trt": "10.3"}))
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_equal_findings_are_one_line():
    findings = [
        {"level": "error", "message": "wide", "node": f"blocks.{i}.softmax"} for i in range(12)
    ]
    findings.insert(3, {"level": "warning", "message": "wide", "node": None})
    assert _finding_lines(findings) == [
        "error: wide (blocks.0.softmax and 11 more)",
        "warning: wide",
    ]
