from __future__ import annotations

from pathlib import Path

import pytest

from vptkit.errors import VptkitError
from vptkit.runtime.triton.model_names import model_names


def test_a_model_is_called_as_its_folder():
    paths = [Path("a/flowers.vptk"), Path("birds-2.v3.vptk/"), Path("cars")]
    assert list(model_names(paths)) == ["flowers", "birds-2.v3", "cars"]


@pytest.mark.parametrize(
    "name", ["", "été", "a b", ".hidden", "-x", "a%2f", "x" * 101, "a\nb", "a:1"]
)
def test_names_that_an_address_cannot_hold(name):
    with pytest.raises(VptkitError, match=r"Triton cannot serve.*Rename the folder"):
        model_names([Path("bundles") / f"{name}.vptk"])


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "no bundle given"),
        (["a/x.vptk", "b/x.vptk"], "both would be the model 'x'"),
        (["x.vptk", "x_graph.vptk"], "'x_graph'.*a part of the first"),
    ],
)
def test_sets_that_do_not_go(paths, words):
    with pytest.raises(VptkitError, match=words):
        model_names([Path(path) for path in paths])
