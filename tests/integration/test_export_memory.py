"""How much memory an export takes beside its weights: bounds, in processes of their own."""

from __future__ import annotations

import sys

import pytest

from tests.support.children import run_child
from tests.support.plain_vit import plain_vit
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.tensor_file import write_tensors
from vptkit.images.preprocess import Preprocess

pytest.importorskip("onnx")

from vptkit.export.bundle.baselines import random_weights

# 12 blocks, so that two in float64 (one as it is read, one folded) are a third of the weights
MEASURED = """
import sys
from pathlib import Path
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.export_bundle import export

def peak():
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) << 10

small, large, weights, out, layout = sys.argv[1:]
make = export if layout == "baked" else lambda path, *rest, **how: export_bank([path], *rest, **how)
make(Path(small) / "a", Path(out) / "small.vptk", weights=Path(small) / "w.safetensors")
before = peak()  # with all that an export loads
make(large, Path(out) / "large.vptk", weights=weights)
print(peak() - before)
"""


def write_case(folder, spec):
    """A linear probe and random weights; the bytes of the weights."""
    folder.mkdir()
    weights = random_weights(spec)
    write_tensors(folder / "w.safetensors", weights)
    head = {"head.weight": weights["norm.weight"][None].repeat(3, axis=0)}
    adapter = Adapter(
        name="probe",
        backbone=BackboneRef(name="vit_tiny_patch16_224", spec=spec),
        method="linear",
        insert="none",
        prompt_length=0,
        pool="token",
        norm="before_pool",
        labels=("a", "b", "c"),
        preprocess=Preprocess(input_size=(3, *spec.image_size), mean=(0.5,) * 3, std=(0.5,) * 3),
        tensors={**head, "head.bias": weights["norm.bias"][:3].copy()},
    )
    write_adapter(folder / "a", adapter)
    return sum(value.nbytes for value in weights.values())


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
@pytest.mark.parametrize("layout", ["baked", "bank"])
def test_an_export_holds_neither_its_weights_nor_its_graph(tmp_path, layout):
    """Either would be 1.0 times the weights."""
    write_case(tmp_path / "small", plain_vit((32, 32), 16, width=16, depth=1, heads=4))
    size = write_case(tmp_path / "large", plain_vit((32, 32), 16, width=256, depth=12, heads=4))
    (tmp_path / "out").mkdir()
    large = tmp_path / "large"
    words = [tmp_path / "small", large / "a", large / "w.safetensors", tmp_path / "out", layout]
    held = int(run_child([sys.executable, "-c", MEASURED, *words]).stdout)
    assert held <= 0.8 * size, f"{held / size:.2f} times the weights"
