"""Names in pictures are shown as they are, and no formulas."""

from __future__ import annotations

import pytest

from vptkit.errors import MissingExtraError, OutputError
from vptkit.plot_text import in_plot, plain_pictures, require_plot

matplotlib = pytest.importorskip("matplotlib")


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


def test_latex_is_not_started_whatever_the_users_settings_say():
    @plain_pictures()
    def draws():
        return matplotlib.rcParams["text.usetex"]

    with matplotlib.rc_context({"text.usetex": True}):
        assert draws() is False
        assert matplotlib.rcParams["text.usetex"] is True


@plain_pictures()
def test_a_character_that_the_font_lacks_is_no_warning():
    """Warnings are errors in tests."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
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
