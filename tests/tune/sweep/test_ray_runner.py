"""Sweeps on Ray, through the command line, in processes of their own: Ray warns as it imports."""

from __future__ import annotations

import json
import signal
import sys
import textwrap
from pathlib import Path

import pytest

import vptkit
from tests.support.children import PIPE, Child, run_child
from tests.support.ray_clusters import ENVIRONMENT, LIMIT, needs_ray, two_nodes, wait_for
from vptkit.tune import tune
from vptkit.tune.sweep.run_sweep import sweep_from_mapping

pytestmark = pytest.mark.long
COMMAND = [sys.executable, "-m", "vptkit", "sweep"]


@pytest.fixture
def config(make_config, splits, tmp_path):
    """A function: a sweep's TOML file, and the sweep that it holds."""

    def make(space, search="", **fixed):
        base = make_config()
        settings = {
            "backbone": base.backbone,
            "weights": str(base.weights),
            "batch_size": 8,
            "prompts": 3,
            "golden": 3,
            "method": "vpt",
            **fixed,
        }
        inline = ", ".join(f"{key} = {value}" for key, value in base.backbone_args.items())
        lines = [f"data = {str(splits)!r}", "[tune]", f"backbone_args = {{{inline}}}"]
        lines += [f"{key} = {value!r}" for key, value in settings.items()]
        lines += ["[space]", *(f"{key} = {value}" for key, value in space.items())]
        path = tmp_path / "sweep.toml"
        path.write_text("\n".join([*lines, "[search]", search, ""]))
        settings["backbone_args"] = base.backbone_args
        document = {"data": str(splits), "tune": settings, "space": space}
        return path, sweep_from_mapping(document)

    return make


def start(*arguments):
    command = [*COMMAND, *arguments]
    return Child(command, stdout=PIPE, stderr=PIPE, env=ENVIRONMENT, limit=LIMIT)


def trials(folder):
    found = [json.loads(path.read_text()) for path in sorted((folder / "trials").glob("*.json"))]
    return {trial["number"]: trial for trial in found}


def curve(trial):
    return [(record["epoch"], record["val_loss"]) for record in trial["history"]]


def curve_alone(sweep, number, folder):
    result = tune(sweep.data, folder / f"{number}.safetensors", sweep.config(number))
    records = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    return [(record["epoch"], record["val_loss"]) for record in records if record["epoch"]]


@pytest.fixture
def cluster():
    """A real Ray cluster with two nodes: its address, the second node's id, how to kill that."""
    with two_nodes() as nodes:
        yield nodes


