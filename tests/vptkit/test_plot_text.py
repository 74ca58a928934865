"""Names in pictures are shown as they are, and no formulas."""

from __future__ import annotations

import os
import re
import sys
from xml.etree import ElementTree as ET

import pytest

from tests.support.children import run_child
from vptkit.errors import MissingExtraError, OutputError
from vptkit.plot_text import (
    hover,
    in_plot,
    inline_svg,
    new_figure,
    plain_pictures,
    require_plot,
)
from vptkit.shown_text import shown

matplotlib = pytest.importorskip("matplotlib")

MINE = {"text.usetex": True, "axes.facecolor": "red", "savefig.bbox": "tight"}
DRAWS = """
from vptkit.plot_text import new_figure, plain_pictures
with plain_pictures():
    figure = new_figure(2, 2)
    axes = figure.subplots()
    axes.set_title("a_b")
    figure.savefig("x.png", format="png")
import matplotlib
print(axes.title.get_usetex(), matplotlib.colors.to_hex(axes.get_facecolor()).replace("#ffffff", "white"))
"""


def test_names_in_pictures():
    assert in_plot("$x$") == r"\$x\$"
    assert in_plot("_hidden") == " _hidden"
    assert in_plot("") == " "
    assert in_plot("a\nb") == r"a\nb"
    assert len(in_plot("x" * 10_000)) == 80
    assert len(in_plot("x" * 10_000, 32)) == 32


@pytest.mark.parametrize(
    "name", ["$", "$$", r"$\frac{$", r"\$x$", "$x$", r"\$", "a $ b $ c $", "_x"]
)
def test_a_picture_shows_the_name_as_it_is(name):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    text = axes.set_title(in_plot(name))
    axes.plot([1], [1], label=in_plot(name))
    axes.legend()
    figure.canvas.draw()
    assert text._preprocess_math(text.get_text()) == (in_plot(name).replace(r"\$", "$"), False)
    assert in_plot(name).replace(r"\$", "$").strip() == name
    assert len(axes.get_legend().get_texts()) == 1


def test_pictures_have_matplotlibs_own_style_whatever_the_users_is():
    @plain_pictures()
    def draws():
        return {key: matplotlib.rcParams[key] for key in MINE}

    with matplotlib.rc_context(MINE):
        assert draws() == {key: matplotlib.rcParamsDefault[key] for key in MINE}
        assert {key: matplotlib.rcParams[key] for key in MINE} == MINE


@plain_pictures()
def test_a_character_that_the_font_lacks_is_no_warning():
    """Warnings are errors in tests."""
    figure = new_figure(4, 3)
    figure.subplots().set_title(in_plot("\u82b1"))
    figure.canvas.draw()


def test_what_cannot_be_written_is_found_out_beforehand(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"\.pdf, \.png, \.svg"):
        require_plot(tmp_path / "plot.bmp", force=False)
    (tmp_path / "plot.png").touch()
    with pytest.raises(OutputError, match="--force"):
        require_plot(tmp_path / "plot.png", force=False)
    require_plot(tmp_path / "plot.png", force=True)
    monkeypatch.setattr("vptkit.plot_text.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"vptkit\[plot\]"):
        require_plot(tmp_path / "new.png", force=False)


def _fifo(path):
    os.mkfifo(path)


def _style(path):
    path.write_text("".join(f"{key}: {value}\n" for key, value in MINE.items()))


def _program(path):
    (path.parent / "mine.py").write_text("open('ran', 'w')")
    path.write_text("backend: module://mine\ninteractive: True\n")


PLANTED = {
    "style": _style,
    "program": _program,
    "fifo": _fifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe"),
    "terminal": lambda path: path.write_text("\x1b]0;title\x07: 1\n"),
}


@pytest.mark.long
@pytest.mark.parametrize("planted", PLANTED)
def test_a_matplotlibrc_in_the_current_folder_is_not_obeyed(tmp_path, planted):
    """matplotlib reads it when it is imported, before it looks anywhere else."""
    PLANTED[planted](tmp_path / "matplotlibrc")
    done = run_child([sys.executable, "-c", DRAWS], cwd=tmp_path, limit=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["False", matplotlib.rcParamsDefault["axes.facecolor"]]
    assert not (tmp_path / "ran").exists()


@pytest.mark.long
def test_the_users_own_settings_are_not_forgotten(tmp_path):
    """Only the current folder's are: matplotlib is the user's too, in a notebook."""
    _style(tmp_path / "style")
    own = {**os.environ, "MATPLOTLIBRC": str(tmp_path / "style")}
    code = (
        f"{DRAWS}\nimport os; print(matplotlib.rcParams['axes.facecolor'], os.path.exists('style'))"
    )
    done = run_child([sys.executable, "-c", code], cwd=tmp_path, env=own, limit=20)
    assert done.stdout.split() == ["False", "white", "red", "True"]


ROOMS = """
import sys, vptkit.tune, vptkit.tune.sweep, vptkit.tune.training_page.run_pictures, vptkit.demo.report
import vptkit.tune.burstiness.analyze_burstiness, vptkit.runtime.profile.profile_plot
print("matplotlib" in sys.modules)
"""


@pytest.mark.long
def test_nobody_imports_matplotlib_before():
    """No library that training imports does either."""
    pytest.importorskip("timm")
    assert run_child([sys.executable, "-c", ROOMS]).stdout.strip() == "False"


def _drawn(text="a"):
    with plain_pictures():
        figure = new_figure(3, 2)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], marker="o", color="#22262b", label=in_plot(text))
        axes.bar([0], [1], color="#2a6f97", hatch="/")
        axes.set_title(in_plot(text))
        hover(axes.patches[0], text)
        axes.imshow([[0, 1], [1, 0]])
        axes.legend()
    return inline_svg(figure, f"about {text}")


def test_a_picture_for_a_page():
    one, other = (ET.fromstring(_drawn(text)) for text in ("a", "b"))
    ids = [{e.get("id") for e in tree.iter() if e.get("id")} for tree in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1], "two pictures of a page share no id"
    links = [e.get("href") for e in one.iter() if e.get("href")]
    assert {link[1:] for link in links if link.startswith("#")} <= ids[0]
    assert all(link.startswith(("#", "data:image/png")) for link in links)
    text = ET.tostring(one, encoding="unicode")
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= ids[0]
    assert "width=" not in text[: text.index(">")]
    assert "var(--ink)" in text
    assert "metadata" not in text
    assert "#2a6f97" in text


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a & b ]]> --", "$x$", "é\u202e"])
def test_texts_of_a_picture_are_escaped(text):
    tree = ET.fromstring(_drawn(text))
    assert tree.get("aria-label") == shown(f"about {text}")
    assert [e.text for e in tree.iter() if e.tag.endswith("title")] == [shown(text)]
    assert not [e for e in tree.iter() if e.tag.endswith("script")]
