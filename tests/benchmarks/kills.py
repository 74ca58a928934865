"""Kill commands while they write, and fill the disk: nothing is lost, the next run ends well.

For docs/security.md: `python -m tests.benchmarks.kills --rounds 60 --seed 0`. In short form it is
run by tests/integration/test_kills.py.

Each command runs in a fork of a warm process, on a copy of the same folder. It is ended

op       by SIGKILL at its n-th file operation there (an audit hook, so before the operation);
time     by SIGKILL at a random time;
full     by ENOSPC at its n-th file operation there that needs space, and at all that follow;
size     by EFBIG at the n-th byte of any file, also where a library writes it.

With --served, commands that edit a bank are killed under a server: after each kill a server is started
on what is left (in this process; each `--real-every`-th time `vptkit serve` in one of its own), and
every adapter that it lists must answer over HTTP with the logits of the old bank or of the new one.

After each the folder must hold what it held, or what the command makes, each whole, and bundles
must open. A command that was told of a full disk has to say so, and leaves nothing else. Then the
command runs once more, with --resume or --force as a user would: its folder must be byte for byte
that of a run that nobody disturbed, without a temporary file.

Pictures are drawn as one pixel, and TensorRT is played: its plan is written as the worker does.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.benchmarks.served_banks import ServedBank, answers_in_process, same_answers
from tests.support.bank_cases import family, write_family
from tests.support.serial_runner import Serial
from tests.support.strategies import Setup
from tests.support.timms import create_model
from vptkit.errors import OutputError
from vptkit.export.bank import edit_bank
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.export_bundle import export
from vptkit.formats.adapter import read_adapter
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.backends.engine_cache import list_engines
from vptkit.runtime.bulk.prediction_writers import deliver, saving
from vptkit.runtime.engine_build import builder
from vptkit.runtime.engine_build.worker_process import Outcome
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.prediction import predict
from vptkit.tune import config_from_mapping, tune
from vptkit.tune.idle_settings import without_idle
from vptkit.tune.run.few_shot_series import tune_shots
from vptkit.tune.sweep import run_sweep, sweep_plot
from vptkit.tune.sweep.search_space import sweep_from_mapping
from vptkit.tune.training_page import run_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MODES = ("op", "time", "full", "size")
NEIGHBOURS = {"precious.txt": b"precious", ".other.abcdefgh.part": b"somebody's"}
_NEEDS_SPACE = ("open", "os.mkdir", "os.rename", "os.link", "os.symlink")
_CHANGES = (*_NEEDS_SPACE, "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.utime")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command, and what it must keep.

    Attributes:
        act: runs it in a folder; `again` says whether it may have been killed before.
        before: what the folder holds first, a folder to copy; None for nothing.
        outputs: names that are old or new, whole, at any time: all of a sort lie in one folder.
        banks: names of bundles that are edited in place; they must open.
        varying: ends of names whose bytes differ from run to run (they hold a time).
    """

    act: Callable[[Path, bool], None]
    before: Path | None = None
    outputs: tuple[str, ...] = ()
    banks: tuple[str, ...] = ()
    varying: tuple[str, ...] = ()


# what is killed --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a fork ended: its status, operations and seconds, and the error it died of."""

    status: int
    operations: int
    seconds: float
    error: str


def forked(
    act: Callable[[], None],
    folder: Path,
    *,
    kill_at: int = 0,
    full_at: int = 0,
    size: int = 0,
    delay: float | None = None,
) -> Ended:
    """Run something in a fork of this process, and end it early."""
    reading, writing = os.pipe()
    begun = time.perf_counter()
    child = os.fork()
    if not child:
        os.close(reading)
        _be_child(act, folder, writing, kill_at, full_at, size)
    os.close(writing)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as stream:
        told = stream.read()
    _, status = os.waitpid(child, 0)
    operations, _, error = told.partition(" ")
    return Ended(
        status=os.waitstatus_to_exitcode(status),
        operations=int(operations or 0),
        seconds=time.perf_counter() - begun,
        error=error,
    )


