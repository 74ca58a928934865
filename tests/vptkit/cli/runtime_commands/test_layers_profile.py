"""`vptkit profile --layers`: its text, its files, and what it refuses."""

from __future__ import annotations

import json

import pytest

from tests.runtime.layers.test_layers_file import NOT_RUN
from tests.support.bank_cases import family
from tests.support.command_errors import assert_error
from tests.support.exported_banks import export_family
from vptkit.cli.runtime_commands import layers_profile
from vptkit.runtime.layers import profile_layers

QUICK = ("--layers", "--rounds", 3, "--threads", 1, "--backend", "cpu")


@pytest.fixture
def bank(tmp_path):
    return export_family(tmp_path, family(kinds=("bilinear", "norms")))


def test_text_and_files(vptkit, bank, tmp_path):
    files = {name: tmp_path / f"{name}.json" for name in ("trace", "profile", "times", "info")}
    given = ("--trace", files["trace"], "--exportProfile", files["profile"])
    given += ("--export-times", files["times"], "--export-layer-info", files["info"])
    code, out, err = vptkit("profile", bank, *QUICK, *given)
    assert code == 0, err
    assert "bank: cpu, batch 1, adapter bilinear, norms: 3 runs of" in out
    assert {"blocks.0", "preprocessing", "head"} <= {
        line.split(" ")[0] for line in out.splitlines()
    }
    assert "no roof: it is that of all" in out
    found = {name: json.loads(path.read_text()) for name, path in files.items()}
    assert found["profile"][0] == {"count": 3}
    assert len(found["profile"]) - 1 == len(found["info"]["Layers"])
    assert len(found["times"]) == 3
    assert found["trace"]["traceEvents"]
    assert_error(vptkit("profile", bank, *QUICK, *given), 2, "exists")
    assert vptkit("profile", bank, *QUICK, *given, "--force")[0] == 0


def test_json_with_the_baselines(vptkit, bank, make_bundle):
    code, out, _ = vptkit("profile", bank, make_bundle(), *QUICK, "--batch", 2, "--json")
    document = json.loads(out)
    assert code == 0
    first, second = document["profiles"]
    assert (first["format"], first["batch"], first["runs"]) == ("vptkit.layers/1", 2, 3)
    assert sum(place["share"] for place in first["places"]) == pytest.approx(1)
    (change,) = document["changes"]
    assert (change["before"], change["after"]) == (first["name"], second["name"])
    assert any(place["operators"] for place in change["places"])


def test_what_changed_is_told(vptkit, bank, make_bundle):
    code, out, _ = vptkit("profile", bank, make_bundle("other"), *QUICK)
    assert code == 0
    assert "bank → other" in out
    assert "all layers: " in out


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ((*QUICK, "--streams", 2), "--streams"),
        ((*QUICK, "--energy", 1), "--energy"),
        ((*QUICK, "--loadgen", "Offline"), "--loadgen"),
        ((*QUICK, "--on", "me@there"), "--on"),
        ((*QUICK, "--plot", "p.bmp"), ".png"),
        ((*QUICK, "--batch", "1,8"), "--batch"),
        (("--layers", "--backend", "cuda"), "cuda"),
        (("--trace", "t.json"), "--layers"),
        (("--exportTimes", "t.json"), "--export-times"),
    ],
)
def test_what_has_no_effect_is_refused(vptkit, make_bundle, given, word):
    assert_error(vptkit("profile", make_bundle(), *given), 2, word)


def test_a_file_of_one_bundle(vptkit, make_bundle, tmp_path):
    two = (make_bundle(), make_bundle())
    given = ("--export-profile", tmp_path / "p.json")
    assert_error(vptkit("profile", *two, *QUICK, *given), 2, "one bundle")
    assert_error(vptkit("profile", two[0], *QUICK, *given, "--baseline"), 2, "one bundle")
    assert not (tmp_path / "p.json").exists()


def test_options_of_layers_go_with_layers():
    assert all(name in layers_profile.LAYER_RULES[0].options for name in ("trace", "export_times"))


def test_where_nothing_ran_there_is_nothing_to_draw(vptkit, make_bundle, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(profile_layers, "profile_layers", lambda *_, **__: [NOT_RUN])
    given = ("profile", make_bundle(), *QUICK, "--plot", tmp_path / "p.png")
    assert_error(vptkit(*given), 2, "no times to draw")
    assert not (tmp_path / "p.png").exists()


def test_a_picture_of_both(vptkit, bank, make_bundle, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "p.svg"
    assert vptkit("profile", bank, make_bundle(), *QUICK, "--plot", path)[0] == 0
    assert path.read_text().count("<!-- blocks.0 -->") > 1  # of the bars, and of the flame graph
    assert_error(vptkit("profile", bank, *QUICK, "--plot", path), 2, "exists")


def test_baselines_of_several_bundles_have_names_of_their_own():
    named = [{"backbone": "b0", "unfolded": "u0"}, {"backbone": "b1"}, {"backbone": "b2"}]
    bundles = {"a": "a", "unfolded": "u", "c": "c"}
    assert layers_profile._own_names(bundles, named) == {
        "backbone": "b0",
        "unfolded, a": "u0",
        "backbone, unfolded": "b1",
        "backbone, c": "b2",
    }
    assert layers_profile._own_names(bundles, []) == {}
