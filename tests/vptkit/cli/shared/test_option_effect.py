"""An option that was given and does nothing is refused, with what it goes with."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from vptkit.cli.shared.option_effect import Rule, given_words, require_effect
from vptkit.errors import VptkitError

RULES = (Rule(("fps", "on_change"), "a video", lambda settings: settings["streams"]),)


def test_only_what_was_given_and_does_nothing_is_refused():
    require_effect({"fps"}, {"fps": 5, "streams": True}, RULES)
    require_effect(set(), {"fps": None, "streams": False}, RULES)
    with pytest.raises(VptkitError, match="--on-change has no effect here: it goes with a video"):
        require_effect({"on_change"}, {"on_change": True, "streams": False}, RULES)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([], []),
        (["--rate", "2"], ["--rate", "2"]),
        (["-t", "b c", "--tag", "$d"], ["--tag", "b c", "--tag", "$d"]),
        (["--no-verify", "--rate", "3"], ["--rate", "3", "--no-verify"]),
        (["--verify"], ["--verify"]),
        (["--output", "x"], []),
    ],
)
def test_the_options_of_a_line_as_words(line, words):
    app, seen = typer.Typer(), []

    @app.command()
    def command(
        context: typer.Context,
        name: str,
        rate: int = 1,
        tag: list[str] = typer.Option([], "-t", "--tag"),  # noqa: B008 -- typer's own
        verify: bool = True,
        output: str = "",
    ) -> None:
        seen.append(given_words(context, without=("output",)))

    result = CliRunner().invoke(app, ["a", *line])
    assert result.exit_code == 0, result.output
    assert seen == [words]
