"""Pictures of accuracy by class and of calibration: they say what was counted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from vptkit.plot_text import inline_svg
from vptkit.report.quality_plots import calibration_figure, class_figure
from vptkit.runtime.evaluation.evaluation_result import answers_to, judge


def judged(count, labels):
    random = np.random.default_rng(0)
    truth = np.arange(count) % len(labels)
    logits = random.normal(size=(count, len(labels))).astype(np.float32)
    logits[np.arange(count), truth] += 1
    images = [Path("x.png")] * count
    return judge(Path("d"), "test", labels, images, truth, answers_to(logits, truth))


def test_every_filled_bin_is_a_point():
    result = judged(300, ("a", "b"))
    titles = re.findall("<title>said.*?</title>", inline_svg(calibration_figure(result), "c"))
    assert len(titles) == sum(one.count > 0 for one in result.calibration) > 3
    assert sum(one.count for one in result.calibration) == 300


def test_bars_are_escaped_and_bounded():
    labels = tuple(f"<{i}>&" for i in range(70))
    drawn = inline_svg(class_figure(judged(140, labels)), "classes")
    assert len(re.findall("<title>&lt;", drawn)) == 60
    assert len(drawn) < 300_000
