"""Runs on real clusters of Ray, through the command line, in processes of their own."""

from __future__ import annotations

import contextlib
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


def rows(file):
    return pytest.importorskip("pyarrow.parquet").read_metadata(file).num_rows


def workers():
    """How many actors there are on the nodes."""
    count = 0
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            count += b"MapBatches(BatchWorker)" in title
    return count


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
    with two_nodes() as cluster:
        arguments = [bundle, "../photos", "-o", output, "--ray-address", cluster.address]
        command = [sys.executable, "-c", MAIN, "run", *arguments]
        with Child(command, **settings) as process:
            wait_for(lambda: len(noted(output)) >= 2, process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert not output.exists()
        noted(output)[0].unlink()
        before = len(noted(output))
        with Child(command, **settings) as process:
            wait_for(lambda: workers() == 2 and len(noted(output)) > before, process)
            assert sum(map(rows, noted(output))) < COUNT // 8
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
