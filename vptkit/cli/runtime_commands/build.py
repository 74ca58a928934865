"""`vptkit build`. No future import of annotations here: typer reads them at run time."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.shared.options import AsJson, TrustEngines
from vptkit.cli.shared.output import emit
from vptkit.cli.shared.verdict import next_command
from vptkit.errors import MissingError, TargetError, VptkitError
from vptkit.shown_text import shown, tell

__all__ = ["build"]


def build(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder NAME.vptk.")],
    backend: Annotated[str, typer.Option(help="tensorrt or tensorrt-rtx.")] = "tensorrt",
    device: Annotated[
        str,
        typer.Option(
            "--board", "--device", help="Which one, see vptkit devices list; auto is this machine."
        ),
    ] = "auto",
    sm: Annotated[
        int | None, typer.Option(help="With tensorrt-rtx: a kind of GPU, as 86, ahead of time.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Smallest, likely, largest batch, or one [1,8,32].")
    ] = None,
    bank_max: Annotated[
        int | None,
        typer.Option(min=1, help="Most adapters of a bank [64, or enough for twice as many]."),
    ] = None,
    workspace: Annotated[int, typer.Option(min=1, help="Scratch memory of kernels, MiB.")] = 512,
    opt_level: Annotated[
        int | None, typer.Option(help="How hard to search, 0 to 5 [3].", show_default=False)
    ] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help="fp32 products with fewer bits.")] = False,
    expect: Annotated[
        str | None, typer.Option(help="Fail unless it computes in fp16, int8, ...")
    ] = None,
    forecast: Annotated[
        bool, typer.Option("--forecast", help="Only say how much memory it will take.")
    ] = False,
    timing_cache: Annotated[
        bool, typer.Option("--timing-cache/--no-timing-cache", help="Keep kernel times.")
    ] = True,
    clean: Annotated[
        bool,
        typer.Option(
            "--clean",
            help="Only remove: engines of this --backend that are damaged, of another version or "
            "graph, or for another GPU, and their kernel times. Those of the other backend stay, "
            "and those built ahead of time for another kind of GPU.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Build again, and against the forecast.")
    ] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Print every layer.")] = False,
    trust_engines: TrustEngines = False,
    as_json: AsJson = False,
) -> None:
    """Build the TensorRT engine of a bundle for this machine's GPU."""
    from vptkit.formats.bundle import open_bundle
    from vptkit.progress import progress
    from vptkit.runtime.engine_build.builder import BuildOptions, carry_out, foretell, prepare_build
    from vptkit.runtime.engine_build.precision_check import require_known

    opened = open_bundle(bundle)
    library = _library(backend)
    target = None if device == "auto" else _board(device)
    options = BuildOptions(
        library=library,
        sm=_sm(library, sm, target),
        batch=_batch(batch),
        bank_max=bank_max,
        workspace_mb=workspace,
        optimization_level=opt_level,
        tf32=tf32,
        timing_cache=timing_cache,
        force=force,
        trust_engines=trust_engines,
    )
    if expect is not None:
        require_known(expect)
    if batch is not None and opened.batch is not None:
        raise VptkitError(f"--batch: {bundle} has the fixed batch {opened.batch}")
    if forecast:
        found = foretell(opened, options, _room(options.sm, target))
        _foretold(opened, device, target, found, as_json)
        return
    _require_buildable_here(library, target)
    room = None if options.sm is None else _room(options.sm, target)
    with progress("build") as bar:
        job = prepare_build(opened, options, room=room, progress=bar)
    if clean:
        _clean(opened, job, as_json)
        return
    tell(f"forecast: {job.forecast.line()}")
    if job.forecast.tight:
        tell(f"warning: {job.forecast.advice()}")
    with progress("build") as bar:
        engine = carry_out(job, progress=bar)
    _report(engine, opened, expect, layers, as_json)


def _foretold(bundle: Any, device: str, board: Any, found: Any, as_json: bool) -> None:
    from vptkit.text_table import milliseconds

    floor = _floor_ms(bundle, board, found)
    document = {"bundle": str(bundle.path), "device": device, "floor_ms": floor, **found.to_json()}
    line = ""
    if floor is not None:
        line = f"\nno faster than {milliseconds(floor)} ms for {found.batch} images"
    emit(document, as_json, text=found.text() + line)


def _report(engine: Any, bundle: Any, expect: str | None, layers: bool, as_json: bool) -> None:
    from vptkit.runtime.engine_build.precision_check import require_type

    if engine.distrust is not None:  # loaded because it is trusted; what it says of itself is not
        document = {"engine": str(engine.path), "fresh": False, "distrust": engine.distrust}
        emit(document, as_json, text=f"{engine.path}: was there already, {engine.distrust}")
        if expect is not None:
            raise VptkitError(f"{engine.path}: {engine.distrust}; --expect needs one of your own")
        return
    record = {k: v for k, v in engine.record.items() if layers or k != "layers"}
    document = {"engine": str(engine.path), "fresh": engine.fresh, **record}
    emit(document, as_json, text="\n".join([_text(engine, layers), *_next(engine, bundle)]))
    if expect is not None:
        require_type(engine, expect, bundle)


