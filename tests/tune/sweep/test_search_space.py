from __future__ import annotations

from pathlib import Path

import pytest

from vptkit.errors import VptkitError
from vptkit.tune.sweep.search_space import Span, sweep_from_mapping

FIXED = {"backbone": "vit_tiny_patch16_224", "epochs": 9, "weights": "w.safetensors"}


def document(space=None, search=None, **more):
    space = {"lr": [0.1, 0.2]} if space is None else space
    return {
        "data": "birds",
        "tune": FIXED if "method" in space else {**FIXED, "method": "bpt"},
        "space": space,
        "search": search or {},
        **more,
    }


def test_a_grid_has_every_combination_once():
    space = {"method": ["vpt", "bpt"], "prompts": [10, 50, 10]}
    sweep = sweep_from_mapping(document(space))
    assert sweep.trials == (
        {"method": "vpt", "prompts": 10},
        {"method": "vpt", "prompts": 50},
        {"method": "bpt", "prompts": 10},
        {"method": "bpt", "prompts": 50},
    )
    config = sweep.config(3)
    assert (config.method, config.prompts, config.epochs) == ("bpt", 50, 9)


def test_what_saves_memory_is_left_out_where_it_does_nothing():
    fixed = {**FIXED, "recompute": True, "accumulate": 2}
    sweep = sweep_from_mapping(document({"method": ["ln", "linear"]}, tune=fixed))
    found = [(c.recompute, c.accumulate) for c in (sweep.config(0), sweep.config(1))]
    assert found == [(True, 2), (False, 1)]


def test_a_range_in_a_grid_takes_steps():
    space = {"lr": {"low": 1e-4, "high": 1e-1, "log": True, "steps": 4}}
    sweep = sweep_from_mapping(document(space))
    assert [trial["lr"] for trial in sweep.trials] == [1e-4, 1e-3, 1e-2, 1e-1]
    whole = sweep_from_mapping(document({"rank": {"low": 5, "high": 15, "steps": 3}}))
    assert [trial["rank"] for trial in whole.trials] == [5, 10, 15]
    assert all(type(trial["rank"]) is int for trial in whole.trials)


def test_random_trials_differ_lie_in_the_space_and_hang_on_the_seed():
    space = {"lr": {"low": 1e-4, "high": 1.0, "log": True}, "method": ["vpt", "linear"]}
    first, again, other = (
        sweep_from_mapping(document(space, {"kind": "random", "samples": 40, "seed": seed})).trials
        for seed in (0, 0, 1)
    )
    assert first == again != other
    assert len({tuple(trial.items()) for trial in first}) == 40
    rates = sorted(trial["lr"] for trial in first)
    assert 1e-4 <= rates[0] < 1e-3 < rates[20] < 1e-1 < rates[-1] <= 1.0  # even in the logarithm
    assert all(float(f"{rate:.4g}") == rate for rate in rates)


def test_a_small_space_gives_what_it_has():
    search = {"kind": "random", "samples": 50}
    sweep = sweep_from_mapping(document({"prompts": [1, 2, 3]}, search))
    assert sorted(trial["prompts"] for trial in sweep.trials) == [1, 2, 3]


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({}, None),
        ({"kind": "random"}, [3, 3.0]),
        ({"kind": "random", "pruning": False}, None),
        ({"pruning": True}, [3, 3.0]),
        ({"pruning": {"grace": 2, "reduction": 4}}, [2, 4]),
    ],
)
def test_pruning_is_on_for_random_searches_or_as_told(search, expected):
    assert sweep_from_mapping(document(search=search)).to_json()["pruning"] == expected


def test_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = sweep_from_mapping(document())
    assert sweep.data == tmp_path / "birds"
    assert sweep.config(0).weights == tmp_path / "w.safetensors"
    swept = document({"weights": ["a.safetensors", "b.safetensors"]}, tune={"backbone": "vit"})
    assert sweep_from_mapping(swept).config(1).weights == tmp_path / "b.safetensors"
    beside = tmp_path / "settings"
    of_file = sweep_from_mapping(swept, folder=beside)
    assert of_file.config(1).weights == beside / "b.safetensors"
    assert of_file.data.is_relative_to(beside)
    assert sweep_from_mapping(swept, data=Path("mine"), folder=beside).data == tmp_path / "mine"
    tuned = {**FIXED, "method": "ln", "full_data": "more"}
    fuller = document({"lr_ln": [1e-3, 1e-2]}, tune=tuned)
    assert sweep_from_mapping(fuller).config(0).full_data == tmp_path / "more"
    assert sweep_from_mapping(document(), data=Path("cats")).data == tmp_path / "cats"


