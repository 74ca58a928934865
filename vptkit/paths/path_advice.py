"""An error that says what a path is, where something else was expected, and what was meant.

The readers call it when they have refused a path; whoever wrote the path sees one sentence, the
same in every command.
"""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vptkit.regular_files import is_folder

from .command_line import command_with, other_words, typed_command
from .near_paths import lying_in, near_paths
from .path_kind import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vptkit.errors import VptkitError

    from .path_kind import Found

    Wanted = Literal["bundle", "bank", "adapter", "weights", "data", "images", "any"]

__all__ = ["advice", "advised"]

# What each reader takes: kinds that are its own business, the words for them, the usual suffix
_BUNDLES = frozenset({"bundle", "bank"})
_TAKEN: dict[str, frozenset[str]] = {
    "bundle": _BUNDLES,
    "bank": frozenset({"bank"}),
    "adapter": frozenset({"adapter", "damaged"}),
    "weights": frozenset({"weights", "torch", "damaged"}),
    "data": frozenset({"data", "data file", "empty", "folder", "file"}),
    "images": frozenset({"images", "image", "data", "empty"}),
    "any": frozenset({*_BUNDLES, "adapter", "damaged", "web"}),
}
_WORDS = {
    "bundle": ("a bundle", ".vptk"),
    "bank": ("a bank", ".vptk"),
    "adapter": ("an adapter file", ".safetensors"),
    "weights": ("weights of a backbone", ".safetensors"),
    "data": ("a data set", ""),
    "images": ("images", ""),
    "any": ("an adapter, a bundle or an engine", ".safetensors"),
}
# (what was wanted, what was found) of which each is in the other's place
_SWAPPED = {
    "bundle": {"images", "image", "data", "data file", "video", "empty", "missing"},
    "adapter": {*_BUNDLES, "weights", "weights folder", "missing"},
    "weights": {"adapter"},
}
_OF_NO_USE = {"damaged", "empty", "folder", "file"}
_NOTHING = {
    "bundle": "no such folder",
    "bank": "no such folder",
    "data": "no such folder or file",
}
_MANY_BUNDLES = ("profile",)


@contextlib.contextmanager
def advised(path: Path, wanted: Wanted, error: type[VptkitError]) -> Iterator[None]:
    """Where the block refuses a path that is something else, say so instead.

    Args:
        path: what the user named.
        wanted: what the block reads.
        error: what it raises.

    Raises:
        error: as the block raised it, or with what the path is.
    """
    try:
        yield
    except error as cause:
        text = advice(Path(path), wanted)
        if text is None:
            raise
        raise error(text) from cause


def advice(path: Path, wanted: Wanted) -> str | None:
    """What to say of a path that is not what was wanted.

    Returns:
        A sentence or two; None where the path is what was wanted, so that its reader knows better.
    """
    found = kind_of(path)
    if found.kind in _TAKEN[wanted]:
        return None
    swapped = _swapped(path, found, wanted)
    if found.kind == "missing":
        return swapped or _missing(path, wanted)
    expected = _WORDS[wanted][0]
    if swapped is not None:
        return swapped
    hint = _hint(path, found, wanted)
    return f"{path}: {found.what}, not {expected}" + (f". {hint}" if hint else "")


# what does not exist ------------------------------------------------------------------------------


def _missing(path: Path, wanted: Wanted) -> str:
    kinds, suffix = _fitting(wanted), _WORDS[wanted][1]
    what = _NOTHING.get(wanted, "no such file or folder")
    if "{" in path.name and ".." in path.name:
        return f"{path}: no such folder or file. Of shards pass the folder, {path.parent}"
    near = near_paths(path, kinds, suffix)
    if near:
        command = command_with({path: near[0]})
        where = (
            near[0] if near[0].parent == path.parent else f"it lies in {near[0].parent}: {near[0]}"
        )
        return f"{path}: {what}. Did you mean {where}?" + (f" {command}" if command else "")
    if not is_folder(path.parent):
        return f"{path}: {what}: there is no folder {path.parent} either"
    here = lying_in(path.parent, kinds)
    return f"{path}: {what}" + (f" (here lies {_listed(here)})" if here else "")


def _fitting(wanted: Wanted) -> frozenset[str]:
    """What one may have meant: other than `_TAKEN` without what is of no use."""
    extra = {"weights": {"weights folder"}, "data": {"images"}, "any": set[str]()}
    return frozenset(_TAKEN[wanted] | extra.get(wanted, set())) - _OF_NO_USE


