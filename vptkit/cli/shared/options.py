"""Options and arguments that several commands take, under one name and one help text.

An option has one spelling in all commands. Where it is declared with several long ones, as
`typer.Option("--batch", "--batch-size")`, the first is it; the others are older, or what other tools
call it: they work, and no help page shows them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.command_line.choices import choices_of
from vptkit.errors import VptkitError
from vptkit.strict_json import read_toml

__all__ = [
    "AllowOutside",
    "AsJson",
    "Backend",
    "Bool",
    "BundleArgument",
    "Columns",
    "Decode",
    "Float",
    "Force",
    "Int",
    "OneAdapter",
    "Settings",
    "SkipBroken",
    "Text",
    "Threads",
    "TrustEngines",
    "Verbose",
    "Weights",
    "backbone_args",
    "batch_sizes",
    "option",
    "require_choice",
    "require_choices",
]

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder NAME.vptk.")]
OneAdapter = Annotated[str | None, typer.Option(help="Which adapter of a bank [all].")]
Backend = Annotated[
    str | None,
    typer.Option(
        help="What runs the graph: cpu, cuda or ort-tensorrt (ONNX Runtime), tensorrt, tensorrt-rtx "
        "(an engine of vptkit build), or auto: what this machine has [$VPTKIT_BACKEND, else auto]."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
AllowOutside = Annotated[
    bool,
    typer.Option(
        "--allow-outside", help="Take images that lie outside of the data set, by a path or a link."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="ROLE=NAME",
        help="Of a table: image=NAME,label=NAME,split=NAME [known by their names].",
    ),
]
Decode = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="exact, or fast: large JPEGs are decoded at 1/2, 1/4 or 1/8 of their size [exact].",
    ),
]
SkipBroken = Annotated[
    bool,
    typer.Option("--skip-broken", help="Go on without images that cannot be read."),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="The backbone's weights: a file or a folder, of timm, Hugging Face or others [timm's, from its hub]."
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads [all usable cores].")]
TrustEngines = Annotated[
    bool,
    typer.Option(
        "--trust-engines",
        help="Load TensorRT engines too that you did not build on this machine: they are programs.",
    ),
]
Settings = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file of vptkit tune: its backbone_args are taken."),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print every number.")]
Text = str | None
Int = int | None
Float = float | None
Bool = bool | None


def option(text: str, *spellings: str) -> Any:
    """An option that is left alone unless given: the default stands in the configuration."""
    return typer.Option(*spellings, help=text, show_default=False)


def require_choice(flag: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that the option does not know."""
    if value not in known:
        raise VptkitError(f"{flag} {value!r}: expected {' or '.join(known)}")


def require_choices(command: str, settings: Mapping[str, Any]) -> None:
    """Refuse the first of a command's values that its table of choices does not have.

    Args:
        command: as "export".
        settings: its parameters by name; None where one is not given.

    Raises:
        VptkitError: a value is none of the option's.
    """
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        known = choices_of(command, [flag])
        if known and value is not None:
            require_choice(flag, value, known)


def batch_sizes(text: str | None, flag: str) -> tuple[int, ...] | None:
    """Numbers with commas between them; None where none are given."""
    try:
        sizes = None if text is None else tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = (0,)
    if sizes is not None and min(sizes) < 1:
        raise typer.BadParameter(f"{text!r}: expected numbers, as 1,8", param_hint=flag)
    return sizes


def backbone_args(config: Path | None, image_size: int | None) -> dict[str, Any]:
    """Arguments of the backbone: those of a file for `vptkit tune`, and the input size."""
    arguments = read_toml(config).get("backbone_args", {}) if config else {}
    if not isinstance(arguments, dict):
        raise VptkitError(f"{config}: backbone_args is {arguments!r}, expected a table")
    return arguments if image_size is None else {**arguments, "img_size": image_size}
