"""From files to labels: parts that add up, images drawn alike, broken ones left out."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family
from vptkit.errors import BundleError, DataError, VptkitError
from vptkit.images.image_file import image_files
from vptkit.runtime.profile import image_parts as module
from vptkit.runtime.profile.image_parts import PARTS, PartsSettings, profile_parts

QUICK = {"backend": "cpu", "rounds": 3, "seconds": 0.01}


@pytest.fixture
def images(colour_folders):
    return image_files(colour_folders)


def test_the_document_has_each_part_of_each_batch(make_bundle, images):
    document = profile_parts({"a": make_bundle()}, images, PartsSettings(**QUICK))
    assert json.loads(json.dumps(document)) == document
    assert [(row["name"], row["batch"]) for row in document["rows"]] == [("a", 1), ("a", 8)]
    for row in document["rows"]:
        for key in ("ms_per_image", "processor_ms_per_image", "share"):
            assert tuple(row[key]) == PARTS
        assert sum(row["share"].values()) == pytest.approx(1)
        assert row["rounds"] == 3
        assert row["images_per_s"]["run"] > 0
    assert document["images"]["count"] == document["images"]["of"] == len(images)


def test_a_part_that_takes_longer_is_that_part(make_bundle, images, monkeypatch):
    real = module.decoded_image

    def slow(*given):
        time.sleep(0.02)
        return real(*given)

    monkeypatch.setattr(module, "decoded_image", slow)
    settings = PartsSettings(**QUICK, batches=(2,))
    (row,) = profile_parts({"a": make_bundle()}, images, settings)["rows"]
    assert max(row["share"], key=row["share"].get) == "decode"
    assert row["ms_per_image"]["decode"] >= 20
    assert row["processor_ms_per_image"]["decode"] < row["ms_per_image"]["decode"]


def test_broken_images_are_left_out_and_counted(make_bundle, images, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no more")
    settings = PartsSettings(**QUICK, batches=(1,))
    document = profile_parts({"a": make_bundle()}, [broken, *images], settings)
    assert document["images"]["broken"] == 1
    assert document["images"]["count"] == len(images)
    with pytest.raises(DataError, match=r"no image to measure with: .*broken\.jpg"):
        profile_parts({"a": make_bundle("b")}, [broken], settings)
    with pytest.raises(DataError, match="no image to measure with"):
        profile_parts({"a": make_bundle("c")}, [], settings)


def test_many_images_are_drawn_from_in_an_order_of_the_seed(images, monkeypatch):
    monkeypatch.setattr(module, "MOST", 4)
    first, second = module._chosen(images, 0), module._chosen(images, 1)
    assert len(first) == len(second) == 4
    assert first == module._chosen(images, 0) != second


def test_an_adapter_of_a_bank_is_asked(tmp_path, images):
    bank = export_family(tmp_path, family(kinds=("bilinear", "norms")))
    settings = PartsSettings(**QUICK, batches=(2,), adapter="norms")
    (row,) = profile_parts({"bank": bank}, images, settings)["rows"]
    assert row["adapter"] == "norms"
    with pytest.raises(BundleError):
        profile_parts({"bank": bank}, images, PartsSettings(**QUICK, adapter="none"))


@pytest.mark.parametrize(
    "wrong", [{"batches": ()}, {"batches": (0,)}, {"rounds": 0}, {"seconds": 0}]
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(VptkitError, match="expected positive numbers"):
        PartsSettings(**wrong)
