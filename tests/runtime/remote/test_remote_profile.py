"""Profiling over ssh, against a real sshd on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.bank_cases import family, write_family
from tests.support.children import PIPE, Child, run_child
from tests.support.device_trees import plant
from tests.support.fakes.board import make_board, watchdog_of
from tests.support.fakes.gpu import FOLDER, ORIN
from tests.support.sshd import (  # noqa: F401 -- fixtures
    bank_python,
    bare_python,
    empty_python,
    server,
    wait_for_end,
)
from vptkit.errors import MissingError, TargetError
from vptkit.export.bank.export_bank import export_bank
from vptkit.runtime.profile.run_profile import profile_bundles
from vptkit.runtime.profile.settings import ProfileSettings
from vptkit.runtime.remote.remote_profile import clean_board, profile_on

SHORT = ProfileSettings(rounds=3, threads=1)
LONG = ProfileSettings(seconds=600.0, threads=1)


class Phases:
    """Takes down the phases of a run and their steps, and does something at a step of one."""

    def __init__(self, **actions):
        self.titles, self.steps, self.totals, self._actions = [], {}, {}, actions

    @contextlib.contextmanager
    def __call__(self, title, total):
        self.titles.append(title)
        self.title, self.total = title, total
        yield self

    def update(self, advance=1, text=""):
        self.steps[self.title] = self.steps.get(self.title, 0) + advance
        self.totals[self.title] = self.total
        action = self._actions.pop(self.title, None)
        if action is not None:
            action()


@pytest.fixture
def desk(server, bare_python):  # noqa: F811
    """A function: `profile_on` with what this server wants."""

    def run(bundles, settings=SHORT, **more):
        defaults = {"python": str(bare_python), "ssh_options": server.options}
        return profile_on(server.host, bundles, settings, **defaults | more)

    yield run
    server.wait_until_idle()
    (server.home / ".profile").unlink(missing_ok=True)


@pytest.fixture
def bank(tmp_path):
    """A bank of two adapters."""
    paths = write_family(family(kinds=("bilinear", "linear")), tmp_path)
    adapters = [paths["bilinear"], paths["linear"]]
    export_bank(adapters, tmp_path / "bank.vptk", weights=paths["weights"])
    return tmp_path / "bank.vptk"


def cached(server):  # noqa: F811
    return sorted((server.cache / "files").iterdir())


def whole(file):
    return hashlib.sha256(file.read_bytes()).hexdigest() == file.name


# what comes back ----------------------------------------------------------------------------------


def test_the_document_is_that_of_a_profile_here(server, desk, make_bundle):  # noqa: F811
    bundles = [make_bundle("one"), make_bundle("two", batch=2)]
    plain = [{"plain": make_bundle("plain", macs={"before": 9, "after": 9})}, {}]
    settings = ProfileSettings(batches=(1, 2), rounds=3, threads=1, seed=5)
    phases = Phases()
    there = desk(bundles, settings, baselines=plain, phases=phases)
    here = profile_bundles(bundles, settings, baselines=plain)
    assert there.pop("host") == server.host
    assert set(there) == set(here)
    same = ("name", "kind", "backend", "batch", "count", "path", "graph_sha256", "macs")
    assert [[r[k] for k in same] for r in there["rows"]] == [
        [r[k] if k != "path" or r[k] is None else str(Path(r[k])) for k in same]
        for r in here["rows"]
    ]
    assert [set(row) for row in there["rows"]] == [set(row) for row in here["rows"]]
    assert all(row["memory_mb"]["peak"] > 0 for row in there["rows"])
    assert set(there["machine"]) == set(here["machine"])
    assert phases.titles == ["copy", "profile"]
    assert phases.steps["copy"] == phases.totals["copy"] > 0
    assert phases.steps["profile"] > 0
    assert list((server.cache / "runs").iterdir()) == []


def test_the_board_has_nothing_but_numpy_and_the_backend(bare_python):  # noqa: F811
    code = "import importlib.util as u, sys; sys.exit(u.find_spec(sys.argv[1]) is None)"
    names = ("numpy", "onnxruntime", "safetensors", "PIL", "typer", "rich", "onnx", "torch")
    found = {
        n
        for n in names
        if not run_child([bare_python, "-c", code, n], check=False, cwd="/").returncode
    }
    assert found == {"numpy", "onnxruntime"}


def test_a_second_run_copies_nothing(server, desk, make_bundle):  # noqa: F811
    bundle = make_bundle()
    desk([bundle])
    phases = Phases()
    assert len(desk([bundle], phases=phases)["rows"]) == 1
    assert phases.titles == ["profile"]


def test_what_was_damaged_there_is_replaced(server, desk, make_bundle):  # noqa: F811
    bundle = make_bundle()
    desk([bundle])
    model = (
        server.cache / "files" / hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()
    )
    model.write_bytes(b"x" * model.stat().st_size)
    phases = Phases()
    assert len(desk([bundle], phases=phases)["rows"]) == 1
    assert phases.titles == ["copy", "profile"]
    assert phases.totals["copy"] == model.stat().st_size // 1000
    assert whole(model)


def test_noise_of_the_login_shell_is_no_answer(server, desk, make_bundle):  # noqa: F811
    noise = "echo Welcome\necho '{\"error\": 1}'\necho noise >&2\nprintf 'no end of line'\n"
    (server.home / ".profile").write_text(noise)
    assert len(desk([make_bundle()])["rows"]) == 1


def test_two_desks_at_once(server, desk, make_bundle):  # noqa: F811
    bundle, documents = make_bundle("both", labels=("a", "b", "c")), []
    phases = Phases(copy=lambda: documents.append(desk([bundle])))
    documents.append(desk([bundle], phases=phases))
    assert [len(document["rows"]) for document in documents] == [1, 1]
    assert all(map(whole, cached(server)))


@pytest.mark.parametrize("python", ["~/a python", "./a python"])
def test_a_python_below_the_home_folder(server, desk, make_bundle, bare_python, python):  # noqa: F811
    (server.home / "a python").write_text(f'#!/bin/sh\nexec {bare_python} "$@"\n')
    (server.home / "a python").chmod(0o755)
    assert len(desk([make_bundle()], python=python)["rows"]) == 1


def test_a_bank(desk, bank, bank_python):  # noqa: F811
    names = [row["name"] for row in desk([bank], python=str(bank_python))["rows"]]
    assert names == ["bank: bilinear", "bank: linear", "bank: mixed"]


def test_the_command(server, vptkit, bank, bank_python):  # noqa: F811
    options = [word for option in server.options for word in ("--ssh-option", option)]
    command = ("profile", bank, "--baseline", "--rounds", 3, "--threads", 1, "--json")
    there = ("--on", server.host, "--python", bank_python, *options)
    code, out, err = vptkit(*command, *there)
    assert code == 0, err
    document = json.loads(out)
    assert document["host"] == server.host
    assert {row["kind"] for row in document["rows"]} == {"adapter", "baseline"}
    assert {row["path"] for row in document["rows"]} == {str(bank), None}
    assert "copy: " in err
    assert "profile: " in err
    code, out, err = vptkit(*command, *there, "--python", "python-of-nowhere")
    assert (code, out) == (5, "")
    assert err.startswith(f"error: {server.host}: no such Python there")


@pytest.mark.slow
def test_engines_are_built_there_once(server, desk, make_bundle, fake_driver):  # noqa: F811
    board = {
        "LD_LIBRARY_PATH": fake_driver.parent,
        "PYTHONPATH": FOLDER,
        "FAKE_CUDA": ORIN,
        "FAKE_LIBCUDA": fake_driver,
    }
    lines = [f"export {name}='{value}'\n" for name, value in board.items()]
    (server.home / ".profile").write_text("".join(lines))
    bundle, plain = make_bundle(), make_bundle("plain", shift=0.1)
    settings = replace(SHORT, backend="tensorrt", batches=(2, 48))
    times = []
    for _ in range(2):
        phases = Phases()
        document = desk(
            [bundle],
            settings,
            baselines=[{"plain": plain}],
            python=sys.executable,  # the stand-in for TensorRT wants onnx
            phases=phases,
        )
        assert phases.titles[-2:] == ["build", "profile"]  # the baseline's comes within the profile
        assert [(r["name"], r["backend"], r["batch"]) for r in document["rows"]] == [
            (name, "tensorrt", batch) for batch in (2, 48) for name in ("tiny-0", "plain")
        ]
        times.append([p.stat().st_mtime_ns for p in server.cache.glob("engines/*/*.engine")])
    assert len(times[0]) == 2
    assert times[0] == times[1]
    assert not (bundle / "engines").exists()


# what goes wrong ----------------------------------------------------------------------------------


def test_errors_keep_their_kind(server, desk, make_bundle):  # noqa: F811
    with pytest.raises(TargetError, match=r"no bundle takes batches of 3") as caught:
        desk([make_bundle(batch=2)], replace(SHORT, batches=(3,)))
    assert str(caught.value).startswith(f"{server.host}: ")


def test_a_bank_says_what_it_lacks(desk, bank):
    with pytest.raises(MissingError, match=r"has no safetensors, which a bank needs.*pip install"):
        desk([bank])


def test_numpy_is_missing(server, desk, make_bundle, empty_python):  # noqa: F811
    before = set(cached(server))
    with pytest.raises(MissingError, match=r"has no numpy, which vptkit needs.*python3-numpy"):
        desk([make_bundle("new", labels=("1", "2", "3"))], python=str(empty_python))
    assert set(cached(server)) == before


def test_the_backend_is_missing(desk, make_bundle):
    with pytest.raises(MissingError, match=r"has no tensorrt, which the backend tensorrt needs"):
        desk([make_bundle()], replace(SHORT, backend="tensorrt"))
    with pytest.raises(MissingError, match=r"no openvino, which the backend openvino-bf16 needs"):
        desk([make_bundle()], replace(SHORT, backend="cpu,openvino-bf16"))


@pytest.mark.parametrize(
    ("number", "message"), [(signal.SIGKILL, "lack of memory"), (signal.SIGSEGV, "with signal 11")]
)
def test_the_runner_dies(server, desk, make_bundle, number, message):  # noqa: F811
    with pytest.raises(TargetError, match=message):
        desk([make_bundle()], LONG, phases=Phases(profile=lambda: os.kill(runner(server), number)))


def runner(server):  # noqa: F811
    # The first: a child of its own is called the same until it has become another program.
    return min(
        p
        for p, line in server.processes().items()
        if "vptkit.runtime.remote.profile_runner" in line
    )


# what stops in the middle -------------------------------------------------------------------------


def test_the_connection_breaks_while_files_are_copied(server, desk, make_bundle):  # noqa: F811
    bundle = make_bundle("cut", labels=("x", "y", "z"))
    clean_board(server.host, python=sys.executable, ssh_options=server.options)
    with pytest.raises(MissingError, match=r"lost while files were copied.*rm -r ~/.cache/vptkit"):
        desk([bundle], phases=Phases(copy=server.cut))
    server.wait_until_idle()
    assert all(map(whole, cached(server)))
    phases = Phases()
    assert len(desk([bundle], phases=phases)["rows"]) == 1
    assert "copy" in phases.titles
    assert list((server.cache / "runs").iterdir()) == []


def test_the_connection_breaks_while_it_runs(server, desk, make_bundle):  # noqa: F811
    with pytest.raises(MissingError, match=r"lost while the profile ran"):
        desk([make_bundle()], LONG, phases=Phases(profile=server.cut))
    server.wait_until_idle()
    assert list((server.cache / "runs").iterdir()) == []


DESK = """
import contextlib, json, sys
from pathlib import Path
from vptkit.runtime.remote.remote_profile import profile_on
from vptkit.runtime.profile.settings import ProfileSettings

