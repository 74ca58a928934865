"""Runs on real clusters of Ray, through the command line, in processes of their own."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vptkit
from tests.support.children import PIPE, Child, run_child
from tests.support.ray_clusters import ENVIRONMENT, LIMIT, needs_ray, two_nodes, wait_for

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.long, needs_ray]
COMMAND = [sys.executable, "-m", "vptkit", "run"]
# As the command, but for the current folder on the search path.
MAIN = "import sys; sys.path = [p for p in sys.path if p]; from vptkit.cli import main; main()"
COUNT = 128


@pytest.fixture
def photos(tmp_path):
    """Many names of a few images that take long to decode, and a broken one."""
    random = np.random.default_rng(0)
    folder, kinds = tmp_path / "photos", 6
    folder.mkdir()
    for kind in range(kinds):
        pixels = random.integers(0, 90, (900, 900, 3), dtype=np.uint8)
        pixels[..., kind % 3] += 100
        Image.fromarray(pixels).save(tmp_path / f"{kind}.png")
    for number in range(COUNT - 1):
        os.link(tmp_path / f"{number % kinds}.png", folder / f"{number:03}.png")
    (folder / "050a.png").write_bytes(b"\x89PNG")
    return folder


def plain(bundle, photos, output):
    """What one process writes."""
    arguments = [bundle, photos, "--threads", 1, "--backend", "cpu", "-o", output]
    run_child([*COMMAND, *arguments], check=False, env=ENVIRONMENT)
    return output.read_bytes()


def noted(output):
    """Ray's notes of parts that are written."""
    folder = output.with_name(f"{output.name}.parts") / "checkpoint"
    return [file for file in folder.glob("*.parquet") if ".pending." not in file.name]


# In Ray's place stand functions that lose what they were given.
LOSING = """
    import contextlib
    import json
    import sys
    from pathlib import Path
    from types import SimpleNamespace
    import pyarrow
    import pytest
    import ray
    from pyarrow import parquet
    from vptkit.errors import DataError, OutputError
    from vptkit.runtime.ray_data import dataset_run
    from vptkit.runtime.ray_data.batch_worker import WorkOrder
    from vptkit.runtime.ray_data.gathered_answers import GatheredAnswers
    from vptkit.runtime.ray_data.parts_folder import opened_parts

    folder, told = Path(sys.argv[1]), []
    node = {"NodeID": "a", "Resources": {"CPU": 2.0}}
    order = WorkOrder(
        bundle=folder, digest="", parts=folder / "x.csv.parts", batches=5, folder=folder, batch=2,
        adapter=None, top_k=1, reject=None, decode=None, backend="cpu", threads=1,
        trust_engines=False,
    )
    dataset_run.connected = lambda *_: contextlib.nullcontext()
    dataset_run.living_nodes = lambda: [node]
    dataset_run._require_nodes = lambda order, share: told.append((order.threads, share.actors))

    def losing(parts, batches, *losses):
        for name in ("checkpoint", "answers"):
            (parts.path / name).mkdir(exist_ok=True)
        losses = iter(losses)

        def write(order, share):
            lost = next(losses)
            notes = [parquet.read_table(f)["id"].to_pylist() for f in parts.checkpoint.iterdir()]
            told.append(sorted(sum(notes, [])))
            for batch in set(range(batches)) - set(told[-1]):
                table = pyarrow.table({"id": [batch]})
                parquet.write_table(table, parts.checkpoint / f"{batch}.parquet")
                columns = {"answers": ["{}"], "backend": ["cpu"]}
                if batch not in lost:
                    for name, column in columns.items():
                        table = table.append_column(name, [column])
                    parquet.write_table(table, parts.answers / f"{batch}.parquet")

        dataset_run._write_answers = write

    def answer(parts, **asked):
        dataset_run.run_dataset(order, address="auto", **asked)

    with opened_parts(folder / "x.csv", {}) as parts:
        parts.take_up([Path(f"{i}.png") for i in range(9)], 2)
        # What is noted and not there is answered again, and that alone.
        losing(parts, 5, {1, 3}, {3}, {})
        answer(parts, threads=2)
        assert told == [(2, 1), [], [0, 2, 4], [0, 1, 2, 4]], told
        assert GatheredAnswers(parts.answers, 5).missing == 0
        parts.remove()
    with opened_parts(folder / "x.csv", {}) as parts:
        parts.take_up([Path(f"{i}.png") for i in range(9)], 2)
        losing(parts, 5, {4}, {4}, {4})
        with pytest.raises(OutputError, match="1 of 5 batches are in no part"):
            answer(parts)

    # What a worker raised comes out of what Ray makes of it: itself, or its text.
    with pytest.raises(DataError, match="^node a: gone$"), dataset_run._causes():
        raise ray.exceptions.RayTaskError("f", "trace", DataError("node a: gone"))
    def failing(batch):
        raise DataError("node a: gone, and more of it")

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    with pytest.raises(DataError, match="^node a: gone, and more of it$"), dataset_run._causes():
        ray.data.range(1).map_batches(failing).materialize()
    ray.shutdown()
    with pytest.raises(ray.exceptions.RayTaskError), dataset_run._causes():
        raise ray.exceptions.RayTaskError("f", "trace", ZeroDivisionError())
    print("good")
"""


def test_what_is_lost_is_answered_again(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(LOSING), tmp_path]
    done = run_child(command, check=False, env=ENVIRONMENT)
    assert done.stdout == "good\n", done.stderr


def test_a_driver_dies_and_then_a_node_and_the_output_is_that_of_one_process(
    make_bundle, photos, tmp_path
):
    """The driver in the middle, and as if a part had been written that no note tells of."""
    bundle, output = make_bundle(), tmp_path / "ray.csv"
    planted, mark = tmp_path / "planted", tmp_path / "mark"
    planted.mkdir()
    for name in ("numpy", "PIL", "onnxruntime", "vptkit"):
        (planted / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').write(__file__)\n")
    package = str(Path(vptkit.__file__).parents[1])
    settings = {"cwd": planted, "env": ENVIRONMENT | {"PYTHONPATH": package}, "limit": LIMIT}
    settings |= {"stdout": PIPE, "stderr": PIPE}
    with two_nodes(cpus=2) as cluster:  # room for two actors, and for that which reads the notes
        arguments = [bundle, "../photos", "-o", output, "--ray-address", cluster.address]
        command = [sys.executable, "-c", MAIN, "run", *arguments, "--actors", 2]
        with Child(command, **settings) as process:
            wait_for(lambda: len(noted(output)) >= 2, process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert not output.exists()
        noted(output)[0].unlink()
        before = len(noted(output))
        with Child(command, **settings) as process:
            # Perhaps before the second actor is there: on a busy machine it comes late, or too late.
            wait_for(lambda: len(noted(output)) > before, process)
            cluster.kill()
            out, errors = process.communicate()
    assert process.returncode == 2, errors
    told = errors.splitlines()
    assert told[0].startswith(f"note: {output}.parts: ")
    assert told[0].endswith(" images are done, the run goes on there")
    assert all(line.startswith("run: ") for line in told[1:-1]), errors  # Ray is silent
    assert told[-1].startswith(f"error: 1 of {COUNT} images failed")
    assert f"{COUNT} images in" in out
    assert not mark.exists(), mark.read_text()
    expected = plain(bundle, photos, tmp_path / "plain.csv")
    assert output.read_bytes() == expected.replace(bytes(photos), b"../photos")
    assert not output.with_name("ray.csv.parts").exists()
