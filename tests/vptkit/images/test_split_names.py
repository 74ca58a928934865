import pytest

from vptkit.images.split_names import split_of_name


@pytest.mark.parametrize(
    ("name", "split"), [("Train", "train"), (" valid ", "val"), ("eval", "test"), ("daisy", None)]
)
def test_names_of_others_mean_our_splits(name, split):
    assert split_of_name(name) == split
