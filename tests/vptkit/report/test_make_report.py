"""`vptkit report` on tiny bundles: a page that stands alone, whatever names say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

import vptkit
from tests.runtime.layers.test_layer_time import layer, profile
from tests.support.report_pages import read_page
from vptkit.errors import OutputError, VptkitError
from vptkit.report import quality_facts
from vptkit.report.make_report import make_report, require_page
from vptkit.report.report_settings import ReportSettings
from vptkit.runtime.evaluation.evaluation_result import answers_to, judge
from vptkit.runtime.layers.layer_comparison import layers_document

EVIL = (
    '<script>alert("1")</script><img src=http://x.invalid/a onerror=a()> $\\frac$ \u202e{{ 7*7 }}'
)


def test_a_page_about_one_bundle(make_bundle, tmp_path):
    make_report([make_bundle()], tmp_path / "r.html")
    page = read_page(tmp_path / "r.html")
    assert "3: red, green, blue" in page.text
    assert "SHA-256" in page.text
    assert "default-src 'none'" in (tmp_path / "r.html").read_text()


def test_bundles_are_called_as_their_folders_are(make_bundle, tmp_path):
    """One adapter that was exported in two ways has one name; its bundles do not."""
    made = make_bundle()
    paths = [tmp_path / "plain.vptk", tmp_path / "merged.vptk", tmp_path / "other/merged.vptk"]
    for path in paths:
        shutil.copytree(made, path)
    document = make_report(paths, tmp_path / "r.html")
    assert document["title"] == "plain, merged, other/merged"
    assert "other/merged" in read_page(tmp_path / "r.html").text


def test_a_strangers_words_are_only_words(make_bundle, tmp_path):
    labels = (EVIL, "green", "blue")
    backbone_args = {"args": {EVIL: EVIL}}
    path = make_bundle(labels=labels, folds=[EVIL[:200]])
    document = json.loads((path / "manifest.json").read_text())
    document["backbone"] |= backbone_args
    document["name"] = document["adapters"][0]["name"] = EVIL
    (path / "manifest.json").write_text(json.dumps(document))
    make_report([path], tmp_path / "r.html")
    page = read_page(tmp_path / "r.html")
    assert '<script>alert("1")</script>' in page.text
    assert "49" not in page.text.replace("49.", "")
    assert "\\u202e" in page.text


def test_where_a_page_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        require_page(tmp_path / "no" / "r.html", force=False)


@pytest.mark.long
def test_three_bundles_of_a_thousand_classes_stay_small(
    make_bundle, colour_folders, tmp_path, monkeypatch
):
    """Two megabytes without images, with the layers of a ViT-B."""
    pytest.importorskip("onnxruntime")
    labels = tuple(f"a class that has the number {i}" for i in range(1000))
    result = judged_by_chance(labels)
    monkeypatch.setattr(quality_facts, "_judged", lambda *_: result)
    parts = ("attention", "mlp", "norm1", "norm2")
    layers = [
        layer(f"blocks.{i}.{part}/{n}", f"blocks.{i}.{part}", 1 + n, operator=f"Operator{n}")
        for i in range(12)
        for part in parts
        for n in range(3)
    ]
    measured = layers_document([profile(*layers)])
    (tmp_path / "layers.json").write_text(json.dumps(measured))
    settings = ReportSettings(
        data=colour_folders, backend="cpu", profiles=(tmp_path / "layers.json",), mistakes=2
    )
    make_report([make_bundle(f"b{i}") for i in range(3)], tmp_path / "r.html", settings)
    page = read_page(tmp_path / "r.html")
    assert page.text.count("classes with the most mistakes") >= 3
    assert page.text.count("blocks.11") > 1
    images = sum(len(value) for value in page.loads if value.startswith("data:image/jpeg"))
    assert (tmp_path / "r.html").stat().st_size - images < 2_000_000


def judged_by_chance(labels):
    """Two images of each class, half of them right, the rest anywhere."""
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(len(labels)), 2)
    logits = random.normal(size=(len(truth), len(labels))).astype(np.float32)
    logits[np.arange(len(truth)), truth] += 3.3
    images = [Path(f"{i}.png") for i in truth]
    return judge(Path("d"), "test", labels, images, truth, answers_to(logits, truth))


@pytest.mark.slow
def test_a_page_that_judges_stays_small(make_bundle, colour_folders, tmp_path):
    pytest.importorskip("onnxruntime")
    bundles = [make_bundle(), make_bundle("other", shift=3.0)]
    make_report(bundles, tmp_path / "r.html", ReportSettings(data=colour_folders, backend="cpu"))
    page = read_page(tmp_path / "r.html")
    assert page.text.count("91.7 %") > 1
    assert "green answered as blue" in page.text
    assert page.tags.count("img") > 0
    assert (tmp_path / "r.html").stat().st_size < 1_000_000


def test_a_page_of_one_and_of_several(make_bundle, tmp_path):
    one, two = make_bundle(), make_bundle("other")
    document = vptkit.report(str(one), str(tmp_path / "r.html"), boards="l4")
    assert [b["facts"]["name"] for b in document["bundles"]] == [one.stem]
    assert [row[0] for row in document["boards"]["rows"]] in ([], ["l4"])
    with pytest.raises(OutputError, match="exists already"):
        vptkit.report(one, tmp_path / "r.html")
    vptkit.report.report([one, two], tmp_path / "r.html", force=True)
    assert "Side by side" in read_page(tmp_path / "r.html").text


def test_settings_are_changed(make_bundle, colour_folders, tmp_path):
    pytest.importorskip("onnxruntime")
    settings = vptkit.ReportSettings(backend="cpu", mistakes=0)
    document = vptkit.report(make_bundle(), tmp_path / "r.html", settings, data=str(colour_folders))
    assert document["bundles"][0]["quality"]["headline"].startswith("top-1 91.7 %")
    assert document["bundles"][0]["quality"]["mistakes"] == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seconds": 1.0}, "no setting is called 'seconds'"),
        ({"measure": -1.0}, "measure is -1.0"),
        ({"batches": (1, 0), "measure": 1.0}, "batches is 0"),
        ({"energy": 1.0}, "energy goes with measure"),
    ],
)
def test_settings_that_are_none(make_bundle, tmp_path, changes, told):
    with pytest.raises(VptkitError, match=told):
        vptkit.report(make_bundle(), tmp_path / "r.html", **changes)
    assert not (tmp_path / "r.html").exists()