def _text(engine: Any, layers: bool) -> str:
    from vptkit.text_table import columns

    record = engine.record
    made = record["structure"]
    state = "built" if engine.fresh else "was there already"
    fused = made["attentions"] - len(made["unfused_softmax"])
    inside = f"attention fused {fused} of {made['attentions']}"
    if made["opaque"]:
        inside = "the library does not show what is inside them"
    gpu = f"{record['gpu'] or 'any GPU'} ({record['capability']})"
    lines = [
        shown(f"for {record['library']} {record['version']} on {gpu}"),
        f"{made['layers']} layers; {inside}",
    ]
    rows = [
        [role, ", ".join(f"{count} {kind}" for kind, count in types.items())]
        for role, types in made["roles"].items()
    ]
    lines.append(columns(["role", "computes in"], rows))
    if layers:
        lines += [
            shown(f"{x['role']:9}  {x['type']:8}  {x['name']}  <- {', '.join(x['nodes']) or '-'}")
            for x in record["layers"]
        ]
    size = f"{record['bytes'] / 1e6:.1f} MB, {record['seconds']:.0f} s"
    lines.append(f"{shown(engine.path)}: {state}, {size}")
    return "\n".join(lines)


def _next(engine: Any, bundle: Any) -> list[str]:
    """The golden answers from it; nothing where it is for another machine."""
    if engine.record["gpu"] is None:
        return []
    backend = [] if engine.record["library"] == "tensorrt" else ["--backend", "tensorrt-rtx"]
    return [next_command("check", bundle.path, *backend)]


def _clean(bundle: Any, job: Any, as_json: bool) -> None:
    from vptkit.runtime.backends.engine_cache import engine_folder, exclusive, remove_stale_engines

    with exclusive(engine_folder(bundle), lambda: None):
        gone = [str(path) for path in remove_stale_engines(bundle, job.key.here)]
    text = "\n".join(map(shown, gone)) or "nothing to remove"
    emit({"bundle": str(bundle.path), "removed": gone}, as_json, text=text)


def _library(backend: str) -> str:
    from vptkit.runtime.backends.selection import TRT_LIBRARIES

    if backend not in TRT_LIBRARIES:
        raise VptkitError(f"--backend {backend!r}: expected {' or '.join(TRT_LIBRARIES)}")
    return TRT_LIBRARIES[backend]


def _batch(text: str | None) -> tuple[int, int, int]:
    try:
        sizes = [int(part) for part in (text or "1,8,32").split(",")]
    except ValueError:
        sizes = []
    if len(sizes) == 1:
        sizes = sizes * 3
    if len(sizes) != 3:
        raise VptkitError(f"--batch {text!r}: expected smallest, likely and largest, as 1,8,32")
    return sizes[0], sizes[1], sizes[2]


def _board(device: str) -> Any:
    from vptkit.devices.boards.catalog import board

    found = board(device)
    if found.cc is None:
        raise TargetError(f"{found.key} has no GPU to build an engine for")
    return found


def _sm(library: str, sm: int | None, board: Any) -> int | None:
    """The kind of GPU to build for ahead of time, or None for this machine's."""
    if sm is not None and board is not None:
        raise VptkitError("--sm and --board both say what to build for; pass one of them")
    if sm is not None or library == "tensorrt" or board is None:
        return sm
    return int(str(board.cc.value).replace(".", ""))


def _require_buildable_here(library: str, board: Any) -> None:
    if library != "tensorrt" or board is None:
        return
    from vptkit.devices.probes.machine import detect_machine

    here = detect_machine().get("device")
    if here != board.key:
        raise TargetError(
            f"--board {board.key}: TensorRT builds an engine on the GPU that runs it, and here is "
            f"{here or 'no board that is known'}. Run vptkit build on the board, or vptkit profile "
            "BUNDLE --on user@host from here; --forecast and --backend tensorrt-rtx work from here."
        )


def _room(sm: int | None, board: Any) -> Any:
    """The memory of what the engine is for: a board, or this machine."""
    from vptkit.devices.drivers.cuda import probe
    from vptkit.runtime.engine_build.memory_forecast import free_on, room_ahead, room_here, room_of

    if sm is not None:
        return room_ahead(board)
    if board is not None:
        return room_of(board)
    try:
        gpu = probe()
    except MissingError:
        return room_here(None)
    return room_here(gpu, free=free_on(gpu))


def _floor_ms(bundle: Any, board: Any, found: Any) -> float | None:
    """The least time of the largest batch on a board, if its figures are known."""
    macs = bundle.manifest["macs"].get("graph")
    if board is None or macs is None:
        return None
    try:
        floor: float = board.floor_ms(
            macs=macs * found.batch,
            weight_bytes=found.weights,
            activation_bytes=found.buffers,
            precision=bundle.precision,
        )
    except TargetError:
        return None
    return floor
