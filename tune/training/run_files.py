"""The files of a run: their names, all from the adapter's, and the refusal to lose what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vptkit.atomic_files import require_absent
from vptkit.errors import OutputError
from vptkit.part_files import remove_dead_parts

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PICTURES", "SUFFIXES", "RunFiles", "require_free", "run_files"]

# Pictures that a run may leave as files, NAME.PICTURE.SUFFIX; the last one is of older versions
PICTURES = (
    *("loss", "score", "probe", "candidates", "parts", "lambda", "line", "line-score", "id-ood"),
    *("shift", "burstiness", "rank", "curves"),
)
SUFFIXES = ("png", "svg", "pdf")


class RunFiles(NamedTuple):
    """Files of a run: the adapter, and what lies beside it."""

    adapter: Path
    checkpoint: Path
    metrics: Path
    page: Path

    def beside(self, ending: str) -> Path:
        """NAME.ending, in the adapter's folder."""
        return self.adapter.with_name(f"{self.adapter.stem}.{ending}")

    def pictures(self) -> list[Path]:
        """Every picture that a run of this name may have left, there or not."""
        return [self.beside(f"{name}.{suffix}") for name in PICTURES for suffix in SUFFIXES]

    def remove_dead_parts(self) -> None:
        """Remove what killed runs of this name left unfinished, also of files that this one lacks."""
        files = (self.adapter, self.checkpoint, self.metrics, self.page, *self.pictures())
        remove_dead_parts(self.adapter.parent, [path.name for path in files])


def run_files(output: Path) -> RunFiles:
    """The files of the run that writes the adapter `output`, NAME.safetensors.

    Raises:
        OutputError: the name ends otherwise.
    """
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: an adapter's file name ends in .safetensors")
    stem = output.with_suffix("")
    return RunFiles(
        output,
        stem.with_name(f"{stem.name}.checkpoint.safetensors"),
        stem.with_name(f"{stem.name}.metrics.jsonl"),
        stem.with_name(f"{stem.name}.html"),
    )


def require_free(files: RunFiles, *, resume: bool, force: bool) -> None:
    """Refuse to lose what is there already.

    Args:
        files: of the run that shall begin.
        resume: a checkpoint may be there: the run goes on from it.
        force: adapter and checkpoint may be there: the run replaces them.

    Raises:
        OutputError: an adapter or a checkpoint is there, or the folder is not.
    """
    require_absent(files.adapter, force=force)
    if files.adapter.is_dir():
        raise OutputError(f"{files.adapter}: a folder. Remove it, or choose another name.")
    if files.checkpoint.exists() and not resume and not force:
        raise OutputError(
            f"{files.checkpoint}: a training of this name was interrupted. Pass --resume to finish "
            "it, or --force to start anew."
        )
