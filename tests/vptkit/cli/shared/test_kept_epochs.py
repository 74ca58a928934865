"""Nobody is promised epochs that are not there."""

from __future__ import annotations

import pytest

from vptkit.cli.shared.kept_epochs import say_kept_epochs


@pytest.mark.parametrize(
    ("output", "file", "said"),
    [
        ("a.safetensors", "a.checkpoint.safetensors", True),
        ("a.safetensors", "a.full.checkpoint.safetensors", True),
        ("a.safetensors", "a-2shot.checkpoint.safetensors", True),
        ("a.safetensors", "a-2shot.safetensors", True),
        ("a.safetensors", ".a.auto/ln.safetensors", True),
        ("a.safetensors", "b.checkpoint.safetensors", False),
        ("a.safetensors", "a.safetensors", False),
        ("[a].safetensors", "a.checkpoint.safetensors", False),
        ("[a].safetensors", "[a].checkpoint.safetensors", True),
        ("sweep", "sweep/ray/run/0/checkpoint.safetensors", True),
        ("sweep", "sweep/trials/0.checkpoint.safetensors", True),
        ("sweep", "sweep/leaderboard.json", False),
        ("nowhere/a.safetensors", "x", False),
    ],
)
def test_only_where_one_is_finished(tmp_path, capsys, output, file, said):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    say_kept_epochs(tmp_path / output, "again")
    assert capsys.readouterr() == ("", "finished epochs are kept: again\n" if said else "")
