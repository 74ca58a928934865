from __future__ import annotations

import pytest
from PIL import Image

from vptkit.runtime.profile import profile_plot
from vptkit.runtime.profile.profile_plot import plot_profile


@pytest.fixture
def document():
    def row(name, kind, batch, p50, ratio):
        return {
            "name": name,
            "kind": kind,
            "backend": "cpu",
            "batch": batch,
            "count": 50,
            "ms": {"p50": p50, "p90": 1.1 * p50, "p99": 1.3 * p50, "mean": p50},
            "ratio": ratio,
        }

    faster = {"to": "bare", "value": 0.7, "low": 0.69, "high": 0.72, "verdict": "faster"}
    same = faster | {"value": 1.0, "high": 1.1, "verdict": "no measurable difference"}
    rows = [
        row(name, kind, batch, batch * ms, ratio)
        for batch in (1, 8)
        for name, kind, ms, ratio in (
            ("bpt", "adapter", 7.0, faster),
            ("an adapter with a name that is much too long", "adapter", 10.1, same),
            ("bare", "baseline", 10.0, None),
        )
    ]
    machine = {
        "cpu": "Cortex-A78AE",
        "arch": "aarch64",
        "session_threads": 6,
        "load": 0.1,
        "versions": {"vptkit": "0.1.0"},
    }
    return {"rows": rows, "machine": machine}


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_plots_are_written(document, tmp_path, suffix):
    path = tmp_path / f"plot.{suffix}"
    plot_profile(document, path)
    assert path.stat().st_size > 5000
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_adapters_and_baselines_have_their_colours(document, tmp_path):
    plot_profile(document, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        colours = {c for _, c in image.convert("RGB").getcolors(maxcolors=1 << 24)}
    assert {(0x2A, 0x6F, 0x97), (0xB8, 0xBC, 0xC2)} <= colours


def test_energy_and_power_modes_are_drawn(document, tmp_path):
    """One panel more for each batch size with energy, one for each mode and batch size."""

    def height(rows):
        path = tmp_path / "plot.png"
        plot_profile({**document, "rows": rows}, path)
        with Image.open(path) as image:
            return image.size[1]

    rows = document["rows"]
    energy = {"joules_per_image": 0.3, "source": "INA3221"}
    paid = [
        {**row, "energy": energy if row["batch"] == 1 else {"unavailable": "x"}} for row in rows
    ]
    modes = [{**row, "power_mode": mode} for mode in ("15W", "MAXN") for row in paid]
    assert height(rows) < height(paid) < height(modes)


def test_less_than_nothing_is_drawn(document, tmp_path):
    """Energy below the noise of its meter."""
    energy = {"joules_per_image": -0.01, "source": "INA3221"}
    rows = [{**row, "energy": energy} for row in document["rows"]]
    plot_profile({**document, "rows": rows}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


@pytest.mark.parametrize(("backend", "begins"), [("tensorrt", "Orin, Cortex"), ("cpu", "Cortex")])
def test_the_gpu_is_named_where_it_does_the_work(document, backend, begins):
    document["machine"]["gpu"] = {"name": "Orin"}
    for row in document["rows"]:
        row["backend"] = backend
    assert profile_plot._circumstances(document).splitlines()[1].startswith(begins)
