"""What an interrupted training left behind, so that nobody is promised what is not there."""

import glob
from pathlib import Path

import typer

__all__ = ["say_kept_epochs"]

# Below the folder of NAME.safetensors: of a training, a fuller set, few shots, the candidates of auto
_OF_A_TRAINING = (
    "{}.checkpoint.safetensors",
    "{}.*.checkpoint.safetensors",
    "{}-*shot*.safetensors",
    ".{}.auto/*.safetensors",
)
# Below a sweep's folder
_OF_A_SWEEP = ("**/checkpoint.safetensors", "**/*.checkpoint.safetensors")


def say_kept_epochs(output: Path, how: str) -> None:
    """Say how to go on, if an epoch was finished; called on the way out of an interrupted training.

    Args:
        output: the adapter that was to be written, or the sweep's folder.
        how: as "the same command with --resume goes on".
    """
    if output.suffix == ".safetensors":
        name = glob.escape(output.stem)
        folder, patterns = output.parent, [pattern.format(name) for pattern in _OF_A_TRAINING]
    else:
        folder, patterns = output, list(_OF_A_SWEEP)
    if any(True for pattern in patterns for _ in folder.glob(pattern)):
        typer.echo(f"finished epochs are kept: {how}", err=True)