class Bar:
    total = None
    def update(self, advance=1, text=""):
        print(title, flush=True)

@contextlib.contextmanager
def phases(name, total):
    global title
    title = name
    yield Bar()

arguments = json.loads(sys.argv[1])
arguments["settings"] = ProfileSettings.from_json(arguments["settings"])
profile_on(arguments.pop("host"), [Path(arguments.pop("bundle"))], phases=phases, **arguments)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_runs_on_after_the_desk(server, desk, make_bundle, bare_python, number):  # noqa: F811
    arguments = {
        "host": server.host,
        "bundle": str(make_bundle()),
        "settings": LONG.to_json(),
        "python": str(bare_python),
        "ssh_options": server.options,
    }
    command = [sys.executable, "-c", DESK, json.dumps(arguments)]
    with Child(command, stdout=PIPE, stderr=PIPE) as process:
        while process.stdout.readline().strip() != "profile":
            assert process.poll() is None, process.stderr.read()
        assert runner(server)
        process.send_signal(number)
        _, error = process.communicate()
    if number == signal.SIGINT:
        assert error.rstrip().endswith("KeyboardInterrupt")
        assert server.processes() == {}  # it waited for the end there
    server.wait_until_idle()


# power modes --------------------------------------------------------------------------------------

# Read by every Python there when it starts: we are root, and the runner looks for /etc elsewhere.
AS_ROOT = """
import os, sys
from pathlib import Path
os.geteuid = lambda: 0
if "vptkit.runtime.remote.profile_runner" in sys.orig_argv:
    from vptkit.runtime.profile.power_mode_sweep import BoardAccess
    BoardAccess.__init__.__kwdefaults__["root"] = Path({root!r})
"""
SWEEP = replace(LONG, power="MAXN_SUPER", pin_clocks=True)


