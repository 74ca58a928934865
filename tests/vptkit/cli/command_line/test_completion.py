"""What a shell is told, driven as the shells do it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests.support.children import run_child
from tests.support.command_tree import COMMANDS, ROOT
from vptkit.cli.command_line.completion import VARIABLE, Candidate, answer, candidates
from vptkit.cli.command_line.shell_scripts import SHELLS
from vptkit.devices.boards.catalog import boards

MAIN = [sys.executable, "-c", "from vptkit.cli import main; main()"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with files of all kinds; it is the current one."""
    for name in ("good.vptk", "bank.vptk", "flowers", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("f.safetensors", "run.toml", "photo one.jpg", "flowers/w.safetensors"):
        (tmp_path / name).touch()
    adapters = [{"name": name} for name in ("birds", "flowers", "bad\nname", 3)]
    (tmp_path / "bank.vptk/manifest.json").write_text(json.dumps({"adapters": adapters}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(line):
    """What may follow a line; its last word is unfinished."""
    *before, incomplete = line.split(" ")
    return [candidate.value for candidate in candidates(ROOT, before, incomplete)]


def test_commands():
    assert words("") == [*(n for n in COMMANDS if n and " " not in n), "help", "version"]
    assert words("ex") == ["export"]
    assert words("bank ") == ["add", "replace", "remove", "list"]
    assert words("help ba") == ["backbones", "bank"]
    assert words("nonsense ") == []
    assert words("--vers") == ["--version"]


def test_options():
    assert "--weights" in words("tune --")
    assert words("tune --batc") == ["--batch"]  # not the older --batch-size
    assert words("tune --weights w.safetensors --weigh") == []  # once is enough
    assert words("export --island a --isla") == [
        "--island",
        "--islands",
    ]  # but this may be repeated
    assert words("export --no-is") == ["--no-islands"]
    assert words("run -- --") == []


def test_choices():
    assert words("tune --method l") == [
        *("ln", "lora", "ln+vpt", "ln+bpt", "ln+lora", "lora+vpt", "lora+bpt"),
        *("ln+lora+vpt", "ln+lora+bpt", "linear"),
    ]
    assert words("tune --method=lin") == ["--method=linear"]
    assert words("tune --force ") == words("tune ")  # it takes no value
    assert words("tune --epochs ") == []
    assert words("--show-completion ") == list(SHELLS)


def test_files(here):
    assert words("run ") == ["bank.vptk", "flowers/", "good.vptk"]
    assert words("run good.vptk ") == sorted(
        ["bank.vptk", "f.safetensors", "flowers/", "good.vptk", "photo one.jpg", "run.toml"]
    )
    assert words("export ") == ["bank.vptk", "f.safetensors", "flowers/", "good.vptk"]
    assert words("export flowers/") == ["flowers/w.safetensors"]
    assert words(f"tune {here}/flo") == [f"{here}/flowers/"]
    assert words("tune x --config ") == ["bank.vptk", "flowers/", "good.vptk", "run.toml"]
    assert words("run good.vptk .hid") == [".hidden/"]
    assert candidates(ROOT, ["run"], "good")[0] == Candidate("good.vptk", "", "path")


def test_names(here):
    assert words("run bank.vptk x --adapter ") == ["birds", "flowers"]
    assert words("bank remove bank.vptk b") == ["birds"]
    assert words("bank replace bank.vptk f.safetensors --name f") == ["flowers"]
    assert words("bank add bank.vptk f") == ["f.safetensors", "flowers/"]
    assert words("run good.vptk x --adapter ") == []  # no manifest there
    assert words("devices show ") == sorted(boards())
    assert words("build good.vptk --board l4") == ["l4", "l40s"]


def ask(shell, line, monkeypatch, capsys, mode="{}_complete", **variables):
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split("\n" if "\n" in line else " ")) - 1))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code = answer(ROOT, mode.format(shell))
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def test_what_each_shell_reads(monkeypatch, capsys, here):
    assert ask("bash", "vptkit exp", monkeypatch, capsys) == "plain,export\n"
    assert ask("bash", "vptkit exp", monkeypatch, capsys, "complete_{}") == "export\n"
    assert ask("bash", "vptkit run goo", monkeypatch, capsys) == "path,good.vptk\n"
    kind, value, text = ask("zsh", "vptkit exp", monkeypatch, capsys).splitlines()
    assert (kind, value, text[:7]) == ("plain", "export", "Compile")
    assert ask("fish", "vptkit exp", monkeypatch, capsys).startswith("export\tCompile")
    monkeypatch.delenv("COMP_WORDS")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "vptkit tune --method lin")
    assert answer(ROOT, "complete_zsh") == 0
    assert "linear" in capsys.readouterr().out


def test_words_as_bash_cuts_and_quotes_them(monkeypatch, capsys, here):
    assert ask("bash", "vptkit\ntune\n--method\n=\nlin", monkeypatch, capsys) == "plain,linear\n"
    assert (
        ask("bash", "vptkit\nrun\n--backend\n=", monkeypatch, capsys).splitlines()[0]
        == "plain,auto"
    )
    line = "vptkit\nrun\ngood.vptk\nphoto\\ o"
    assert ask("bash", line, monkeypatch, capsys) == "path,photo one.jpg\n"
    assert (
        ask("bash", "vptkit\nrun\ngood.vptk\n'photo o", monkeypatch, capsys)
        == "path,photo one.jpg\n"
    )
    assert ask("bash", "vptkit\nrun\n\nx", monkeypatch, capsys, COMP_CWORD="2").startswith("path,")


@pytest.mark.parametrize("mode", ["bash", "complete_tcsh", "x_y_z", "bash_sauce", "_"])
def test_what_is_no_question(mode, capsys):
    assert answer(ROOT, mode) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "place"),
    [("vptkit 'open", "x"), ("", ""), ("vptkit", "99"), ("vptkit a b", "-5"), ('vptkit "\\', "1")],
)
def test_strange_lines_are_no_error(monkeypatch, capsys, line, place):
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", place)
    for shell in SHELLS:
        assert answer(ROOT, f"{shell}_complete") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_program_answers_quickly_and_says_nothing_else(here):
    adapters = {"COMP_WORDS": "vptkit run bank.vptk x --adapter b", "COMP_CWORD": "5"}
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = run_child(MAIN, env={**os.environ, VARIABLE: "complete_bash", **adapters})
        times.append(time.perf_counter() - start)
        assert (done.stdout, done.stderr) == ("birds\n", "")
    assert min(times) < 3  # 0.2 s where nothing else runs; what it loads is tested below


@pytest.mark.slow
def test_a_question_loads_nothing_heavy(here):
    code = "import sys\nfrom vptkit.cli.entry import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "sys.stderr.write(' '.join(sys.modules))"
    variables = {
        VARIABLE: "complete_bash",
        "COMP_WORDS": "vptkit devices show l4",
        "COMP_CWORD": "3",
    }
    done = run_child([sys.executable, "-c", code], env={**os.environ, **variables})
    assert done.stdout == "l4\nl40s\n"
    assert not {"numpy", "torch", "onnx", "rich", "PIL"} & set(done.stderr.split())
    assert Path.cwd() == here
