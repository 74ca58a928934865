"""`vptkit devices`: which boards are known, what each can do, and which one this is.

No future import of annotations here: typer reads them at run time.
"""

import re
from typing import Annotated, Any

import typer

from vptkit.cli.shared.options import AsJson
from vptkit.cli.shared.output import emit

__all__ = ["devices"]

devices = typer.Typer(
    help="Boards and GPUs: what is known of them, and which one this is.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# Columns of `list`: heading → figure.
_COLUMNS = {
    "GB": "memory_gb",
    "GB/s": "bandwidth_gbs",
    "fp16": "fp16_tflops",
    "int8": "int8_tops",
    "fp8": "fp8_tflops",
}


@devices.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the boards: memory, peaks, usable software."""
    from vptkit.devices.boards.catalog import boards

    found = list(boards().values())
    text = _table(found) + (
        "\n\n? unverified: vptkit devices show KEY says why. Peaks: dense, TFLOPS and TOPS."
        "\nJetPack: those that vptkit runs on, with their TensorRT; pip: it comes with pip."
        f"\n{len(found)} boards; next: vptkit devices show KEY"
    )
    emit({"devices": [_summary(board) for board in found]}, as_json, text=text)


@devices.command()
def show(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="As vptkit devices list prints it, or words of its name."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show all that is known of a board, with sources."""
    from vptkit.devices.boards.catalog import board, boards_with

    named = boards_with(key)
    found = named[0] if len(named) == 1 else board(key)
    document = found.to_json()
    emit(document, as_json, text=_sheet(document, runs=found.runs_vptkit))


@devices.command()
def detect(as_json: AsJson = False) -> None:
    """Say which board this machine is, and what could not be found out."""
    from vptkit.devices.boards.catalog import boards
    from vptkit.devices.probes.machine import detect_machine
    from vptkit.text_table import fields

    machine = detect_machine()
    key = machine.get("device")
    missing = sorted(name for name, value in machine.items() if value is None and name != "device")
    notes = list(machine.get("notes") or [])
    name = None if key is None else boards()[key].name
    shown = {
        entry: value
        for entry, value in machine.items()
        if value is not None and entry not in ("device", "notes")
    }
    lines = [fields(shown), ""]
    lines += [f"not found: {', '.join(missing)}"] if missing else []
    lines += [f"  {note}" for note in notes]
    lines += ["device: " + (_unknown(machine) if key is None else f"{key} ({name})")]
    document = {
        "device": key,
        "name": name,
        "missing": missing,
        "notes": notes,
        "machine": machine,
    }
    emit(document, as_json, text="\n".join(lines))


def _table(found: list[Any]) -> str:
    """One line a board; narrow terminals get no names (the keys tell), cc, or third numbers."""
    from vptkit.shown_text import terminal_width
    from vptkit.text_table import columns

    width = max(len(board.name) for board in found)
    table = ""
    for short, named in ((False, True), (False, False), (True, False)):
        cc = [] if short else ["cc"]
        header = ["key", *cc, *_COLUMNS, "JetPack", "TensorRT", *["name".ljust(width)] * named]
        rows = [
            [
                board.key,
                *["-" if board.cc is None else str(board.cc.value)] * len(cc),
                *(_short(board.figures.get(name)) for name in _COLUMNS.values()),
                *map(_shorter if short else str, _software(board)),
                *[board.name.ljust(width)] * named,
            ]
            for board in found
        ]
        table = columns(header, rows)
        if max(map(len, table.splitlines())) <= terminal_width():
            break
    return table


def _shorter(versions: str) -> str:
    """Of "8.6.2-10.16.2" "8.6-10.16"."""
    return re.sub(r"(\d+\.\d+)\.[\d.]+", r"\1", versions)


def _short(figure: Any) -> str:
    """Such as "16.7", and "26.7?" if nobody is known to say so."""
    if figure is None:
        return "-"
    return f"{figure.value:g}" + ("" if figure.verified else "?")


def _software(board: Any) -> list[str]:
    """JetPacks that vptkit runs on, and their TensorRT."""
    if board.kind != "jetson":
        return ["-", "-" if board.kind == "cpu" else "pip"]
    usable = [row for row in board.jetpacks if row.runs_vptkit]
    if not usable:
        return ["too old", "-"]
    first, last = usable[0], usable[-1]
    return [f"{first.first}-{last.last}", f"{first.tensorrt}-{last.tensorrt}"]


def _summary(board: Any) -> dict[str, Any]:
    """One entry of `list --json`."""
    jetpack, tensorrt = _software(board)
    return {
        "key": board.key,
        "name": board.name,
        "kind": board.kind,
        "cc": None if board.cc is None else board.cc.value,
        "integrated": board.integrated,
        "precisions": list(board.precisions),
        "figures": {name: figure.value for name, figure in board.figures.items()},
        "unverified": [name for name, figure in board.figures.items() if not figure.verified],
        "jetpack": jetpack,
        "tensorrt": tensorrt,
        "runs_vptkit": board.runs_vptkit,
    }


def _sheet(document: dict[str, Any], *, runs: bool) -> str:
    """All of `show`, for reading."""
    match = document["match"]
    kind = {"jetson": "Jetson", "gpu": "GPU", "cpu": "processor"}[document["kind"]]
    shared = "shared by CPU and GPU" if document["integrated"] else "the GPU's own"
    lines = [f"{document['name']} ({document['key']}), {kind}"]
    lines += [f"precisions: {', '.join(document['precisions'])}; memory: {shared}"]
    shown_as = [*match["parts"], *match["gpus"], match["arch"]]
    lines += [f"known by: {', '.join(filter(None, shown_as))} [{match['source']}]"]
    if not runs:
        lines += ["vptkit does not run on it: every JetPack for it has a Python before 3.10"]
    lines += _figure_lines(document["figures"])
    lines += _mode_lines(document["modes"])
    lines += _jetpack_lines(document["jetpacks"])
    if document["notes"]:
        lines += ["", "notes"]
        lines += [f"  {note['text']} [{note['source']}]" for note in document["notes"]]
    if document["troubles"]:
        lines += ["", "known not to work"]
        lines += [_trouble_line(trouble) for trouble in document["troubles"]]
    if document["sources"]:
        width = max(map(len, document["sources"]))
        lines += ["", "sources"]
        lines += [f"  {name.ljust(width)}  {text}" for name, text in document["sources"].items()]
    return "\n".join(lines)


def _figure_lines(figures: dict[str, Any]) -> list[str]:
    if not figures:
        return []
    width = max(map(len, figures))
    values = {name: _plain(figure["value"]) for name, figure in figures.items()}
    wide = max(map(len, values.values()))
    return [
        "",
        "figures",
        *(
            f"  {name.ljust(width)}  {values[name].rjust(wide)}  [{figure['source']}]"
            for name, figure in figures.items()
        ),
    ]


def _mode_lines(modes: list[dict[str, Any]]) -> list[str]:
    from vptkit.text_table import columns

    if not modes:
        return []
    header = ["mode", "configuration", "id", "SMs", "GPU MHz", "memory MHz"]
    rows = [
        [
            mode["name"] + (" (default)" if mode["default"] else ""),
            mode["configuration"],
            *(_plain(mode[name]) for name in ("id", "sms", "gpu_mhz", "emc_mhz")),
        ]
        for mode in modes
    ]
    heading, *table = columns(header, rows).splitlines()
    lines = [f"{line}  [{mode['source']}]" for line, mode in zip(table, modes, strict=True)]
    return ["", *(f"  {line}" for line in [heading, *lines])]


def _jetpack_lines(rows: list[dict[str, Any]]) -> list[str]:
    from vptkit.text_table import columns

    if not rows:
        return []
    parts = ("l4t", "ubuntu", "python", "cuda", "tensorrt", "cudnn")
    header = ["JetPack", *parts, "vptkit"]
    table = [
        [
            row["name"],
            *(row[name]["value"] + ("" if row[name]["verified"] else "?") for name in parts),
            "runs" if row["runs_vptkit"] else "no",
        ]
        for row in rows
    ]
    return ["", *(f"  {line}" for line in columns(header, table).splitlines())]


def _trouble_line(trouble: dict[str, Any]) -> str:
    versions = " ".join(trouble["versions"])
    name = f"{trouble['package']} {versions}" if versions else trouble["package"]
    return f"  {name}: {trouble['text']} [{trouble['source']}]"


def _unknown(machine: dict[str, Any]) -> str:
    """Why no board is named."""
    jetson, gpu = machine.get("jetson") or {}, machine.get("gpu") or {}
    seen = [jetson.get("part") or jetson.get("model"), gpu.get("name"), machine.get("arch")]
    shown = ", ".join(text for text in seen if text)
    return f"none in vptkit devices list fits, or several do ({shown})"


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{value:g}"