@pytest.fixture
def fake(server, desk, tmp_path):  # noqa: F811
    """A fake board at the other end, in mode 1, which its login shell puts on PATH."""
    made = make_board(tmp_path, {0: "15W", 1: "25W", 2: "MAXN_SUPER"}, 1)
    root = plant("orin-nano-jp62", tmp_path / "root")
    (tmp_path / "python").mkdir()
    (tmp_path / "python/sitecustomize.py").write_text(AS_ROOT.format(root=str(root)))
    lines = f"export PATH='{made.bin}':\"$PATH\"\nexport PYTHONPATH='{tmp_path}/python'\n"
    (server.home / ".profile").write_text(lines)
    return made


def assert_restored(fake):
    assert (fake.mode, fake.clocks) == (1, "as someone left them")
    assert fake.log[-2:] == ["nvpmodel -m 1", "jetson_clocks --restore"]


def test_the_board_is_restored_when_the_connection_breaks(server, desk, make_bundle, fake):  # noqa: F811
    def cut():
        assert (fake.mode, fake.clocks) == (2, "pinned in mode 2")
        server.cut()

    with pytest.raises(MissingError, match=r"lost while the profile ran"):
        desk([make_bundle()], SWEEP, phases=Phases(profile=cut))
    server.wait_until_idle()
    assert_restored(fake)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_board_is_restored_when_the_runner_dies(server, desk, make_bundle, fake, number):  # noqa: F811
    """The agent kills what is left of the runner's group then: the watchdog is not in it."""
    watchdogs = []

    def die():
        assert (fake.mode, fake.clocks) == (2, "pinned in mode 2")
        watchdogs.append(watchdog_of(runner(server)))
        os.kill(runner(server), number)

    with pytest.raises(TargetError, match=f"signal {number:d}"):
        desk([make_bundle()], SWEEP, phases=Phases(profile=die))
    wait_for_end(watchdogs[0])
    assert_restored(fake)


