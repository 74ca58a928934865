"""What is filled in where nothing is given."""

from __future__ import annotations

import pytest

from vptkit.tune.config import config_from_mapping
from vptkit.tune.recipe import recipe_of


def recipe(**settings):
    return config_from_mapping({"backbone": "vit", **settings}).recipe


@pytest.mark.parametrize("form", ["bilinear", "fwhiten", "twhiten"])
def test_a_whitening_matrix_multiplies_steps_so_they_are_smaller(form):
    assert recipe(method="bpt", form=form).lr < recipe(method="vpt").lr
    assert recipe(method="ln+bpt", form=form).lr == recipe(method="bpt", form=form).lr


def test_a_random_factor_is_no_whitening_matrix():
    assert recipe(method="bpt", b_init="random").lr == recipe(method="vpt").lr


def test_a_head_that_is_the_probe_moves_little():
    probe, zero = recipe(method="ln"), recipe(method="ln", head_init="zero")
    assert probe.lr_head < zero.lr_head
    assert (probe.wd_head, zero.wd_head) == (0.0, 0.1)


def test_of_lora_there_is_one_rate_for_every_rank_and_combination():
    rates = {
        recipe(method=method, **given).lr_lora
        for method in ("lora", "ln+lora+vpt")
        for given in ({}, {"lora_rank": 64}, {"lora_targets": "all"}, {"head_init": "zero"})
    }
    assert rates == {5e-3}


def test_dropout_is_for_vpt_deep_alone():
    deep = [recipe(method=method).dropout for method in ("vpt", "ln+vpt", "bpt", "ln")]
    assert deep == [0.1, 0.1, 0.0, 0.0]
    assert recipe(method="vpt", insert="shallow").dropout == 0.0


def test_one_table_is_all_that_decides():
    asked = {"insert": "deep", "form": "fwhiten", "b_init": "whiten"}
    assert recipe(method="bpt", form="fwhiten") == recipe_of("bpt", **asked, from_probe=True)


def test_what_is_given_wins():
    given = {"lr": 0.25, "lr_head": 0.5, "lr_ln": 0.125, "wd_head": 0.75, "dropout": 0.0}
    config = config_from_mapping(
        {"backbone": "vit", "method": "ln+lora+vpt", "lr_lora": 0.375, **given}
    )
    assert (*config.rates, config.rate_of_lora) == (0.25, 0.5, 0.375)
    assert (config.rate_of_norms, config.decay_of_head, config.prompt_dropout) == (0.125, 0.75, 0.0)
