"""Runs on real clusters of Ray, through the command line, in processes of their own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vptkit
from tests.support.children import PIPE, Child, descendants, run_child
from tests.support.ray_clusters import ENVIRONMENT, LIMIT, needs_ray, two_nodes, wait_for

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.long, needs_ray]
COMMAND = [sys.executable, "-m", "vptkit", "run"]
COUNT = 112


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


def start(*arguments, **settings):
    command = [*COMMAND, *arguments]
    return Child(command, stdout=PIPE, stderr=PIPE, env=ENVIRONMENT, **settings)


def plain(bundle, photos, output):
    """What one process writes."""
    arguments = [bundle, photos, "--threads", 1, "--backend", "cpu", "-o", output]
    run_child([*COMMAND, *arguments], check=False, env=ENVIRONMENT)
    return output.read_bytes()


def noted(output):
    """Ray's notes of parts that are written."""
    folder = output.with_name(f"{output.name}.parts") / "checkpoint"
    return [file for file in folder.glob("*.parquet") if ".pending." not in file.name]


def workers(process):
    """How many actors there are below a process."""
    titles = []
    for pid in descendants(process):
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            titles.append(file.read())
    return sum(b"MapBatches(BatchWorker)" in title for title in titles)


def test_a_node_dies_and_the_output_is_that_of_one_process(make_bundle, photos, tmp_path):
    bundle, output = make_bundle(), tmp_path / "ray.jsonl"
    with two_nodes() as cluster:
        arguments = [bundle, photos, "-o", output, "--ray-address", cluster.address]
        with start(*arguments, limit=LIMIT) as process:
            wait_for(lambda: workers(os.getpid()) == 2 and len(noted(output)) >= 2, process)
            cluster.kill()
            assert len(noted(output)) < 6  # of eight or more
            out, errors = process.communicate()
    assert process.returncode == 2, errors
    assert f"1 of {COUNT} images failed" in errors
    assert all(line.startswith(("run: ", "error: ")) for line in errors.splitlines()), errors
    assert f"{COUNT} images in" in out
    assert output.read_bytes() == plain(bundle, photos, tmp_path / "plain.jsonl")
    assert not output.with_name("ray.jsonl.parts").exists()


def test_a_driver_dies_and_the_same_command_goes_on(make_bundle, photos, tmp_path):
    """Killed in the middle, and as if a part had been written that no note tells of."""
    bundle, output = make_bundle(), tmp_path / "ray.csv"
    planted, mark = tmp_path / "planted", tmp_path / "mark"
    planted.mkdir()
    for name in ("numpy", "PIL", "onnxruntime", "vptkit"):
        (planted / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').write(__file__)\n")
    package = str(Path(vptkit.__file__).parents[1])
    settings = {"cwd": planted, "env": ENVIRONMENT | {"PYTHONPATH": package}}
    arguments = [bundle, "../photos", "-o", output, "--ray-address", "local"]
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p]; from vptkit.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "run", *arguments]
    with Child(command, stdout=PIPE, stderr=PIPE, limit=LIMIT, **settings) as process:
        wait_for(lambda: len(noted(output)) >= 3, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not output.exists()
    done = noted(output)
    assert len(done) < 8
    done[0].unlink()
    done = run_child(command, check=False, limit=LIMIT, **settings)
    assert done.returncode == 2, done.stderr
    assert f"{output}.parts: " in done.stderr
    assert "images are done, the run goes on there" in done.stderr
    assert not mark.exists(), mark.read_text()
    expected = plain(bundle, photos, tmp_path / "plain.csv")
    assert output.read_bytes() == expected.replace(bytes(photos), b"../photos")
    assert not output.with_name("ray.csv.parts").exists()