@needs_ray
def test_a_driver_dies_and_then_a_node_and_nothing_is_lost(config, cluster, tmp_path):
    """The driver by SIGKILL; what SIGINT does is that of any runner, and held by test_run_sweep."""
    address, node, kill = cluster
    path, sweep = config({"lr": [0.003, 0.01]}, epochs=24)
    folder = tmp_path / "out"
    command = (path, "-o", folder, "--ray-address", address, "--json")

    def running():
        """The last record of each trial that is in the middle of its work."""
        return {
            trial["number"]: trial["history"][-1]
            for trial in trials(folder).values()
            if trial["state"] == "running" and trial["checkpoint"] and trial["history"]
        }

    with start(*command) as process:
        wait_for(lambda: any(last["epoch"] > 3 for last in running().values()), process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    stopped = next(number for number, last in running().items() if last["epoch"] > 3)

    def there():
        """The trial on the second node, if it got further than the first driver saw."""
        for number, last in running().items():
            further = number != stopped or last["began"] > 0
            if further and last["node"] == node and last["began"] + 2 < last["epoch"] < 20:
                return number
        return None

    with start(*command) as process:
        wait_for(lambda: there() is not None, process)
        struck = there()
        before = running()[struck]
        kill()
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert output.startswith("{"), output
    document = json.loads(output)
    assert {row["trial"]: row["state"] for row in document["leaderboard"]} == dict.fromkeys(
        (0, 1), "finished"
    )
    after = trials(folder)
    began = sorted({record["began"] for record in after[stopped]["history"]})
    assert began[0] == 0 < 2 <= began[1]  # not from the beginning: from its checkpoint
    last = after[struck]["history"][-1]
    assert last["node"] != node
    assert last["began"] > before["began"]
    # They went on as if nothing had happened.
    for number, trial in after.items():
        assert [record["epoch"] for record in trial["history"]] == list(range(1, 25))
        assert curve(trial) == curve_alone(sweep, number, tmp_path)
    assert (folder / "best.safetensors").exists()
    assert "  2 of 2 trials" in errors.splitlines()[-1]
    assert all(line.startswith("sweep: ") for line in errors.splitlines())  # Ray is silent


PRUNING = """
    import sys
    from pathlib import Path
    from types import SimpleNamespace
    from vptkit.tune.sweep.trial_store import Book, Trial
    from vptkit.tune.sweep.ray_runner import _Pruning
    from vptkit.tune.sweep.search_space import Search

    def records(*losses):
        return [{"epoch": e, "best_loss": a} for e, a in enumerate(losses, 1)]

    def decisions(trials, number, losses):
        book = Book(Path("."), trials)
        scheduler = _Pruning(book, Search(pruning=True, grace=2, reduction=2))
        ray_trial = SimpleNamespace(trial_id="x", config={"number": number})
        scheduler.on_trial_add(None, ray_trial)
        return [
            scheduler.on_trial_result(None, ray_trial, record)
            for record in records(*losses)[len(trials[number].history):]
        ]

    def trial(number, state="waiting", history=()):
        return Trial(number=number, settings={}, epochs=8, state=state, history=list(history))

    good = trial(0, "finished", records(*[0.1] * 8))
    weak = [0.5] * 8
    # Alone it has nobody to be behind of; behind a finished trial of an earlier run it is stopped.
    assert decisions([trial(0)], 0, weak) == ["CONTINUE"] * 8
    assert decisions([good, trial(1)], 1, weak)[:2] == ["CONTINUE", "STOP"]
    assert decisions([good, trial(1)], 1, [0.05] * 8) == ["CONTINUE"] * 8
    # A trial that goes on is not judged again at the rungs that it has passed.
    assert decisions([good, trial(1, "running", records(0.5, 0.1, 0.1))], 1, weak)[0] == "STOP"
    assert decisions([good, trial(1, "running", records(*weak[:5]))], 1, weak) == ["CONTINUE"] * 3
    print("good")
"""


WORKER = """
    from pathlib import Path
    from types import SimpleNamespace
    import pytest
    from vptkit.errors import DataError, TargetError, VptkitError
    from vptkit.tune.sweep import ray_runner
    from vptkit.tune.sweep.search_space import Search, Sweep

    told = []
    ray_runner.ray = SimpleNamespace(
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "a"),
        tune=SimpleNamespace(report=told.append, get_checkpoint=lambda: None),
    )
    ray_runner.living_nodes = lambda: [{"Resources": {"CPU": 8.0, "GPU": 2.0}}]

    def failing(error):
        def run_trial(*args):
            raise error

        ray_runner.run_trial = run_trial
        ray_runner._in_worker(Path("data"), {}, None)

    # The trial is over for its settings, not for what a node lacks.
    failing(VptkitError("the loss became nan"))
    assert told == [{"failed": "the loss became nan"}]
    with pytest.raises(DataError):
        failing(DataError("no such folder"))
    assert len(told) == 1

    class Checkpoint:
        def __init__(self, error):
            self.error = error

        def to_directory(self, folder):
            raise self.error

    # A checkpoint that is gone is done without; one that cannot be had now is waited for.
    assert ray_runner._fetched(Checkpoint(FileNotFoundError()), None, Path()) is None
    with pytest.raises(TimeoutError):
        ray_runner._fetched(Checkpoint(TimeoutError()), None, Path())

    def room(fixed, space=None, **search):
        ray_runner._require_room(
            Sweep(data=Path(), fixed=fixed, space=space or {}, search=Search(**search))
        )

    with pytest.raises(TargetError, match="gpus is 0, but 2 are there"):
        room({})
    room({}, gpus=0.5)
    room({"device": "cpu"})
    room({}, {"device": ["cpu", "cuda"]})
    with pytest.raises(TargetError, match="asks for 9 CPUs and 1 GPUs"):
        room({}, gpus=1.0, cpus=9.0)
    print("good")
"""


# A file of somebody's stands where a probe of the storage would be written.
STORAGE = """
    from vptkit.tune.sweep.ray_runner import _require_storage
    _require_storage(sys.argv[1])
"""


@needs_ray
def test_inside_of_ray(tmp_path):
    """Pruning, storage, then a worker, whose script puts others in Ray's place, in one process."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage/.vptkit").symlink_to(victim)
    script = "".join(map(textwrap.dedent, (PRUNING, STORAGE, WORKER)))
    command = [sys.executable, "-c", script, tmp_path / "storage"]
    done = run_child(command, check=False, env=ENVIRONMENT)
    assert done.stdout == "good\ngood\n", done.stderr
    assert victim.read_text() == "precious"
    assert [p.name for p in (tmp_path / "storage").iterdir()] == [".vptkit"]


# Several commands in one process, as importing torch and Ray takes the most time.
RUN = """
    import sys
    sys.path[:] = [place for place in sys.path if place]  # not the current folder
    import json
    from vptkit.cli import main
    if sys.argv[1] == "without":
        sys.modules["ray"] = None
    for arguments in json.loads(sys.argv[2]):
        sys.argv = ["vptkit", "sweep", *arguments]
        try:
            main()
        except SystemExit as error:
            sys.stderr.write(f"exit {error.code}\\n")
"""


def run(*commands, ray="with", **settings):
    """What commands write to standard error, and how each exits."""
    commands = [[str(word) for word in command] for command in commands]
    command = [sys.executable, "-c", textwrap.dedent(RUN), ray, json.dumps(commands)]
    done = run_child(command, check=False, limit=LIMIT, **{"env": ENVIRONMENT, **settings})
    return done.stderr.splitlines()


def test_without_ray_the_extra_is_named(config, tmp_path):
    path, _ = config({"lr": [0.1]})
    assert run([path, "-o", tmp_path / "out"], ray="without") == [
        'error: sweep needs the package ray, which is not installed: pip install "vptkit[sweep]"',
        "exit 5",
    ]


@needs_ray
def test_faults_are_told_in_one_line(config, tmp_path):
    path, _ = config({"lr": [0.1]}, search="gpus = 3\n")
    empty = tmp_path / "empty.toml"
    empty.write_text(path.read_text().replace("lr = [0.1]", "lr = []"))
    output = ["-o", tmp_path / "out"]
    lines = run(
        [path, *output, "--ray-address", "127.0.0.1:1"],
        [path, *output, "--ray-address", "ray://head:10001"],
        [path, *output, "--ray-address", "head"],
        [path, *output, "--ray-address", "head:1", "--cpus", 1],
        [empty, *output],
        [path, *output, "--cpus", 1],
        [path, *output, "--storage", "s4://bucket/folder"],
        [path, *output, "--storage", "/proc/folder"],
    )
    told, codes = lines[::2], lines[1::2]
    assert codes == [f"exit {code}" for code in (5, 2, 2, 2, 2, 4, 2, 2)]
    for line, part in zip(
        told,
        (
            "--ray-address 127.0.0.1:1: nothing answers there",
            "Ray's client does not do",
            "--ray-address 'head': expected HOST:PORT, or auto",
            "--cpus is of this machine",
            f"error: {empty}: [space] lr is []",
            "a trial asks for 1 CPUs and 3 GPUs; no node has them",
            "s4://bucket/folder: checkpoints cannot be stored there",
            "/proc/folder: checkpoints cannot be stored there",
        ),
        strict=True,
    ):
        assert part in line


@needs_ray
def test_two_sweeps_share_a_storage_and_workers_import_nothing_of_the_current_folder(
    config, tmp_path
):
    """Ray puts the folder in which the driver was started before all others on their path."""
    storage = ["--storage", tmp_path / "store", "--cpus", 1]
    commands, sweeps = [], {}
    for name, rate in (("one", 0.003), ("two", 0.03)):
        path, sweeps[name] = config({"lr": [rate]}, epochs=1)
        commands.append([path.rename(tmp_path / f"{name}.toml"), "-o", tmp_path / name, *storage])
    planted, mark = tmp_path / "planted", tmp_path / "mark"
    planted.mkdir()
    for name in ("timm", "torch", "safetensors", "vptkit"):
        (planted / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').write(__file__)\n")
    # again: the best is made once more of what is stored
    package_path = str(Path(vptkit.__file__).parents[1])
    settings = {"cwd": planted, "env": {**ENVIRONMENT, "PYTHONPATH": package_path}}
    lines = run(*commands, commands[0], **settings)
    assert [line for line in lines if not line.startswith("sweep: ")] == ["exit 0"] * 3
    assert not mark.exists(), mark.read_text()
    for name, sweep in sweeps.items():
        best = tmp_path / "best.safetensors"
        tune(sweep.data, best, sweep.config(0), force=True)
        assert (tmp_path / name / "best.safetensors").read_bytes() == best.read_bytes()
