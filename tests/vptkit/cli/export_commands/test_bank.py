"""`vptkit export --layout bank` and `vptkit bank` from outside, and the commands that read a bank."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.support.bank_cases import Family, family, write_family
from tests.support.children import run_child
from tests.support.random_deltas import deltas_of
from vptkit.cli.export_commands.bank import list_
from vptkit.errors import BundleError
from vptkit.formats.adapter import write_adapter

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    return write_family(family(), tmp_path)


@pytest.fixture
def bank(vptkit, files, tmp_path) -> Path:
    """A bank of three adapters with room for more."""
    out = tmp_path / "out.vptk"
    code, text, err = vptkit(
        *("export", files["bilinear"], files["norms"], files["linear"], "--layout", "bank"),
        *("-o", out, "--weights", files["weights"], "--bank-prompts", 6, "--json"),
    )
    assert code == 0, err
    document = json.loads(text)
    assert document["adapters"] == ["bilinear", "norms", "linear"]
    assert document["parity"]["ok"]
    assert document["parity"]["count"] == 6
    return out


def listed(vptkit, bank: Path) -> list[str]:
    code, out, err = vptkit("bank", "list", bank, "--json")
    assert code == 0, err
    return [adapter["name"] for adapter in json.loads(out)["adapters"]]


def test_add_replace_remove_list(vptkit, files, bank):
    code, out, err = vptkit("bank", "add", bank, files["whitened"], "--json")
    assert code == 0, err
    assert json.loads(out)["added"] == "whitened"
    code, _, err = vptkit("bank", "replace", bank, files["both"], "--name", "norms")
    assert code == 0, err
    assert vptkit("bank", "remove", bank, "bilinear")[0] == 0
    assert listed(vptkit, bank) == ["norms", "linear", "whitened"]
    code, text, _ = vptkit("bank", "list", bank)
    assert "room for 6 prompts, 5 classes, with LayerNorms" in text
    code, out, err = vptkit("check", bank, "--json")
    assert code == 0, err
    assert json.loads(out)["count"] == 6


def test_a_bank_with_weight_deltas(vptkit, tmp_path):
    """Checked against golden answers at its export, listed with its room, and closed to whole ones."""
    members = family(kinds=("linear", "bilinear"))
    deltas = deltas_of("blocks.0.mlp.fc1.weight", (64, 32), "low", np.random.default_rng(0))
    tuned = replace(
        members.adapters["linear"], tensors={**members.adapters["linear"].tensors, **deltas}
    )
    members = Family(case=members.case, adapters={**members.adapters, "linear": tuned})
    files, out = write_family(members, tmp_path), tmp_path / "out.vptk"
    code, _, err = vptkit(
        *("export", files["linear"], files["bilinear"], "--layout", "bank", "-o", out),
        *("--weights", files["weights"], "--bank-rank", 4),
    )
    assert code == 0, err
    assert "changes of 1 linear, of rank 4 at most" in vptkit("bank", "list", out)[1]
    assert vptkit("check", out, "--json")[0] == 0
    whole = deltas_of("blocks.0.mlp.fc1.weight", (64, 32), "whole", np.random.default_rng(0))
    head = {k: v for k, v in tuned.tensors.items() if k.startswith("head")}
    write_adapter(tmp_path / "w.safetensors", replace(tuned, name="w", tensors={**head, **whole}))
    code, _, err = vptkit("bank", "add", out, tmp_path / "w.safetensors")
    assert code == 2
    assert "changes blocks.0.mlp.fc1.weight whole" in err


def test_refusals_are_one_line_and_exit_2(vptkit, files, bank):
    for arguments, part in (
        (("add", bank, files["linear"]), "there is an adapter 'linear' already"),
        (("remove", bank, "other"), "no adapter 'other', only bilinear, norms, linear"),
        (("list", bank / "nothing"), "no such folder"),
    ):
        code, out, err = vptkit("bank", *arguments)
        assert (code, out) == (2, "")
        assert part in err.splitlines()[-1]
    code, _, err = vptkit(
        *("export", files["linear"], files["norms"], "-o", bank.with_name("b.vptk")),
        *("--weights", files["weights"]),
    )
    assert code == 2
    assert "need --layout bank" in err
    code, _, err = vptkit("check", bank, "--reference")
    assert code == 2
    assert "a bank holds its adapters' rows" in err


def test_run_and_eval_ask_one_adapter(vptkit, bank, tmp_path):
    for i in range(3):
        (tmp_path / "data" / f"linear {i}").mkdir(parents=True)
        Image.new("RGB", (30, 20), (80 * i, 90, 100)).save(
            tmp_path / "data" / f"linear {i}" / "a.png"
        )
    code, out, err = vptkit("run", bank, tmp_path / "data", "--adapter", "linear", "--json")
    assert code == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [(a["adapter"], len(a["top"])) for a in answers] == [("linear", 3)] * 3
    code, out, err = vptkit("eval", bank, tmp_path / "data", "--adapter", "linear", "--json")
    assert code == 0, err
    assert json.loads(out)["count"] == 3
    for command in ("run", "eval"):
        code, _, err = vptkit(command, bank, tmp_path / "data")
        assert code == 2
        assert "holds 3 adapters" in err
        assert "--adapter" in err


def test_inspect(vptkit, bank):
    code, out, err = vptkit("inspect", bank, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert (document["layout"], document["classes"], document["golden"]) == ("bank", 5, 6)


def test_profile_has_a_row_for_each_adapter_and_one_for_all(vptkit, bank):
    code, out, err = vptkit("profile", bank, "--baseline", "--rounds", 2, "--batch", 2, "--json")
    assert code == 0, err
    rows = [row["name"] for row in json.loads(out)["rows"]]
    assert rows[:4] == [f"out: {name}" for name in ("bilinear", "norms", "linear", "mixed")]
    assert "backbone (no adapter)" in rows
    code, out, err = vptkit("profile", bank, "--adapter", "norms", "--rounds", 2, "--json")
    assert code == 0, err
    assert [row["name"] for row in json.loads(out)["rows"]] == ["out: norms"]


def test_adding_loads_numpy_alone(files, bank):
    code = (
        "import sys; sys.argv = ['vptkit', 'bank', 'add', *sys.argv[1:]]\n"
        "from vptkit.cli import app\n"
        "try: app()\n"
        "except SystemExit as error: assert not error.code, error\n"
        "print({n.partition('.')[0] for n in sys.modules} & {'onnx', 'torch', 'onnxruntime'})"
    )
    done = run_child([sys.executable, "-c", code, bank, files["both"]])
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_baked_bundle_is_not_listed_as_a_bank(make_bundle, capsys):
    with pytest.raises(BundleError, match="a baked bundle, not a bank"):
        list_(make_bundle())
    assert capsys.readouterr().out == ""
