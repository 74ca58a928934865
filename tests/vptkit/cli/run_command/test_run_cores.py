from __future__ import annotations

import pytest

from vptkit.cli.run_command import run_cores as module
from vptkit.cli.run_command.run_cores import cores_of_run


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr("vptkit.devices.probes.machine.usable_cores", lambda: 6)


@pytest.mark.parametrize("sources", [["photos/"], ["*.jpg"], ["-"], ["x.csv"], ["a.jpg", "b"]])
def test_what_may_be_many_images_parts_the_cores(sources):
    assert cores_of_run(sources, None, streams=False) == (1, 4)


@pytest.mark.parametrize("count", [1, module._FEW])
def test_a_few_named_images_have_all_cores_each(count):
    assert cores_of_run(["A b.JPG"] * count, None, streams=False) == (6, 1)


def test_very_many_named_images_part_them():
    assert cores_of_run(["a.jpg"] * (module._FEW + 1), None, streams=False) == (1, 4)


def test_so_do_threads_that_were_asked_for():
    assert cores_of_run(["photos/"], 2, streams=False) == (1, 2)
    assert cores_of_run(["photos/"], 1, streams=False) == (1, 1)
    assert cores_of_run(["a.jpg"], 2, streams=False) == (2, 1)


def test_frames_are_waited_for():
    assert cores_of_run(["clip.mp4"], None, streams=True) == (6, 1)
