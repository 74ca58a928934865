"""`vptkit demo`: what the command gives to the demo, and what it prints."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.demo import run_demo as module
from vptkit.demo.command import demo


def row(name, **figures):
    return {
        "name": name,
        "test_top1": None,
        "trainable": None,
        "trainable_prompts": None,
        "ms": {"p50": 1.25},
        "ratio": 1.0,
        "parity": None,
        **figures,
    }


@pytest.fixture
def asked(monkeypatch):
    """What the demo was asked for; it answers with two rows."""
    seen = []

    def run(settings, *, force):
        seen.append((settings, force))
        tuned = row("bpt", test_top1=0.9876, trainable=12345, trainable_prompts=0, parity=3e-7)
        return {"report": "out/report.html", "rows": [row("backbone"), tuned]}

    monkeypatch.setattr(module, "run_demo", run)
    return seen


def test_people_get_the_table_and_where_the_report_is(asked, tmp_path, capsys):
    demo(tmp_path / "out", epochs=3, image_size=48, force=True)
    ((settings, force),) = asked
    assert (settings.output, settings.epochs, settings.image_size) == (tmp_path / "out", 3, 48)
    assert force
    header, backbone, tuned, last = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["test", "top-1"]
    assert backbone.split() == ["backbone", "-", "-", "-", "1.25", "1.000", "-"]
    assert tuned.split() == ["bpt", "0.988", "12,345", "0", "1.25", "1.000", "3e-07"]
    assert last == "report: out/report.html"


def test_programs_get_one_document(asked, tmp_path, capsys):
    demo(tmp_path / "out", as_json=True)
    assert [r["name"] for r in json.loads(capsys.readouterr().out)["rows"]] == ["backbone", "bpt"]