def _be_child(
    act: Callable[[], None], folder: Path, writing: int, kill_at: int, full_at: int, size: int
) -> None:
    count, needing, root = 0, 0, f"{folder}/"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, needing
        if event not in _CHANGES or not _concerns(event, arguments, root):
            return
        count += 1
        needing += event in _NEEDS_SPACE
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if full_at and needing >= full_at and event in _NEEDS_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    error = ""
    try:
        sys.addaudithook(hook)
        if size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        act()
    except OutputError as known:
        error = f"OutputError: {known}"
    except BaseException:
        error = traceback.format_exc()
    os.write(writing, f"{needing if full_at else count} {error}".encode()[:60000])
    os._exit(bool(error))


def _concerns(event: str, arguments: tuple[Any, ...], root: str) -> bool:
    """Whether a file operation changes something in the folder; names may be relative to a handle."""
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return False
    paths = [os.fsdecode(a) for a in arguments if isinstance(a, (str, bytes, os.PathLike))]
    if event == "open":
        paths = paths[:1]
    return any(path.startswith(root) or not path.startswith("/") for path in paths)


# what is found ---------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, str]:
    """Relative path → digest of every file, links and empty folders too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif not any(path.iterdir()):
            found[f"{name}/"] = ""
    return found


def part(of: dict[str, str], name: str) -> dict[str, str]:
    """What a name means in a tree: a file, or all below a folder."""
    return {k: v for k, v in of.items() if k == name or k.startswith(f"{name}/")}


def temporary(of: dict[str, str]) -> list[str]:
    """Names of temporary files; a lock that is meant to stay is none."""
    hidden = [k for k in of if any(p.startswith(".") for p in k.split("/"))]
    return [k for k in hidden if k not in NEIGHBOURS and Path(k).name != ".lock"]


def compared(of: dict[str, str], command: Command) -> dict[str, str]:
    """A tree, without the bytes that may differ."""
    return {k: "" if k.endswith(command.varying or ("\0",)) else v for k, v in of.items()}


class Trial:
    """A command and its undisturbed result; counts what was found."""

    def __init__(self, name: str, command: Command, folder: Path) -> None:
        self.name, self.command, self.folder = name, command, folder
        self.states: Counter[str] = Counter()
        self.failures: list[str] = []
        self.before = compared(self._fresh(), command)
        whole = forked(lambda: command.act(folder, False), folder)
        if whole.status:
            raise SystemExit(f"{name} does not run at all: {whole.error}")
        self.after = compared(tree(folder), command)
        if left := temporary(self.after):
            raise SystemExit(f"{name} leaves {left}")
        self.operations = whole.operations
        self._fresh()
        spacious = forked(lambda: command.act(folder, False), folder, full_at=1 << 30)
        self.needing = spacious.operations
        self.seconds = min(whole.seconds, spacious.seconds)  # one of them found cold files
        self.served: ServedBank | None = None
        self.largest = max(
            (path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=1
        )

    def once(self, mode: str, draw: random.Random, number: int | None = None) -> None:
        """End the command early, look, and let it run to its end."""
        settings: dict[str, Any] = {
            "op": lambda: {"kill_at": number or draw.randint(1, self.operations)},
            "time": lambda: {"delay": draw.uniform(0, self.seconds)},
            "full": lambda: {"full_at": draw.randint(1, self.needing)},
            "size": lambda: {"size": int(self.largest ** draw.random())},
        }[mode]()
        self._fresh()
        ended = forked(lambda: self.command.act(self.folder, False), self.folder, **settings)
        what = f"{self.name} {mode} {settings}"
        try:
            self.states[f"{mode}: {self._look(ended)}"] += 1
            again = forked(lambda: self.command.act(self.folder, True), self.folder)
            assert not again.status, f"does not go on: {again.error}"
            found = compared(tree(self.folder), self.command)
            odd = sorted(k for k in {*found, *self.after} if found.get(k) != self.after.get(k))
            assert not odd, f"the next run ends with other bytes: {odd}"
        except Exception as error:
            self.failures.append(f"{what}: {type(error).__name__}: {error}")

    def _fresh(self) -> dict[str, str]:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.command.before is None:
            self.folder.mkdir()
        else:
            shutil.copytree(self.command.before, self.folder)
        for name, content in NEIGHBOURS.items():
            (self.folder / name).write_bytes(content)
        return tree(self.folder)

    def serve(self, real_every: int) -> None:
        """From now on also serve what is left; golden answers are those of undisturbed banks.

        Args:
            real_every: each so many servers one is a process of its own; 0 for none.
        """
        (name,) = self.command.banks
        self._fresh()
        golden = {"old": answers_in_process(self.folder / name)}
        ended = forked(lambda: self.command.act(self.folder, False), self.folder)
        assert not ended.status, ended.error
        golden["new"] = answers_in_process(self.folder / name)
        assert not same_answers(golden["old"], golden["new"]), "nothing would be seen"
        self.served = ServedBank(golden, real_every)

    def _look(self, ended: Ended) -> str:
        """What the folder holds after an early end.

        Raises:
            AssertionError: it is not what is promised.
        """
        found = compared(tree(self.folder), self.command)
        for name, content in NEIGHBOURS.items():
            assert (self.folder / name).read_bytes() == content, f"{name} was touched"
        states = []
        for name in self.command.outputs:
            old, new, now = (part(of, name) for of in (self.before, self.after, found))
            assert now in (old, new), f"{name} is neither old nor new: {sorted(now)}"
            states.append("new" if now == new else "old")
            if now and name.endswith(".vptk"):
                open_bundle(self.folder / name)
            if now and name.endswith(".safetensors"):
                read_adapter(self.folder / name)
        for name in self.command.banks:
            bundle = open_bundle(self.folder / name)
            assert all(engine.whole for engine in list_engines(bundle)), "half an engine"
            manifest = f"{name}/manifest.json"
            assert found[manifest] in (self.before[manifest], self.after[manifest]), manifest
            states.append("new" if found[manifest] == self.after[manifest] else "old")
            if self.served is not None:
                self.served.check(self.folder / name, states[-1])
        if ended.status == -signal.SIGKILL:
            return f"{' '.join(sorted(set(states)))}{', parts' if temporary(found) else ''}"
        if ended.status:
            assert ended.error.startswith("OutputError"), ended.error
            assert not temporary(found), f"a full disk leaves {temporary(found)}"
            return f"told, {' '.join(sorted(set(states)))}"
        return "ended before"


# the commands ----------------------------------------------------------------------------------

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def _images(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 5), ("test", 2), ("ood", 2)):
        for place, name in enumerate(("blue", "red")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 120, (32, 32, 3), dtype=np.uint8)
                pixels[..., 2 * place] += 120
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


def _pixel(what: Any, path: Path, name: str = "", *words: str) -> None:
    from vptkit.atomic_files import atomic_file

    with atomic_file(path) as place:
        place.write_text(f"a picture of {name}")


def _play() -> None:
    """Pictures are one pixel; TensorRT answers at once, and writes its plan as the worker does."""
    run_pictures.page_text = lambda _: run_pictures.MARK.decode()
    sweep_plot.plot_sweep = _pixel
    gpu = {"index": 0, "name": "Orin", "capability": "8.7", "memory_bytes": 8 << 30}
    gpu |= {"integrated": True, "sms": 8, "clock_mhz": 1020, "driver": "12.6"}
    answer = {"version": "10.3.0", "gpu": gpu, "errors": [], "plan_bytes": 4, "inspector": None}
    answer |= {"parse_s": 0.1, "build_s": 0.2, "peak_rss_mb": 300.0, "free_bytes": 4 << 30}

    def converse(request: dict[str, Any], **_: Any) -> Outcome:
        if request["model"] is None:
            return Outcome(result={**answer, "stage": "identity"})
        Path(request["plan"]).write_bytes(bytes(1 << 16))
        return Outcome(result={**answer, "stage": "done"})

    builder.converse = converse


def _trainings(place: Path) -> dict[str, Command]:
    data, weights = _images(place / "images"), place / "tiny.safetensors"
    model = create_model("vit_tiny_patch16_224", num_classes=0, **TINY)
    save_file(model.state_dict(), weights)
    base = {"backbone": "vit_tiny_patch16_224", "backbone_args": TINY, "weights": str(weights)}
    base |= {"epochs": 2, "batch_size": 8, "golden": 2, "device": "cpu", "prompts": 2}
    plain = config_from_mapping({**base, "method": "vpt", "name": "a"})
    other = config_from_mapping({**base, "method": "vpt", "name": "a", "seed": 1})
    norms = config_from_mapping(
        without_idle(
            {**base, "method": "ln", "rescale": "gamma", "name": "a", "full_data": str(data)}
        )
    )
    shots = config_from_mapping(without_idle({**base, "method": "linear"}))
    settings = without_idle({**base, "method": "vpt", "insert": "shallow"})
    swept = {"data": str(data), "tune": settings, "space": {"lr": [1e-3, 3e-2]}}
    plan = sweep_from_mapping(swept)
    old = place / "old-run"
    old.mkdir()
    done = forked(lambda: _tune(data, old / "a.safetensors", other), old)
    assert not done.status, done.error

    def sweep(folder: Path, again: bool) -> None:
        run_sweep.sweep(plan, folder / "s", Serial(place / f"store-{folder.name}"))

    adapter = ("a.safetensors",)
    return {
        "tune": Command(
            act=lambda f, again: _tune(data, f / "a.safetensors", plain, resume=again),
            outputs=adapter,
        ),
        "tune --force": Command(
            act=lambda f, again: _tune(data, f / "a.safetensors", plain, resume=again, force=True),
            before=old,
            outputs=adapter,
        ),
        "tune --full-data": Command(
            act=lambda f, again: _tune(data, f / "a.safetensors", norms, resume=again),
            outputs=("a.safetensors", "a.full.safetensors"),
        ),
        "tune --shots": Command(
            act=lambda f, again: void(
                tune_shots(data, f / "a.safetensors", shots, [1, 2], resume=again)
            ),
            outputs=("a-1shot.safetensors", "a-2shot.safetensors"),
        ),
        "sweep": Command(act=sweep, outputs=("s/best.safetensors",), varying=(".json", ".csv")),
    }


def void(_: Any) -> None:
    """Of a function whose result nobody needs."""


def _tune(data: Path, output: Path, config: Any, **flags: bool) -> None:
    tune(data, output, config, **flags)


class _Exports:
    """Commands around bundles: their inputs, and what each does in a folder."""

    def __init__(self, place: Path) -> None:
        members = family(Setup(depth=2), ("bilinear", "whitened", "norms"))
        source = place / "adapters"
        (source / "image").mkdir(parents=True)
        self.paths = write_family(members, source)
        self.weights = self.paths["weights"]
        self.images = [str(source / "image")]
        Image.new("RGB", (40, 40), (200, 10, 10)).save(source / "image" / "0.png")
        self.baked, self.bank = place / "old-baked", place / "old-bank"
        for folder in (self.baked, self.bank):
            folder.mkdir()
        self._bake("bilinear", self.baked, force=False)
        self._pack(("bilinear", "whitened", "norms"), self.bank, force=False)
        edit_bank.remove(self.bank / "x.vptk", "norms")

    def export(self, folder: Path, again: bool) -> None:
        self._bake("whitened", folder, force=again)

    def export_over(self, folder: Path, again: bool) -> None:
        self._bake("whitened", folder, force=True)

    def bank_over(self, folder: Path, again: bool) -> None:
        self._pack(("norms", "whitened"), folder, force=True)

    def add(self, folder: Path, again: bool) -> None:
        """What is there already is put there once more: any edit sweeps up."""
        bundle = folder / "x.vptk"
        there = again and "norms" in open_bundle(bundle).adapter_names
        (edit_bank.replace if there else edit_bank.add)(bundle, self.paths["norms"])

    def replace(self, folder: Path, again: bool) -> None:
        edit_bank.replace(folder / "x.vptk", self.paths["whitened"], name="bilinear")

    def remove(self, folder: Path, again: bool) -> None:
        bundle = folder / "x.vptk"
        if again and "whitened" not in open_bundle(bundle).adapter_names:
            edit_bank.replace(bundle, self.paths["bilinear"])
        else:
            edit_bank.remove(bundle, "whitened")

    def build(self, folder: Path, again: bool) -> None:
        options = builder.BuildOptions(library="tensorrt")
        builder.build_engine(open_bundle(folder / "x.vptk"), options)

    def run(self, folder: Path, again: bool) -> None:
        session = open_session(folder / "x.vptk", "cpu", 1)
        with saving(folder / "found.jsonl", top_k=1, force=again) as writer:
            deliver(predict(session, self.images, top_k=1), [writer])

    def _bake(self, name: str, folder: Path, *, force: bool) -> None:
        export(self.paths[name], folder / "x.vptk", weights=self.weights, force=force)

    def _pack(self, names: Sequence[str], folder: Path, *, force: bool) -> None:
        paths = [self.paths[name] for name in names]
        export_bank(paths, folder / "x.vptk", weights=self.weights, force=force)


def _bundles(place: Path) -> dict[str, Command]:
    made, x = _Exports(place), ("x.vptk",)
    return {
        "export": Command(act=made.export, outputs=x),
        "export --force": Command(act=made.export_over, before=made.baked, outputs=x),
        "export --layout bank --force": Command(act=made.bank_over, before=made.bank, outputs=x),
        "bank add": Command(act=made.add, before=made.bank, banks=x),
        "bank replace": Command(act=made.replace, before=made.bank, banks=x),
        "bank remove": Command(act=made.remove, before=made.bank, banks=x),
        "build": Command(act=made.build, before=made.baked, banks=x, varying=(".json",)),
        "run --save": Command(act=made.run, before=made.baked, outputs=(*x, "found.jsonl")),
    }


def _careless(folder: Path, again: bool) -> None:
    """Promises nothing; shows that breaking a promise is noticed."""
    for half in ("one half", ", and the other"):
        with (folder / "x.txt").open("a") as stream:
            stream.write(half)


def measured(
    rounds: int,
    seed: int,
    chosen: list[str],
    every: bool,
    modes: Sequence[str] = MODES,
    real_every: int | None = None,
) -> dict[str, Any]:
    """Kill each command, `rounds` times in each mode; of banks, serve what is left unless None.

    Returns:
        command → {"operations" of it, "states" that were found, "failures"}.
    """
    torch.set_num_threads(1)
    _play()
    document: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="vptkit-kills-") as name:
        place = Path(name)
        commands = _trainings(place) | _bundles(place)
        if "careless" in chosen:
            commands["careless"] = Command(act=_careless, outputs=("x.txt",))
        for number, (title, command) in enumerate(commands.items()):
            if chosen and title not in chosen:
                continue
            trial = Trial(title, command, place / f"work-{number}")
            if real_every is not None and command.banks:
                trial.serve(real_every)
            draw = random.Random(f"{seed} {title}")
            for at in range(1, trial.operations + 1) if every else ():
                trial.once("op", draw, at)
            for mode in modes:
                for _ in range(rounds):
                    trial.once(mode, draw)
            document[title] = {
                "operations": trial.operations,
                "states": dict(sorted(trial.states.items())),
                "failures": trial.failures,
            }
            if trial.served is not None:
                document[title]["servers"] = trial.served.servers
            print(title, json.dumps(document[title]), file=sys.stderr, flush=True)
    return document


def main() -> None:
    """Parse the command line, kill, print one JSON document; status 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, help="of each command and mode")
    parser.add_argument("--every", action="store_true", help="also at each operation once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--served", action="store_true", help="serve each bank that is left")
    parser.add_argument("--real-every", type=int, default=20, help="a server's own process [20]")
    parser.add_argument("commands", nargs="*", help="some of them [all]")
    options = parser.parse_args()
    document = measured(
        options.rounds,
        options.seed,
        options.commands,
        options.every,
        options.modes,
        options.real_every if options.served else None,
    )
    print(json.dumps(document, indent=1))
    sys.exit(any(found["failures"] for found in document.values()))


if __name__ == "__main__":
    main()