def test_settings_of_lora_can_be_swept_beside_other_methods():
    space = {"method": ["lora", "ln"], "lora_rank": [2, 8], "lora_targets": ["q,v", "all"]}
    sweep = sweep_from_mapping(document(space, tune={"backbone": "vit"}))
    found = [sweep.config(number) for number in range(len(sweep.trials))]
    assert {(c.method, c.lora_rank, c.lora_targets) for c in found} == {
        ("ln", 8, "q,v"),
        *(("lora", r, t) for r in (2, 8) for t in ("q,v", "q,k,v,proj,fc1,fc2")),
    }


def test_merging_can_be_swept():
    lists = document({"method": ["ln"], "merge": [0, 8, "0,8,0"]}, tune={"backbone": "vit"})
    spans = document(
        {"method": ["ln"], "merge": {"low": 0, "high": 12, "steps": 3}}, tune={"backbone": "vit"}
    )
    for found, wanted in ((lists, [0, 8, "0,8,0"]), (spans, [0, 6, 12])):
        sweep = sweep_from_mapping(found)
        assert [sweep.config(number).merge for number in range(3)] == wanted


def test_how_it_is_run_does_not_make_another_sweep():
    one = sweep_from_mapping(document(search={"cpus": 1, "retries": 1})).to_json()
    assert one == sweep_from_mapping(document(search={"cpus": 2, "gpus": 0.5})).to_json()
    assert one != sweep_from_mapping(document({"lr": [0.1, 0.3]})).to_json()


def test_rounding_stays_in_the_range():
    assert Span(low=0.123449, high=0.2).at(0.0) == 0.123449
    assert Span(low=0.1, high=0.199999).at(1.0) == 0.199999


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"space": {}}, r"\[space\] is empty"),
        ({"space": {"epochs": [1, 2]}}, r"\['epochs'\] stand in \[tune\] and in \[space\]"),
        ({"space": {"lr": 0.1}}, r"lr is 0.1, expected a list or"),
        ({"space": {"lr": []}}, r"expected a list of plain values"),
        ({"space": {"lr": {"low": 1, "high": 1}}}, "expected low below high"),
        ({"space": {"lr": {"low": "a", "high": 1}}}, "expected numbers"),
        ({"space": {"lr": {"low": 0, "high": 1, "log": True}}}, "needs low above 0"),
        ({"space": {"lr": {"low": 0.1, "high": 1, "step": 3}}}, r"unknown \['step'\]"),
        ({"space": {"lr": {"low": 0.1, "high": 1, "steps": 1}}}, "expected a number from 2"),
        ({"space": {"lr": {"low": 0.1, "high": 1}}}, 'kind = "random"'),
        ({"space": {"seed": list(range(200)), "rank": list(range(1, 200))}}, "39800 trials"),
        ({"space": {"method": ["vpt", "nonsense"]}}, r"trial 1 .*method is 'nonsense'"),
        ({"space": {"learning": [1]}}, "unknown 'learning'"),
        ({"search": {"kind": "bayes"}}, "kind is 'bayes', expected grid or random"),
        ({"search": {"samples": 1.5}}, "samples is 1.5, expected int"),
        ({"search": {"samples": True}}, "samples is True, expected int"),
        ({"search": {"cpus": 0}}, "cpus is 0, expected above 0"),
        ({"search": {"sample": 3}}, r"\[search\]: unknown \['sample'\]"),
        ({"search": {"pruning": {"graces": 3}}}, r"pruning: unknown \['graces'\]"),
        ({"search": {"pruning": "yes"}}, "pruning is 'yes', expected bool"),
        ({"search": 3}, r"search is 3, expected a table"),
        ({"data": None}, "no data"),
        ({"tune": {"allow_outside": True}}, "allow_outside is not for a file to say"),
        ({"space": {"allow_outside": [True]}}, "allow_outside is not for a file to say"),
        ({"spaces": {}}, r"unknown \['spaces'\]"),
    ],
)
def test_faults_are_named(changed, message):
    with pytest.raises(VptkitError, match=message):
        sweep_from_mapping({**document(changed.get("space")), **changed})


def test_what_may_be_read_is_said_by_the_user_and_makes_no_other_sweep():
    plain, wide = (sweep_from_mapping(document(), allow_outside=wide) for wide in (False, True))
    assert not plain.config(0).allow_outside
    assert wide.config(0).allow_outside
    assert plain.to_json() == wide.to_json()


def test_a_setting_of_some_trials_is_left_out_of_the_others():
    tuned = {"backbone": "vit", "prompts": 5}
    sweep = sweep_from_mapping(document({"method": ["vpt", "ln"]}, tune=tuned))
    assert [sweep.settings(number).get("prompts") for number in (0, 1)] == [5, None]
    with pytest.raises(VptkitError, match="prompts does nothing in any trial: it is for methods"):
        sweep_from_mapping(document({"method": ["linear", "ln"]}, tune=tuned))
