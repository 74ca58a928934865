"""An evaluation for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vptkit.runtime.evaluation.evaluation_result import answers_to, judge
from vptkit.runtime.evaluation.evaluation_text import evaluation_text, short_name, verdict
from vptkit.scores.score_interval import wilson


def judged(pairs, labels=("roses", "tulips"), split="test"):
    """An evaluation of (class, answer) pairs, the later ones more confident."""
    truth, answered = np.array(pairs).T
    logits = np.zeros((len(pairs), len(labels)), np.float32)
    logits[np.arange(len(pairs)), answered] = 1 + np.arange(len(pairs)) / 10
    images = [Path(f"d/{labels[t]}/{i}.jpg") for i, t in enumerate(truth)]
    return judge(Path("d"), split, tuple(labels), images, truth, answers_to(logits, truth))


def test_what_people_read():
    result = judged([(0, 0)] * 7 + [(0, 1)] * 3 + [(1, 1)] * 9 + [(1, 0)])
    low, high = (100 * bound for bound in wilson(16, 20))
    text = evaluation_text(result)
    assert text.splitlines()[-1] == verdict(result)
    assert verdict(result) == (
        f"test top-1 80.0 % (16 of 20; 95 % interval {low:.1f} to {high:.1f} %)"
    )
    assert text.splitlines()[:3] == [
        "class   images   top-1   95 % interval",
        "roses       10  70.0 %  39.7 to 89.2 %",
        "tulips      10  90.0 %  59.6 to 98.2 %",
    ]
    assert "  roses as tulips  3 of 10\n  tulips as roses  1 of 10\n" in text
    first = 1 / (1 + np.exp(-2.9))
    assert f"mistakes, in d\n  tulips/19.jpg  {100 * first:.1f} % roses, is tulips\n" in text
    assert "top-5" not in text  # of two classes


def test_without_a_mistake():
    text = evaluation_text(judged([(0, 0), (1, 1)], split=None))
    assert "confused" not in text
    assert "mistakes" not in text
    assert text.splitlines()[-1] == "top-1 100.0 % (2 of 2; 95 % interval 34.2 to 100.0 %)"


def test_not_all_is_never_100_percent():
    result = judged([(0, 0)] * 9999 + [(0, 1)])
    assert "top-1 99.9 % (9999 of 10000; 95 % interval 99.9 to 99.9 %)" in verdict(result)


def test_many_classes_are_not_all_listed():
    labels = [f"class {i}" for i in range(100)]
    lines = evaluation_text(judged([(i, i) for i in range(99)] + [(99, 98)], labels)).splitlines()
    assert lines[1].startswith("class 99       1    0.0 %")
    assert lines[21] == "and 80 better ones: --json has all"
    assert "top-5 " in "\n".join(lines)


def test_names_are_shown_and_not_obeyed():
    labels = ("a\nclass  images", "\x1b[2J\u202e" + "b" * 999)
    text = evaluation_text(judged([(0, 1), (1, 0)], labels, split="te\x1bst"))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "a\\nclass  images" in text
    assert all(len(line) < 120 for line in text.splitlines() if ".jpg" not in line)


@pytest.mark.parametrize(("longest", "wanted"), [(32, "ab" * 8), (9, "abab…abab"), (8, "abab…bab")])
def test_a_long_name_loses_its_middle(longest, wanted):
    assert short_name("ab" * 8, longest) == wanted