def _listed(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


# arguments in each other's place ------------------------------------------------------------------


def _swapped(path: Path, found: Found, wanted: Wanted) -> str | None:
    if found.kind not in _SWAPPED.get(wanted, ()) or typed_command() in _MANY_BUNDLES:
        return None
    for word in other_words(path):
        if not word.startswith("-") and kind_of(Path(word)).kind in _TAKEN[wanted] - {"damaged"}:
            command = command_with({path: word, Path(word): path})
            if command is not None:
                return (
                    f"{path}: {found.what}, not {_WORDS[wanted][0]}. Arguments swapped? {command}"
                )
    return None


# what it is, and what follows from that -----------------------------------------------------------


def _hint(path: Path, found: Found, wanted: Wanted) -> str:
    """The command that was meant, or that comes first; "" where none is known."""
    if wanted in ("bundle", "bank"):
        return _instead_of_bundle(path, found, wanted)
    if wanted in ("adapter", "any"):
        return _instead_of_adapter(path, found)
    if wanted == "weights":
        return _instead_of_weights(path, found)
    return _instead_of_data(path, found, wanted)


def _instead_of_bundle(path: Path, found: Found, wanted: Wanted) -> str:
    quoted, made = _quoted(path), path.with_suffix(".vptk")
    if found.kind in ("images", "data", "folder") and kind_of(made).kind in _BUNDLES:
        return _meant(path, made, f"Beside it lies {made}")  # flowers, where flowers.vptk was meant
    if found.kind == "adapter":
        if made != path and kind_of(made).kind in _BUNDLES:
            return _meant(path, made, f"Its bundle is {made}")
        bank = " --layout bank" if wanted == "bank" else ""
        target = made if made != path else path.with_name(f"{path.stem}.bundle.vptk")
        return f"First: vptkit export {quoted}{bank} -o {_quoted(target)}"
    if found.kind == "bundle":  # where a bank was wanted
        return (
            "It holds one adapter, compiled in. A bank is made of adapters: vptkit export "
            f"{_adapter_of(path)} --layout bank -o {_quoted(path.with_suffix('.bank.vptk'))}"
        )
    if found.kind == "part":
        return _meant(path, found.owner, f"The bundle is the folder {found.owner}")
    if found.kind == "folder":
        inside = lying_in(path, _TAKEN[wanted])
        return _meant(path, inside[0], f"In it lies {_listed(inside)}") if inside else ""
    return {
        "graph": "A bundle is what vptkit export makes of an adapter: a folder with this and more",
        "engine": "An engine is found by its bundle: give the folder NAME.vptk",
        "images": "The bundle comes first: vptkit run NAME.vptk " + quoted,
        "image": "The bundle comes first: vptkit run NAME.vptk " + quoted,
        "data": "The bundle comes first: vptkit eval NAME.vptk " + quoted,
    }.get(found.kind) or _origin(path, found)


def _instead_of_adapter(path: Path, found: Found) -> str:
    if found.kind == "bundle":
        own = path / "adapter.safetensors"
        if typed_command() in ("bank", "analyze"):
            return _meant(path, own, f"Its adapter is {own}")
        return f"It is exported already: vptkit run {_quoted(path)} photos/. Its adapter is {own}"
    if found.kind == "bank":
        return f"It is exported already; vptkit bank list {_quoted(path)} says what it holds"
    if found.kind == "weights folder":
        return f"vptkit tune learns an adapter on them: --weights {found.inner}"
    if found.kind == "part":
        return _meant(path, found.owner, f"The bundle is the folder {found.owner}")
    if found.kind == "folder":
        inside = lying_in(path, {"adapter"})
        return _meant(path, inside[0], f"In it lies {_listed(inside)}") if inside else ""
    if found.kind in ("images", "data", "data file"):
        return f"First: vptkit tune {_quoted(path)} --backbone NAME -o NAME.safetensors"
    return _origin(path, found)


def _instead_of_weights(path: Path, found: Found) -> str:
    if found.kind == "adapter":
        return "Pass the file of the backbone that the adapter was tuned on"
    if found.kind in ("folder", "weights folder"):
        inside = lying_in(path, {"weights"})
        return f"In it lie {_listed(inside)}: name one" if inside else ""
    if found.kind == "part":
        return "A bundle holds no weights that can be tuned on"
    return _origin(path, found)


def _instead_of_data(path: Path, found: Found, wanted: Wanted) -> str:
    quoted = _quoted(path)
    if found.kind == "archive":
        if path.suffix.lower() == ".zip":
            return f"Unpack it first: unzip {quoted} -d {_quoted(path.with_suffix(''))}"
        return f"Unpack it first: tar -xf {quoted}"
    if found.kind == "images":
        return (
            "Accuracy and training want one folder for each class, as flowers/daisy/1.jpg; to "
            f"classify these: vptkit run NAME.vptk {quoted}"
        )
    if found.kind == "image":
        return f"Name the folder that holds one folder for each class, not {path.name}"
    if found.kind == "video":
        return "Take single frames of it: ffmpeg -i VIDEO -vf fps=1 frames/%05d.jpg"
    if found.kind in _BUNDLES and wanted == "data":
        return f"Images are wanted here; to classify some with it: vptkit run {quoted} photos/"
    return _origin(path, found)


def _origin(path: Path, found: Found) -> str:
    """Of kinds that are wanted nowhere but in one place: that place."""
    quoted, folder = _quoted(path), path.parent
    return {
        "adapter": f"vptkit export {quoted} -o {_quoted(path.with_suffix('.vptk'))} compiles it",
        "peft": f"First: vptkit import {quoted} --backbone NAME -o NAME.safetensors",
        "checkpoint": "The command that began it, with --resume, finishes it",
        "weights": f"vptkit tune DATA --backbone NAME --weights {quoted} -o NAME.safetensors learns "
        "an adapter on them",
        "weights folder": f"vptkit tune DATA --backbone NAME --weights {quoted} -o NAME.safetensors "
        "learns an adapter on them",
        "torch": "Prompts of VPT's or BPT's code become an adapter by vptkit import; weights of a "
        f"backbone: vptkit tune DATA --backbone NAME --weights {quoted}",
        "archive": f"Unpack it first, beside it in {folder}",
        "bundle": f"vptkit run {quoted} photos/ classifies images with it",
        "bank": f"vptkit bank list {quoted} says what it holds",
        "web": f"It is looked at in a browser: python3 -m http.server --directory {quoted}",
    }.get(found.kind, "")


def _meant(path: Path, instead: Path | None, sentence: str) -> str:
    """A sentence, and the same command with the right path if it is known."""
    command = command_with({path: instead}) if instead is not None else None
    return sentence + (f": {command}" if command else "")


def _adapter_of(bundle: Path) -> str:
    return _quoted(bundle / "adapter.safetensors")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
