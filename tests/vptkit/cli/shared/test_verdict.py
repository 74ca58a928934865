"""How a command ends."""

from __future__ import annotations

import shlex

import click
from click.testing import CliRunner

from vptkit.cli.shared.verdict import next_command, options_again, wrote


def test_a_next_command_survives_a_shell():
    line = next_command("run", "my flowers.vptk", "photos/", "--top-k", 3)
    assert line == "next: vptkit run 'my flowers.vptk' photos/ --top-k 3"
    assert shlex.split(line)[2:4] == ["run", "my flowers.vptk"]


def test_names_are_shown_and_not_obeyed():
    assert "\x1b" not in next_command("run", "\x1b[31mred")


def test_options_are_repeated_as_they_were_given():
    @click.command()
    @click.option("--precision", default="fp32")
    @click.option("-i", "--island", multiple=True)
    @click.option("--verify/--no-verify", default=True)
    @click.option("--force", is_flag=True)
    @click.option("--batch", type=int)
    @click.argument("file")
    @click.pass_context
    def command(context: click.Context, **_: object) -> None:
        click.echo(next_command(*options_again(context, {"batch"})))

    given = ["f", "-i", "a b", "--island", "c", "--no-verify", "--batch", "2", "--force"]
    told = CliRunner().invoke(command, given).output
    assert told == "next: vptkit --island 'a b' --island c --no-verify --force\n"


def test_files_and_folders_are_sized(tmp_path):
    (tmp_path / "x.vptk").mkdir()
    (tmp_path / "x.vptk" / "model.onnx").write_bytes(bytes(24_100_000))
    (tmp_path / "curves.png").write_bytes(b"p")
    made = wrote(tmp_path / "x.vptk", tmp_path / "curves.png")
    assert made == f"wrote {tmp_path / 'x.vptk'} (24.1 MB), {tmp_path / 'curves.png'}"
    assert wrote(tmp_path / "curves.png").endswith("(1 B)")