def test_the_board_is_restored_when_a_runner_hangs(server, desk, make_bundle, fake):  # noqa: F811
    """The connection breaks, the runner hears nothing, and is killed as the agent does it."""
    watchdogs = []

    def hang():
        assert (fake.mode, fake.clocks) == (2, "pinned in mode 2")
        pid = runner(server)
        watchdogs.append(watchdog_of(pid))
        os.kill(pid, signal.SIGSTOP)
        server.cut()
        os.killpg(pid, signal.SIGKILL)  # not waiting for agent.GRACE

    with pytest.raises(MissingError, match=r"lost while the profile ran"):
        desk([make_bundle()], SWEEP, phases=Phases(profile=hang))
    wait_for_end(watchdogs[0])
    assert_restored(fake)


# the cache ----------------------------------------------------------------------------------------


def test_the_cache_can_be_removed(server, desk, make_bundle, bare_python):  # noqa: F811
    desk([make_bundle()])
    size = sum(file.stat().st_size for file in cached(server))
    options = {"python": str(bare_python), "ssh_options": server.options}
    assert clean_board(server.host, **options) == size > 0
    assert [p for p in server.cache.rglob("*") if p.is_file()] == []


def test_a_cache_in_use_stays(server, desk, make_bundle, bare_python):  # noqa: F811
    def remove():  # the profile is long, so that it surely runs; then it has served
        with pytest.raises(TargetError, match="in use by 1 other"):
            clean_board(server.host, python=str(bare_python), ssh_options=server.options)
        os.kill(runner(server), signal.SIGKILL)

    with pytest.raises(TargetError, match="signal 9"):
        desk([make_bundle()], LONG, phases=Phases(profile=remove))
    assert cached(server)
