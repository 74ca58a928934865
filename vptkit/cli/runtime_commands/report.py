"""`vptkit report`: one HTML page about bundles, to be sent to somebody.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.options import (
    AllowOutside,
    AsJson,
    Backend,
    Columns,
    Decode,
    Force,
    SkipBroken,
    Threads,
    TrustEngines,
    batch_sizes,
)
from vptkit.cli.shared.output import emit
from vptkit.cli.shared.verdict import wrote

__all__ = ["report"]


def report(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE...", help="Side by side.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path(
        "report.html"
    ),
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled images to judge by, as of vptkit eval [judge nothing]."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split of --data [test].")] = None,
    mistakes: Annotated[
        int, typer.Option(min=0, max=100, help="How many mistakes are shown.")
    ] = 12,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Measure latency now, beside the bare backbone."),
    ] = False,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Measure the time of each layer now, by part of the model."),
    ] = False,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, help="Of --profile: time for each batch size; of --layers: in all."),
    ] = 10.0,
    batches: Annotated[
        str | None, typer.Option(metavar="SIZES", help="Of --profile: as 1,8 [1].")
    ] = None,
    energy: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="Of --profile: also energy, each alone for so long [off].",
        ),
    ] = 0.0,
    profiles: Annotated[
        list[Path] | None,
        typer.Option(
            "--profiles",
            metavar="FILE",
            help="What vptkit profile --json printed, also with --layers; again for more.",
        ),
    ] = None,
    boards: Annotated[
        str | None,
        typer.Option(metavar="KEYS", help="Predict for these, as orin-nano-8gb,l4 [all]."),
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="Which adapter of a bank.")] = None,
    backend: Backend = None,
    batch: Annotated[int, typer.Option(min=1, help="Images for each run.")] = 8,
    columns: Columns = None,
    skip_broken: SkipBroken = False,
    decode: Decode = None,
    allow_outside: AllowOutside = False,
    threads: Threads = None,
    trust_engines: TrustEngines = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page: what bundles are, how good, how fast, and on which boards."""
    from vptkit.progress import progress
    from vptkit.report.make_report import report as write_report
    from vptkit.report.report_settings import ReportSettings

    for name, given in (("--batches", batches is not None), ("--energy", bool(energy))):
        if given and not profile:
            raise typer.BadParameter("goes with --profile only", param_hint=name)
    settings = ReportSettings(
        data=data,
        split=split,
        adapter=adapter,
        columns=columns,
        skip_broken=skip_broken,
        decode=decode,
        allow_outside=allow_outside,
        batch=batch,
        mistakes=mistakes,
        backend=backend,
        threads=threads,
        trust_engines=trust_engines,
        measure=seconds if profile else 0.0,
        layers=seconds if layers else 0.0,
        energy=energy,
        batches=batch_sizes(batches, "--batches"),
        profiles=tuple(profiles or ()),
        boards=tuple(filter(None, (boards or "").split(","))),
    )
    document = write_report(bundles, output, settings, force=force, phase=progress)
    emit({"report": str(output), **document}, as_json, text=wrote(output))
