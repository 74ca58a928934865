"""The honest files of each kind, how they are spoilt, and how vptkit opens them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vptkit.errors import VptkitError
from vptkit.shown_text import shown

from .mutations import spoil_bytes, spoil_folder, spoil_safetensors, spoil_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

__all__ = ["SUBJECTS", "Outcome", "Subject", "make_seeds"]

EXIT_CODES = (0, 2, 3, 4, 5)
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP", "gif": "GIF"}
FORMATS |= {"ppm": "PPM", "jp2": "JPEG2000"}


@dataclass(frozen=True)
class Outcome:
    """What an input came to: an exit code of the last command, and what was printed."""

    code: int
    printed: str


@dataclass(frozen=True)
class Subject:
    """One kind of file.

    Attributes:
        name: for reports.
        seeds: which of the honest files are copied, relative to the folder of seeds.
        spoil: changes the copy: (random, folder of the copy, a folder outside of it).
        open: opens what is there.
        closed: nothing in it may lead elsewhere. (A file or folder that the user names may be a
            link, and `run` answers for whatever images a folder leads to.)
    """

    name: str
    seeds: tuple[str, ...]
    spoil: Callable[[Random, Path, Path], None]
    open: Callable[[Path, Path], Outcome]
    closed: bool = False


def command(*arguments: object) -> Outcome:
    """A command as the user runs it, in this process.

    Raises:
        AssertionError: an exit code that is none of ours; 1 is what a defect ends with.
    """
    from vptkit.cli import entry

    out = io.StringIO()
    sys.argv = ["vptkit", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            entry.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    else:
        code = 0
    if code not in EXIT_CODES:
        raise AssertionError(f"exit code {code}: {out.getvalue()[-500:]}")
    return Outcome(code, out.getvalue())


def call(function: Callable[[], Any]) -> Outcome:
    """A function of the library: it answers, or raises a VptkitError that prints in one line."""
    try:
        function()
    except VptkitError as error:
        return Outcome(error.exit_code, shown(" ".join(str(error).split())))
    return Outcome(0, "")


# ---- how each is spoilt ----


def _one_file(pattern: str, how: Callable[[Random, bytes], bytes]) -> Callable[..., None]:
    def spoil(random: Random, case: Path, outside: Path) -> None:
        files = sorted(path for path in case.rglob(pattern) if path.is_file())
        path = random.choice(files)
        if random.random() < 0.05:
            spoil_folder(random, case, outside)
        else:
            path.write_bytes(how(random, path.read_bytes()))

    return spoil


def _json_text(random: Random, content: bytes) -> bytes:
    return spoil_text(random, json.loads(content))


def _bundle(random: Random, case: Path, outside: Path) -> None:
    """The manifest, or a file of it with a digest that fits, or the folder."""
    (bundle,) = case.glob("*.vptk")
    manifest = bundle / "manifest.json"
    kind = random.randrange(4)
    if kind == 0:
        manifest.write_bytes(_json_text(random, manifest.read_bytes()))
        return
    if kind == 1:
        spoil_folder(random, bundle, outside)
    else:
        files = sorted(p for p in bundle.rglob("*") if p.is_file() and p != manifest)
        path = random.choice(files)
        how = spoil_safetensors if path.suffix == ".safetensors" else spoil_bytes
        path.write_bytes(how(random, path.read_bytes()))
    if manifest.is_file() and not manifest.is_symlink():
        _sign(bundle, manifest)


def _sign(bundle: Path, manifest: Path) -> None:
    """Digests as a forger would write them."""
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        document = json.loads(manifest.read_bytes())
        for name in document["files"]:
            path = bundle / name
            if path.is_file() and path.resolve() != Path("/dev/zero"):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                document["files"][name] = digest
                for entry in document["adapters"]:
                    if entry.get("file") == name:
                        entry["sha256"] = digest
        manifest.write_text(json.dumps(document))


# ---- how each is opened ----


def _inspect_adapter(case: Path, seeds: Path) -> Outcome:
    return command("inspect", case / "a.safetensors")


def _export(case: Path, seeds: Path) -> Outcome:
    weights = seeds / "weights.safetensors"
    return command("export", case / "a.safetensors", "--weights", weights, "-o", case / "x.vptk")


def _run_bundle(case: Path, seeds: Path) -> Outcome:
    (bundle,) = case.glob("*.vptk")
    command("inspect", bundle)
    which = ("--adapter", "both") if bundle.name == "bank.vptk" else ()
    return command("run", bundle, seeds / "images", *which, "--backend", "cpu", "--threads", 1)


def _check_bundle(case: Path, seeds: Path) -> Outcome:
    (bundle,) = case.glob("*.vptk")
    return command("check", bundle, "--backend", "cpu", "--threads", 1)


def _edit_bank(case: Path, seeds: Path) -> Outcome:
    (bundle,) = case.glob("*.vptk")
    command("bank", "remove", bundle, "linear")
    return command("bank", "add", bundle, seeds / "linear.safetensors", "--name", "again")


def _run_images(case: Path, seeds: Path) -> Outcome:
    bundle = seeds / "baked.vptk"
    return command("run", bundle, case / "images", "--backend", "cpu", "--threads", 1)


def _evaluate(name: str) -> Callable[[Path, Path], Outcome]:
    def evaluate(case: Path, seeds: Path) -> Outcome:
        data = case / name  # which may be gone
        return command("eval", seeds / "baked.vptk", data, "--backend", "cpu", "--threads", 1)

    return evaluate


def _read_data(name: str) -> Callable[[Path, Path], Outcome]:
    def read(data: Path) -> None:
        from vptkit.tune.data.dataset_reader import read_splits
        from vptkit.tune.data.multilabel_splits import read_label_sets

        read_label_sets(data)
        for classes in read_splits(data).values():
            for images in classes.values():
                for image in images[:2]:
                    if not isinstance(image, Path):
                        image.read_bytes()

    return lambda case, seeds: call(lambda: read(case / name))


def _settings(case: Path, seeds: Path) -> Outcome:
    from vptkit.strict_json import read_toml
    from vptkit.tune.config import config_from_mapping

    return call(lambda: config_from_mapping(read_toml(case / "tune.toml")))


def _sweep(case: Path, seeds: Path) -> Outcome:
    from vptkit.strict_json import read_toml
    from vptkit.tune.sweep.search_space import sweep_from_mapping

    return call(lambda: sweep_from_mapping(read_toml(case / "sweep.toml")))


def _state(name: str) -> Callable[[Path, Path], Outcome]:
    def read(case: Path, seeds: Path) -> Outcome:
        from vptkit.tune.importers.checkpoint_reader import read_state

        return call(lambda: read_state(case / name))

    return read


def _resume(case: Path, seeds: Path) -> Outcome:
    from vptkit.tune.training.checkpoint import load_checkpoint

    return call(lambda: load_checkpoint(case / "x.checkpoint", {}))


SUBJECTS = (
    Subject(
        "adapter",
        ("a.safetensors",),
        _one_file("a.safetensors", spoil_safetensors),
        _inspect_adapter,
    ),
    Subject(
        "adapter, exported",
        ("a.safetensors",),
        _one_file("a.safetensors", spoil_safetensors),
        _export,
    ),
    Subject("bundle, run", ("baked.vptk",), _bundle, _run_bundle, closed=True),
    Subject("bundle, checked", ("baked.vptk",), _bundle, _check_bundle, closed=True),
    Subject("bank, run", ("bank.vptk",), _bundle, _run_bundle, closed=True),
    Subject("bank, edited", ("bank.vptk",), _bundle, _edit_bank, closed=True),
    Subject("images", ("images",), _one_file("*", spoil_bytes), _run_images),
    Subject("csv", ("all.csv", "classes"), _one_file("all.csv", spoil_bytes), _evaluate("all.csv")),
    Subject("tar", ("shards",), _one_file("*.tar", spoil_bytes), _evaluate("shards"), closed=True),
    Subject("arrow", ("saved",), _one_file("*", spoil_bytes), _read_data("saved"), closed=True),
    Subject(
        "parquet",
        ("parquet",),
        _one_file("*.parquet", spoil_bytes),
        _read_data("parquet"),
        closed=True,
    ),
    Subject("settings", ("tune.toml",), _one_file("*.toml", spoil_bytes), _settings),
    Subject("sweep", ("sweep.toml",), _one_file("*.toml", spoil_bytes), _sweep),
    Subject("torch file", ("state.pth",), _one_file("state.pth", spoil_bytes), _state("state.pth")),
    Subject(
        "old torch file", ("state.pt",), _one_file("state.pt", spoil_bytes), _state("state.pt")
    ),
    Subject("checkpoint", ("x.checkpoint",), _one_file("*", spoil_safetensors), _resume),
)


# ---- honest files ----


def make_seeds(folder: Path) -> None:
    """Write the honest files of every subject."""
    from tests.support.bank_cases import Family, family, write_family
    from tests.support.random_deltas import bank_deltas
    from vptkit.export.bank.export_bank import export_bank
    from vptkit.export.bundle.export_bundle import export

    members = family()
    both, spec = members.adapters["both"], members.case.spec
    deltas = bank_deltas(spec, np.random.default_rng(0), parts=("attn", "fc2"))
    both = replace(both, tensors={**both.tensors, **deltas})
    members = Family(case=members.case, adapters={**members.adapters, "both": both})
    paths = write_family(members, folder)
    shutil.copyfile(paths["both"], folder / "a.safetensors")
    weights = paths["weights"]
    shutil.move(weights, folder / "weights.safetensors")
    weights = folder / "weights.safetensors"
    export(folder / "a.safetensors", folder / "baked.vptk", weights=weights)
    export_bank([paths[name] for name in ("both", "linear")], folder / "bank.vptk", weights=weights)
    labels = members.adapters["both"].labels
    _write_images(folder / "images", labels)
    _write_data(folder, labels)
    _write_settings(folder)
    _write_states(folder)


def _write_images(folder: Path, labels: tuple[str, ...]) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for ending, kind in FORMATS.items():
        pixels = random.integers(0, 256, (21, 34, 3), dtype=np.uint8)
        with contextlib.suppress(OSError):  # a Pillow without JPEG 2000
            Image.fromarray(pixels).save(folder / f"{ending}.{ending}", kind)
    for i, label in enumerate(labels):
        (folder.parent / "classes" / label).mkdir(parents=True)
        shutil.copyfile(folder / "png.png", folder.parent / "classes" / label / f"{i}.png")


def _write_data(folder: Path, labels: tuple[str, ...]) -> None:
    rows = [(f"classes/{label}/{i}.png", label) for i, label in enumerate(labels)]
    text = "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows)
    (folder / "all.csv").write_text(text)
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "val-0.tar", "w") as archive:
        for i, (path, _) in enumerate(rows):
            archive.add(folder / path, f"{i}.png")
            number = tarfile.TarInfo(f"{i}.cls")
            number.size = 1
            archive.addfile(number, io.BytesIO(str(i).encode()))
    (folder / "shards" / "classnames.txt").write_text("\n".join(labels))
    _write_arrow(folder, rows)


def _write_arrow(folder: Path, rows: list[tuple[str, str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    names = [label for _, label in rows]
    images = [{"bytes": (folder / path).read_bytes(), "path": path} for path, _ in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": list(range(len(rows)))})
    table = table.append_column("labels", pa.array([[0], *([0, 1] for _ in rows[1:])]))
    label = {"names": names, "_type": "ClassLabel"}
    several = {"feature": label, "_type": "Sequence"}
    features = {"image": {"_type": "Image"}, "label": label, "labels": several}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    table = table.replace_schema_metadata(about)
    (folder / "parquet").mkdir()
    pyarrow.parquet.write_table(table, folder / "parquet" / "train.parquet")
    saved = folder / "saved"
    saved.mkdir()
    sink = pa.OSFile(str(saved / "data-0.arrow"), "wb")
    with sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}]}))
    (saved / "dataset_info.json").write_text(json.dumps({"features": features}))


def _write_settings(folder: Path) -> None:
    (folder / "tune.toml").write_text(
        'backbone = "vit_tiny_patch16_224"\nmethod = "bpt"\nprompts = 4\nepochs = 3\nlr = 1e-3\n'
        'backbone_args = {img_size = 32, patch_size = 8}\naugment = "none"\n'
    )
    (folder / "sweep.toml").write_text(
        'data = "data"\n[tune]\nbackbone = "vit_tiny_patch16_224"\nmethod = "bpt"\n'
        "backbone_args = {img_size = 32, patch_size = 8}\n[space]\nlr = [0.1, 0.01]\n"
        'prompts = {low = 2, high = 8}\n[search]\nkind = "random"\nsamples = 3\n'
    )


def _write_states(folder: Path) -> None:
    import torch
    from safetensors.numpy import save_file

    state = {"model": {"head.weight": torch.ones(3, 4), "head.bias": torch.zeros(3)}}
    state["model"]["array"] = np.arange(6.0).reshape(2, 3)
    torch.save(state, folder / "state.pth")
    torch.save(state, folder / "state.pt", _use_new_zipfile_serialization=False)
    document = {"format": "vptkit.checkpoint/1", "epoch": 1, "identity": {}}
    numbers = ("epoch", "train_loss", "train_top1", "val_top1", "val_loss", "lr", "seconds")
    document |= {"history": [dict.fromkeys(numbers, 1)], "best_epoch": 1}
    document |= {"whitening": [{}], "scaler": {}}
    tensors = {"param.a": np.ones(3, np.float32), "best.a": np.ones(3, np.float32)}
    save_file(tensors, folder / "x.checkpoint", {"vptkit": json.dumps(document)})
