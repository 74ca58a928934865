"""The command `sweep`. `vptkit.cli` registers it.

No future import of annotations here: typer reads them at run time.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.shared.kept_epochs import say_kept_epochs
from vptkit.cli.shared.options import AllowOutside, AsJson
from vptkit.cli.shared.output import emit, needs_extra, require_tune
from vptkit.cli.shared.verdict import next_command, wrote
from vptkit.errors import VptkitError
from vptkit.shown_text import tell
from vptkit.strict_json import read_toml

__all__ = ["sweep"]


def sweep(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            help="TOML: data, [tune] fixed settings, [space] lists and ranges, [search] kind, "
            "samples, seed, pruning (grace, reduction), cpus, gpus, parallel, retries.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Folder; the same command again goes on with it."),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Images, as of vptkit tune [data of CONFIG].")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster, or auto [start Ray here].")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Where checkpoints go, every node must reach it [OUTPUT/ray]."),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="Of this machine, without a cluster [all].")
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Folder of TensorBoard's logs, a folder a trial; every node must reach it."
        ),
    ] = None,
    allow_outside: AllowOutside = False,
    force: Annotated[
        bool, typer.Option("--force", help="Forget the sweep that the folder holds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Try many settings, on this machine or a Ray cluster; keep the best on val."""
    require_tune("sweep")
    with needs_extra("sweep", "sweep"):
        import ray
        import ray.tune  # noqa: F401  # its own dependencies are part of the extra
    from vptkit.progress import progress
    from vptkit.tune.sweep.ray_runner import RayRunner
    from vptkit.tune.sweep.run_sweep import leaderboard_table, sweep_from_mapping
    from vptkit.tune.sweep.run_sweep import sweep as run_sweep

    if cpus is not None and ray_address is not None:
        raise VptkitError("--cpus is of this machine; with --ray-address the cluster has its own")
    document = read_toml(config)
    try:
        plan = sweep_from_mapping(
            document,
            data=data,
            allow_outside=allow_outside,
            folder=config.parent,
            tensorboard=tensorboard,
        )
    except VptkitError as error:
        raise type(error)(f"{config}: {error}") from error
    runner = RayRunner(
        address=ray_address,
        storage=storage,
        cpus=cpus or (None if ray_address else len(os.sched_getaffinity(0))),
    )
    try:
        with progress("sweep") as bar:
            result = run_sweep(plan, output, runner, force=force, progress=bar)
    except KeyboardInterrupt:
        say_kept_epochs(output, "the same command goes on")
        raise
    emit(result, as_json, text="\n".join([leaderboard_table(result), *_next(result, plan.config)]))


def _next(result: dict[str, Any], config_of: Callable[[int], Any]) -> list[str]:
    """What was made of the best trial, and what one does with it."""
    best = result["best"]
    if best is None:
        return []
    for warning in best.get("warnings", ()):
        tell(f"warning: {warning}")
    adapter, weights = Path(best["adapter"]), config_of(best["trial"]).weights
    given = [] if weights is None else ["--weights", weights]
    return [wrote(adapter), next_command("export", adapter, *given, "-o", f"{adapter.stem}.vptk")]
