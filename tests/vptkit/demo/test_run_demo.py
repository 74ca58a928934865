"""`vptkit demo`: the default and each method, a bundle each, one table, one report; all or nothing."""

from __future__ import annotations

import json
import re
import signal

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
from safetensors.torch import save_file  # noqa: E402

from tests.support.report_pages import read_page  # noqa: E402
from vptkit.demo.report import DemoSettings, demo_table  # noqa: E402
from vptkit.demo.run_demo import BACKBONE, BACKBONE_ARGS, METHODS, weights_file  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.formats.bundle import open_bundle  # noqa: E402
from vptkit.runtime.measure import timing  # noqa: E402

NAME = "vit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    """`demo` on two classes of noise, and a backbone of random weights at 32 pixels.

    With five of each in val: with fewer, parts of train would be held out, five trainings for one.
    """
    random = np.random.default_rng(0)
    for split, count in {"train": 4, "val": 5, "test": 3}.items():
        for name, colour in {"dark": 60, "light": 200}.items():
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.normal(colour, 30, (40, 48, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=0, img_size=32)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return [
        *("demo", "--data", str(tmp_path / "data"), "--backbone", NAME, "--image-size", "32"),
        *("--weights", str(tmp_path / "weights.safetensors"), "--epochs", "1", "--threads", "1"),
        *("-o", str(tmp_path / "out")),
    ]


@pytest.fixture
def short_profile(monkeypatch):
    """A few rounds instead of seconds: the figures do not matter here."""
    real = timing.Budget
    monkeypatch.setattr(timing, "Budget", lambda **_: real(rounds=3))


@pytest.mark.slow
def test_the_whole_line(arguments, vptkit, tmp_path, short_profile, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = vptkit(*arguments, "--json")
    assert code == 0, err
    document = json.loads(out)
    folder = tmp_path / "out"
    assert document["report"] == str(folder / "report.html")

    rows = {row["name"]: row for row in document["rows"]}
    assert set(METHODS) < set(rows)
    baselines = [row for row in rows.values() if row["kind"] == "baseline"]
    assert len(baselines) >= 2  # the bare backbone, and an unfolded graph
    for name in METHODS:
        row = rows[name]
        assert row["trainable"] - row["trainable_prompts"] == 2 * 193
        assert row["parity"] < 1e-5
        assert 0 <= row["test_top1"] <= 1
        assert row["ms"]["p50"] > 0
        assert row["ratio"] > 0
        low, high = row["test_interval"]
        assert 0 <= low <= row["test_top1"] <= high <= 1
        assert row["test_count"] == 6
    assert rows["linear"]["trainable_prompts"] == 0

    page = read_page(folder / "report.html")
    heads = re.findall('scope="row" class="left">(.*?)<', (folder / "report.html").read_text())
    assert heads == [*rows]
    assert page.tags.count("img") == 0
    assert page.tags.count("svg") == 6  # accuracy, two of latency; probe, loss, accuracy by epoch
    with Image.open(folder / "accuracy_latency.png") as picture:
        assert picture.width > 1200  # twice what a page shows
    table = demo_table(document)
    assert all(name in table for name in rows)

    for name in METHODS:
        open_bundle(folder / f"{name}.vptk")
        assert (folder / f"{name}.safetensors").exists()
        assert vptkit("check", str(folder / f"{name}.vptk"), "--json")[0] == 0
    assert not list(folder.rglob("*.part"))
    assert not list(folder.rglob("*checkpoint*"))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"data", "weights.safetensors", "out"}


@pytest.mark.slow
def test_its_settings_can_be_run_again(arguments, vptkit, tmp_path, short_profile):
    """The TOML file beside each adapter gives the same adapter."""
    assert vptkit(*arguments)[0] == 0
    out = tmp_path / "out"
    for name in METHODS:
        again = tmp_path / f"{name}.safetensors"
        config = str(out / f"{name}.toml")
        code, _, err = vptkit("tune", str(tmp_path / "data"), "-o", str(again), "--config", config)
        assert code == 0, err
        one, other = (read_adapter(path) for path in (again, out / f"{name}.safetensors"))
        for document in (one.train, other.train):
            for row in (document.get("auto") or {}).get("tried", []):
                row["seconds"] = 0
        assert one.train == other.train
        assert all(np.array_equal(one.tensors[key], value) for key, value in other.tensors.items())


def test_an_existing_output_is_refused_first(arguments, vptkit, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    code, out, err = vptkit(*arguments, "--json")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "exists already" in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_bad_input_leaves_nothing(arguments, vptkit, tmp_path):
    (tmp_path / "data" / "train" / "dark" / "3.jpg").write_bytes(b"no image")
    code, out, err = vptkit(*arguments)
    assert (code, out) == (2, "")
    assert "train/dark/3.jpg" in err.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"data", "weights.safetensors"}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing(arguments, vptkit, tmp_path, monkeypatch, sent):
    from vptkit.export.bundle import export_bundle

    monkeypatch.setattr(export_bundle, "write_manifest", lambda *_: signal.raise_signal(sent))
    code, out, err = vptkit(*arguments)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "weights.safetensors"}


def test_the_embedded_backbone_is_what_the_demo_builds(tmp_path):
    from vptkit.tune.backbone.spec_from_timm import spec_from_model
    from vptkit.tune.backbone.timm_backbone import create_backbone

    path = weights_file(DemoSettings(output=tmp_path / "out"), tmp_path)
    assert path.stat().st_size < 3 << 20
    spec = spec_from_model(create_backbone(BACKBONE, BACKBONE_ARGS, path))
    assert (spec.image_size, spec.width, spec.depth) == ((32, 32), 128, 6)
