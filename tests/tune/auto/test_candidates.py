"""What auto tries: the probe first, and everything else as it was asked for."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from vptkit.errors import VptkitError
from vptkit.tune.auto.candidates import NAMES, PROBE, candidates
from vptkit.tune.config import config_from_mapping


def config_of(**settings):
    return config_from_mapping({"backbone": "vit", "method": "auto", **settings})


def test_the_probe_is_the_first_and_all_share_what_was_asked():
    found = candidates(config_of(epochs=7, prompts=9, budget="1h", seed=3))
    assert tuple(found) == NAMES
    assert next(iter(found)) == PROBE == "linear"
    assert tuple(candidates(config_of())) == (PROBE, "ln", "vpt")
    for config in found.values():
        assert config.seed == 3
        assert config.epochs == (20 if config.method == PROBE else 7)  # which has none
        assert config.prompts == (9 if config.prompted else 20)
        assert config.budget is None
        assert config.method != "auto"
    assert len({str(config.to_json()) for config in found.values()}) == len(found)


@pytest.mark.parametrize(
    "settings",
    [{"cycles": 2}, {"rescale": "both"}, {"refit_epochs": 1}, {"head_init": "zero"}],
    ids=str,
)
def test_what_auto_does_not_try_is_refused(settings):
    with pytest.raises(
        VptkitError, match=f"{next(iter(settings))} is .*which method auto does not"
    ):
        config_of(**settings)


def test_a_budget_is_for_auto_alone():
    with pytest.raises(VptkitError, match="budget is for method auto alone"):
        config_from_mapping({"backbone": "vit", "method": "ln", "budget": "1m"})
