"""A profile of engines, with the fake GPU of tests/support/fakes: times taken apart, CUDA graphs, banks."""

from __future__ import annotations

import json

import pytest

from tests.support.bank_cases import family, write_family
from tests.support.fakes.gpu import ORIN, SERVER
from vptkit.export.bank.export_bank import BankOptions, export_bank
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.engine_build.builder import BuildOptions, build_engine
from vptkit.runtime.profile.run_profile import profile_bundles
from vptkit.runtime.profile.settings import ProfileSettings

QUICK = {"backend": "tensorrt", "rounds": 4, "memory": False}
EITHER = pytest.mark.parametrize("fake_gpu", [SERVER, ORIN], indirect=True, ids=["bus", "shared"])


def built(path):
    build_engine(open_bundle(path), BuildOptions(library="tensorrt", batch=(1, 2, 8)))
    return path


@EITHER
def test_with_and_without_cuda_graph(fake_gpu, make_bundle):
    settings = ProfileSettings(**QUICK, cuda_graph="both", streams=2, seconds=0.05, batches=(2,))
    document = profile_bundles([built(make_bundle("a"))], settings)
    rows = document["rows"]
    assert [(r["name"], r["cuda_graph"]) for r in rows] == [
        ("a-0, CUDA graph", True),
        ("a-0, no CUDA graph", False),
    ]
    for row in rows:
        assert row["backend"] == "tensorrt"
        assert all(row["times"][part]["p50"] >= 0 for part in ("enqueue", "gpu", "host"))
        assert row["times"]["end_to_end"] == row["ms"]
        assert row["streams"]["images_per_s"] > 0
    assert rows[1]["ratio"]["to"] == "a-0, CUDA graph"
    copied = "page-locked copies" in rows[0]["transfers"]
    assert copied != ("zero copy" in rows[0]["transfers"])
    assert copied == (document["machine"]["gpu"]["name"] == "NVIDIA H200")
    json.dumps(document, allow_nan=False)


def test_a_batch_that_goes_in_portions_has_no_parts(fake_gpu, make_bundle):
    settings = ProfileSettings(**QUICK, batches=(8, 16, 20))
    small, even, odd = profile_bundles([built(make_bundle("a"))], settings)["rows"]
    assert small["times"]["gpu"] is not None
    assert even["times"]["gpu"] is odd["times"]["gpu"] is None
    assert odd["ms"]["p50"] > 0
    assert [row["portions"] for row in (small, even, odd)] == [1, 2, 3]
    # 8 and 8 are the same launch twice; 8, 8, 4 are never three of a kind
    assert [row["cuda_graph"] for row in (small, even, odd)] == [True, True, False]


def test_a_bank_is_taken_apart_by_adapter(fake_gpu, tmp_path):
    files = write_family(family(), tmp_path)
    members = ["bilinear", "norms"]
    path = tmp_path / "a.vptk"
    export_bank(
        [files[name] for name in members],
        path,
        weights=files["weights"],
        bank=BankOptions(prompts=6),
    )
    rows = profile_bundles([built(path)], ProfileSettings(**QUICK, batches=(2,)))["rows"]
    assert [row["name"].split(": ")[1] for row in rows] == [*members, "mixed"]
    for row in rows:
        assert row["times"]["gpu"] is not None
        assert row["cuda_graph"] is True
