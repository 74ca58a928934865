"""`vptkit sweep`: what it needs, and options that do not go together."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.cli.tune_commands.sweep import sweep
from vptkit.errors import MissingExtraError, VptkitError


def test_without_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"ray.*vptkit\[sweep\]"):
        sweep(tmp_path / "sweep.toml", tmp_path / "out")


def test_a_plan_that_is_wrong_names_its_file(tmp_path):
    pytest.importorskip("ray.tune")
    (tmp_path / "sweep.toml").write_text("[space]\nlr = 3\n")
    with pytest.raises(VptkitError, match=r"sweep\.toml: "):
        sweep(tmp_path / "sweep.toml", tmp_path / "out")
    with pytest.raises(VptkitError, match="--cpus is of this machine"):
        sweep(tmp_path / "sweep.toml", tmp_path / "out", cpus=1, ray_address="auto")
    assert not (tmp_path / "out").exists()
