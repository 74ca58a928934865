"""`vptkit bank`: add, remove, replace and list the adapters of a bank. `vptkit.cli` registers it.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.shared.options import AsJson
from vptkit.cli.shared.output import emit
from vptkit.cli.shared.verdict import next_command
from vptkit.shown_text import shown

from .export_verdict import note_bank_precision

__all__ = ["bank"]

bank = typer.Typer(
    help="Change the adapters of a bank; graph and engine stay as they are.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Bank = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder made with --layout bank.")]
Source = Annotated[Path, typer.Argument(metavar="ADAPTER", help="NAME.safetensors")]
Name = Annotated[str | None, typer.Option(help="In the bank [the adapter's own].")]


@bank.command()
def add(bundle: Bank, adapter: Source, name: Name = None, as_json: AsJson = False) -> None:
    """Add an adapter; an open session answers with it at its next call."""
    from vptkit.export.bank import edit_bank

    added = edit_bank.add(bundle, adapter, name=name)
    _emit_change(bundle, "added", added, as_json)


@bank.command()
def replace(bundle: Bank, adapter: Source, name: Name = None, as_json: AsJson = False) -> None:
    """Put another adapter in the place of the one of that name."""
    from vptkit.export.bank import edit_bank

    replaced = edit_bank.replace(bundle, adapter, name=name)
    _emit_change(bundle, "replaced", replaced, as_json)


@bank.command()
def remove(
    bundle: Bank,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the adapter in the bank.")],
    as_json: AsJson = False,
) -> None:
    """Remove an adapter; the others keep their answers."""
    from vptkit.export.bank import edit_bank

    edit_bank.remove(bundle, name)
    _emit_change(bundle, "removed", name, as_json)


@bank.command("list")
def list_(bundle: Bank, as_json: AsJson = False) -> None:
    """List the adapters, and what the bank has room for."""
    from vptkit.text_table import columns

    document = _listing(bundle)
    rows = [
        [a["name"], a["method"], str(a["prompt_length"]), str(a["classes"]), a["file"]]
        for a in document["adapters"]
    ]
    room = document["room"]
    norms = "with" if room["layer_norms"] else "without"
    text = columns(["name", "method", "prompts", "classes", "file"], rows)
    text += f"\nroom for {room['prompts']} prompts, {room['classes']} classes, {norms} LayerNorms"
    if count := room["linears"]:
        text += f", changes of {count} linear{'s' * (count > 1)}, of rank {room['rank']} at most"
    text += f"\n{_next(bundle, document['adapters'][0]['name'])}"
    emit(document, as_json, text=text)


def _emit_change(bundle: Path, verb: str, name: str, as_json: bool) -> None:
    names = [adapter["name"] for adapter in _listing(bundle)["adapters"]]
    one = "1 adapter" if len(names) == 1 else f"{len(names)} adapters"
    text = f"{verb} {shown(name)}: {shown(bundle)} has {one}, {', '.join(map(shown, names))}"
    if verb != "removed":
        from vptkit.formats.bundle import open_bundle

        note_bank_precision(open_bundle(bundle, verify=False).manifest, name)
    following = _next(bundle, name if name in names else names[0])
    document = {"bundle": str(bundle), verb: name, "adapters": names}
    emit(document, as_json, text=f"{text}\n{following}")


def _next(bundle: Path, adapter: str) -> str:
    return next_command("run", bundle, "photos/", "--adapter", adapter)


def _listing(path: Path) -> dict[str, Any]:
    from vptkit.formats.bank_tables import BankShape
    from vptkit.formats.bundle import open_bank

    bundle = open_bank(path)
    shape = BankShape.of_manifest(bundle.manifest, bundle.spec)
    return {
        "bundle": str(path),
        "room": {
            "prompts": shape.prompts,
            "classes": shape.classes,
            "layer_norms": shape.norms > 0,
            "linears": len(shape.linears),
            "rank": max((one.rank for one in shape.linears.values()), default=0),
        },
        "adapters": [
            {
                **{key: e[key] for key in ("name", "method", "insert", "prompt_length", "file")},
                "classes": len(e["labels"]),
            }
            for e in bundle.manifest["adapters"]
        ],
    }
