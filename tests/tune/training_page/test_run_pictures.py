"""The page of a run: it stands alone, escapes names, and never costs the adapter."""

from __future__ import annotations

import sys

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from tests.support.report_pages import read_page  # noqa: E402
from tests.support.trained_runs import BARE, EPOCH, EVIL, RECORD, START  # noqa: E402
from tests.support.tuning_runs import Stop, names  # noqa: E402
from vptkit.errors import MissingExtraError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.training.run_files import run_files  # noqa: E402
from vptkit.tune.training_page import run_pictures  # noqa: E402
from vptkit.tune.training_page.run_pictures import require_drawing, write_pictures  # noqa: E402
from vptkit.tune.training_page.trained_run import TrainedRun  # noqa: E402

pytestmark = pytest.mark.usefixtures("pictures")
RUN = TrainedRun(
    name=EVIL,
    method="ln",
    learned=3,
    record=RECORD,
    images={"train": 3},
    history=[START, {"epoch": 1, **EPOCH}],
    judges=9,
)


def test_the_page_stands_alone_and_escapes_names(tmp_path):
    files = run_files(tmp_path / "a.safetensors")
    written = write_pictures(RUN, files, "page")
    assert (written.page, written.plots, written.missing) == (files.page, (), None)
    page = read_page(files.page)
    assert page.tags.count("svg") == 3
    assert "<script>alert(1)</script>" in page.text
    text = files.page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert text.index("charset") < 1024
    again = run_files(tmp_path / "b.safetensors")
    write_pictures(RUN, again, "page")
    assert again.page.read_bytes() == files.page.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "none"])
def test_pictures_as_files_or_none_at_all(tmp_path, kind):
    files = run_files(tmp_path / "a.safetensors")
    write_pictures(RUN, files, "page")
    (tmp_path / "a.curves.png").write_bytes(b"of an older version")
    (tmp_path / "b.curves.png").write_bytes(b"of another adapter")
    written = write_pictures(RUN, files, kind)
    drawn = set() if kind == "none" else {f"a.{name}.{kind}" for name in ("loss", "score", "probe")}
    assert names(tmp_path) == {"b.curves.png", *drawn}
    assert {path.name for path in written.plots} == drawn


def test_a_file_of_that_name_that_is_no_such_page_stays(tmp_path):
    files = run_files(tmp_path / "a.safetensors")
    files.page.write_text("<html>precious")
    assert "stays as it is" in write_pictures(RUN, files, "page").missing
    write_pictures(RUN, files, "none")
    assert files.page.read_text() == "<html>precious"


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_without_a_package_one_line_says_what_to_install(tmp_path, monkeypatch, package):
    monkeypatch.setattr(run_pictures, "find_spec", lambda name: None if name == package else name)
    if package == "jinja2":
        monkeypatch.setitem(sys.modules, package, None)
    files = run_files(tmp_path / "a.safetensors")
    written = write_pictures(RUN, files, "page")
    assert written.page is None
    told = f'the page of the training needs the package {package}, which is not installed: pip install "vptkit[report]"'
    assert written.missing == told
    assert names(tmp_path) == set()


def test_files_that_were_asked_for_need_their_package(monkeypatch):
    monkeypatch.setattr("vptkit.plot_text.find_spec", lambda _: None)
    require_drawing("page")
    with pytest.raises(MissingExtraError, match=r"--pictures png needs .*vptkit\[plot\]"):
        require_drawing("png")


def test_what_fails_in_drawing_is_told(tmp_path, monkeypatch):
    def fail(*_: object) -> str:
        raise ValueError("no such font")

    monkeypatch.setattr(run_pictures, "page_text", fail)
    written = write_pictures(RUN, run_files(tmp_path / "a.safetensors"), "page")
    assert written.missing == "the pictures of the training were not written: no such font"


def test_a_page_that_fails_leaves_the_adapter(splits, make_config, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_pictures, "write_page", full)
    result = tune(splits, tmp_path / "a.safetensors", make_config(method="linear"))
    assert result.page is None
    assert "No space left" in result.no_pictures
    assert names(tmp_path) == {"a.safetensors", "a.metrics.jsonl"}
    assert read_adapter(result.adapter).train["val_top1"] == result.val_top1


@pytest.mark.slow
def test_a_run_killed_and_resumed_gives_the_same_page(splits, make_config, tmp_path):
    config = make_config(rescale="all", select="soup", name="x", lr=0.05)
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    with pytest.raises(KeyboardInterrupt):
        tune(splits, tmp_path / "a.safetensors", config, progress=Stop(30))
    result = tune(splits, tmp_path / "a.safetensors", config, resume=True)
    assert result.page.read_bytes() == whole.page.read_bytes()
    page = read_page(result.page)
    for part in (
        "Learning",
        "Linear probe",
        "Between start and end",
        "Whitening",
        "Hardest images",
    ):
        assert part in page.text
    finished = tune(splits, tmp_path / "a.safetensors", config, resume=True)
    assert finished.page == result.page


@pytest.mark.slow
def test_test_images_are_never_shown(splits, make_config, tmp_path):
    """Those of val alone: val lies behind each name, and test behind none."""
    result = tune(splits, tmp_path / "a.safetensors", make_config(method="linear"))
    text = read_page(result.page).text
    assert "val/" in text
    assert "test/" not in text


def test_a_bare_run_has_a_page(tmp_path):
    bare = {**RECORD, "warnings": None}
    run = TrainedRun(name="n", method=BARE.method, learned=1, record=bare, images={}, history=[])
    assert write_pictures(run, run_files(tmp_path / "a.safetensors"), "page").missing is None
