"""What is held out in turns: each image once, each class evenly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vptkit.tune.data.cross_validation_parts import (
    NEVER,
    cross_validation_parts,
    without_part,
)
from vptkit.tune.data.splits import Split


@pytest.mark.parametrize(
    ("counts", "folds"),
    [([2, 2, 2], 2), ([3, 3], 3), ([5, 5, 5], 5), ([50, 50], 5), ([2, 50], 2), ([7, 13, 101], 5)],
)
def test_classes_and_parts_are_even_to_one_image(counts, folds):
    targets = np.repeat(np.arange(len(counts)), counts)
    parts = cross_validation_parts(targets, 0)
    assert set(parts) == set(range(folds))
    sizes = np.bincount(parts)
    assert sizes.max() - sizes.min() <= 1
    for label in range(len(counts)):
        held = np.bincount(parts[targets == label], minlength=folds)
        assert held.max() - held.min() <= 1
        assert held.max() < counts[label]  # something is left to learn the class from


def test_the_seed_deals_and_each_class_apart():
    targets = np.repeat([0, 1], 20)
    drawn = {tuple(cross_validation_parts(targets, seed)) for seed in range(5)}
    assert len(drawn) == 5
    parts = cross_validation_parts(targets, 0)
    assert tuple(parts) in drawn
    assert tuple(parts[:20]) != tuple(parts[20:])
    mixed = np.random.default_rng(0).permutation(targets)  # the order of the classes is no matter
    assert np.bincount(cross_validation_parts(mixed, 0)[mixed == 1]).tolist() == [4] * 5


def test_the_only_image_of_a_class_is_never_held_out():
    targets = np.array([0, 0, 0, 1, 2, 2])
    parts = cross_validation_parts(targets, 0)
    assert (parts == NEVER).tolist() == [False, False, False, True, False, False]
    assert set(parts[parts != NEVER]) == {0, 1}
    assert (cross_validation_parts(np.arange(4), 0) == NEVER).all()


def test_what_is_held_out_is_not_trained_on():
    images = tuple(Path(f"{i}.png") for i in range(7))
    split = Split(images, np.array([0, 0, 0, 1, 1, 1, 2]), joined=3)
    parts = cross_validation_parts(split.targets, 0)
    seen = []
    for part in range(3):
        train, held = without_part(split, parts, part)
        assert not set(train.images) & set(held.images)
        assert {*train.images, *held.images} == set(images)
        seen += held.images
        for some in (train, held):
            assert [split.targets[images.index(i)] for i in some.images] == some.targets.tolist()
    assert sorted(seen) == sorted(images[:6])  # each once; the only one of its class never
