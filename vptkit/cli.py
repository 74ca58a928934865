"""The command line: every command parses, calls the library, prints.

Results go to standard output, `--json` makes them one document; everything else goes to standard
error. Heavy imports stand inside the commands, so that `--help` is instant. No future import of
annotations here: typer reads them at run time.
"""

import contextlib
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from vptkit import (
    __version__,
    cli_analyze,
    cli_bank,
    cli_build,
    cli_devices,
    cli_doctor,
    cli_import,
    cli_make,
    cli_precision,
    cli_profile,
    cli_sweep,
)
from vptkit.cli_make import AsJson, Force, Threads, emit, needs_extra
from vptkit.errors import DataError, VptkitError

__all__ = ["app", "main"]

app = typer.Typer(
    name="vptkit",
    help="Deploy Vision Transformers that were adapted by prompts or LayerNorm tuning.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder NAME.vptk.")]
OneAdapter = Annotated[str | None, typer.Option(help="Which adapter of a bank [all].")]
Backend = Annotated[
    str,
    typer.Option(
        help="What runs the graph: cpu, cuda or ort-tensorrt (ONNX Runtime), tensorrt, "
        "tensorrt-rtx (an engine of vptkit build), or auto."
    ),
]


def main() -> None:
    """Run the command line; the only place where errors become exit codes."""
    signal.signal(signal.SIGTERM, _interrupt)
    # What Pillow warns of is either harmless or becomes an error that names the file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        app()
    except VptkitError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as error:
        if error.code == 130:
            print("interrupted", file=sys.stderr)
        raise


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None: ...


for _command in (cli_make.tune, cli_make.export, cli_build.build, cli_precision.bisect):
    app.command()(_command)


@app.command()
def check(
    bundle: BundleArgument,
    backend: Backend = "cpu",
    reference: Annotated[
        bool, typer.Option("--reference", help="Compare with the torch reference instead.")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(help="The backbone's weights, for --reference [timm's].")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest difference over largest logit [by precision].")
    ] = None,
    adapter: OneAdapter = None,
    oracle: Annotated[
        str | None,
        typer.Option(help="Ask what TensorRT makes of the graph instead: trt-rtx or rules."),
    ] = None,
    sm: Annotated[
        str | None, typer.Option(help="Of --oracle trt-rtx: GPU kinds [86,89,120].")
    ] = None,
    trt: Annotated[
        str | None, typer.Option(help="Of --oracle rules: versions, as 8.6,10.3 [all].")
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="With --oracle trt-rtx: every layer.")
    ] = False,
    overflow: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="Largest magnitudes on real images, and fp16's headroom."
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Compare a bundle's answers with its golden ones, and its files with their digests."""
    if overflow is not None:
        cli_precision.overflow(bundle, overflow, threads, as_json)
        return
    if oracle is not None:
        from vptkit.cli_check import consult

        consult(bundle, oracle, sm=sm, trt=trt, layers=layers, as_json=as_json)
        return
    from vptkit.runtime.check import check_golden, check_logits, require_parity

    if weights is not None and not reference:
        raise typer.BadParameter("goes with --reference only", param_hint="--weights")
    session, imitated = cli_precision.open_or_simulate(bundle, backend, threads)
    _announce(session, backend)
    if reference:
        images, logits = _reference_answers(session.bundle, weights)
        parity = check_logits(session, images, logits, tolerance=tolerance)
    else:
        parity = check_golden(session, adapter=adapter, tolerance=tolerance)
    answered = {"bundle": str(bundle), "backend": session.backend, "simulated": imitated}
    emit({**answered, **parity.to_json()}, as_json)
    require_parity(session, parity)


@app.command("eval")
def eval_(
    bundle: BundleArgument,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="One folder per class, or train/ test/; a CSV of path,label[,split]; WebDataset.",
        ),
    ],
    split: Annotated[str | None, typer.Option(help="Which split of DATA [test].")] = None,
    adapter: Annotated[str | None, typer.Option(help="Which adapter of a bank.")] = None,
    backend: Backend = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images for each run.")] = 8,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Measure top-1 and top-5 on a folder of classes."""
    from vptkit.progress import progress
    from vptkit.runtime.evaluate import evaluate
    from vptkit.runtime.session import open_session

    session = open_session(bundle, backend, threads)
    _announce(session, backend)
    with progress("eval") as bar:
        result = evaluate(session, data, adapter=adapter, split=split, batch=batch, progress=bar)
    emit({"bundle": str(bundle), "backend": session.backend, **result.to_json()}, as_json)


@app.command()
def run(
    bundle: BundleArgument,
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Images, folders, globs.")
    ],
    adapter: Annotated[str | None, typer.Option(help="Which adapter of the bundle.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Labels for each image.")] = 5,
    save: Annotated[Path | None, typer.Option(help="Write to this .jsonl or .csv file.")] = None,
    force: Force = False,
    backend: Backend = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images for each run.")] = 8,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Classify images; a broken one is reported and the others go on."""
    from vptkit.runtime.predict import predict
    from vptkit.runtime.save import deliver, jsonl_writer, saving, text_writer
    from vptkit.runtime.session import open_session

    session = open_session(bundle, backend, threads)
    _announce(session, backend)
    with contextlib.ExitStack() as stack:
        writers = []
        if save is not None:
            writers.append(stack.enter_context(saving(save, top_k=top_k, force=force)))
        if as_json or save is None:
            writers.append(jsonl_writer(sys.stdout) if as_json else text_writer(sys.stdout))
        predictions = predict(session, sources, adapter=adapter, top_k=top_k, batch=batch)
        broken, count = deliver(predictions, writers)
    if broken:
        raise DataError(f"{len(broken)} of {count} images failed; the first: {broken[0].error}")


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An adapter file or a bundle.")],
    as_json: AsJson = False,
) -> None:
    """Say what an adapter file or a bundle is."""
    from vptkit.summary import summarize

    emit(summarize(path), as_json)


app.command()(cli_profile.profile)
app.command()(cli_doctor.doctor)
app.command()(cli_make.demo)
app.command()(cli_sweep.sweep)
app.command()(cli_analyze.analyze)
app.command("import")(cli_import.import_)
app.add_typer(cli_devices.devices, name="devices")
app.add_typer(cli_bank.bank, name="bank")


def _announce(session: Any, asked: str) -> None:
    """Say which backend `auto` took, and why."""
    if asked == "auto":
        typer.echo(f"backend {session.backend}: {session.choice}", err=True)


def _reference_answers(bundle: Any, weights: Path | None) -> tuple[Any, Any]:
    """The golden images (without them: eight of noise) and the reference's logits for them."""
    from vptkit.bundle import ADAPTER
    from vptkit.runtime.timing import random_images

    if bundle.layout == "bank":
        raise VptkitError(
            f"{bundle.path}: a bank holds its adapters' rows, not the adapters that --reference "
            "needs. Without --reference its golden answers are checked."
        )

    with needs_extra("tune", "--reference"):
        from vptkit.tune.reference import reference_logits
    golden = bundle.golden()
    images = random_images(8, bundle.preprocess.size) if golden is None else golden[0]
    return images, reference_logits(bundle.path / ADAPTER, weights, images)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds like Ctrl-C, so that temporary files go."""
    raise KeyboardInterrupt
