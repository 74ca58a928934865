"""`vptkit tune`: images and a frozen backbone become an adapter.

No future import of annotations here: typer reads them at run time.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.shared.kept_epochs import say_kept_epochs
from vptkit.cli.shared.options import (
    AllowOutside,
    AsJson,
    Bool,
    Columns,
    Float,
    Force,
    Int,
    Text,
    Threads,
    Verbose,
    Weights,
    option,
)
from vptkit.cli.shared.output import emit, require_tune
from vptkit.errors import VptkitError
from vptkit.shown_text import tell
from vptkit.strict_json import read_toml

__all__ = ["tune"]


# Arguments of `tune` that say how to run, not what to learn
_NOT_SETTINGS = frozenset(
    [
        "data",
        "output",
        "config",
        "image_size",
        "positions",
        "threads",
        "resume",
        "force",
        "as_json",
        "verbose",
    ]
)


def tune(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="train/ [val/ test/ ood/], each with one folder per class; one folder per class,"
            " which is split; a CSV of path,label[,split] or as others write it, COCO; Parquet files or a saved data set of"
            " Hugging Face; WebDataset shards. With --task multilabel several labels a cell, a column a label,"
            " or a JSON of {file: [labels]}.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="NAME.safetensors [called after DATA, in this folder]"),
    ] = None,
    backbone: Annotated[Text, option("timm model name [that of a folder of weights].")] = None,
    weights: Weights = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings (names as here, with _).")
    ] = None,
    image_size: Annotated[Int, option("Input size in pixels [the model's].")] = None,
    positions: Annotated[
        Text,
        option(
            "Whose way of resizing positions: timm, hf (transformers), hub (DINOv2's) [the weights']."
        ),
    ] = None,
    method: Annotated[
        Text, option("auto, linear, or ln, lora and one of vpt and bpt, joined by + [auto].")
    ] = None,
    task: Annotated[
        Text, option("An image has a single label, or any number: multilabel [single].")
    ] = None,
    budget: Annotated[
        Text, option("Of auto: the most it may take, as 10m or '60 epochs' [no bound].")
    ] = None,
    insert: Annotated[Text, option("deep or shallow [deep].")] = None,
    form: Annotated[Text, option("Of bpt: bilinear, fwhiten, twhiten [bilinear].")] = None,
    prompts: Annotated[Int, option("Prompts at each block, m [20].")] = None,
    rank: Annotated[Int, option("Rank of the bilinear form, p [20].")] = None,
    b_init: Annotated[Text, option("Bilinear: B starts whiten or random [whiten].")] = None,
    tune_b_last: Annotated[Int, option("Deep bilinear: learn B in the last blocks [4].")] = None,
    lora_rank: Annotated[Int, option("Of each change of a linear, r [8].")] = None,
    lora_alpha: Annotated[
        Float, option("Its scale is alpha / r, so a rate holds for any rank [8].")
    ] = None,
    lora_targets: Annotated[
        Text, option("Linears: q, k, v, proj, fc1, fc2, with commas; qkv, all [q,v].")
    ] = None,
    whiten_images: Annotated[Int, option("Training images for whitening [100].")] = None,
    whiten_floor: Annotated[Float, option("Relative floor of eigenvalues [1e-6].")] = None,
    tap: Annotated[Text, option("Whiten the tokens pre_ln1 or post_ln1 [pre_ln1].")] = None,
    compat: Annotated[Text, option("Whitening of the paper or as released [paper].")] = None,
    pool: Annotated[Text, option("token, avg, token+avg, avg_prompts, map [the model's].")] = None,
    norm: Annotated[Text, option("before_pool or after_pool [the model's].")] = None,
    merge: Annotated[
        Text, option("Tokens each block but the last merges, or of each: 0,0,8,8,… [0].")
    ] = None,
    merge_attention: Annotated[
        Text, option("Merged tokens count by their patches, proportional, or plain [proportional].")
    ] = None,
    epochs: Annotated[Int, option("Unless --cycles counts its own [20].")] = None,
    batch_size: Annotated[
        Int, option("Images a step [32; a sixth of fewer than 192].", "--batch", "--batch-size")
    ] = None,
    warmup: Annotated[Float, option("Share of all steps [0.1].")] = None,
    lr: Annotated[
        Float, option("Rate of the prompts [5e-3; whitened 2e-3, fwhiten and twhiten 1e-3].")
    ] = None,
    wd: Annotated[Float, option("Weight decay of prompts and low-rank factors [1e-3].")] = None,
    head_init: Annotated[
        Text,
        option("The head begins as the linear probe, or knowing nothing: probe, zero [probe]."),
    ] = None,
    lr_head: Annotated[Float, option("Rate of the head [1e-4; from zero: 5e-3].")] = None,
    wd_head: Annotated[Float, option("Weight decay of the head [0; from zero: 0.1].")] = None,
    select: Annotated[
        Text,
        option(
            "What is taken: the average of the best epochs by val loss, soup; the best by loss or by "
            "top1; the last [soup]."
        ),
    ] = None,
    lr_ln: Annotated[Float, option("Rate of LayerNorms [1e-2; from zero: 1e-3].")] = None,
    lr_lora: Annotated[Float, option("Rate of the low-rank factors [5e-3].")] = None,
    cycles: Annotated[
        Int, option("LayerNorms: head and norms in turns, so often; 0: at once [0].")
    ] = None,
    head_epochs: Annotated[Int, option("Of each cycle's head phase [10].")] = None,
    ln_epochs: Annotated[Int, option("Of each cycle's LayerNorm phase [10].")] = None,
    rescale: Annotated[
        Text,
        option(
            "What is moved between start and end, as val chooses: the shift of gamma, of beta, of "
            "both; all that is learned: all; none [none]."
        ),
    ] = None,
    refit_epochs: Annotated[Int, option("Of the head, after --rescale has chosen [0].")] = None,
    full_data: Annotated[
        Path | None, option("A fuller set of the same classes: reports a proxy of FSR.")
    ] = None,
    dropout: Annotated[Float, option("On prompts [0.1 for vpt deep, else 0].")] = None,
    clip: Annotated[Float, option("Bound of the gradient's norm, 0 for none [1].")] = None,
    patience: Annotated[
        Int, option("Stop after so many epochs without a better one on val [never].")
    ] = None,
    class_weights: Annotated[
        Text, option("none, or balanced: rare classes count more in the loss [none].")
    ] = None,
    precision: Annotated[
        Text, option("Of the backbone: fp32, bf16, fp16; what is learned stays fp32 [fp32].")
    ] = None,
    device: Annotated[Text, option("auto, cpu, cuda or cuda:N [auto: a GPU if any].")] = None,
    compile: Annotated[Bool, typer.Option("--compile", help="torch.compile the forward.")] = None,
    accumulate: Annotated[
        Int, option("Compute each batch in so many parts, for memory [1].")
    ] = None,
    recompute: Annotated[
        Bool,
        typer.Option("--recompute", help="Activations once more in the backward, for memory."),
    ] = None,
    augment: Annotated[Text, option("none, flip or crop [flip].")] = None,
    crop_scale: Annotated[Float, option("Smallest area that crop keeps [0.5].")] = None,
    val_share: Annotated[
        Float, option("Share of each class, if DATA has no val; 0: cross-validation [0.15].")
    ] = None,
    test_share: Annotated[
        Float, option("Likewise; neither is drawn with fewer than 5 images a class [0.15].")
    ] = None,
    shots: Annotated[
        Text, option("Training images kept of each class; 1,2,5 is a training for each [all].")
    ] = None,
    calibrate: Annotated[
        Text, option("temperature: probabilities fitted on val; or none [temperature].")
    ] = None,
    golden: Annotated[Int, option("Images with reference answers in the adapter [8].")] = None,
    seed: Annotated[Int, option("Of everything random [0].")] = None,
    name: Annotated[Text, option("Of the adapter [the file's].")] = None,
    pictures: Annotated[
        Text,
        option("Of the training: a page, NAME.html; a file each, png, svg, pdf; none [page]."),
    ] = None,
    tensorboard: Annotated[
        Path | None, option("Folder for TensorBoard's logs of this run [none].")
    ] = None,
    allow_chance: Annotated[
        Bool,
        typer.Option("--allow-chance", help="Write the adapter even if nothing was learned."),
    ] = None,
    allow_outside: AllowOutside = False,
    columns: Columns = None,
    skip_broken: Annotated[
        Bool, typer.Option("--skip-broken", help="Go on without images that cannot be read.")
    ] = None,
    strict: Annotated[
        Bool,
        typer.Option("--strict", help="An image that two splits share is an error, no warning."),
    ] = None,
    threads: Threads = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a killed run stopped.")
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Learn prompts, LayerNorms, low-rank factors and a head on a frozen backbone; write an adapter."""
    given = {k: v for k, v in locals().items() if v is not None and k not in _NOT_SETTINGS}
    require_tune("tune")
    import torch

    from vptkit.progress import progress
    from vptkit.shown_text import terminal_width
    from vptkit.text_table import fields
    from vptkit.tune import config_from_mapping
    from vptkit.tune import tune as run_tune
    from vptkit.tune.auto.auto_run import tried_table
    from vptkit.tune.run.few_shot_series import shots_of, tune_shots
    from vptkit.tune.training.distributed import leads

    from .tune_verdict import numbers, shots_verdict, tune_verdict

    output = output or _default_output(data)
    settings = {**(_settings(config) if config else {}), **given}
    counts = shots_of(settings.pop("shots", None))
    if len(counts) == 1:
        settings["shots"] = counts[0]
    asked = {"img_size": image_size, "positions": positions}
    arguments = settings.get("backbone_args", {})
    if isinstance(arguments, dict) and any(asked.values()):  # else the configuration refuses it
        asked = {name: value for name, value in asked.items() if value is not None}
        settings["backbone_args"] = {**arguments, **asked}
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = config_from_mapping(settings)
    try:
        if len(counts) > 1:
            made = tune_shots(
                data, output, chosen, counts, tune=run_tune, resume=resume, force=force
            )
            if leads():
                _warn(warning for run in made.runs for warning in run["warnings"])
                emit(made.to_json(), as_json, text=shots_verdict(made, chosen))
            return
        with progress("tune") as bar:
            result = run_tune(
                data,
                output,
                chosen,
                resume=resume,
                force=force,
                progress=bar,
            )
    except KeyboardInterrupt:
        say_kept_epochs(output, "the same command with --resume goes on")
        raise
    if leads():  # of torchrun's processes one speaks
        _warn(result.warnings)
        table = "" if result.auto is None else tried_table(result.auto, terminal_width()) + "\n\n"
        text = table + tune_verdict(result, chosen)
        if verbose:
            method = chosen.method if result.auto is None else result.auto["kept"]
            prompted = "pt" in method
            text += "\n\n" + fields(numbers(result.to_text(), prompted=prompted))
        emit(result.to_json(), as_json, text=text)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        tell(f"warning: {warning}")


def _default_output(data: Path) -> Path:
    """NAME.safetensors in the current folder, called after the data set's folder or file."""
    place = (
        data if data.name not in ("", "..") else data.resolve()
    )  # a link's own name is the user's
    name = place.stem if place.is_file() else place.name
    if not name:
        raise VptkitError(
            f"{data}: has no name to call the adapter after: pass -o NAME.safetensors"
        )
    return Path(f"{name}.safetensors")


def _settings(config: Path) -> dict[str, Any]:
    """A file of settings; it may come from a stranger, who is not to say what may be read.

    Relative paths in it hold from its own folder.
    """
    from vptkit.tune.config import with_paths_beside

    settings = read_toml(config)
    if "allow_outside" in settings:
        raise VptkitError(
            f"{config}: allow_outside is not for a file to say: pass --allow-outside yourself"
        )
    if "tensorboard" in settings:
        raise VptkitError(
            f"{config}: tensorboard is not for a file to say: pass --tensorboard yourself"
        )
    if "batch" in settings:  # as the option is called; the configuration has always said batch_size
        settings.setdefault("batch_size", settings.pop("batch"))
    return with_paths_beside(settings, config.parent)
