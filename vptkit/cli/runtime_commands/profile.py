"""The command `profile`. `vptkit.cli` registers it.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.option_effect import Rule, given_options, require_effect
from vptkit.cli.shared.options import (
    AsJson,
    Backend,
    Decode,
    Force,
    Threads,
    TrustEngines,
    batch_sizes,
)
from vptkit.cli.shared.output import emit
from vptkit.errors import VptkitError
from vptkit.shown_text import shown, tell

from .layers_profile import LAYER_RULES, emit_layers
from .loadgen_run import LOADGEN_RULES, loadgen_run
from .parts_profile import PARTS_RULES, emit_parts

__all__ = ["profile"]

_RULES = (
    *LAYER_RULES,
    *LOADGEN_RULES,
    *PARTS_RULES,
    Rule(("python", "ssh_option"), "--on USER@HOST", lambda settings: settings["on"]),
)


def profile(
    context: typer.Context,
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="BUNDLE...", help="Side by side.", show_default=False),
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Add the bare backbone and the unfolded graph.")
    ] = False,
    backend: Backend = None,
    adapter: Annotated[str | None, typer.Option(help="Which adapter of a bank [all].")] = None,
    batch: Annotated[str | None, typer.Option(help="Batch sizes, as 1,8 [1].")] = None,
    seconds: Annotated[float, typer.Option(help="Time for each batch size.")] = 10.0,
    rounds: Annotated[int | None, typer.Option(help="Calls of each, instead of --seconds.")] = None,
    seed: Annotated[int, typer.Option(help="Of the images and the order.")] = 0,
    cuda_graph: Annotated[
        str | None, typer.Option(help="Of TensorRT: on, off or both, side by side [on].")
    ] = None,
    streams: Annotated[
        int, typer.Option(min=1, help="Also the throughput of N sessions at once.")
    ] = 1,
    energy: Annotated[
        float, typer.Option(metavar="SECONDS", help="Also energy, each alone for so long [off].")
    ] = 0.0,
    power: Annotated[
        str | None,
        typer.Option(help="On a Jetson, as root: all power modes, or some, as 15W,MAXN_SUPER."),
    ] = None,
    pin_clocks: Annotated[
        bool, typer.Option("--pin-clocks", help="On a Jetson, as root: jetson_clocks meanwhile.")
    ] = False,
    on: Annotated[
        str | None, typer.Option(metavar="USER@HOST", help="Measure there, over ssh.")
    ] = None,
    python: Annotated[str, typer.Option(help="Of --on: the Python there.")] = "python3",
    ssh_option: Annotated[
        list[str] | None, typer.Option(metavar="OPTION", help="Of --on: an -o of ssh's.")
    ] = None,
    clean: Annotated[
        bool,
        typer.Option("--clean", help="Of --on: only remove what was copied and built there."),
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Memory, each in a process of its own.")
    ] = True,
    loadgen: Annotated[
        str | None,
        typer.Option(
            metavar="SCENARIO",
            help="Also MLPerf's LoadGen: SingleStream, MultiStream, Server or Offline.",
        ),
    ] = None,
    loadgen_logs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of --loadgen: its files [loadgen-logs].")
    ] = None,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="Of --loadgen: its accuracy mode alone, on --data.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Of --parts: images. Of --loadgen: images [the golden ones, or noise]."),
    ] = None,
    latency_bound_ms: Annotated[
        float | None, typer.Option(help="Of --loadgen Server: for 99 % of the queries [15].")
    ] = None,
    queries: Annotated[int | None, typer.Option(help="Of --loadgen: at least so many.")] = None,
    min_duration: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Of --loadgen [10; with --queries 0]."),
    ] = None,
    target_qps: Annotated[
        float | None,
        typer.Option(help="Of --loadgen Server and Offline: images a second [measured before]."),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Instead: the time of each layer, by part of the model."),
    ] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Of --layers: write a trace for Perfetto to this .json.")
    ] = None,
    export_profile: Annotated[
        Path | None,
        typer.Option("--export-profile", "--exportProfile", help="Of --layers: trtexec's file."),
    ] = None,
    export_times: Annotated[
        Path | None,
        typer.Option("--export-times", "--exportTimes", help="Of --layers: trtexec's file."),
    ] = None,
    export_layer_info: Annotated[
        Path | None,
        typer.Option(
            "--export-layer-info", "--exportLayerInfo", help="Of --layers: trtexec's file."
        ),
    ] = None,
    parts: Annotated[
        bool,
        typer.Option(
            "--parts", help="Instead: from the files of --data to labels: read, decode, resize, …"
        ),
    ] = False,
    decode: Decode = None,
    plot: Annotated[Path | None, typer.Option(help="Draw to this .png, .svg or .pdf.")] = None,
    force: Force = False,
    threads: Threads = None,
    trust_engines: TrustEngines = False,
    as_json: AsJson = False,
) -> None:
    """Measure latency, memory, throughput and energy, interleaved, against baselines."""
    options = dict(locals())
    from vptkit.api.judging import baselines_of
    from vptkit.cli.texts.loadgen_text import loadgen_text
    from vptkit.cli.texts.profile_table import profile_table
    from vptkit.plot_text import require_plot
    from vptkit.progress import progress
    from vptkit.runtime.profile.power_mode_sweep import BoardAccess
    from vptkit.runtime.profile.profile_plot import plot_profile
    from vptkit.runtime.profile.run_profile import profile_bundles
    from vptkit.runtime.profile.settings import ProfileSettings

    if clean:
        _clean(on, bundles, python, ssh_option or [], as_json)
        return
    if not bundles:
        raise VptkitError("BUNDLE is missing: name one or more to profile")
    require_effect(given_options(context), options, _RULES)
    if layers or parts:
        (emit_layers if layers else emit_parts)(bundles, options)
        return
    asked = loadgen_run(options, batch_sizes(batch, "--batch"))
    if plot is not None:
        require_plot(plot, force=force)
    settings = ProfileSettings(
        backend=_backend(backend, on),
        threads=threads,
        adapter=adapter,
        cuda_graph=cuda_graph,
        batches=batch_sizes(batch, "--batch"),
        rounds=rounds,
        seconds=seconds,
        seed=seed,
        memory=memory,
        streams=streams,
        energy=energy,
        power=power,
        pin_clocks=pin_clocks,
        trust_engines=trust_engines,
    )
    if asked is not None and asked.settings.accuracy:
        found = asked.run(bundles[0], settings)
        emit({"loadgen": found}, as_json, text=loadgen_text(found))
        return
    with baselines_of(bundles if baseline else []) as named:
        if on is not None:
            from vptkit.runtime.remote.remote_profile import profile_on

            document = profile_on(
                on,
                bundles,
                settings,
                baselines=named,
                python=python,
                ssh_options=ssh_option or (),
                phases=progress,
            )
        else:
            board = BoardAccess(announce=tell)
            with progress("profile") as bar:
                document = profile_bundles(
                    bundles, settings, baselines=named, board=board, progress=bar
                )
    text = profile_table(document)
    if asked is not None:
        found = asked.run(bundles[0], settings)
        document["loadgen"] = found
        text = f"{text}\n\n{loadgen_text(found)}"
    if plot is not None:
        plot_profile(document, plot)
    emit(document, as_json, text=text)


def _backend(named: str | None, on: str | None) -> str:
    """Of all rows: the one that is named, else the default; this machine's is not another's."""
    from vptkit.runtime.backends.selection import default_backend

    return named or (default_backend() if on is None else "auto")


def _clean(
    host: str | None, bundles: list[Path] | None, python: str, options: list[str], as_json: bool
) -> None:
    from vptkit.runtime.remote.remote_profile import clean_board

    if host is None or bundles:
        raise VptkitError(
            "--clean removes what was copied to another machine and measures nothing: "
            "vptkit profile --on USER@HOST --clean"
        )
    freed = clean_board(host, python=python, ssh_options=options)
    emit({"host": host, "freed": freed}, as_json, text=f"{shown(host)}: {freed} bytes removed")
